"""A workstation asks what is held and fetches it: DCMTK's findscu, movescu, getscu; pynetdicom for the fine print."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import (
    DigitalXRayImageStorageForPresentation as DxStorage,
)
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PatientFind,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as Find,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as Get,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as Move,
)

from firstread.agent import querying
from firstread.agent.config_wire import receive_settings
from firstread.agent.dicom_services import dicom_services
from firstread.agent.store import events
from firstread.integration.dicom.receive import Receiver
from firstread.integration.dicom.requestor import DicomPeer
from firstread.integration.dicom.send import send_files
from tests.agent.builders import Bench, chest_film
from tests.integration.dicom_wire import data_set_of
from tests.peers import free_port, require_peer


class Archive:
    """An agent's receiver that holds a few films, and the workstation that may ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        peers = [{"ae_title": "WORKSTATION", "host": "127.0.0.1", "port": self.port}]
        self.bench = Bench(folder / "spool", None, peers=peers)
        services = dicom_services(self.bench.settings, self.bench.store, "test/receive/1")
        settings = replace(receive_settings(self.bench.settings), host="127.0.0.1", port=0)
        self.receiver = Receiver(settings, self.bench.intake.take, services=services)
        self.receiver.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    def keep(self, study: str, sop: str, series: str = "", syntax: str = ExplicitVRLittleEndian, **values: Any) -> Path:
        """A film is sent to it; answers with the file that was sent."""
        film = chest_film()
        film.StudyInstanceUID, film.SeriesInstanceUID = study, series or f"{study}.1"
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = sop
        for keyword, value in values.items():
            setattr(film, keyword, value)
        if syntax == RLELossless:
            film.compress(RLELossless, generate_instance_uid=False)
        path = self.folder / f"{sop}.dcm"
        film.save_as(path, enforce_file_format=True)
        ((_, outcome),) = send_files(DicomPeer("us", *self.address, "FIRSTREAD", "MODALITY"), [path])
        assert outcome.delivered
        return path

    def dcmtk(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        """What a program says; what it receives, movescu writes to its working folder."""
        command = [require_peer(program), "-v", "-S", "-aet", "WORKSTATION", "-aec", "FIRSTREAD", *arguments]
        command += ["127.0.0.1", str(self.address[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def find(self, folder: Path, *keys: str) -> list[Dataset]:
        """What findscu finds."""
        folder.mkdir()
        arguments = [part for key in keys for part in ("-k", key)]
        self.dcmtk("findscu", "-X", "-od", str(folder), *arguments)
        return [dcmread(path, force=True) for path in sorted(folder.iterdir())]

    def close(self) -> None:
        self.receiver.stop(2)
        self.bench.store.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    made = Archive(tmp_path_factory.mktemp("archive"))
    made.keep("1.2.3", "1.2.3.1.1", PatientName="PHANTOM^ANNA", PatientID="PH1", StudyDate="20260301")
    made.keep("1.2.3", "1.2.3.1.2", PatientName="PHANTOM^ANNA", PatientID="PH1", StudyDate="20260301", InstanceNumber=2)
    made.keep("1.2.3", "1.2.3.2.1", "1.2.3.2", PatientName="PHANTOM^ANNA", PatientID="PH1", StudyDate="20260301")
    made.keep(
        "1.2.4", "1.2.4.1.1", PatientName="MÜLLER^JÖRG", PatientID="PH2", StudyDate="20260215", AccessionNumber="A2"
    )
    made.keep("1.2.5", "1.2.5.1.1", syntax=RLELossless, PatientName="RUN^LENGTH", PatientID="PH3", StudyDate="20260101")
    yield made
    made.close()


def line(archive: Archive, *contexts: Any, calling: str = "WORKSTATION", **values: Any) -> Any:
    entity = AE(calling)
    for context in contexts:
        entity.add_requested_context(context)
    return entity.associate(*archive.address, ae_title="FIRSTREAD", **values)


def identifier(level: str, **keys: Any) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def test_findscu_finds_studies_by_patient_date_and_wildcard(archive: Archive, tmp_path: Path) -> None:
    keys = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=phantom^*", "StudyDate=20260201-", "PatientID")
    keys += ("ModalitiesInStudy", "NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries")
    (found,) = archive.find(tmp_path / "one", *keys)
    assert (found.StudyInstanceUID, found.PatientID, str(found.PatientName)) == ("1.2.3", "PH1", "PHANTOM^ANNA")
    assert (found.NumberOfStudyRelatedInstances, found.NumberOfStudyRelatedSeries) == (3, 2)
    assert found.ModalitiesInStudy == "DX" and found.RetrieveAETitle == "FIRSTREAD"
    assert found.InstanceAvailability == "ONLINE"
    (other,) = archive.find(tmp_path / "two", "QueryRetrieveLevel=STUDY", "AccessionNumber=A2", "PatientName")
    assert str(other.PatientName) == "MÜLLER^JÖRG" and other.SpecificCharacterSet == "ISO_IR 192"
    everything = archive.find(tmp_path / "all", "QueryRetrieveLevel=STUDY", "StudyInstanceUID")
    assert {one.StudyInstanceUID for one in everything} == {"1.2.3", "1.2.4", "1.2.5"}


def test_findscu_goes_down_to_series_and_images(archive: Archive, tmp_path: Path) -> None:
    series = archive.find(
        tmp_path / "series", "QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", "SeriesInstanceUID", "Modality=DX",
        "NumberOfSeriesRelatedInstances", "PatientID",
    )  # fmt: skip
    counts = {one.SeriesInstanceUID: one.NumberOfSeriesRelatedInstances for one in series}
    assert counts == {"1.2.3.1": 2, "1.2.3.2": 1} and {one.PatientID for one in series} == {"PH1"}
    images = archive.find(
        tmp_path / "images", "QueryRetrieveLevel=IMAGE", "StudyInstanceUID=1.2.3", "SeriesInstanceUID=1.2.3.1",
        "SOPInstanceUID", "InstanceNumber=2", "Rows",
    )  # fmt: skip
    assert [(one.SOPInstanceUID, one.InstanceNumber, one.Rows) for one in images] == [("1.2.3.1.2", 2, 160)]


def test_a_key_that_is_not_known_matches_everything_and_the_status_says_so(archive: Archive) -> None:
    association = line(archive, Find)
    asked = identifier("STUDY", StudyInstanceUID="1.2.3", OtherPatientNames="NOBODY")
    answers = list(association.send_c_find(asked, Find))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF01, 0x0000]
    assert answers[0][1].StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (identifier("PATIENT", PatientID="PH1"), "none of STUDY"),
        (identifier("SERIES", SeriesInstanceUID=""), "StudyInstanceUID must be one UID"),
        (identifier("IMAGE", StudyInstanceUID="1.2.3", SOPInstanceUID=""), "SeriesInstanceUID must be one UID"),
        (identifier("STUDY", StudyDate="yesterday"), "StudyDate"),
        (identifier(""), "none of STUDY"),
    ],
)
def test_an_identifier_that_breaks_the_model_is_answered_a900(archive: Archive, asked: Dataset, why: str) -> None:
    association = line(archive, Find)
    (answer,) = association.send_c_find(asked, Find)
    association.release()
    assert answer[0].Status == 0xA900 and why in answer[0].ErrorComment


def test_nobody_asks_who_is_not_named_and_the_patient_root_is_not_served(archive: Archive) -> None:
    stranger = line(archive, Find, DxStorage, calling="STRANGER")
    assert [context.abstract_syntax for context in stranger.accepted_contexts] == [DxStorage]
    stranger.release()
    known = line(archive, PatientFind, Find)
    assert [context.abstract_syntax for context in known.accepted_contexts] == [Find]
    known.release()


@pytest.mark.parametrize("cancel_after", [1, 40])
def test_a_query_ends_when_it_is_cancelled(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, cancel_after: int
) -> None:
    def endless(self: Any, caller: Any, request: Any) -> Iterator[dict[str, object]]:
        while True:
            yield {"StudyInstanceUID": "1.2.3"}

    services = archive.receiver.services
    assert services.query is not None
    endless_query = replace(services.query, find=lambda caller, request: endless(None, caller, request))
    monkeypatch.setattr(archive.receiver, "services", replace(services, query=endless_query))
    association = line(archive, Find)
    statuses = []
    for status, _ in association.send_c_find(identifier("STUDY", StudyInstanceUID=""), Find, msg_id=7):
        statuses.append(status.Status)
        if len(statuses) == cancel_after:
            association.send_c_cancel(7, query_model=Find)
    association.release()
    assert statuses[-1] == 0xFE00 and set(statuses[:-1]) == {0xFF00}


def test_a_query_that_matches_too_much_says_so(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(querying, "PAGE", 1)
    monkeypatch.setattr(querying, "MOST_MATCHES", 2)
    association = line(archive, Find)
    answers = [status for status, _ in association.send_c_find(identifier("STUDY", StudyInstanceUID=""), Find)]
    association.release()
    assert [status.Status for status in answers] == [0xFF00, 0xFF00, 0xA700]
    assert "narrow the query" in answers[-1].ErrorComment


def same_data_set(one: Path, other: Path) -> bool:
    return data_set_of(one) == data_set_of(other)


def test_movescu_has_a_study_sent_to_the_workstation_as_it_was_received(archive: Archive, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
    said = archive.dcmtk("movescu", "-d", "-aem", "WORKSTATION", "--port", str(archive.port), *keys, folder=inbox)
    assert "Success" in said and "1.2.3.1.1" in said
    received = {str(dcmread(path).SOPInstanceUID): path for path in inbox.iterdir()}
    assert set(received) == {"1.2.3.1.1", "1.2.3.1.2", "1.2.3.2.1"}
    assert all(same_data_set(path, archive.folder / f"{uid}.dcm") for uid, path in received.items())
    with archive.bench.store.read() as connection:
        (trail,) = events.newest(connection, "retrieved", 1)
    assert trail.detail == {"calling_ae_title": "WORKSTATION", "receiver": "WORKSTATION", "objects": 3}


@pytest.mark.parametrize(
    ("keys", "uids"),
    [
        (
            ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3\\1.2.4"],
            {"1.2.3.1.1", "1.2.3.1.2", "1.2.3.2.1", "1.2.4.1.1"},
        ),
        (["QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", "SeriesInstanceUID=1.2.3.2"], {"1.2.3.2.1"}),
        (
            [
                "QueryRetrieveLevel=IMAGE",
                "StudyInstanceUID=1.2.3",
                "SeriesInstanceUID=1.2.3.1",
                "SOPInstanceUID=1.2.3.1.2",
            ],
            {"1.2.3.1.2"},
        ),
        (["QueryRetrieveLevel=STUDY", "StudyInstanceUID=9.9.9"], set()),
    ],
    ids=["studies", "series", "image", "nothing"],
)  # fmt: skip
def test_getscu_fetches_on_the_same_association(
    archive: Archive, tmp_path: Path, keys: list[str], uids: set[str]
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    arguments = [part for key in keys for part in ("-k", key)]
    archive.dcmtk("getscu", "-od", str(inbox), "+B", *arguments)
    received = {str(dcmread(path).SOPInstanceUID): path for path in inbox.iterdir()}
    assert set(received) == uids
    for uid, path in received.items():
        assert dcmread(path).PixelData == dcmread(archive.folder / f"{uid}.dcm").PixelData


class Store:
    """What a getter or a storescp of pynetdicom stores, and how it answers."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.received: list[Dataset] = []
        self.originators: list[tuple[str, int]] = []
        self.on_store = lambda: None

    def __call__(self, event: Any) -> int:
        kept = event.dataset
        kept.file_meta = event.file_meta
        self.received.append(kept)
        request = event.request
        self.originators.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        self.on_store()
        return self.answers.pop(0) if self.answers else 0x0000


def get(
    archive: Archive, store: Store, syntaxes: list[str], asked: Dataset, **values: Any
) -> list[tuple[Dataset, Any]]:
    entity = AE("WORKSTATION")
    entity.add_requested_context(Get)
    entity.add_requested_context(DxStorage, syntaxes)
    association = entity.associate(
        *archive.address, ae_title="FIRSTREAD", ext_neg=[build_role(DxStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )  # fmt: skip
    answers = list(association.send_c_get(asked, Get, **values))
    association.release()
    return answers


def counts(status: Dataset) -> tuple[int, ...]:
    names = ("Completed", "Failed", "Warning")
    return tuple(getattr(status, f"NumberOf{name}Suboperations") for name in names)


def test_a_compressed_film_goes_out_as_it_is_where_that_is_taken_and_native_elsewhere(archive: Archive) -> None:
    asked = identifier("STUDY", StudyInstanceUID="1.2.5")
    original = dcmread(archive.folder / "1.2.5.1.1.dcm")
    as_stored = Store()
    ((status, _),) = get(archive, as_stored, [RLELossless], asked)
    assert status.Status == 0 and counts(status) == (1, 0, 0)
    assert as_stored.received[0].file_meta.TransferSyntaxUID == RLELossless
    assert as_stored.received[0].PixelData == original.PixelData
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        native = Store()
        ((status, _),) = get(archive, native, [syntax], asked)
        assert status.Status == 0
        assert native.received[0].file_meta.TransferSyntaxUID == syntax
        assert (native.received[0].pixel_array == original.pixel_array).all()
    assert not list((archive.bench.settings.spool / "incoming").iterdir()), "nothing is left of the conversion"


def test_what_fits_no_accepted_syntax_without_a_loss_is_a_failed_suboperation_with_its_reason(archive: Archive) -> None:
    store = Store()
    ((status, failed),) = get(archive, store, [JPEGBaseline8Bit], identifier("STUDY", StudyInstanceUID="1.2.5"))
    assert status.Status == 0xA702 and counts(status) == (0, 1, 0) and store.received == []
    assert "no context" in status.ErrorComment and failed.FailedSOPInstanceUIDList == "1.2.5.1.1"


def test_a_failed_suboperation_is_counted_and_named_and_the_others_go_on(archive: Archive) -> None:
    store = Store(0xA700, 0xB000, 0x0000)
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    answers = get(archive, store, [ExplicitVRLittleEndian], asked)
    assert [status.Status for status, _ in answers] == [0xFF00, 0xFF00, 0xB000]
    assert [status.NumberOfRemainingSuboperations for status, _ in answers[:2]] == [2, 1]
    assert counts(answers[-1][0]) == (1, 1, 1)
    assert answers[-1][1].FailedSOPInstanceUIDList == store.received[0].SOPInstanceUID


def test_a_film_whose_file_is_gone_is_a_failed_suboperation(archive: Archive, tmp_path: Path) -> None:
    archive.keep("1.2.6", "1.2.6.1.1")
    archive.keep("1.2.6", "1.2.6.1.2")
    newest = max((archive.bench.settings.spool / "films").rglob("*.dcm"), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    store = Store()
    answers = get(archive, store, [ExplicitVRLittleEndian], identifier("STUDY", StudyInstanceUID="1.2.6"))
    assert answers[-1][0].Status == 0xB000 and counts(answers[-1][0]) == (1, 1, 0)
    assert answers[-1][1].FailedSOPInstanceUIDList == "1.2.6.1.2"


def test_a_retrieval_ends_when_it_is_cancelled(archive: Archive) -> None:
    entity = AE("WORKSTATION")
    entity.add_requested_context(Get)
    entity.add_requested_context(DxStorage, ExplicitVRLittleEndian)
    store = Store()
    association = entity.associate(
        *archive.address, ae_title="FIRSTREAD", ext_neg=[build_role(DxStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )  # fmt: skip
    store.on_store = lambda: association.send_c_cancel(5, query_model=Get)
    answers = list(association.send_c_get(identifier("STUDY", StudyInstanceUID="1.2.3"), Get, msg_id=5))
    association.release()
    status = answers[-1][0]
    assert status.Status == 0xFE00 and status.NumberOfRemainingSuboperations >= 1
    assert 1 <= len(store.received) < 3


def move(archive: Archive, destination: str, **keys: Any) -> list[tuple[Dataset, Any]]:
    association = line(archive, Move)
    answers = list(association.send_c_move(identifier("STUDY", **keys), destination, Move, msg_id=11))
    association.release()
    return answers


def test_a_move_names_who_asked_and_goes_to_known_nodes_alone(archive: Archive) -> None:
    store = Store()
    entity = AE("WORKSTATION")
    entity.supported_contexts = StoragePresentationContexts
    server = entity.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        answers = move(archive, "WORKSTATION", StudyInstanceUID="1.2.4")
        assert [status.Status for status, _ in answers] == [0x0000] and counts(answers[0][0]) == (1, 0, 0)
        assert store.originators == [("WORKSTATION", 11)]
        ((status, _),) = move(archive, "ELSEWHERE", StudyInstanceUID="1.2.4")
        assert status.Status == 0xA801 and "[[peers]]" in status.ErrorComment and len(store.received) == 1
        ((status, _),) = move(archive, "WORKSTATION", StudyInstanceUID="")
        assert status.Status == 0xA900
        ((status, _),) = move(archive, "WORKSTATION", StudyInstanceUID="9.9.9")
        assert status.Status == 0x0000 and counts(status) == (0, 0, 0)
    finally:
        server.shutdown()


def test_a_move_to_a_node_that_is_away_fails_with_every_object_named(archive: Archive) -> None:
    ((status, failed),) = move(archive, "WORKSTATION", StudyInstanceUID="1.2.3")
    assert status.Status == 0xA702 and counts(status) == (0, 3, 0)
    assert len(failed.FailedSOPInstanceUIDList) == 3 and "no connection" in status.ErrorComment


def test_films_are_received_while_a_slow_workstation_fetches(archive: Archive) -> None:
    store = Store()
    arrived, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        arrived.set()
        assert go_on.wait(60)

    store.on_store = wait
    answers: list[Any] = []
    fetching = threading.Thread(
        target=lambda: answers.extend(
            get(archive, store, [ExplicitVRLittleEndian], identifier("STUDY", StudyInstanceUID="1.2.4"))
        )
    )
    fetching.start()
    assert arrived.wait(60)
    archive.keep("1.2.7", "1.2.7.1.1")
    go_on.set()
    fetching.join(60)
    assert answers[-1][0].Status == 0


def test_a_cancel_that_comes_too_late_ends_no_later_query(archive: Archive) -> None:
    association = line(archive, Find)
    asked = identifier("STUDY", StudyInstanceUID="1.2.3")
    for _ in range(2):
        assert [status.Status for status, _ in association.send_c_find(asked, Find, msg_id=1)] == [0xFF00, 0x0000]
        association.send_c_cancel(1, query_model=Find)
    association.release()
