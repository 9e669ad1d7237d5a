"""Storage commitment that we ask of a PACS: what it stored is delivered when it committed to keep it (PS3.4 J)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from firstread.agent import clock
from firstread.agent.config import DicomDestination, RetrySettings, Settings
from firstread.agent.config_wire import dicom_peer
from firstread.agent.retries import backoff_s
from firstread.agent.store import commitments_awaited, watch
from firstread.agent.store.commitments_awaited import Awaited
from firstread.agent.store.engine import Store, StoreError
from firstread.integration.dicom.commitment import CommitmentReport, CommitmentRequest, Reference, reason_words
from firstread.integration.dicom.commitment_scu import Answer, CommitmentScu
from firstread.integration.dicom.services import Caller, ServiceBusy, ServiceRefused

log = structlog.get_logger()

ACTOR = "commitment"
AT_ONCE = 100
AGAIN_FIRST_S, AGAIN_MOST_S = 60.0, 3600.0


def again_s(age_s: float) -> float:
    """When a request that was taken and not answered is asked anew: it doubles, from a minute up to an hour."""
    return min(AGAIN_MOST_S, max(AGAIN_FIRST_S, age_s))


@dataclass(frozen=True)
class Judgement:
    """What a report means for the deliveries that its transaction asked about."""

    committed: list[Awaited] = field(default_factory=list)
    send_again: list[tuple[Awaited, str]] = field(default_factory=list)
    rejected: list[tuple[Awaited, str]] = field(default_factory=list)


def judge(report: CommitmentReport, awaited: Sequence[Awaited], max_refusals: int) -> Judgement:
    """What is committed is delivered; what is not is sent again, and rejected after ``max_refusals``.

    What a report does not name goes on waiting.
    """
    kept = {one.sop_instance_uid for one in report.committed}
    failed = {one.sop_instance_uid: reason for one, reason in report.failed}
    judged = Judgement()
    for one in awaited:
        if one.sop_instance_uid in failed:
            why = f"not committed: {reason_words(failed[one.sop_instance_uid])}"
            (judged.rejected if one.refusals + 1 >= max_refusals else judged.send_again).append((one, why))
        elif one.sop_instance_uid in kept:
            judged.committed.append(one)
    return judged


def take_report(settings: Settings, store: Store, caller: Caller, report: CommitmentReport) -> None:
    """A PACS told what it keeps: stored -> delivered, pending or rejected, in one transaction.

    Raises ServiceRefused for a transaction that is not ours, ServiceBusy where it cannot be kept.
    """
    now = clock.now()
    try:
        with store.write() as connection:
            if not commitments_awaited.is_known(connection, report.transaction_uid):
                raise ServiceRefused("no such transaction")
            awaited = commitments_awaited.of_transaction(connection, report.transaction_uid)
            if not awaited:
                return
            destination = settings.destination(awaited[0].destination)
            retry = destination.retry if destination is not None else RetrySettings()
            judged = judge(report, awaited, retry.max_refusals)
            for one in judged.committed:
                commitments_awaited.end_committed(connection, one, actor=ACTOR, now=now)
                watch.clear_alarm(connection, f"delivery/{one.id}", actor=ACTOR, now=now)
            if commitments_awaited.oldest(connection, awaited[0].destination) is None:
                watch.clear_alarm(connection, f"uncommitted/{awaited[0].destination}", actor=ACTOR, now=now)
            for one, why in judged.send_again:
                delay = backoff_s(one.refusals + 1, retry.first_s, retry.max_s)
                commitments_awaited.send_again(connection, one, delay_s=delay, detail=why, actor=ACTOR, now=now)
            for one, why in judged.rejected:
                commitments_awaited.end_rejected(connection, one, detail=why, actor=ACTOR, now=now)
                watch.raise_alarm(
                    connection,
                    f"delivery/{one.id}",
                    severity="critical",
                    text=f"{one.destination} does not keep the {one.kind} of study {one.study_instance_uid}: {why}",
                    remedy=f"mend the cause, then `firstread deliveries retry {one.id}`, or cancel it with a reason",
                    actor=ACTOR,
                    now=now,
                )
    except StoreError as error:
        raise ServiceBusy("database busy, tell again") from error
    log.info(
        "commitment",
        destination=awaited[0].destination,
        committed=len(judged.committed),
        again=len(judged.send_again),
        rejected=len(judged.rejected),
        calling_ae=caller.calling_ae_title,
    )


class CommitmentAsker:
    """Asks one destination about what it stored; called from the thread that sends to it."""

    def __init__(self, settings: Settings, store: Store, destination: DicomDestination) -> None:
        self._settings = settings
        self._store = store
        self._destination = destination
        self._scu: CommitmentScu | None = None

    def ask_next(self) -> bool:
        """Asks about what is due, in one transaction. False when nothing is."""
        name, now = self._destination.name, clock.now()
        with self._store.read() as connection:
            if not commitments_awaited.any_to_ask(connection, name, now):
                return False
        self._tell_of_the_oldest(now.at)
        with self._store.write() as connection:
            transaction_uid, awaited = commitments_awaited.begin_asking(
                connection, name, limit=AT_ONCE, again_s=AGAIN_FIRST_S, now=now
            )
        if not awaited:
            return False
        references = tuple(Reference(one.sop_class_uid, one.sop_instance_uid) for one in awaited)
        answer = self._ask(CommitmentRequest(transaction_uid, references))
        now = clock.now()
        oldest_s = max((now.at - one.stored_at).total_seconds() for one in awaited)
        retry = self._destination.retry
        delay = again_s(oldest_s) if answer.ok else min(retry.max_s, max(retry.first_s, oldest_s))
        with self._store.write() as connection:
            commitments_awaited.asked(
                connection, transaction_uid, awaited, taken=answer.ok, again_s=delay, detail=answer.detail,
                actor=ACTOR, now=now,
            )  # fmt: skip
        return True

    def close(self) -> None:
        """Ends the association."""
        if self._scu is not None:
            self._scu.close()
            self._scu = None

    def _ask(self, request: CommitmentRequest) -> Answer:
        try:
            if self._scu is None:
                peer = dicom_peer(self._settings, self._destination)
                self._scu = CommitmentScu(
                    peer, lambda caller, report: take_report(self._settings, self._store, caller, report)
                )
            return self._scu.ask(request)
        except Exception as error:
            log.exception("asking for commitment failed", destination=self._destination.name)
            self.close()
            return Answer(None, f"{type(error).__name__}: {error}")

    def _tell_of_the_oldest(self, now: datetime) -> None:
        name, hours = self._destination.name, self._destination.commit_within_h
        with self._store.read() as connection:
            oldest = commitments_awaited.oldest(connection, name)
        late = oldest is not None and (now - oldest.stored_at).total_seconds() > hours * 3600
        key = f"uncommitted/{name}"
        with self._store.write() as connection:
            if late:
                watch.raise_alarm(
                    connection,
                    key,
                    severity="warning",
                    text=f"{name} has not committed for {hours:g} h to keep what it stored",
                    remedy="see its storage commitment, and whether it knows where to report to; it is asked again",
                    actor=ACTOR,
                    now=clock.now(),
                )
            else:
                watch.clear_alarm(connection, key, actor=ACTOR, now=clock.now())
