"""Runs over an archive: listed by QIDO-RS, fetched at a pace, resumed after any end, and told truly."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from firstread.agent.archive_run import (
    AWAY_S,
    ArchiveRun,
    Pace,
    Progress,
    RunInProgress,
    RunStopped,
    alone,
    days,
    wait_for_results,
)
from firstread.agent.cli import app
from firstread.agent.fetch import Archive
from firstread.agent.store import studies, trials
from firstread.agent.store.archive_tables import ArchiveState
from firstread.agent.store.trials import Run, Wanted
from tests.agent.builders import moment
from tests.agent.test_fetch import film_of, study_of
from tests.agent.ward import Ward
from tests.models.tiny import make_tiny_bundle
from tests.scripted_http import Asked, Play, ScriptedHttp, answer

TWO_DAYS = Wanted("20260201", "20260202", ("DX",))


class Shelf(ScriptedHttp):
    """An archive with studies on a shelf: {day: {uid: films}}; ``plays`` go before what is on it."""

    def __init__(self) -> None:
        super().__init__(otherwise=self.serve)
        self.held: dict[str, dict[str, list[bytes]]] = {}
        self.body_parts: dict[str, str] = {}
        self.page = 100
        self.on_fetch: dict[str, Play] = {}

    def put(self, day: str, *uids: str) -> None:
        for uid in uids:
            self.held.setdefault(day, {})[uid] = [film_of(uid, f"{uid}.1.1")]

    def serve(self, connection: socket.socket, asked: Asked) -> None:
        """Answers as an archive would."""
        address = urlsplit(asked.target)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        series = re.fullmatch(r"/studies/([0-9.]+)/series", address.path)
        if address.path == "/studies":
            day, offset = query["StudyDate"], int(query["offset"])
            assert query["ModalitiesInStudy"] in ("DX", "CR")
            uids = list(self.held.get(day, {})) if query["ModalitiesInStudy"] == "DX" else []
            page = uids[offset : offset + min(self.page, int(query["limit"]))]
            found = [
                {"0020000D": {"vr": "UI", "Value": [uid]}, "00080020": {"vr": "DA", "Value": [day]}} for uid in page
            ]
            play = answer(200, json.dumps(found), "application/dicom+json") if found else answer(204)
        elif series:
            said = self.body_parts.get(series[1])
            match = {"00180015": {"vr": "CS", "Value": [said]}} if said else {}
            play = answer(200, json.dumps([match]), "application/dicom+json")
        else:
            uid = address.path.removeprefix("/studies/")
            films = next((one[uid] for one in self.held.values() if uid in one), None)
            play = self.on_fetch.get(uid) or (answer(404) if films is None else study_of(*films))
        play(connection, asked)

    def fetched(self) -> list[str]:
        """The studies that were asked for, in order."""
        paths = [urlsplit(one.target).path for one in self.asked]
        return [path.removeprefix("/studies/") for path in paths if re.fullmatch(r"/studies/[0-9.]+", path)]


class Site(Ward):
    """An agent with such an archive; waiting takes no time and is written down."""

    def set_up(self, peer: Shelf) -> Site:
        self.peer = peer
        self.waited: list[float] = []
        self.told: list[Progress] = []
        return self

    def begin(self, wanted: Wanted = TWO_DAYS) -> Run:
        with self.store.write() as connection:
            return trials.begin(connection, wanted, moment(0))

    def work(self, run: Run, **pace: Any) -> None:
        archive = Archive(self.settings, self.store, self.waited.append)
        try:
            ArchiveRun(
                self.store, archive, run, Pace(**{"per_hour": 3600, "most_waiting": 1000, **pace}),
                spool=self.settings.spool,
                storage=self.settings.storage, wait=self.pass_time, tell=self.told.append,
            ).work()  # fmt: skip
        finally:
            archive.close()

    def pass_time(self, seconds: float) -> None:
        self.waited.append(seconds)

    def counts(self, run: Run) -> dict[str, int]:
        with self.store.read() as connection:
            return {state: count for state, count in trials.counts(connection, run.id).items() if count}

    def failures(self, run: Run) -> dict[str, str]:
        with self.store.read() as connection:
            return dict(trials.reasons(connection, run.id, ArchiveState.FAILED))

    def row(self, uid: str) -> Any:
        with self.store.read() as connection:
            return studies.find(connection, uid)

    def run_now(self, run: Run) -> Run:
        with self.store.read() as connection:
            found = trials.find(connection, run.id)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def site(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with Shelf() as peer:
        made = Site(tmp_path / "spool", tiny_bundle, monkeypatch, archive={"url": peer.url}).set_up(peer)
        yield made
        made.store.close()


def test_every_study_of_the_days_is_fetched_as_a_trial(site: Site) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2")
    site.peer.put("20260202", "1.2.3")
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"fetched": 3} and site.peer.fetched() == ["1.2.1", "1.2.2", "1.2.3"]
    assert {site.row(uid).trial_run_id for uid in site.peer.fetched()} == {run.id}
    assert site.run_now(run).ended_at is not None
    assert (site.told[-1].done, site.told[-1].total, site.told[-1].words) == (3, 3, "done")


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_day_is_asked_for_page_by_page_however_small_the_pages_are(site: Site, page: int) -> None:
    site.peer.page = page
    site.peer.put("20260201", "1.2.1", "1.2.2", "1.2.3")
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"fetched": 3}


def test_an_archive_that_knows_no_pages_and_no_filters_is_not_asked_for_ever(site: Site) -> None:
    everything = [
        {"0020000D": {"vr": "UI", "Value": ["1.2.1"]}, "00080020": {"vr": "DA", "Value": ["20260201"]}},
        {"0020000D": {"vr": "UI", "Value": ["1.2.8"]}, "00080020": {"vr": "DA", "Value": ["20250101"]}},
        {
            "0020000D": {"vr": "UI", "Value": ["1.2.9"]}, "00080020": {"vr": "DA", "Value": ["20260201"]},
            "00080061": {"vr": "CS", "Value": ["CT"]},
        },
        {"0020000D": {"vr": "UI", "Value": ["../../etc"]}},
    ]  # fmt: skip
    site.peer.put("20260201", "1.2.1")
    site.peer.plays += [answer(200, json.dumps(everything), "application/dicom+json")] * 3
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"fetched": 1} and site.peer.fetched() == ["1.2.1"]


def test_no_more_than_the_limit_is_listed(site: Site) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2")
    site.peer.put("20260202", "1.2.3")
    run = site.begin(Wanted("20260201", "20260202", ("DX",), most=1))
    site.work(run)
    assert site.counts(run) == {"fetched": 1}
    assert site.run_now(run).ended_at is not None


def test_other_body_parts_are_skipped_and_what_says_none_is_taken(site: Site) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2", "1.2.3")
    site.peer.body_parts = {"1.2.1": "KNEE", "1.2.2": "chest"}
    run = site.begin(Wanted("20260201", "20260202", ("DX",), "CHEST"))
    site.work(run)
    assert site.counts(run) == {"fetched": 2, "skipped": 1} and site.peer.fetched() == ["1.2.2", "1.2.3"]


def test_a_study_that_was_really_sent_is_not_even_asked_for(site: Site) -> None:
    site.ended_study("1.2.1")
    before = site.row("1.2.1")
    site.peer.put("20260201", "1.2.1")
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"here": 1} and site.peer.fetched() == []
    assert site.row("1.2.1") == before


def test_a_study_that_is_sent_while_it_is_fetched_is_no_trial(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    whole = study_of(*site.peer.held["20260201"]["1.2.1"])

    def sent_meanwhile(connection: socket.socket, asked: Asked) -> None:
        site.intake.take(site.arrive(study="1.2.1", sop="1.2.1.1.1"))
        whole(connection, asked)

    site.peer.on_fetch["1.2.1"] = sent_meanwhile
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"here": 1} and site.row("1.2.1").trial_run_id is None


def test_what_is_sent_after_it_was_fetched_goes_out(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    run = site.begin()
    site.work(run)
    site.at(100)
    site.intake.take(site.arrive(study="1.2.1", sop="1.2.1.1.1"))
    for claim in site.claim(moment(101)):
        site.end_analysed(claim, moment(102))
    site.at(200)
    assert site.summing_up.run_once() == 1
    with site.store.read() as connection:
        (made,) = studies.results_of(connection, site.row("1.2.1").id)
    assert made.sent


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (answer(404), "has no study"),
        (answer(400, "what?"), "HTTP 400"),
        (study_of(film_of("1.2.99")), "not taken: 1.2.3.1.7: Study Instance UID differs"),
        (study_of(film_of("1.2.1", "1.2.1.1.1"), film_of("1.2.99")), "1 objects were not taken"),
        (answer(200, "<html>", "text/html"), "is no study"),
    ],
    ids=["gone", "refused", "another study", "one of another study", "no study"],
)
def test_what_does_not_come_in_full_is_never_said_to_be_fetched(site: Site, play: Play, words: str) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2")
    site.peer.on_fetch["1.2.1"] = play
    run = site.begin()
    site.work(run)
    assert site.counts(run) == {"failed": 1, "fetched": 1}
    assert words in site.failures(run)["1.2.1"]
    assert site.row("1.2.99") is None


def test_an_answer_of_which_half_is_lost_is_asked_for_again(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    both = film_of("1.2.1", "1.2.1.1.1"), film_of("1.2.1", "1.2.1.1.2")
    site.peer.on_fetch["1.2.1"] = study_of(*both, cut=2000)
    run = site.begin()
    with pytest.raises(RunStopped, match="tried 3 times"):
        site.work(run)
    assert site.counts(run) == {"waiting": 1}
    site.peer.on_fetch["1.2.1"] = study_of(*both)
    site.work(site.run_now(run))
    assert site.counts(run) == {"fetched": 1}
    with site.store.read() as connection:
        assert len(studies.images_of(connection, site.row("1.2.1").id)) == 2


def test_a_busy_archive_is_left_alone_for_longer_each_time_and_then_the_run_waits(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    site.peer.on_fetch["1.2.1"] = answer(503, Retry_After="7")
    run = site.begin()
    with pytest.raises(RunStopped, match="HTTP 503"):
        site.work(run)
    assert [one for one in site.waited if one >= 60] == list(AWAY_S)
    assert site.waited.count(7.0) == 2 * (len(AWAY_S) + 1)
    assert site.counts(run) == {"waiting": 1} and site.run_now(run).ended_at is None


def test_an_archive_that_lets_us_in_no_more_ends_the_run_not_every_study(site: Site) -> None:
    site.peer.put("20260201", *(f"1.2.{number}" for number in range(1, 20)))
    site.peer.on_fetch = {f"1.2.{number}": answer(403) for number in range(1, 20)}
    run = site.begin()
    with pytest.raises(RunStopped, match=r"10 studies in a row.*does not let us in"):
        site.work(run)
    assert site.counts(run) == {"failed": 10, "waiting": 9}
    site.peer.on_fetch = {}
    with site.store.write() as connection:
        assert trials.resume(connection, run.id) == 10
    site.work(site.run_now(run))
    assert site.counts(run) == {"fetched": 19}


def test_a_search_that_is_refused_stops_the_run_before_it_fetches(site: Site) -> None:
    site.peer.plays += [answer(400, "no such attribute")]
    run = site.begin()
    with pytest.raises(RunStopped, match="HTTP 400"):
        site.work(run)
    site.peer.put("20260201", "1.2.1")
    site.work(site.run_now(run))
    assert site.counts(run) == {"fetched": 1}


def test_a_run_that_was_killed_goes_on_where_it_was(site: Site) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2")

    class Killed(BaseException):
        pass

    run = site.begin()
    pause = site.pass_time

    def die(seconds: float) -> None:
        pause(seconds)
        if site.peer.fetched() == ["1.2.1"]:
            raise Killed

    site.pass_time = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        site.work(run)
    assert site.counts(run) == {"fetched": 1, "waiting": 1}
    site.pass_time = pause  # type: ignore[method-assign]
    searches = len(site.peer.asked)
    site.work(site.run_now(run))
    assert site.counts(run) == {"fetched": 2}
    assert all(urlsplit(one.target).path != "/studies" for one in site.peer.asked[searches:]), "listed once"


def test_the_archive_is_asked_no_oftener_than_said(site: Site) -> None:
    site.peer.put("20260201", "1.2.1", "1.2.2", "1.2.3")
    site.work(site.begin(), per_hour=60)
    paces = [one for one in site.waited if one > 30]
    assert len(paces) == 2 and all(50 < one <= 60 for one in paces)


def test_nothing_is_fetched_while_films_wait(site: Site) -> None:
    site.receive(study="1.2.99", sop="1.2.99.1")
    site.receive(study="1.2.99", sop="1.2.99.2")
    site.peer.put("20260201", "1.2.1")

    def analysed(seconds: float) -> None:
        site.waited.append(seconds)
        if site.told[-1].words == "more than 1 films wait to be analysed":
            assert site.peer.fetched() == []
            site.claim(moment(1))

    site.pass_time = analysed  # type: ignore[method-assign]
    run = site.begin()
    site.work(run, most_waiting=1)
    assert any("films wait" in one.words for one in site.told)
    assert site.counts(run) == {"fetched": 1}


def test_a_second_run_reads_what_lies_here_without_asking_for_it(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    site.work(site.begin())
    second = site.begin(Wanted("20260201", "20260202", ("DX",), bundle="/elsewhere/new"))
    site.work(second)
    assert site.counts(second) == {"fetched": 1} and site.peer.fetched() == ["1.2.1"]
    (claim,) = site.claim(moment(1))
    assert claim.bundle == "/elsewhere/new" and site.row("1.2.1").trial_run_id == second.id


@pytest.mark.parametrize("storage", [{"reserve_mb": 1 << 40}, {"reserve_mb": 0, "max_disk_percent": 0.001}])
def test_a_full_disk_stops_the_run(site: Site, storage: dict[str, Any]) -> None:
    site.peer.put("20260201", "1.2.1")
    archive = Archive(site.settings, site.store)
    full = site.settings.storage.model_copy(update=storage)
    work = ArchiveRun(site.store, archive, site.begin(), Pace(), spool=site.settings.spool, storage=full)
    with pytest.raises(RunStopped, match="disk"):
        work.work()
    archive.close()
    assert site.peer.fetched() == []


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(RunInProgress), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_days() -> None:
    assert days("20260227", "20260301") == ["20260227", "20260228", "20260301"]
    for wrong in (("20260301", "20260227"), ("2026-02-27", "20260301"), ("20260230", "20260301")):
        with pytest.raises(ValueError):
            days(*wrong)


def test_fetching_a_trial_by_name_leaves_it_one(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    run = site.begin()
    site.work(run)
    site.peer.held["20260201"]["1.2.1"].append(film_of("1.2.1", "1.2.1.1.2"))
    archive = Archive(site.settings, site.store)
    assert archive.fetch("1.2.1").stored == 2
    archive.close()
    assert site.row("1.2.1").trial_run_id == run.id


def test_results_are_waited_for_until_nothing_moves(site: Site) -> None:
    site.peer.put("20260201", "1.2.1")
    run = site.begin()
    site.work(run)
    looks: list[float] = []
    assert wait_for_results(site.store, run.id, site.told.append, still_s=5, wait=looks.append) == 1
    assert len(looks) == 6 and site.told[-1].words == "waits for the results"

    def analysed(_: float) -> None:
        for claim in site.claim(moment(1)):
            site.end_analysed(claim, moment(2))
        site.at(100)
        site.summing_up.run_once()

    assert wait_for_results(site.store, run.id, site.told.append, wait=analysed) == 0


# The commands


@pytest.fixture
def config(site: Site, tmp_path: Path) -> Path:
    path = tmp_path / "firstread.toml"
    spool, bundle = site.settings.spool, site.settings.analysis.bundle
    path.write_text(
        f'[storage]\npath = "{spool}"\nreserve_mb = 0\n[archive]\nurl = "{site.peer.url}"\n'
        f'[analysis]\nbundle = "{bundle}"\n'
    )
    return path


def say(config: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["archive", *words, "-c", str(config)])


ANALYSE = ("analyse", "--from", "20260201", "--to", "20260202", "--per-hour", "36000")


def test_the_command_fetches_and_the_csv_tells_of_every_study(
    site: Site, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstread.agent.archive_run.wait_for_results", lambda *_: 0)
    site.ended_study("1.2.1")
    site.peer.put("20260201", "1.2.1", "1.2.2", "1.2.5", "1.2.4")
    site.peer.on_fetch["1.2.5"] = answer(404)
    said = say(config, *ANALYSE)
    assert said.exit_code == 1 and "has no study ..." in said.output, said.output
    site.at(100)
    (first, _) = site.claim(moment(100))
    assert site.end_analysed(first, moment(101), Pneumothorax=0.75)
    site.at(200)
    assert site.summing_up.run_once() == 1
    rows = {row["study_instance_uid"]: row for row in csv.DictReader(io.StringIO(say(config, "results", "1").stdout))}
    assert set(rows) == {"1.2.1", "1.2.2", "1.2.5", "1.2.4"}
    assert rows["1.2.2"]["Pneumothorax"] == "0.750000" and rows["1.2.2"]["outcome"] == "analysed"
    assert rows["1.2.2"]["sop_instance_uid"] == "1.2.2.1.1" and rows["1.2.2"]["model"] == "test 1"
    assert "really sent" in rows["1.2.1"]["outcome"] and "not fetched" in rows["1.2.5"]["outcome"]
    assert rows["1.2.4"]["outcome"].startswith("no result yet")
    site.peer.on_fetch = {}
    said = say(config, "analyse", "--resume", "--per-hour", "36000")
    assert said.exit_code == 0 and "asks again for 1" in said.output, said.output
    assert "3 fetched" in say(config, "runs").stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("analyse",), 2, "say which days"),
        (("analyse", "--from", "20260202", "--to", "20260201"), 2, "lies before"),
        (("analyse", "--from", "yesterday", "--to", "20260201"), 2, "is not a day"),
        (("analyse", "--resume", "--from", "20260201"), 2, "leave the other choices away"),
        (("analyse", "--resume"), 1, "no such run"),
        (("results", "7"), 1, "no run 7"),
        ((*ANALYSE, "--bundle", "/nowhere"), 1, "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(
    site: Site, config: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    said = say(config, *words)
    assert (said.exit_code, sentence in said.output) == (code, True), said.output


def test_a_run_that_is_interrupted_says_how_it_goes_on(
    site: Site, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: ArchiveRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ArchiveRun, "work", interrupted)
    said = say(config, *ANALYSE)
    assert said.exit_code == 1 and "interrupted" in said.output and "--resume" in said.output


def test_two_commands_do_not_ask_the_archive_at_once(site: Site, config: Path) -> None:
    with alone(site.settings.spool):
        said = say(config, *ANALYSE)
    assert said.exit_code == 3 and "another run" in said.output and site.peer.asked == []
