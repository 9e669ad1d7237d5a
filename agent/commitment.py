"""Storage commitment that others ask of us: kept durably, verified on the disk by hash, reported until they know it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

import structlog

from firstread.agent import clock
from firstread.agent.config import Settings
from firstread.agent.config_wire import dicom_peer
from firstread.agent.inspection import problem_of_film
from firstread.agent.retries import backoff_s
from firstread.agent.store import commitments, watch
from firstread.agent.store.commitments import Asked
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.overdue import PURGED
from firstread.agent.tls import TlsFilesError
from firstread.integration.dicom.commitment import CommitmentReport, CommitmentRequest, FailureReason, Reference
from firstread.integration.dicom.contexts import is_storage_class
from firstread.integration.dicom.services import Caller, ReportDue, ServiceBusy, ServiceRefused

log = structlog.get_logger()

ACTOR = "commitment"
SAME_ASSOCIATION_S = 5.0
"""So long a report waits for the association that asked, before it goes out on one of our own."""
LEASE_S = 180.0
FIRST_S, MOST_S = 5.0, 300.0
GIVE_UP_H = 168.0
"""As long as a delivery is tried."""
TELL_AFTER = 3
AT_ONCE = 16


def failure_of(settings: Settings, store: Store, sop_class_uid: str, sop_instance_uid: str) -> FailureReason | None:
    """Why an instance is not committed, None when it is: on the disk, and by its hash what came (PS3.4 J.3.3)."""
    with store.read() as connection:
        row = commitments.kept(connection, sop_instance_uid)
    if row is None:
        known = is_storage_class(sop_class_uid)
        return FailureReason.NO_SUCH_OBJECT_INSTANCE if known else FailureReason.SOP_CLASS_NOT_SUPPORTED
    if row.sop_class_uid != sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    if row.path == PURGED:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    problem = problem_of_film(settings.spool / row.path, row.size_bytes, row.sha256)
    if not problem:
        return None
    log.error("a film cannot be committed", sop_instance=sop_instance_uid, problem=problem)
    return FailureReason.NO_SUCH_OBJECT_INSTANCE if problem == "is missing" else FailureReason.PROCESSING_FAILURE


def report_of(one: Asked) -> CommitmentReport:
    """What is told about a verified request."""
    pairs = [Reference(*pair) for pair in one.asked_for]
    return CommitmentReport(
        one.transaction_uid,
        tuple(each for each in pairs if each.sop_instance_uid not in one.failed),
        tuple((each, one.failed[each.sop_instance_uid]) for each in pairs if each.sop_instance_uid in one.failed),
    )


def is_too_old(asked_at: datetime, now: datetime) -> bool:
    """True when nobody waits for the report any more."""
    return (now - asked_at).total_seconds() > GIVE_UP_H * 3600


@dataclass(frozen=True)
class CommitmentDesk:
    """What the receiver's associations ask: requests in, and reports for the association that asked."""

    settings: Settings
    store: Store
    owner: str

    def asked(self, caller: Caller, request: CommitmentRequest) -> None:
        """Keeps a request; when this returns it is durable."""
        pairs = [(one.sop_class_uid, one.sop_instance_uid) for one in request.references]
        try:
            with self.store.write() as connection:
                kept = commitments.ask(
                    connection, request.transaction_uid, caller.calling_ae_title, caller.association_id, pairs,
                    actor=ACTOR, now=clock.now(),
                )  # fmt: skip
        except StoreError as error:
            raise ServiceBusy("database busy, ask again") from error
        if not kept:
            raise ServiceRefused("Transaction UID was used for other instances")

    def due(self, caller: Caller) -> ReportDue | None:
        """The report that is ready for an association that still stands."""
        try:
            with self.store.read() as connection:
                if not commitments.any_of_association(connection, caller.association_id):
                    return None
            with self.store.write() as connection:
                one = commitments.claim_of_association(
                    connection, caller.association_id, owner=self.owner, lease_s=LEASE_S, now=clock.now()
                )
        except StoreError:
            return None
        return None if one is None else ReportDue(one, report_of(one))

    def answered(self, due: ReportDue, status: int | None) -> None:
        """What the requester said to a report."""
        assert isinstance(due.claim, Asked)
        detail = "the association ended before it answered" if status is None else f"answered {status:04X}"
        try:
            record(self.store, due.claim, told=status == 0, detail=detail)
        except StoreError as error:
            # Its lease runs out and it is told once more: the requester hears the same again.
            log.warning("an answer to a commitment report was not kept", error=str(error))


class CommitmentReporter:
    """Verifies requests and reports them on associations of our own; one thread of the role that delivers."""

    def __init__(self, settings: Settings, store: Store, owner: str) -> None:
        self._settings = settings
        self._store = store
        self._owner = owner

    def run(self, stop: threading.Event) -> None:
        """Until told to stop."""
        while not stop.is_set():
            try:
                busy = self.run_once()
            except StoreError as error:
                log.warning("commitment waits for the database", error=str(error))
                busy = False
            except Exception:
                log.exception("commitment failed")
                busy = False
            if not busy:
                stop.wait(1.0)

    def run_once(self) -> bool:
        """Verifies what was asked and tells what is due; False when there was nothing."""
        now = clock.now()
        with self._store.read() as connection:
            if not commitments.any_open(connection, now):
                return False
            asked = commitments.to_verify(connection, AT_ONCE)
        for one in asked:
            self._verify(one)
        with self._store.write() as connection:
            commitments.free_leases(connection, clock.now())
            due = commitments.claim_due(connection, owner=self._owner, lease_s=LEASE_S, now=clock.now())
        if due is not None:
            self._tell(due)
        return bool(asked) or due is not None

    def _verify(self, one: Asked) -> None:
        failed = {}
        for sop_class_uid, sop_instance_uid in dict.fromkeys(one.asked_for):
            reason = failure_of(self._settings, self._store, sop_class_uid, sop_instance_uid)
            if reason is not None:
                failed[sop_instance_uid] = int(reason)
        with self._store.write() as connection:
            commitments.verified(connection, one, failed, due_s=SAME_ASSOCIATION_S, now=clock.now())

    def _tell(self, one: Asked) -> None:
        from firstread.integration.dicom.commitment_scu import send_report

        peer = self._settings.peer(one.calling_ae_title)
        if peer is None:
            record(self._store, one, told=False, detail="no [[peers]] says where it is", alarm_at_once=True)
            return
        try:
            answer = send_report(dicom_peer(self._settings, peer), report_of(one))
        except TlsFilesError as error:
            record(self._store, one, told=False, detail=str(error))
            return
        record(self._store, one, told=answer.ok, detail=answer.detail)


def record(store: Store, one: Asked, *, told: bool, detail: str, alarm_at_once: bool = False) -> None:
    """reporting -> reported, or later again; an alarm when a requester cannot be told."""
    now = clock.now()
    key = f"commitment/{one.calling_ae_title}"
    with store.write() as connection:
        if told:
            commitments.end_reported(connection, one, detail=detail, actor=ACTOR, now=now)
            watch.clear_alarm(connection, key, actor=ACTOR, now=now)
            return
        if is_too_old(one.asked_at, now.at):
            commitments.give_up(connection, one, detail=detail, actor=ACTOR, now=now)
        else:
            delay = backoff_s(one.attempts, FIRST_S, MOST_S)
            commitments.report_later(connection, one, delay_s=delay, detail=detail, now=now)
        if alarm_at_once or one.attempts >= TELL_AFTER:
            watch.raise_alarm(
                connection,
                key,
                severity="warning",
                text=f"{one.calling_ae_title} asked for storage commitment and cannot be told: {detail}",
                remedy="name its host and port in [[peers]], or see why it does not answer; it is tried for a week",
                actor=ACTOR,
                now=now,
            )
