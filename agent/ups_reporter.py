"""Tells subscribers over DICOM: one worker for each, events in their order, again until they were heard.

What was told is kept as one number for each subscriber, so that a restart goes on there. A subscriber that is away for
longer than events are kept is told on from the oldest that there is; how things stand it can ask (N-GET, C-FIND).
"""

from __future__ import annotations

import threading
import time
from itertools import islice

import structlog

from firstread.agent.config import Settings
from firstread.agent.config_wire import subscriber_peer
from firstread.agent.store import work_subscriptions
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.tls import TlsFilesError
from firstread.integration.dicom.requestor import DicomPeer
from firstread.integration.dicom.ups import UpsEvent
from firstread.integration.dicom.ups_scu import NotTold, report

log = structlog.get_logger()

LOOK_EVERY_S = 0.3
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 60.0
AT_ONCE = 50
FAREWELL_S = 5.0
"""How long a stop waits for subscribers to hear of it; what one has not heard by then it hears after the restart."""


class UpsReporter:
    """The workers of one process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """Begins; ends with ``stop``."""
        for subscriber in self._settings.subscribers:
            thread = threading.Thread(
                target=self._work, args=(subscriber.ae_title, stop), name=f"ups-{subscriber.ae_title}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Waits for the workers, for FAREWELL_S at most."""
        ends = time.monotonic() + FAREWELL_S
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _work(self, ae_title: str, stop: threading.Event) -> None:
        wait_s = LOOK_EVERY_S
        while not stop.wait(wait_s):
            wait_s = self._try(ae_title, wait_s)
        if wait_s == LOOK_EVERY_S:  # who could be told until now is told of the end
            self._try(ae_title, wait_s)

    def _try(self, ae_title: str, waited_s: float) -> float:
        """Tells a subscriber what waits for it; answers how long to wait until the next time."""
        try:
            self.tell(ae_title)
        except (NotTold, StoreError, TlsFilesError) as error:
            wait_s = min(max(FIRST_RETRY_S, waited_s * 2), LONGEST_RETRY_S)
            log.warning("a subscriber was not told", ae_title=ae_title, why=str(error), again_in_s=wait_s)
            return wait_s
        except Exception:
            log.exception("a subscriber was not told", ae_title=ae_title)
            return LONGEST_RETRY_S
        return LOOK_EVERY_S

    def tell(self, ae_title: str) -> int:
        """Reports what waits for one subscriber; answers how much. Raises NotTold, StoreError or TlsFilesError."""
        told = 0
        while True:
            with self._store.read() as connection:
                before = work_subscriptions.told(connection, ae_title)
                found = work_subscriptions.events_after(connection, before)
            if not found:
                return told
            mine = list(islice((event for event, receivers in found if ae_title in receivers), AT_ONCE))
            looked_to = mine[-1].id if len(mine) == AT_ONCE else found[-1][0].id
            told += self._report(ae_title, mine)
            self._keep(ae_title, looked_to)

    def _report(self, ae_title: str, events: list[UpsEvent]) -> int:
        if not events:
            return 0
        count, last = 0, 0
        try:
            for event in report(self._peer(ae_title), events):
                count, last = count + 1, event.id
        except NotTold:
            if last:
                self._keep(ae_title, last)
            raise
        return count

    def _keep(self, ae_title: str, event_id: int) -> None:
        with self._store.write() as connection:
            work_subscriptions.mark_told(connection, ae_title, event_id)

    def _peer(self, ae_title: str) -> DicomPeer:
        subscriber = next(one for one in self._settings.subscribers if one.ae_title == ae_title)
        return subscriber_peer(self._settings, subscriber)
