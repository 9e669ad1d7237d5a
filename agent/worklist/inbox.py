"""Messages in: orders, results and final reports become entries of the reading list, durably, before they are answered.

A message is known by its sender and MSH-10: a second one with the same content gets the answer of the first. A control
id that comes again with other content (senders begin to count anew) is a new message. Nothing here lowers a priority.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from firstread.agent import clock
from firstread.agent.clock import Moment
from firstread.agent.store import messages, studies
from firstread.agent.store.engine import Store, StoreBusy
from firstread.agent.store.tables import EntryState
from firstread.agent.store.worklist import EntryChange, ListedResult, apply_order, apply_result, take_off
from firstread.agent.store.worklist_match import Match
from firstread.integration.hl7.acknowledge import acknowledge
from firstread.integration.hl7.er7 import read
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from firstread.integration.hl7.order import Order, OrderKind, parse_orders
from firstread.integration.hl7.reported import IncomingResult, parse_result, parse_results
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Priority

log = structlog.get_logger()

TRIES = 3


@dataclass(frozen=True)
class Inbox:
    """The handler that the MLLP server calls. ``now`` is asked once for each message."""

    store: Store
    now: Callable[[], Moment] = clock.now
    priority_values: Mapping[str, Priority] | None = None

    def __call__(self, message: bytes, peer: str) -> bytes:
        """The acknowledgement for ``message``: AA only when everything it says is committed.

        Raises UnreadableMessage for what cannot be taken (the server answers AE or AR with ERR).
        """
        header = read(message).header
        kind, control_id = header.value(9, 1), header.value(10)[:200]
        sender = "/".join(part for part in (header.value(3), header.value(4)) if part)[:256]
        digest = hashlib.sha256(message).hexdigest()
        for attempt in range(1, TRIES + 1):
            try:
                with self.store.write() as connection:
                    known = messages.answer_to(connection, sender, control_id, digest) if control_id else None
                    if known is not None:
                        log.info("message came again", sender=sender, control_id=control_id)
                        return known
                    changes = self._take(connection, kind, message, self.now(), f"hl7 {sender}"[:128])
                    answer = acknowledge(message, "AA")
                    messages.keep_answer(connection, sender, control_id, kind, digest, answer, self.now())
                log.info(
                    "message taken", kind=kind, sender=sender, control_id=control_id,
                    entries=[change.entry_id for change in changes if change.changed],
                    studies=[change.study_instance_uid for change in changes if change.changed],
                )  # fmt: skip
                return answer
            except StoreBusy:
                if attempt == TRIES:
                    raise
        raise AssertionError("unreachable")

    def _take(self, connection: Connection, kind: str, message: bytes, now: Moment, actor: str) -> list[EntryChange]:
        if kind in ("ORM", "OMI", "OMG"):
            orders = parse_orders(message, priority_values=self.priority_values)
            return [change for order in orders for change in take_order(connection, order, now, actor)]
        if kind == "ORU":
            whole = parse_result(message, priority_values=self.priority_values)
            if whole.ours:
                return take_result(connection, whole, now, actor)
            results = parse_results(message, priority_values=self.priority_values)
            return [change for result in results for change in take_result(connection, result, now, actor)]
        raise UnreadableMessage(
            200, ErrorLocation("MSH", 1, 9, 1), "this kind of message is not taken here: send ORM, OMI or ORU"
        )


def take_order(connection: Connection, order: Order, now: Moment, actor: str) -> list[EntryChange]:
    """What an order does to the list: enters or raises it, or takes it off when it is cancelled."""
    match = Match(
        study_instance_uid=order.study_instance_uid,
        accession_numbers=order.accession_numbers,
        placer_order_number=order.placer_order_number,
        filler_order_number=order.filler_order_number,
        patient_id=order.patient.patient_id,
    )
    if order.kind in (OrderKind.CANCEL, OrderKind.DISCONTINUE):
        return take_off(
            connection, match, EntryState.CANCELLED, now, actor, f"the order was cancelled ({order.control})"
        )
    if order.kind is OrderKind.STATUS and order.ordered_priority is None:
        return []
    changes = apply_order(connection, match, order.patient, order.ordered_priority, now, actor)
    if order.ordered_priority is not None:
        raise_studies(connection, changes, order.accession_numbers, order.ordered_priority, now)
    return changes


def raise_studies(
    connection: Connection,
    changes: list[EntryChange],
    accession_numbers: tuple[str, ...],
    priority: Priority,
    now: Moment,
) -> None:
    """Tells the studies themselves what was ordered, so that their results keep it too."""
    for uid in dict.fromkeys(change.study_instance_uid for change in changes if change.study_instance_uid):
        studies.set_ordered_priority(
            connection, study_instance_uid=uid, accession_number="", priority=priority, now=now
        )
    for number in accession_numbers:
        studies.set_ordered_priority(
            connection, study_instance_uid="", accession_number=number, priority=priority, now=now
        )


def take_result(connection: Connection, result: IncomingResult, now: Moment, actor: str) -> list[EntryChange]:
    """What a result does to the list: raises and explains it, or takes it off when it is a final report."""
    match = Match(
        study_instance_uid=result.study_instance_uid,
        accession_numbers=result.accession_numbers,
        placer_order_number=result.placer_order_number,
        filler_order_number=result.filler_order_number,
        patient_id=result.patient.patient_id,
    )
    if result.final:
        return take_off(connection, match, EntryState.REPORTED, now, actor, "a final report was received")
    if result.cancelled:
        return take_off(connection, match, EntryState.CANCELLED, now, actor, "the examination was cancelled")
    listed = ListedResult(
        priority=result.priority,
        priority_reason=result.priority_reason,
        causes=result.causes,
        findings=result.findings,
        reason=result.reason,
        model=result.model,
        notes=(*result.notes, *((result.remark,) if result.remark else ())),
        revision=result.revision or 0,
        ours=result.ours,
        sender=result.sending_application,
        control_id=result.message_control_id,
    )
    changes = apply_result(connection, match, result.patient, listed, now, actor)
    if result.reason is not None and result.reason.code is ReasonCode.PRIOR_STUDY and result.ours:
        # Priors are read already: thousands of them, sent by a migration, would bury the list. Undone by hand.
        changes += take_off_priors(connection, match, now, actor)
    return changes


def take_off_priors(connection: Connection, match: Match, now: Moment, actor: str) -> list[EntryChange]:
    """Takes a prior study off, unless somebody ordered it: then it is wanted, however old its date says it is."""
    return take_off(
        connection, match, EntryState.REMOVED, now, actor, "a prior study, older than this site's limit", unordered=True
    )
