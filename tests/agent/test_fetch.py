"""Studies come back from the archive: through the same intake, whatever the archive does on the way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.agent.fetch import Archive, FetchFailed
from firstread.agent.replay import analyse_again
from firstread.agent.store import studies
from tests.agent.builders import Bench, chest_film
from tests.agent.ward import Ward
from tests.models.tiny import make_tiny_bundle
from tests.scripted_http import Play, ScriptedHttp, answer, raw

STUDY = "1.2.3"


def film_of(study: str = STUDY, sop: str = "1.2.3.1.7") -> bytes:
    dataset = chest_film()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, "1.2.3.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def study_of(*films: bytes, cut: int = 0) -> Play:
    boundary = uuid.uuid4().hex
    parts = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + film + b"\r\n" for film in films]
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    if cut:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        return raw(head + body[:-cut], hang_up=True)
    return answer(200, body, kind)


class Site(Bench):
    """An agent with an archive that answers as a test tells it."""

    def __init__(self, folder: Path, archive: ScriptedHttp) -> None:
        super().__init__(folder, archive={"url": archive.url})
        self.peer = archive
        self.waited: list[float] = []

    def fetch(self, study: str = STUDY):
        archive = Archive(self.settings, self.store, self.waited.append)
        try:
            return archive.fetch(study)
        finally:
            archive.close()

    def paths(self) -> list[str]:
        with self.store.read() as connection:
            row = studies.find(connection, STUDY)
            return [] if row is None else [one.path for one in studies.images_of(connection, row.id)]


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ScriptedHttp() as archive:
        found = Site(tmp_path / "spool", archive)
        yield found
        found.store.close()


def test_a_study_that_was_never_here_is_received_like_any_film(site: Site) -> None:
    site.peer.plays += [study_of(film_of(sop="1.2.3.1.7"), film_of(sop="1.2.3.1.8"))]
    found = site.fetch()
    assert (found.stored, found.refused) == (2, ())
    assert len(site.paths()) == 2 and all((site.settings.spool / path).exists() for path in site.paths())
    (asked,) = site.peer.asked
    assert asked.target == f"/studies/{STUDY}" and "transfer-syntax=*" in asked.headers["accept"]


def test_purged_films_come_back_as_they_were_and_can_be_replayed(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedHttp() as peer:
        ward = Ward(tmp_path / "spool", tiny_bundle, monkeypatch, archive={"url": peer.url})
        film = ward.ended_study(STUDY)
        held = film.read_bytes()
        ward.deliver_all()
        ward.at(31 * 86400.0)
        assert ward.care.retention() == 1 and not film.exists()
        peer.plays += [study_of(held)]
        archive = Archive(ward.settings, ward.store)
        assert archive.fetch(STUDY).stored == 1
        archive.close()
        with ward.store.read() as connection:
            row = studies.find(connection, STUDY)
            (image,) = studies.images_of(connection, row.id)
        assert (ward.settings.spool / image.path).read_bytes()[-1000:] == held[-1000:]
        assert row.revision == 1, "a film that comes back changes no result"
        (replayed,) = analyse_again(ward.store, [row], bundle=None, why="")
        assert replayed.done
        ward.store.close()


def test_replay_fetches_what_was_purged_first(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedHttp() as peer:
        ward = Ward(tmp_path / "spool", tiny_bundle, monkeypatch)
        film = ward.ended_study(STUDY)
        held = film.read_bytes()
        ward.deliver_all()
        ward.at(31 * 86400.0)
        assert ward.care.retention() == 1
        ward.store.close()
        config = tmp_path / "firstread.toml"
        config.write_text(f'[storage]\npath = "{ward.settings.spool}"\n[archive]\nurl = "{peer.url}"\n')
        peer.plays += [answer(404), study_of(held)]
        said = CliRunner().invoke(app, ["replay", STUDY, "-c", str(config)])
        assert "has no study" in said.output and "`firstread fetch`" in said.output
        said = CliRunner().invoke(app, ["replay", STUDY, "-c", str(config)])
        assert "images are analysed again" in said.output, said.output
        assert len(peer.asked) == 2


def test_a_busy_archive_is_waited_for_as_long_as_it_says(site: Site) -> None:
    site.peer.plays += [answer(503, Retry_After="7"), study_of(film_of())]
    assert site.fetch().stored == 1
    assert site.waited == [7.0]


def test_an_answer_that_breaks_off_is_asked_for_again_and_no_film_is_kept_twice(site: Site) -> None:
    both = film_of(sop="1.2.3.1.7"), film_of(sop="1.2.3.1.8")
    site.peer.plays += [study_of(*both, cut=2000), study_of(*both)]
    assert site.fetch().stored == 2
    assert len(site.paths()) == 2
    assert not list((site.settings.spool / "incoming").iterdir())


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (answer(404), "has no study"),
        (answer(401), "does not let us in"),
        (answer(400, "what?"), "HTTP 400"),
        (answer(200, "<html>", "text/html"), "is no study"),
        (answer(200, b"--x--", 'multipart/related; type="application/dicom"'), "is no study"),
    ],
)
def test_what_is_no_study_is_said_and_nothing_is_kept(site: Site, play: Play, words: str) -> None:
    site.peer.plays.append(play)
    with pytest.raises(FetchFailed, match=words):
        site.fetch()
    assert site.paths() == []
    assert site.waited == []


def test_an_archive_that_stays_away_is_given_up(site: Site) -> None:
    site.peer.otherwise = answer(503)
    with pytest.raises(FetchFailed, match="tried 3 times"):
        site.fetch()
    assert len(site.peer.asked) == 3


def test_films_of_another_study_are_not_taken(site: Site) -> None:
    site.peer.plays += [study_of(film_of(study="1.2.99"))]
    found = site.fetch()
    assert found.stored == 0 and len(found.refused) == 1
    assert site.paths() == []


def test_without_an_archive_the_command_says_what_to_set(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "spool")
    bench.store.close()
    config = tmp_path / "firstread.toml"
    config.write_text(f'[storage]\npath = "{bench.settings.spool}"\n')
    said = CliRunner().invoke(app, ["fetch", STUDY, "-c", str(config)])
    assert said.exit_code == 1 and "[archive] url" in said.output
    said = CliRunner().invoke(app, ["fetch", "../etc", "-c", str(config)])
    assert said.exit_code == 1
