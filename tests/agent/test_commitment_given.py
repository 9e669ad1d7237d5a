"""Storage commitment that senders ask of us, over the wire: pynetdicom asks and is told, on the same or a new line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from firstread.agent import clock, commitment
from firstread.agent.commitment import CommitmentReporter
from firstread.agent.config_wire import receive_settings
from firstread.agent.dicom_services import dicom_services
from firstread.agent.store import commitments, watch
from firstread.agent.store.overdue import PURGED
from firstread.agent.store.tables import instance
from firstread.integration.dicom.receive import Receiver
from tests.agent.builders import DX, Bench
from tests.peers import free_port

GSPS = "1.2.840.10008.5.1.4.1.1.11.1"


class Requester:
    """A modality: asks for commitment, and hears reports on its own port and on the line that it asked on."""

    def __init__(self, port: int) -> None:
        self.reports: list[Dataset] = []
        self.event_types: list[int] = []
        self.answer = 0x0000
        self.heard = threading.Event()
        self._entity = AE("MODALITY")
        self._entity.add_requested_context(StorageCommitmentPushModel)
        self._entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._hear)]
        self._port = port
        self._server: Any = None

    def listen(self) -> None:
        self._server = self._entity.start_server(("127.0.0.1", self._port), block=False, evt_handlers=self._handlers)

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _hear(self, event: Any) -> tuple[int, None]:
        if self.answer == 0:
            self.reports.append(event.event_information)
            self.event_types.append(event.event_type)
        self.heard.set()
        return self.answer, None

    def associate(self, address: tuple[str, int]) -> Any:
        line = self._entity.associate(*address, ae_title="FIRSTREAD", evt_handlers=self._handlers)
        assert line.is_established
        return line

    def ask(self, line: Any, *pairs: tuple[str, str], transaction: str = "2.25.1", action: int = 1) -> Dataset:
        request = Dataset()
        if transaction:
            request.TransactionUID = transaction
        request.ReferencedSOPSequence = [reference(*pair) for pair in pairs]
        status, _ = line.send_n_action(request, action, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
        return status

    def ask_and_leave(self, address: tuple[str, int], *pairs: tuple[str, str], **values: Any) -> Dataset:
        line = self.associate(address)
        status = self.ask(line, *pairs, **values)
        line.release()
        return status


def reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


def names(items: Any) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in items or ()]


class Desk:
    """An agent's receiver and its reporter, on one thread that the test moves."""

    def __init__(self, folder: Path, url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = free_port()
        peers = [{"ae_title": "MODALITY", "host": "127.0.0.1", "port": self.port}]
        self.bench = Bench(folder / "spool", url, peers=peers)
        services = dicom_services(self.bench.settings, self.bench.store, "test/receive/1")
        settings = replace(receive_settings(self.bench.settings), host="127.0.0.1", port=0)
        self.receiver = Receiver(settings, self.bench.intake.take, services=services)
        self.receiver.start()
        self.reporter = CommitmentReporter(self.bench.settings, self.bench.store, "test/deliver/1")
        self.requester = Requester(self.port)
        self._ahead = 0.0
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real().plus(self._ahead))

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    def later(self, seconds: float) -> None:
        self._ahead += seconds

    def work(self, seconds: float = 10) -> None:
        """Verifies, and reports what is due ``seconds`` later."""
        self.reporter.run_once()
        self.later(seconds)
        while self.reporter.run_once():
            pass

    def state(self) -> tuple[str, int]:
        with self.bench.store.read() as connection:
            row = connection.execute(commitments.commitment.select()).one()
        return row.state, row.attempts

    def alarms(self) -> dict[str, watch.Alarm]:
        with self.bench.store.read() as connection:
            return {one.key: one for one in watch.alarms(connection)}

    def close(self) -> None:
        self.requester.close()
        self.receiver.stop(2)
        self.bench.store.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, None, monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Desk(tmp_path, url, monkeypatch)
    yield made
    made.close()


def test_what_lies_on_the_disk_by_its_hash_is_committed_on_a_new_association(any_desk: Desk) -> None:
    desk = any_desk
    desk.requester.listen()
    film, state = desk.bench.receive(sop="1.2.9.1"), desk.bench.receive(sop="1.2.9.2", sop_class=GSPS)
    pairs = [(DX, film.sop_instance_uid), (GSPS, state.sop_instance_uid)]
    assert desk.requester.ask_and_leave(desk.address, *pairs).Status == 0
    desk.work()
    (report,) = desk.requester.reports
    assert names(report.ReferencedSOPSequence) == ["1.2.9.1", "1.2.9.2"] and "FailedSOPSequence" not in report
    assert report.TransactionUID == "2.25.1" and desk.requester.event_types == [1]
    assert desk.state() == ("reported", 1)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [(damage, 0x0110), (lambda path: path.unlink(), 0x0112), (lambda path: path.write_bytes(b""), 0x0110)],
    ids=["one bit changed", "deleted", "emptied"],
)
def test_a_film_that_is_not_on_the_disk_as_it_came_is_not_committed(
    desk: Desk, harm: Callable[[Path], None], reason: int
) -> None:
    desk.requester.listen()
    film = desk.bench.receive(sop="1.2.9.1")
    other = desk.bench.receive(sop="1.2.9.2")
    with desk.bench.store.read() as connection:
        row = commitments.kept(connection, film.sop_instance_uid)
    assert row is not None
    harm(desk.bench.settings.spool / row.path)
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"), (DX, other.sop_instance_uid))
    desk.work()
    (report,) = desk.requester.reports
    (failed,) = report.FailedSOPSequence
    assert (str(failed.ReferencedSOPInstanceUID), failed.FailureReason) == ("1.2.9.1", reason)
    assert names(report.ReferencedSOPSequence) == ["1.2.9.2"] and desk.requester.event_types == [2]


def test_each_instance_that_is_not_kept_has_its_reason(desk: Desk) -> None:
    desk.requester.listen()
    desk.bench.receive(sop="1.2.9.1")
    desk.bench.receive(sop="1.2.9.2")
    with desk.bench.store.write() as connection:
        connection.execute(instance.update().where(instance.c.sop_instance_uid == "1.2.9.2").values(path=PURGED))
    modality_worklist = "1.2.840.10008.5.1.4.31"
    desk.requester.ask_and_leave(
        desk.address, (GSPS, "1.2.9.1"), (DX, "1.2.9.2"), (DX, "1.2.9.3"), (modality_worklist, "1.2.9.4")
    )
    desk.work()
    (report,) = desk.requester.reports
    reasons = {str(item.ReferencedSOPInstanceUID): item.FailureReason for item in report.FailedSOPSequence}
    assert reasons == {"1.2.9.1": 0x0119, "1.2.9.2": 0x0112, "1.2.9.3": 0x0112, "1.2.9.4": 0x0122}
    assert "ReferencedSOPSequence" not in report


def test_a_requester_that_stays_is_told_on_the_same_association(desk: Desk) -> None:
    desk.bench.receive(sop="1.2.9.1")
    line = desk.requester.associate(desk.address)
    assert desk.requester.ask(line, (DX, "1.2.9.1")).Status == 0
    desk.reporter.run_once()
    assert desk.requester.heard.wait(60)
    line.release()
    (report,) = desk.requester.reports
    assert names(report.ReferencedSOPSequence) == ["1.2.9.1"]
    desk.work()
    assert len(desk.requester.reports) == 1 and desk.state() == ("reported", 1)


def test_a_requester_that_is_away_is_told_when_it_is_back_even_after_a_restart(desk: Desk) -> None:
    desk.bench.receive(sop="1.2.9.1")
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"))
    for _ in range(3):
        desk.work(seconds=400)
    state, attempts = desk.state()
    assert state == "verified" and attempts >= 3
    assert "127.0.0.1" in desk.alarms()["commitment/MODALITY"].text
    desk.requester.listen()
    desk.reporter = CommitmentReporter(desk.bench.settings, desk.bench.store, "test/deliver/2")
    desk.work(seconds=400)
    assert len(desk.requester.reports) == 1 and desk.state()[0] == "reported"
    assert desk.alarms() == {}


def test_a_requester_that_refuses_a_report_is_told_again(desk: Desk) -> None:
    desk.requester.listen()
    desk.requester.answer = 0x0110
    desk.bench.receive(sop="1.2.9.1")
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"))
    desk.work()
    assert desk.requester.heard.is_set() and desk.state()[0] == "verified"
    desk.requester.answer = 0
    desk.work(seconds=400)
    assert len(desk.requester.reports) == 1 and desk.state()[0] == "reported"


def test_after_a_week_nobody_waits_any_more(desk: Desk) -> None:
    desk.bench.receive(sop="1.2.9.1")
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"))
    desk.work()
    desk.work(seconds=commitment.GIVE_UP_H * 3600 + 1)
    assert desk.state()[0] == "given_up"


def test_a_requester_whose_address_nobody_knows_is_an_alarm_that_says_what_to_do(desk: Desk) -> None:
    settings = desk.bench.settings.model_copy(update={"peers": ()})
    desk.reporter = CommitmentReporter(settings, desk.bench.store, "test/deliver/1")
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"))
    desk.work()
    assert "[[peers]]" in desk.alarms()["commitment/MODALITY"].remedy
    assert desk.state()[0] == "verified"


def test_a_reporter_that_died_while_telling_is_followed_by_another(desk: Desk) -> None:
    desk.requester.listen()
    desk.bench.receive(sop="1.2.9.1")
    desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1"))
    desk.reporter.run_once()
    desk.later(10)
    with desk.bench.store.write() as connection:
        stale = commitments.claim_due(connection, owner="dead", lease_s=60, now=clock.now())
    assert stale is not None
    desk.work(seconds=61)
    assert len(desk.requester.reports) == 1
    with desk.bench.store.write() as connection:
        assert not commitments.report_later(connection, stale, delay_s=1, detail="", now=clock.now())
    assert desk.state()[0] == "reported"


def test_the_same_request_again_is_told_again_and_its_transaction_serves_no_other(desk: Desk) -> None:
    desk.requester.listen()
    desk.bench.receive(sop="1.2.9.1")
    for _ in range(2):
        assert desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.1")).Status == 0
        desk.work()
    assert len(desk.requester.reports) == 2
    refused = desk.requester.ask_and_leave(desk.address, (DX, "1.2.9.2"))
    assert refused.Status == 0x0124 and "Transaction UID" in refused.ErrorComment


def test_requests_that_cannot_be_understood_are_refused_with_the_status_that_fits(desk: Desk) -> None:
    line = desk.requester.associate(desk.address)
    assert desk.requester.ask(line, transaction="2.25.2").Status == 0x0115
    assert desk.requester.ask(line, (DX, "1.2.9.1"), transaction="").Status == 0x0115
    assert desk.requester.ask(line, (DX, "1.2.9.1"), action=2).Status == 0x0123
    assert desk.requester.ask(line, (DX, "1.2.9.1")).Status == 0
    line.release()


def test_a_report_about_what_we_never_asked_is_refused(desk: Desk) -> None:
    entity = AE("PACS")
    entity.add_requested_context(StorageCommitmentPushModel)
    role = build_role(StorageCommitmentPushModel, scp_role=True)
    line = entity.associate(*desk.address, ae_title="FIRSTREAD", ext_neg=[role])
    assert line.is_established and line.accepted_contexts[0].as_scp
    report = Dataset()
    report.TransactionUID = "2.25.99"
    report.ReferencedSOPSequence = [reference(DX, "1.2.9.1")]
    arguments = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)
    status, _ = line.send_n_event_report(report, 1, *arguments)
    assert status.Status == 0x0110 and "transaction" in status.ErrorComment
    status, _ = line.send_n_event_report(report, 7, *arguments)
    assert status.Status == 0x0113
    line.release()
