"""Storage commitment that we ask of a PACS: stored is not delivered, and what is not kept is sent again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from firstread.agent import clock
from firstread.agent.commitment_asking import CommitmentAsker, again_s, judge, take_report
from firstread.agent.deliver import DestinationWorker
from firstread.agent.store import commitments_awaited, deliveries
from firstread.agent.store.commitments_awaited import Awaited
from firstread.agent.store.tables import commitment_request, delivery
from firstread.integration.dicom.commitment import CommitmentReport, Reference
from firstread.integration.dicom.services import Caller, ServiceRefused
from tests.agent.builders import moment
from tests.agent.ward import DAY, Ward
from tests.models.tiny import make_tiny_bundle

CALLER = Caller("PACS", "FIRSTREAD", "127.0.0.1", "a1")


class Pacs:
    """A PACS that stores, and commits on the line that asked: to everything, or to all but what it fails."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.asked: list[Dataset] = []
        self.failing: dict[str, int] = {}
        self.status = 0x0000
        self.silent = False
        self.closed = False
        self.answers: list[int] = []
        self.done = threading.Event()
        entity = AE("PACS")
        entity.supported_contexts = StoragePresentationContexts
        entity.add_supported_context(StorageCommitmentPushModel)
        self._server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)],
        )
        self.port: int = self._server.socket.getsockname()[1]

    def _store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _action(self, event: Any) -> tuple[int, None]:
        self.asked.append(event.action_information)
        if self.status == 0 and not self.silent:
            threading.Thread(target=self._report, args=(event.assoc, event.action_information), daemon=True).start()
        return self.status, None

    def _report(self, association: Any, asked: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        kept, failed = [], []
        for item in asked.ReferencedSOPSequence:
            reason = self.failing.get(str(item.ReferencedSOPInstanceUID))
            if reason is None:
                kept.append(item)
            else:
                item.FailureReason = reason
                failed.append(item)
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        status, _ = association.send_n_event_report(
            report, 2 if failed else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(status.Status)
        self.done.set()

    def wait(self) -> None:
        """Until its next report was answered."""
        assert self.done.wait(60)
        self.done.clear()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._server.shutdown()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


class Outbox(Ward):
    """An agent with one result, sr and heat map, for a PACS that is asked for commitment."""

    def __init__(self, folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        pacs = {"name": "pacs", "type": "dicom", "host": "127.0.0.1", "port": port, "ae_title": "PACS", "commit": True}
        super().__init__(folder, bundle, monkeypatch, destinations=[pacs])
        self.ended_study("1.2.3", Pneumothorax=0.99)
        self.at(100)
        self.worker = self.fresh_worker()

    def fresh_worker(self) -> DestinationWorker:
        """As after a restart."""
        destination = self.settings.destination("pacs")
        assert destination is not None
        return DestinationWorker(self.settings, self.store, destination, "test/deliver/1")

    @property
    def asker(self) -> CommitmentAsker:
        assert self.worker._asker is not None
        return self.worker._asker

    def send(self) -> int:
        """Sends what is due; answers how many."""
        sent = 0
        while self.worker.send_next():
            sent += 1
        return sent

    def states(self) -> list[str]:
        with self.store.read() as connection:
            return list(connection.execute(delivery.select().order_by(delivery.c.id)).scalars(columns("state")))

    def rows(self) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(delivery.select().order_by(delivery.c.id)))

    def transactions(self) -> list[str]:
        with self.store.read() as connection:
            rows = connection.execute(commitment_request.select().order_by(commitment_request.c.asked_at)).all()
        return list(dict.fromkeys(row.transaction_uid for row in rows))


def columns(name: str) -> int:
    return [column.name for column in delivery.columns].index(name)


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.close()


@pytest.fixture
def outbox(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, pacs: Pacs) -> Iterator[Outbox]:
    made = Outbox(tmp_path / "spool", bundle, monkeypatch, pacs.port)
    yield made
    made.asker.close()
    if made.worker._line is not None:
        made.worker._line.close()
    made.store.close()


def test_what_is_stored_is_delivered_only_when_the_pacs_commits_to_it(outbox: Outbox, pacs: Pacs) -> None:
    assert outbox.send() == 2
    assert outbox.states() == ["stored", "stored"]
    assert outbox.asker.ask_next()
    pacs.wait()
    assert outbox.states() == ["delivered", "delivered"] and pacs.answers == [0]
    (asked,) = pacs.asked
    assert {str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence} == set(pacs.stored)
    assert not outbox.asker.ask_next()
    with outbox.store.read() as connection:
        assert [row.ended_at for row in outbox.rows()] == [clock.now().at] * 2
        assert deliveries.listed(connection)[0].detail == "committed"


def test_what_the_pacs_does_not_keep_is_sent_again_and_rejected_after_three_times(outbox: Outbox, pacs: Pacs) -> None:
    assert outbox.send() == 2
    lost = pacs.stored[0]
    pacs.failing = {lost: 0x0112}
    seconds = 100.0
    for again in range(3):
        assert outbox.asker.ask_next()
        pacs.wait()
        assert outbox.states() == (["rejected"] if again == 2 else ["pending"]) + ["delivered"]
        seconds += 400
        outbox.at(seconds)
        assert outbox.send() == (0 if again == 2 else 1)
    assert pacs.stored.count(lost) == 3
    (alarm,) = (one for key, one in outbox.alarms().items() if key.startswith("delivery/"))
    assert "0112 no such object instance" in alarm.text and "deliveries retry" in alarm.remedy


def test_waiting_survives_a_restart_and_a_late_report_of_an_earlier_request_counts(outbox: Outbox, pacs: Pacs) -> None:
    pacs.silent = True
    assert outbox.send() == 2 and outbox.asker.ask_next() and not outbox.asker.ask_next()
    outbox.asker.close()
    outbox.at(100 + 3700)
    outbox.worker = outbox.fresh_worker()
    assert outbox.send() == 0, "nothing is sent a second time"
    assert outbox.asker.ask_next()
    first, second = outbox.transactions()
    assert [str(one.TransactionUID) for one in pacs.asked] == [first, second]
    committed = tuple(Reference(row.kind, row.identity) for row in listed(outbox))
    take_report(outbox.settings, outbox.store, CALLER, CommitmentReport(first, committed))
    assert outbox.states() == ["delivered", "delivered"]
    # the answer to the second comes as well, and changes nothing
    failed = tuple((one, 0x0110) for one in committed)
    take_report(outbox.settings, outbox.store, CALLER, CommitmentReport(second, (), failed))
    assert outbox.states() == ["delivered", "delivered"]


def listed(outbox: Outbox) -> list[Any]:
    with outbox.store.read() as connection:
        return list(deliveries.listed(connection))


def test_a_pacs_that_takes_no_request_is_asked_again_and_after_two_days_it_is_an_alarm(
    outbox: Outbox, pacs: Pacs
) -> None:
    pacs.status = 0x0213
    assert outbox.send() == 2 and outbox.asker.ask_next() and not outbox.asker.ask_next()
    assert outbox.states() == ["stored", "stored"] and "0213" in outbox.rows()[0].detail
    outbox.at(100 + 2 * DAY + 1)
    assert outbox.asker.ask_next()
    assert "48 h" in outbox.alarms()["uncommitted/pacs"].text
    pacs.status = 0
    outbox.at(100 + 2 * DAY + 400)
    assert outbox.asker.ask_next()
    pacs.wait()
    assert outbox.states() == ["delivered", "delivered"]
    assert "uncommitted/pacs" not in outbox.alarms()


def test_a_pacs_that_is_away_is_asked_when_it_is_back(outbox: Outbox, pacs: Pacs) -> None:
    assert outbox.send() == 2
    pacs.close()
    assert outbox.asker.ask_next()
    assert outbox.states() == ["stored", "stored"] and "no connection" in outbox.rows()[0].detail


def test_what_was_not_kept_never_follows_a_newer_revision(outbox: Outbox, pacs: Pacs) -> None:
    pacs.silent = True
    assert outbox.send() == 2 and outbox.asker.ask_next()
    (transaction,) = outbox.transactions()
    old = [Reference("", row.identity) for row in listed(outbox)]
    outbox.at(200)
    outbox.receive(study="1.2.3", sop="1.2.3.1.77")
    for claim in outbox.claim(moment(200)):
        outbox.end_analysed(claim, moment(201), Effusion=0.99)
    outbox.at(230)
    assert outbox.summing_up.run_once() == 1
    assert outbox.send() == 2, "a newer revision does not wait for the older one's commitment"
    failed = tuple((one, 0x0112) for one in old)
    take_report(outbox.settings, outbox.store, CALLER, CommitmentReport(transaction, (), failed))
    assert outbox.states() == ["superseded", "superseded", "stored", "stored"]


def test_by_hand_a_stored_delivery_is_sent_again_or_given_up(outbox: Outbox, pacs: Pacs) -> None:
    pacs.silent = True
    assert outbox.send() == 2 and outbox.asker.ask_next()
    first, second = (row.id for row in outbox.rows())
    with outbox.store.write() as connection:
        assert deliveries.retry_now(connection, first, "t", clock.now())
        assert deliveries.cancel(connection, second, "by hand", "t", clock.now())
    assert outbox.send() == 1 and outbox.states() == ["stored", "cancelled"]
    # what was asked before it was sent again is void
    with outbox.store.read() as connection:
        assert commitments_awaited.of_transaction(connection, str(pacs.asked[0].TransactionUID)) == []


def test_a_site_that_asks_no_more_has_what_was_stored_delivered(outbox: Outbox, pacs: Pacs) -> None:
    pacs.silent = True
    assert outbox.send() == 2
    destination = outbox.settings.destination("pacs")
    assert destination is not None
    worker = DestinationWorker(outbox.settings, outbox.store, destination.model_copy(update={"commit": False}), "t")
    stop = threading.Event()
    stop.set()
    worker.run(stop)
    assert outbox.states() == ["delivered", "delivered"]


def test_films_of_what_is_not_committed_are_kept(outbox: Outbox, pacs: Pacs) -> None:
    pacs.silent = True
    assert outbox.send() == 2
    film = outbox.file_of("1.2.3")
    outbox.at(40 * DAY)
    assert outbox.care.retention() == 0 and film.exists()


def test_a_report_of_a_stranger_transaction_is_refused(outbox: Outbox) -> None:
    with pytest.raises(ServiceRefused):
        take_report(outbox.settings, outbox.store, CALLER, CommitmentReport("2.25.7", ()))


def awaited(uid: str, refusals: int = 0) -> Awaited:
    return Awaited(1, 1, "1.2.3", 1, "pacs", "sr", refusals, "1.2", uid, moment(0).at)


def test_what_a_report_does_not_name_goes_on_waiting() -> None:
    report = CommitmentReport("2.25.1", (Reference("1.2", "1"),), ((Reference("1.2", "2"), 0x0112),))
    judged = judge(report, [awaited("1"), awaited("2"), awaited("3"), awaited("2", refusals=2)], 3)
    assert [one.sop_instance_uid for one in judged.committed] == ["1"]
    assert [one.sop_instance_uid for one, _ in judged.send_again] == ["2"]
    assert [one.refusals for one, _ in judged.rejected] == [2]


def test_an_instance_that_is_named_as_kept_and_failed_is_not_kept() -> None:
    one = Reference("1.2", "1")
    assert judge(CommitmentReport("2.25.1", (one,), ((one, 0x0110),)), [awaited("1")], 3).committed == []


def test_asking_again_grows_from_a_minute_to_an_hour() -> None:
    assert [again_s(age) for age in (0, 59, 120, 86400)] == [60, 60, 120, 3600]
