"""Notification connections: events of work items over WebSocket, one channel for each AE title (PS3.18 8.10).

A subscriber that connects gets how each of its items stands, then each event as it happens. One look at the database
serves all; a subscriber that does not read is let go, and gets how things stand when it comes again. After a restart it
is told of that first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from firstread.agent.config import WebSettings
from firstread.agent.store import work_subscriptions
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.web.sessions import Session
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.ups import ScpStatus, UpsEvent

log = structlog.get_logger()

LOOK_EVERY_S = 0.2
MOST_WAITING = 2000
"""Events that wait for one subscriber; one that is further behind is let go."""
FAREWELL_S = 2.0
"""How long a stop waits until every channel has been told what there is to tell."""
GOING_AWAY, TRY_AGAIN_LATER, POLICY_VIOLATION = 1001, 1013, 1008
_AE_LENGTH = 16


@dataclass(eq=False)
class _Channel:
    """One open connection. ``seen``: events up to this number are told already."""

    ae_title: str
    seen: int = -1
    waiting: asyncio.Queue[tuple[int, str]] = field(default_factory=lambda: asyncio.Queue(MOST_WAITING))
    close_code: int | None = None


class NotificationConnections:
    """Every open channel, and the one look that feeds them."""

    def __init__(self, service: WorkItems, store: Store, web: WebSettings) -> None:
        self._service = service
        self._store = store
        self._web = web
        self._channels: set[_Channel] = set()
        self._looked_to = 0
        self._closing = False
        self._restart: tuple[UpsEvent, list[str]] | None = None
        self._restart_read = False
        self._welcomed: set[str] = set()

    async def run(self) -> None:
        """Looks for events while somebody listens, until cancelled."""
        while True:
            if self._channels:
                try:
                    while await self._look():
                        pass
                except StoreError as error:
                    log.warning("events of work items cannot be read", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Tells every channel what there is left to tell, then lets it go, so that the server can stop."""
        with contextlib.suppress(StoreError):
            while self._channels and await self._look():
                pass
        ends = time.monotonic() + FAREWELL_S
        while not all(channel.waiting.empty() for channel in self._channels) and time.monotonic() < ends:
            await asyncio.sleep(FAREWELL_S / 100)
        self._closing = True
        for channel in self._channels:
            self._let_go(channel, GOING_AWAY)

    async def serve(self, socket: WebSocket) -> None:
        """One channel, from its opening to its end."""
        ae_title: str = socket.path_params["ae"].strip()
        if not ae_title or len(ae_title) > _AE_LENGTH or not ae_title.isascii():
            await socket.close(POLICY_VIOLATION)
            return
        await socket.accept()
        channel = _Channel(ae_title)
        newest = await asyncio.to_thread(self._newest)
        if not self._channels:
            self._looked_to = newest  # while nobody listened nobody looked
        self._channels.add(channel)
        listening = asyncio.create_task(self._listen(socket, channel))
        try:
            await self._feed(socket, channel)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the other side has gone
        finally:
            self._channels.discard(channel)
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await listening
        if socket.application_state is not WebSocketState.DISCONNECTED:
            with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect):
                await socket.close(channel.close_code or GOING_AWAY)

    async def _feed(self, socket: WebSocket, channel: _Channel) -> None:
        reports, newest = await asyncio.to_thread(self._service.as_it_stands, channel.ae_title)
        channel.seen = newest
        for report in (*await asyncio.to_thread(self._welcome, channel.ae_title), *reports):
            await socket.send_text(json.dumps(report.as_json(), ensure_ascii=False))
        ends = self._ends(socket)
        while channel.close_code is None and not self._closing:
            left = ends() - time.time()
            if left <= 0:
                channel.close_code = POLICY_VIOLATION
                return
            try:
                number, text = await asyncio.wait_for(channel.waiting.get(), min(left, 3600))
            except TimeoutError:
                continue
            if number > channel.seen:
                channel.seen = number
                await socket.send_text(text)

    async def _listen(self, socket: WebSocket, channel: _Channel) -> None:
        """Hears that the other side has gone; nothing that it says means anything (8.10.5)."""
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self._let_go(channel, GOING_AWAY)

    async def _look(self) -> bool:
        """Hands new events to the channels; True when there may be more.

        Who gets what is decided after the look: a channel that opened meanwhile must not miss what was seen then.
        """
        found = await asyncio.to_thread(self._found, self._looked_to)
        for event, receivers in found:
            self._looked_to = event.id
            channels = [channel for channel in self._channels if channel.ae_title in receivers]
            text = json.dumps(event.as_json(), ensure_ascii=False) if channels else ""
            for channel in channels:
                try:
                    channel.waiting.put_nowait((event.id, text))
                except asyncio.QueueFull:
                    self._let_go(channel, TRY_AGAIN_LATER)
        return bool(found)

    def _welcome(self, ae_title: str) -> list[UpsEvent]:
        """That we restarted, for an AE that was to hear of it and has not been here since."""
        if not self._restart_read:
            with self._store.read() as connection:
                self._restart = work_subscriptions.newest_status(connection)
            self._restart_read = True
        if self._restart is None or ae_title in self._welcomed:
            return []
        event, receivers = self._restart
        self._welcomed.add(ae_title)
        restarted = event.information == ScpStatus.RESTARTED.information()
        return [event] if restarted and ae_title in receivers else []

    def _found(self, after: int) -> list[tuple[UpsEvent, list[str]]]:
        with self._store.read() as connection:
            return work_subscriptions.events_after(connection, after)

    def _newest(self) -> int:
        with self._store.read() as connection:
            return work_subscriptions.newest_event(connection)

    def _let_go(self, channel: _Channel, code: int) -> None:
        channel.close_code = channel.close_code or code
        with contextlib.suppress(asyncio.QueueFull):
            channel.waiting.put_nowait((-1, ""))  # wakes its feed

    def _ends(self, socket: WebSocket) -> Callable[[], float]:
        """When the login behind a channel runs out, where one is needed."""
        session: Session | None = getattr(socket.state, "session", None)
        if session is None or not self._web.needs_login:
            return lambda: float("inf")
        return lambda: session.expires
