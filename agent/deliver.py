"""The outbox is drained here: one worker for each destination, so that a dead one never holds up another."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Destination, DicomDestination, DicomwebDestination, Hl7Destination, Settings
from firstread.agent.crashpoints import reached
from firstread.agent.lines import Line, Outcome, Verdict, open_line
from firstread.agent.retries import backoff_s
from firstread.agent.store import commitments_awaited, deliveries, watch
from firstread.agent.store.deliveries import DeliveryClaim
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.store.lookout import PAUSE_S, Lookout
from firstread.agent.tls import state_of
from firstread.integration.audit.message import StudyObject

if TYPE_CHECKING:
    from firstread.agent.commitment_asking import CommitmentAsker

log = structlog.get_logger()

ACTOR = "deliver"
RECORD_AGAIN_S = 1.0
LOOK_S = 1.0
"""So often what became due by time alone is looked for."""
CORRUPT = "the frozen bytes are missing or changed on disk"


def _asker(settings: Settings, store: Store, destination: Destination) -> CommitmentAsker | None:
    if not isinstance(destination, DicomDestination) or not destination.commit:
        return None
    from firstread.agent.commitment_asking import CommitmentAsker

    return CommitmentAsker(settings, store, destination)


class DestinationWorker:
    """Sends what is due at one destination, one object after the other."""

    def __init__(self, settings: Settings, store: Store, destination: Destination, owner: str) -> None:
        self._settings = settings
        self._store = store
        self._destination = destination
        self._owner = owner
        self._line: Line | None = None
        self._tls_files = (destination.tls_ca_file, destination.tls_certificate_file, destination.tls_key_file)
        self._tls_state = state_of(self._tls_files)
        self._stop = threading.Event()
        self._asker = _asker(settings, store, destination)
        self._not_before = 0.0
        """On the boot clock: the receiver asked to be left alone until then."""

    def run(self, stop: threading.Event) -> None:
        """Until told to stop: sends while something is due, then waits for more."""
        self._stop = stop
        self._end_unasked()
        lookout = Lookout(self._store, LOOK_S)
        while not stop.is_set():
            if not lookout.worthwhile():
                stop.wait(PAUSE_S)
                continue
            try:
                if not self._send_all() and not (self._asker is not None and self._asker.ask_next()):
                    lookout.found_nothing()
            except StoreBusy:
                stop.wait(1.0)
            except Exception:
                log.exception("delivering failed", destination=self._destination.name)
                stop.wait(1.0)
        if self._line is not None:
            self._line.close()
        if self._asker is not None:
            self._asker.close()

    def _end_unasked(self) -> None:
        """What waits for a commitment that the site does not ask for any more."""
        name = self._destination.name
        if self._asker is not None or not isinstance(self._destination, DicomDestination):
            return
        try:
            with self._store.read() as connection:
                waits = commitments_awaited.oldest(connection, name) is not None
            if waits:
                with self._store.write() as connection:
                    commitments_awaited.end_unasked(connection, name, actor=ACTOR, now=clock.now())
        except Exception:
            log.exception("stored deliveries were not looked at; the next start does", destination=name)

    def send_next(self) -> bool:
        """Claims, sends and records one delivery. False when nothing is due."""
        held = self._claim()
        if held is None:
            return False
        self._deliver(held)
        return True

    def _send_all(self) -> bool:
        """All that is due, each claimed when the one before is recorded. False when nothing was due."""
        held = self._claim()
        any_due = held is not None
        while held is not None:
            held = self._deliver(held, more=True)
        return any_due

    def _claim(self) -> DeliveryClaim | None:
        if clock.now().boot_s < self._not_before:
            return None
        with self._store.read() as connection:
            if not deliveries.any_due(
                connection, self._destination.name, on_hold=self._destination.hold, now=clock.now()
            ):
                return None
        with self._store.write() as connection:
            return self._claim_in(connection)

    def _claim_in(self, connection: Connection) -> DeliveryClaim | None:
        held = deliveries.claim(
            connection,
            self._destination.name,
            on_hold=self._destination.hold,
            owner=self._owner,
            lease_s=self._lease_s(),
            now=clock.now(),
        )
        if held is not None:
            self._audit(connection, held, ended=False)
        return held

    def _deliver(self, held: DeliveryClaim, *, more: bool = False) -> DeliveryClaim | None:
        """Sends and records; ``more``: claims what is due next in the same transaction, unless told to stop."""
        reached("delivery-claimed")
        content = self._content(held)
        if content is None:
            outcome = Outcome(Verdict.REJECTED, "", CORRUPT)
        else:
            outcome = self._send(held, content)
        if outcome.wait_s is not None and outcome.verdict is not Verdict.DELIVERED:
            self._not_before = clock.now().boot_s + outcome.wait_s
        reached("delivery-sent")
        following = self._record_surely(held, outcome, more=more)
        reached("delivery-recorded")
        return following

    def _send(self, held: DeliveryClaim, content: bytes) -> Outcome:
        try:
            if self._line is not None and state_of(self._tls_files) != self._tls_state:
                # A renewed certificate: what is open goes on with the old one.
                self._line.close()
                self._line = None
            if self._line is None:
                self._tls_state = state_of(self._tls_files)
                self._line = open_line(self._settings, self._destination)
            return self._line.send(content, held.identity)
        except Exception as error:
            log.exception("sending failed", destination=held.destination, object=held.kind)
            if self._line is not None:
                self._line.close()
                self._line = None
            return Outcome(Verdict.RETRY, "", f"{type(error).__name__}: {error}")

    def _content(self, held: DeliveryClaim) -> bytes | None:
        content = held.message
        if content is None and held.path is not None:
            try:
                content = (self._settings.spool / held.path).read_bytes()
            except OSError:
                return None
        if content is None or hashlib.sha256(content).hexdigest() != held.sha256:
            return None
        return content

    def _record_surely(self, held: DeliveryClaim, outcome: Outcome, *, more: bool) -> DeliveryClaim | None:
        """Tries again while the lease lasts: the receiver has answered, and must not be asked twice for our sake."""
        deadline = clock.boot_seconds() + self._lease_s()
        while True:
            try:
                return self._record(held, outcome, more=more)
            except StoreError as error:
                log.error("an answer could not be recorded", destination=held.destination, error=str(error))
                if self._stop.wait(RECORD_AGAIN_S) or clock.boot_seconds() > deadline:
                    raise

    def _record(self, held: DeliveryClaim, outcome: Outcome, *, more: bool) -> DeliveryClaim | None:
        now, retry = clock.now(), self._destination.retry
        refused = outcome.verdict is Verdict.REFUSED
        too_old = (
            retry.give_up_after_h is not None
            and (now.at - held.created_at).total_seconds() > retry.give_up_after_h * 3600
        )
        rejected = (
            outcome.verdict is Verdict.REJECTED
            or (refused and held.refusals + 1 >= retry.max_refusals)
            or (outcome.verdict is not Verdict.DELIVERED and too_old)
        )
        common = {"status": outcome.status, "detail": outcome.detail, "actor": self._owner}
        key = f"destination/{held.destination}"
        with self._store.write() as connection:
            if outcome.verdict is Verdict.DELIVERED:
                if self._asker is not None:
                    commitments_awaited.await_commitment(connection, held, now=now, **common)
                else:
                    deliveries.end_delivered(connection, held, now=now, **common)
                self._audit(connection, held, ended=True)
                watch.clear_alarm(connection, key, actor=ACTOR, now=now)
                watch.clear_alarm(connection, f"delivery/{held.id}", actor=ACTOR, now=now)
            elif rejected:
                deliveries.end_rejected(connection, held, now=now, **common)
                watch.raise_alarm(
                    connection,
                    f"delivery/{held.id}",
                    severity="critical",
                    text=(
                        f"{held.destination} rejected the {held.kind} of study {held.study_instance_uid}: "
                        f"{outcome.status} {outcome.detail}"
                    ),
                    remedy=f"mend the cause, then `firstread deliveries retry {held.id}`, or cancel it with a reason",
                    actor=ACTOR,
                    now=now,
                )
            else:
                delay = max(backoff_s(held.attempts, retry.first_s, retry.max_s), outcome.wait_s or 0.0)
                deliveries.retry_later(connection, held, delay_s=delay, refused=refused, now=now, **common)
                if held.attempts >= 3:
                    watch.raise_alarm(
                        connection,
                        key,
                        severity="warning",
                        text=f"{held.destination} does not take results: {outcome.status} {outcome.detail}",
                        remedy="results wait and are sent when it answers; `firstread config check` asks it now",
                        actor=ACTOR,
                        now=now,
                    )
            more = more and not self._stop.is_set() and now.boot_s >= self._not_before
            following = self._claim_in(connection) if more else None
        log.info(
            "delivery",
            study=held.study_instance_uid,
            destination=held.destination,
            object=held.kind,
            revision=held.revision,
            verdict=outcome.verdict.name.lower(),
            status=outcome.status,
            attempt=held.attempts,
        )
        return following

    def _audit(self, connection: Connection, held: DeliveryClaim, *, ended: bool) -> None:
        """Objects to a PACS are told of (PS3.15 A.5.3.3, A.5.3.7); messages are no instances."""
        one = self._destination
        if not self._settings.audit.wanted or isinstance(one, Hl7Destination):
            return
        receiver, address = (
            (one.ae_title, one.host)
            if isinstance(one, DicomDestination)
            else (one.url, urlsplit(one.url).hostname or "")
        )
        patient_id, sop_class = deliveries.told_of(connection, held)
        study = StudyObject(held.study_instance_uid, {sop_class: 1}, patient_id, held.accession_number)
        Audit(self._settings).sending(connection, receiver, address, study, ended=ended)

    def _lease_s(self) -> float:
        one = self._destination
        if isinstance(one, DicomDestination):
            return one.connect_timeout_s + one.acse_timeout_s + one.dimse_timeout_s + 60
        if isinstance(one, DicomwebDestination):
            # a token, the instance, and both once more after a 401
            return (one.connect_timeout_s + one.answer_timeout_s) * 4 + 60
        return one.connect_timeout_s * 2 + one.answer_timeout_s * 2 + 60


class Deliverer:
    """All workers of this process."""

    def __init__(self, settings: Settings, store: Store, owner: str) -> None:
        self._workers = [DestinationWorker(settings, store, one, owner) for one in settings.all_destinations]
        self._threads: list[threading.Thread] = []

    def start(self, stop: threading.Event) -> None:
        """One thread for each destination."""
        for worker in self._workers:
            thread = threading.Thread(target=worker.run, args=(stop,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self, timeout_s: float) -> None:
        """Waits for what is being sent."""
        for thread in self._threads:
            thread.join(timeout_s)
