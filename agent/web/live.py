"""Changes as server-sent events: one look at the database for everybody, and a pulse so that silence is noticed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

import structlog

from firstread.agent.store.engine import StoreError
from firstread.agent.web.board import Board, Snapshot

log = structlog.get_logger()

LOOK_EVERY_S = 0.4
PULSE_EVERY_S = 4.0
RETRY_MS = 1500


class Feed:
    """Wakes every open page when the list changed. ``describe`` writes a snapshot as the page wants it (JSON)."""

    def __init__(self, board: Board, describe: Callable[[Snapshot, Snapshot | None], str]) -> None:
        self._board = board
        self._describe = describe
        self._listeners = 0
        self._snapshot: Snapshot | None = None
        self._message = ""
        self._message_after = 0
        self._failed = ""
        self._changed = asyncio.Condition()
        self._closing = False

    async def run(self) -> None:
        """Looks while somebody listens, until cancelled."""
        while True:
            if self._listeners:
                await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Lets every open page go, so that the server can stop."""
        self._closing = True
        async with self._changed:
            self._changed.notify_all()

    async def events(self, alive_until_s: float) -> AsyncIterator[str]:
        """The stream of one page: the whole order first, then each change; ends when its session does."""
        self._listeners += 1
        try:
            yield f"retry: {RETRY_MS}\n\n"
            snapshot = await asyncio.to_thread(self._board.current)
            seen = snapshot.generation
            yield _event("list", await asyncio.to_thread(self._describe, snapshot, None), seen)
            while not self._closing and time.time() < alive_until_s:
                async with self._changed:
                    if (self._snapshot is None or self._snapshot.generation <= seen) and not self._failed:
                        try:
                            await asyncio.wait_for(self._changed.wait(), PULSE_EVERY_S)
                        except TimeoutError:
                            yield _event("pulse", json.dumps({"now": int(time.time() * 1000)}))
                            continue
                if self._failed:
                    # The page must not look alive while the list behind it cannot be read.
                    yield _event("trouble", json.dumps({"words": self._failed}))
                    await asyncio.sleep(PULSE_EVERY_S)
                elif self._snapshot is not None and self._snapshot.generation > seen:
                    snapshot, message, after = self._snapshot, self._message, self._message_after
                    if seen < after:
                        message = await asyncio.to_thread(self._describe, snapshot, None)
                    seen = snapshot.generation
                    yield _event("list", message, seen)
        finally:
            self._listeners -= 1

    async def _look(self) -> None:
        try:
            snapshot = await asyncio.to_thread(self._board.current, patient=True)
            if self._snapshot is None or snapshot.generation != self._snapshot.generation:
                message = await asyncio.to_thread(self._describe, snapshot, self._snapshot)
                async with self._changed:
                    self._message_after = self._snapshot.generation if self._snapshot else snapshot.generation
                    self._snapshot, self._message = snapshot, message
                    self._changed.notify_all()
            self._failed = ""
        except StoreError as error:
            log.warning("the list cannot be read", error=str(error))
            async with self._changed:
                self._failed = str(error)
                self._changed.notify_all()


def _event(name: str, data: str, number: int | None = None) -> str:
    identity = f"id: {number}\n" if number is not None else ""
    return f"{identity}event: {name}\ndata: {data}\n\n"
