"""Fetching by C-GET and C-MOVE: into the same intake, and nothing is said to be fetched that did not come."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    DigitalXRayImageStorageForPresentation,
    RTPlanStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from firstread.agent.archive_dimse import NO_TRIALS_BY_MOVE
from firstread.agent.archive_source import ArchiveAway
from firstread.agent.certificates import make_certificates
from firstread.agent.config import Settings
from firstread.agent.config_check import check
from firstread.agent.fetch import Archive, FetchFailed
from firstread.agent.store import studies, trials
from firstread.agent.store.studies import Trial
from firstread.agent.store.trials import Wanted
from firstread.integration.dicom.receive import Receiver
from firstread.integration.dicom.received import ReceiveSettings
from tests.agent.builders import Bench, moment
from tests.agent.test_fetch import film_of

STUDY = "1.2.3"


class Pacs:
    """An archive by pynetdicom, whose handlers a test may exchange."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.films: list[Dataset] = []
        self.said: list[Dataset] = []
        self.asked: list[Dataset] = []
        self.names = True
        self.find_status: int | None = None
        self.release = threading.Event()
        self.stall = False
        self.move_to: dict[str, tuple[str, int]] = {}
        self.entity = AE("ARCHIVE")
        for model in (
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelGet,
            StudyRootQueryRetrieveInformationModelMove,
            Verification,
        ):
            self.entity.add_supported_context(model)
        for sop_class in (DigitalXRayImageStorageForPresentation, RTPlanStorage):
            self.entity.add_supported_context(sop_class, scu_role=True, scp_role=True)
            self.entity.add_requested_context(sop_class)
        handlers = [(evt.EVT_C_FIND, self.find), (evt.EVT_C_GET, self.get), (evt.EVT_C_MOVE, self.move)]
        self.server = self.entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls
        )  # fmt: skip
        self.port = self.server.socket.getsockname()[1]

    def put(self, *films: bytes) -> None:
        self.films += [dcmread(BytesIO(film)) for film in films]

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        self.asked.append(asked)
        if self.find_status is not None:
            yield self.find_status, None
            return
        if self.said:
            yield from ((0xFF00, one) for one in self.said)
            return
        mine = [one for one in self.films if asked.get("StudyInstanceUID") in ("", None, one.StudyInstanceUID)]
        for uid in dict.fromkeys(str(one.StudyInstanceUID) for one in mine):
            match = Dataset()
            match.StudyInstanceUID = uid
            if "NumberOfStudyRelatedInstances" in asked and self.names:
                match.NumberOfStudyRelatedInstances = len([one for one in mine if one.StudyInstanceUID == uid])
            if "BodyPartExamined" in asked:
                match.BodyPartExamined = mine[0].get("BodyPartExamined")
            if "StudyDate" in asked:
                match.StudyDate, match.ModalitiesInStudy = mine[0].StudyDate, "DX"
            yield 0xFF00, match

    def get(self, event: Any) -> Iterator[Any]:
        if self.stall:
            self.release.wait(30)
        yield len(self.films)
        for one in self.films:
            yield 0xFF00, one

    def move(self, event: Any) -> Iterator[Any]:
        yield self.move_to.get(event.move_destination, (None, None))
        yield len(self.films)
        for one in self.films:
            yield 0xFF00, one

    def close(self) -> None:
        self.release.set()
        if self.server in self.entity._servers:
            self.server.shutdown()


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs()
    yield made
    made.close()


class Site(Bench):
    """An agent whose archive speaks DIMSE."""

    def __init__(self, folder: Path, pacs: Pacs, **archive: Any) -> None:
        place = {"type": "dimse", "host": "127.0.0.1", "port": pacs.port, "ae_title": "ARCHIVE", **archive}
        super().__init__(folder, archive=place, destinations=[], dicom={"host": "127.0.0.1"})
        self.waited: list[float] = []

    def archive(self) -> Archive:
        return Archive(self.settings, self.store, self.waited.append)

    def fetch(self, study: str = STUDY, trial: Trial | None = None) -> Any:
        return self.archive().fetch(study, trial)

    def paths(self, study: str = STUDY) -> list[str]:
        with self.store.read() as connection:
            row = studies.find(connection, study)
            return [] if row is None else [one.path for one in studies.images_of(connection, row.id)]

    def trial(self) -> Trial:
        with self.store.write() as connection:
            return trials.begin(connection, Wanted("20260201", "20260228"), moment(0)).trial


@pytest.fixture
def site(tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    made = Site(tmp_path / "spool", pacs)
    yield made
    made.store.close()


def test_a_study_comes_by_c_get_as_it_is_encoded(site: Site, pacs: Pacs) -> None:
    one, other = film_of(sop="1.2.3.1.7"), film_of(sop="1.2.3.1.8")
    pacs.put(one, other)
    found = site.fetch()
    assert (found.stored, found.refused) == (2, ())
    (first, _) = site.paths()
    assert (site.settings.spool / first).read_bytes().endswith(one[-10_000:])
    assert not list((site.settings.spool / "incoming").iterdir())
    assert site.fetch().stored == 2 and len(site.paths()) == 2, "taken once"


def test_a_trial_comes_by_c_get_as_one(site: Site, pacs: Pacs) -> None:
    pacs.put(film_of())
    trial = site.trial()
    assert site.fetch(trial=trial).stored == 1
    with site.store.read() as connection:
        assert studies.find(connection, STUDY).trial_run_id == trial.run_id


def test_studies_and_body_parts_are_found(site: Site, pacs: Pacs) -> None:
    pacs.put(film_of())
    archive = site.archive()
    assert archive.studies_of("20260301", "DX") == [STUDY]
    assert archive.studies_of("20260302", "DX") == [], "of another day than was asked for"
    assert archive.studies_of("20260301", "CR") == []
    assert archive.body_parts(STUDY) == ["CHEST"]
    assert {str(one.QueryRetrieveLevel) for one in pacs.asked} == {"STUDY", "SERIES"}


def test_a_sub_operation_that_failed_is_told(site: Site, pacs: Pacs) -> None:
    pacs.put(film_of())
    plan = dcmread(BytesIO(film_of(sop="1.2.3.1.9")))
    plan.SOPClassUID = plan.file_meta.MediaStorageSOPClassUID = RTPlanStorage
    pacs.films.append(plan)
    found = site.fetch()
    assert found.stored == 1 and len(found.refused) == 1 and "could not be sent" in found.refused[0]


def test_fewer_objects_than_the_archive_names_are_not_all(site: Site, pacs: Pacs) -> None:
    pacs.put(film_of())
    match = Dataset()
    match.StudyInstanceUID, match.NumberOfStudyRelatedInstances = STUDY, 3
    pacs.said = [match]
    assert site.fetch().refused == ("the archive names 3 objects and sent 1",)


def test_another_study_than_asked_is_refused(site: Site, pacs: Pacs) -> None:
    match = Dataset()
    match.StudyInstanceUID = STUDY
    pacs.said = [match]
    pacs.put(film_of(study="1.2.99"))
    found = site.fetch()
    assert found.stored == 0 and len(found.refused) == 1 and "differs from the one" in found.refused[0]
    assert site.paths("1.2.99") == site.paths() == []
    assert not list((site.settings.spool / "incoming").iterdir())


def test_a_study_that_is_not_there_is_said(site: Site) -> None:
    with pytest.raises(FetchFailed, match="has no study"):
        site.fetch()
    assert site.waited == []


@pytest.mark.parametrize(("status", "kind"), [(0xA700, ArchiveAway), (0xC001, FetchFailed), (0xA900, FetchFailed)])
def test_a_query_that_fails_is_said_with_its_status(
    site: Site, pacs: Pacs, status: int, kind: type[FetchFailed]
) -> None:
    pacs.find_status = status
    with pytest.raises(FetchFailed, match=f"{status:04X}") as raised:
        site.fetch()
    assert type(raised.value) is kind and len(site.waited) == (2 if kind is ArchiveAway else 0)


def test_an_archive_that_falls_silent_is_given_up(tmp_path: Path, pacs: Pacs) -> None:
    site = Site(tmp_path / "spool", pacs, dimse_timeout_s=0.5)
    pacs.put(film_of())
    pacs.stall = True
    with pytest.raises(ArchiveAway, match="did not answer in time"):
        site.fetch()
    assert site.paths() == []
    site.store.close()


def test_an_archive_that_is_away_is_said(tmp_path: Path, pacs: Pacs) -> None:
    site = Site(tmp_path / "spool", pacs)
    pacs.close()
    with pytest.raises(ArchiveAway, match="no connection"):
        site.fetch()
    site.store.close()


def test_a_study_comes_over_tls_where_both_sides_show_a_certificate(tmp_path: Path) -> None:
    made = tmp_path / "certs"
    make_certificates(made, ("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "authority.pem")
    context.load_cert_chain(made / "server.pem", made / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    pacs = Pacs(context)
    trusted = {"tls": True, "tls_ca_file": str(made / "authority.pem")}
    shown = {"tls_certificate_file": str(made / "client.pem"), "tls_key_file": str(made / "client.key")}
    site = Site(tmp_path / "spool", pacs, **trusted, **shown)
    nobody, stranger = (Site(tmp_path / name, pacs, **more) for name, more in (("a", trusted), ("b", {"tls": True})))
    try:
        pacs.put(film_of())
        assert site.fetch().stored == 1 and len(site.paths()) == 1
        for one in (nobody, stranger, Site(tmp_path / "c", pacs)):
            with pytest.raises(FetchFailed):
                one.fetch()
            assert one.paths() == []
            one.store.close()
    finally:
        site.store.close()
        pacs.close()


def test_an_archive_without_c_get_says_what_to_do(site: Site, pacs: Pacs) -> None:
    pacs.put(film_of())
    get = StudyRootQueryRetrieveInformationModelGet
    pacs.server.contexts = [one for one in pacs.server.contexts if one.abstract_syntax != get]
    with pytest.raises(FetchFailed, match="C-GET"):
        site.fetch()


def test_a_study_comes_by_c_move_through_the_receiver(tmp_path: Path, pacs: Pacs) -> None:
    site = Site(tmp_path / "spool", pacs, retrieve="move")
    receive = ReceiveSettings(ae_title="FIRSTREAD", host="127.0.0.1", port=0, spool=site.settings.spool / "incoming")
    receiver = Receiver(receive, site.intake.take)
    receiver.start()
    try:
        pacs.put(film_of(sop="1.2.3.1.7"), film_of(sop="1.2.3.1.8"))
        with pytest.raises(FetchFailed, match="A801"):
            site.fetch()
        pacs.move_to["FIRSTREAD"] = receiver.address
        assert site.fetch().stored == 2 and len(site.paths()) == 2
        with pytest.raises(FetchFailed) as raised:
            site.fetch(trial=site.trial())
        assert str(raised.value) == NO_TRIALS_BY_MOVE
    finally:
        receiver.stop()
        site.store.close()


def test_config_check_asks_it(site: Site, pacs: Pacs) -> None:
    (line,) = [one for one in check(site.settings) if one.subject == "[archive]"]
    assert line.ok and "answers to C-FIND" in line.text
    pacs.find_status = 0xA900
    (line,) = [one for one in check(site.settings) if one.subject == "[archive]"]
    assert "A900" in line.text


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        ({"type": "dimse"}, "needs host, port and ae_title"),
        ({"type": "dimse", "host": "a", "port": 104}, "needs host, port and ae_title"),
        ({"type": "dimse", "host": "a", "port": 104, "ae_title": "A", "url": "https://a"}, "go with type"),
        ({"host": "a", "port": 104, "ae_title": "A"}, "go with type"),
        ({"type": "dimse", "host": "a", "port": 104, "ae_title": "A", "tls_ca_file": "/ca"}, "tls is false"),
        ({"url": "https://a", "tls": True}, "go with type"),
    ],
)
def test_settings_that_mix_the_ways_are_refused(archive: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings.model_validate({"archive": archive})
