"""The worklist over DIMSE, asked by pynetdicom's own UPS classes, and events that go to its event SCP."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    UnifiedProcedureStepEvent,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepPush,
    UnifiedProcedureStepQuery,
    UnifiedProcedureStepWatch,
)

from firstread.agent.config_wire import receive_settings
from firstread.agent.owner import ROLES
from firstread.agent.role_book import RoleBook
from firstread.agent.store.tables import entry
from firstread.agent.ups_reporter import UpsReporter
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.receive import Receiver
from firstread.integration.dicom.services import Services
from firstread.integration.dicom.ups import FILTERED_GLOBAL, GLOBAL
from firstread.integration.dicom.ups_rules import read_json
from firstread.integration.dicom.ups_scp import SERVED, UpsScp
from firstread.integration.dicom.ups_scu import NotTold
from tests.agent.test_web_ups import MINE, OTHER, PERFORMED, House, external
from tests.peers import free_port

PUSH, PULL, WATCH, QUERY = (
    UnifiedProcedureStepPush,
    UnifiedProcedureStepPull,
    UnifiedProcedureStepWatch,
    UnifiedProcedureStepQuery,
)
PATIENCE_S = 60


class Workstation:
    """What listens for events at the other end: pynetdicom's SCP of UPS Event."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, int, Dataset]] = queue.Queue()
        entity = AE("READING_1")
        entity.add_supported_context(UnifiedProcedureStepEvent, scu_role=True, scp_role=True)
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )

    def _hear(self, event):
        request = event.request
        self.heard.put((str(request.AffectedSOPInstanceUID), request.EventTypeID, event.event_information))
        return 0x0000, None

    def next(self) -> tuple[str, int, str]:
        uid, kind, information = self.heard.get(timeout=PATIENCE_S)
        return uid, kind, str(information.get("ProcedureStepState", ""))

    def status(self) -> tuple[str, ...]:
        """The next event, which is an SCP Status Change."""
        uid, kind, information = self.heard.get(timeout=PATIENCE_S)
        assert (uid, kind) == (GLOBAL, 4)
        keywords = ("SCPStatus", "SubscriptionListStatus", "UnifiedProcedureStepListStatus")
        return tuple(str(information[keyword].value) for keyword in keywords if keyword in information)

    def stop(self) -> None:
        self._server.shutdown()


class Scu:
    """One association with every UPS class."""

    def __init__(self, association) -> None:
        self._association = association

    def create(self, uid: str, dataset: Dataset, syntax=PUSH):
        return self._association.send_n_create(dataset, syntax, uid, meta_uid=None)[0].Status

    def get(self, uid: str, tags=(), meta=PULL):
        status, dataset = self._association.send_n_get(list(tags), PUSH, uid, meta_uid=meta)
        return status.Status, dataset

    def set(self, uid: str, changes: Dataset):
        return self._association.send_n_set(changes, PUSH, uid, meta_uid=PULL)[0].Status

    def act(self, uid: str, action: int, meta=WATCH, **values):
        information = Dataset()
        for keyword, value in values.items():
            setattr(information, keyword, value)
        # an empty data set would be announced and never come
        return self._association.send_n_action(information or None, action, PUSH, uid, meta_uid=meta)[0].Status

    def state(self, uid: str, wanted: str, transaction: str = MINE):
        return self.act(uid, 1, PULL, ProcedureStepState=wanted, TransactionUID=transaction)

    def find(self, syntax=PULL, **keys):
        identifier = Dataset()
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        answers = list(self._association.send_c_find(identifier, syntax))
        assert answers[-1][0].Status == 0x0000, answers[-1][0]
        return [dataset for status, dataset in answers if status.Status == 0xFF00]


@pytest.fixture
def house(tmp_path):
    port = free_port()
    morning = House.on(
        tmp_path / "spool",
        dicom={"host": "127.0.0.1", "port": free_port()},
        subscribers=[{"ae_title": "READING_1", "host": "127.0.0.1", "port": port}],
    )
    yield morning
    morning.store.close()


@contextmanager
def asked(house):
    """A receiver as the agent makes it, and an association with it."""
    settings = house.settings
    scp = UpsScp(WorkItems(settings, house.store), frozenset(one.ae_title for one in settings.subscribers))
    receiver = Receiver(
        receive_settings(settings),
        lambda _: pytest.fail("no film"),
        services=Services(handlers=dict.fromkeys(SERVED, scp)),
    )
    receiver.start()
    entity = AE("PACS")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = PATIENCE_S
    for syntax in (PUSH, PULL, WATCH, QUERY):
        entity.add_requested_context(syntax, ImplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", settings.dicom.port, ae_title="FIRSTREAD")
    assert association.is_established and len(association.accepted_contexts) == 4
    try:
        yield Scu(association)
    finally:
        association.release()
        receiver.stop()


def test_an_item_is_found_claimed_described_and_completed(house) -> None:
    house.read("DOE^JOHN", 5, in_full=True, found={"Pneumothorax": 0.8})
    house.read("森^聡", 5)
    with asked(house) as scu:
        found = scu.find(
            SOPInstanceUID="", PatientName="", ScheduledProcedureStepPriority="", ProcedureStepState="SCHEDULED"
        )
        assert [str(one.PatientName) for one in found] == ["DOE^JOHN", "森^聡"]
        assert [one.ScheduledProcedureStepPriority for one in found] == ["HIGH", "MEDIUM"]
        assert len(scu.find(QUERY, PatientName="DOE*", SOPInstanceUID="")) == 1
        uid = found[0].SOPInstanceUID
        status, item = scu.get(uid)
        assert status == 0x0000 and item.ScheduledWorkitemCodeSequence[0].CodeMeaning == "Interpretation"
        assert len(item.InputInformationSequence) == 3
        assert len(item.UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence) == 2
        assert set(scu.get(uid, [0x00741000])[1].keys()) == {0x00080005, 0x00741000}
        assert scu.state(uid, "COMPLETED") == 0xC310
        assert scu.state(uid, "IN PROGRESS", "") == 0xC301
        assert scu.state(uid, "IN PROGRESS") == 0x0000
        assert scu.state(uid, "IN PROGRESS", OTHER) == 0xC302
        changes = read_json(PERFORMED)
        assert scu.set(uid, changes) == 0xC301
        changes.TransactionUID = OTHER
        assert scu.set(uid, changes) == 0xC301
        assert scu.state(uid, "COMPLETED") == 0xC304
        changes.TransactionUID = MINE
        assert scu.set(uid, changes) == 0x0000
        assert scu.state(uid, "COMPLETED", OTHER) == 0xC301
        assert scu.state(uid, "COMPLETED") == 0x0000
        assert scu.state(uid, "COMPLETED") == 0xB306
        assert scu.state(uid, "CANCELED") == 0xC300
        assert "TransactionUID" not in scu.get(uid)[1]
    with house.store.read() as connection:
        rows = connection.execute(entry.select().order_by(entry.c.id)).all()
    assert [row.state for row in rows] == ["reported", "open"] and rows[0].ended_by.startswith("ups PACS")


def test_what_others_create_and_cancel_over_dimse(house) -> None:
    with asked(house) as scu:
        assert scu.create("2.25.5", read_json(external())) == 0xB300
        assert scu.create("2.25.5", read_json(external())) == 0x0111
        wrong = read_json(external())
        wrong.ProcedureStepState = "IN PROGRESS"
        assert scu.create("2.25.6", wrong) == 0xC309
        del wrong.ProcedureStepLabel
        wrong.ProcedureStepState = "SCHEDULED"
        assert scu.create("2.25.6", wrong) == 0x0120
        assert scu.get("2.25.404", meta=WATCH)[0] == 0xC307
        assert scu.act("2.25.5", 2, PUSH, ReasonForCancellation="double") == 0x0000
        assert scu.act("2.25.5", 2, WATCH) == 0xB304
        item = scu.get("2.25.5")[1]
        assert item.ProcedureStepState == "CANCELED"
        assert item.ProcedureStepProgressInformationSequence[0].ReasonForCancellation == "double"
        assert scu.act("2.25.5", 1, WATCH, ProcedureStepState="IN PROGRESS") == 0x0123, "no action of UPS Watch"
        assert scu.act("2.25.5", 9, PULL) == 0x0123


def test_a_subscriber_is_told_over_dicom_in_order_and_again_when_it_was_away(house) -> None:
    port = house.settings.subscribers[0].port
    reporter = UpsReporter(house.settings, house.store)
    with asked(house) as scu:
        assert scu.act(GLOBAL, 3, ReceivingAE="STRANGER", DeletionLock="FALSE") == 0xC308
        assert scu.act(GLOBAL, 3, ReceivingAE="READING_1", DeletionLock="FALSE") == 0x0000
        scu.create("2.25.5", read_json(external()))
        scu.state("2.25.5", "IN PROGRESS")
        with pytest.raises(NotTold, match="no association with READING_1"):
            reporter.tell("READING_1")
        workstation = Workstation(port)
        try:
            assert reporter.tell("READING_1") == 2
            assert workstation.next() == ("2.25.5", 1, "SCHEDULED")
            assert workstation.next() == ("2.25.5", 1, "IN PROGRESS")
            assert scu.act("2.25.5", 2, ReasonForCancellation="double") == 0x0000
            reporter.tell("READING_1")
            uid, kind, information = workstation.heard.get(timeout=PATIENCE_S)
            assert (uid, kind) == ("2.25.5", 2)
            assert (information.RequestingAE, information.ReasonForCancellation) == ("PACS", "double")
            assert scu.act(GLOBAL, 5, ReceivingAE="READING_1") == 0x0000
            scu.create("2.25.6", read_json(external()))
            assert scu.act("2.25.5", 4, ReceivingAE="READING_1") == 0x0000
            scu.state("2.25.5", "CANCELED")
            assert reporter.tell("READING_1") == 0
            assert UpsReporter(house.settings, house.store).tell("READING_1") == 0, "nothing is told twice"
            keys = {"ScheduledProcedureStepPriority": "HIGH"}
            assert scu.act(FILTERED_GLOBAL, 3, ReceivingAE="READING_1", DeletionLock="TRUE", **keys) == 0x0000
            house.read("PLAIN", 5)
            assert reporter.tell("READING_1") == 0
            house.read("DOE^JOHN", 5, found={"Pneumothorax": 0.8})
            assert reporter.tell("READING_1") == 1, "it was not HIGH when it came, but it became so"
        finally:
            workstation.stop()


def test_a_global_subscriber_is_told_over_dicom_that_the_agent_goes_down_and_is_back(house) -> None:
    workstation = Workstation(house.settings.subscribers[0].port)
    book = RoleBook(house.settings)
    try:
        with asked(house) as scu:
            assert scu.act(GLOBAL, 3, ReceivingAE="READING_1", DeletionLock="FALSE") == 0x0000
        stop = threading.Event()
        reporter = UpsReporter(house.settings, house.store)
        reporter.start(stop)
        book.going_down()
        stop.set()
        reporter.join()
        assert workstation.status() == ("GOING DOWN",)
        book.begin(ROLES)
        assert UpsReporter(house.settings, house.store).tell("READING_1") == 1
        assert workstation.status() == ("RESTARTED", "WARM START", "WARM START")
    finally:
        book.close()
        workstation.stop()
