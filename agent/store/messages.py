"""Messages that the reading list has taken, with their answers: a second copy gets the first one's answer."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from firstread.agent.clock import Moment
from firstread.agent.store.tables import message


def answer_to(connection: Connection, sender: str, control_id: str, digest: str) -> bytes | None:
    """The answer that the same message got before; None for a new one, or a used control id with other content."""
    row = connection.execute(
        select(message.c.kind, message.c.answer).where(message.c.sender == sender, message.c.control_id == control_id)
    ).one_or_none()
    return bytes(row.answer) if row is not None and row.kind.endswith(_mark(digest)) else None


def keep_answer(
    connection: Connection, sender: str, control_id: str, kind: str, digest: str, answer: bytes, now: Moment
) -> None:
    """Keeps the answer in the transaction that did what the message says. ``kind`` gets a mark of the content."""
    values = {"kind": kind[:12] + _mark(digest), "received_at": now.at, "answer": answer}
    same = (message.c.sender == sender, message.c.control_id == control_id)
    if not connection.execute(update(message).where(*same).values(**values)).rowcount:
        connection.execute(insert(message).values(sender=sender, control_id=control_id, **values))


def forget_before(connection: Connection, before: datetime) -> int:
    """Drops what no sender repeats any more; answers how many."""
    return connection.execute(delete(message).where(message.c.received_at < before)).rowcount


def _mark(digest: str) -> str:
    return f" {digest[:16]}"
