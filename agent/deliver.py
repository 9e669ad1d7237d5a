"""The outbox is drained here: one worker for each destination, so that a dead one never holds up another."""

from __future__ import annotations

import enum
import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Destination, DicomDestination, DicomwebDestination, Hl7Destination, Settings
from firstread.agent.config_wire import dicom_peer, judgements, tls_context, web_service
from firstread.agent.crashpoints import reached
from firstread.agent.retries import backoff_s
from firstread.agent.store import commitments_awaited, deliveries, watch
from firstread.agent.store.deliveries import DeliveryClaim
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.tls import state_of
from firstread.integration.audit.message import StudyObject

if TYPE_CHECKING:
    from firstread.agent.commitment_asking import CommitmentAsker

log = structlog.get_logger()

ACTOR = "deliver"
RECORD_AGAIN_S = 1.0
CORRUPT = "the frozen bytes are missing or changed on disk"


class Verdict(enum.Enum):
    """What one sending came to."""

    DELIVERED = enum.auto()
    RETRY = enum.auto()
    """An outage or a matter of the moment: again, as long as the site says."""
    REFUSED = enum.auto()
    """The receiver said no: a few tries, then rejected."""
    REJECTED = enum.auto()
    """Never: sending it again helps nobody."""


@dataclass(frozen=True)
class Outcome:
    """``status``: the receiver's own code (``0000``, ``AA``). ``detail``: a sentence, warnings included.

    ``wait_s``: how long the receiver asks to be left alone, with everything that is due there.
    """

    verdict: Verdict
    status: str
    detail: str
    wait_s: float | None = None


class Line(Protocol):
    """A way to one destination, kept open between sendings."""

    def send(self, content: bytes, identity: str) -> Outcome:
        """Sends one frozen object; never raises for what network or receiver do."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class DicomLine:
    """C-STORE to a PACS; the association is kept for the next object."""

    def __init__(self, settings: Settings, destination: DicomDestination) -> None:
        from firstread.integration.dicom.send import Sender

        self._sender = Sender(dicom_peer(settings, destination))

    def send(self, content: bytes, identity: str) -> Outcome:
        """0000 and warnings are delivered; A7xx is of the moment; A9xx and Cxxx are refusals (PS3.4 B.2.3)."""
        from firstread.integration.dicom.status import OutcomeKind

        answer = self._sender.store(content)
        verdict = {
            OutcomeKind.DELIVERED: Verdict.DELIVERED,
            OutcomeKind.RETRY: Verdict.RETRY,
            OutcomeKind.REJECTED: Verdict.REFUSED,
        }[answer.kind]
        words = "; ".join(part for part in (answer.comment, answer.warning) if part)
        return Outcome(verdict, "" if answer.status is None else f"{answer.status:04X}", words)

    def close(self) -> None:
        """Releases the association."""
        self._sender.close()


class DicomwebLine:
    """STOW-RS to a PACS; the connection is kept for the next object."""

    def __init__(self, destination: DicomwebDestination) -> None:
        from firstread.integration.dicomweb.client import DicomwebClient

        self._client = DicomwebClient(web_service(destination))

    def send(self, content: bytes, identity: str) -> Outcome:
        """Delivered is what the response document names as stored; the rest as its reasons say (PS3.18 10.5.3)."""
        from firstread.integration.dicom.status import OutcomeKind
        from firstread.integration.dicomweb.store_client import store

        answer = store(self._client, content)
        verdict = {
            OutcomeKind.DELIVERED: Verdict.DELIVERED,
            OutcomeKind.RETRY: Verdict.RETRY,
            OutcomeKind.REJECTED: Verdict.REFUSED,
        }[answer.kind]
        return Outcome(verdict, answer.status, answer.words, answer.wait_s)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class Hl7Line:
    """A message over MLLP; the connection is kept, one message is in flight."""

    def __init__(self, destination: Hl7Destination) -> None:
        from firstread.integration.hl7.mllp import MllpClient

        self._client = MllpClient(
            destination.host,
            destination.port,
            connect_timeout_s=destination.connect_timeout_s,
            answer_timeout_s=destination.answer_timeout_s,
            tls=tls_context(destination),
            judgements=judgements(destination),
        )

    def send(self, content: bytes, identity: str) -> Outcome:
        """AA and CA are delivered; the rest as ERR-3, MSA-1 and the destination's own rules say."""
        from firstread.integration.hl7.acknowledge import AckKind

        answer = self._client.send(content, identity)
        verdict = {
            AckKind.DELIVERED: Verdict.DELIVERED,
            AckKind.RETRY: Verdict.RETRY,
            AckKind.REJECTED: Verdict.REJECTED,
            AckKind.REJECT_AFTER_TRIES: Verdict.REFUSED,
            AckKind.NOT_OURS: Verdict.RETRY,
        }[answer.kind]
        return Outcome(verdict, "/".join(part for part in (answer.code, answer.err_code) if part), answer.text)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


def open_line(settings: Settings, destination: Destination) -> Line:
    """The way to a destination; nothing is connected before the first sending."""
    if isinstance(destination, DicomDestination):
        return DicomLine(settings, destination)
    if isinstance(destination, DicomwebDestination):
        return DicomwebLine(destination)
    return Hl7Line(destination)


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
        self.due = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Until told to stop: sends while something is due, then waits to be woken."""
        self._stop = stop
        self._end_unasked()
        while not stop.is_set():
            try:
                sent = self.send_next() or (self._asker is not None and self._asker.ask_next())
            except StoreBusy:
                sent = False
            except Exception:
                log.exception("delivering failed", destination=self._destination.name)
                sent = False
                stop.wait(1.0)
            if not sent:
                self.due.wait(1.0)
                self.due.clear()
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
        name, hold = self._destination.name, self._destination.hold
        if clock.now().boot_s < self._not_before:
            return False
        with self._store.read() as connection:
            if not deliveries.any_due(connection, name, on_hold=hold, now=clock.now()):
                return False
        with self._store.write() as connection:
            held = deliveries.claim(
                connection, name, on_hold=hold, owner=self._owner, lease_s=self._lease_s(), now=clock.now()
            )
            if held is not None:
                self._audit(connection, held, ended=False)
        if held is None:
            return False
        reached("delivery-claimed")
        content = self._content(held)
        if content is None:
            outcome = Outcome(Verdict.REJECTED, "", CORRUPT)
        else:
            outcome = self._send(held, content)
        if outcome.wait_s is not None and outcome.verdict is not Verdict.DELIVERED:
            self._not_before = clock.now().boot_s + outcome.wait_s
        reached("delivery-sent")
        self._record_surely(held, outcome)
        reached("delivery-recorded")
        return True

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

    def _record_surely(self, held: DeliveryClaim, outcome: Outcome) -> None:
        """Tries again while the lease lasts: the receiver has answered, and must not be asked twice for our sake."""
        deadline = clock.boot_seconds() + self._lease_s()
        while True:
            try:
                self._record(held, outcome)
                return
            except StoreError as error:
                log.error("an answer could not be recorded", destination=held.destination, error=str(error))
                if self._stop.wait(RECORD_AGAIN_S) or clock.boot_seconds() > deadline:
                    raise

    def _record(self, held: DeliveryClaim, outcome: Outcome) -> None:
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

    def wake(self) -> None:
        """Something may be due."""
        for worker in self._workers:
            worker.due.set()

    def join(self, timeout_s: float) -> None:
        """Waits for what is being sent."""
        for thread in self._threads:
            thread.join(timeout_s)
