"""Trials: what a run over the archive finds never leaves, and what is really sent is a study like any other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from firstread.agent import care as care_module
from firstread.agent.analyse import prior_study
from firstread.agent.care import Care
from firstread.agent.cli import app
from firstread.agent.intake import Intake, NotWanted
from firstread.agent.replay import analyse_again, deliver_again
from firstread.agent.store import deliveries, holdings, images, reading_list, results, studies, trials
from firstread.agent.store.reading_items import make_missing
from firstread.agent.store.studies import Trial
from firstread.agent.store.tables import artifact, delivery, entry, event, result
from firstread.agent.store.trials import Wanted
from firstread.agent.store.work_tables import work_item
from firstread.agent.worklist.inbox import Inbox
from firstread.integration.dicom.received import ReceivedInstance
from firstread.models.prediction import Priority
from tests.agent.builders import GSPS, moment
from tests.agent.test_worklist_inbox import order
from tests.agent.ward import DAY, Ward
from tests.models.tiny import make_tiny_bundle

STUDY = "1.2.3"
LEAVES = (result, artifact, delivery, entry, work_item)
"""Whatever can be read outside is made of these."""


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


class Trials(Ward):
    """A ward with a reading list, and a run over the archive."""

    run: Trial

    def begin(self, bundle: str | None = None) -> Trial:
        with self.store.write() as connection:
            return trials.begin(connection, Wanted("20260201", "20260228", bundle=bundle), moment(0)).trial

    def fetch(self, trial: Trial, received: ReceivedInstance | None = None, **values: Any) -> ReceivedInstance:
        """A film comes from the archive."""
        received = received or self.arrive(**values)
        Intake(self.settings, self.store, self.site_uid, trial).take(received)
        return received

    def analyse(self, seconds: float, **probabilities: float) -> None:
        for claim in self.claim(moment(seconds)):
            assert self.end_analysed(claim, moment(seconds + 1), **probabilities)

    def sum_up(self, seconds: float) -> int:
        self.at(seconds)
        return self.summing_up.run_once()

    def tried(self, uid: str = STUDY, seconds: float = 0, trial: Trial | None = None, **probabilities: float) -> None:
        """A study of the archive is fetched, analysed and summed up."""
        self.at(seconds)
        self.fetch(trial or self.run, study=uid, sop=f"{uid}.1.1", series=f"{uid}.1")
        self.analyse(seconds, **probabilities)
        assert self.sum_up(seconds + 20) == 1

    def same_film(self, uid: str = STUDY) -> ReceivedInstance:
        return self.arrive(study=uid, sop=f"{uid}.1.1", series=f"{uid}.1", calling="CR_ROOM_1")

    def row(self, uid: str = STUDY) -> Any:
        with self.store.read() as connection:
            return studies.find(connection, uid)

    def outside(self) -> dict[str, int]:
        """Rows of what can be seen outside."""
        with self.store.read() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in LEAVES
            }

    def trail(self, uid: str = STUDY) -> list[str]:
        with self.store.read() as connection:
            query = select(event.c.kind).where(event.c.study_id == self.row(uid).id).order_by(event.c.id)
            return list(connection.execute(query).scalars())

    def newest(self, uid: str = STUDY) -> Any:
        with self.store.read() as connection:
            return studies.results_of(connection, self.row(uid).id)[-1]


@pytest.fixture
def ward(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    made = Trials(
        tmp_path / "spool",
        tiny_bundle,
        monkeypatch,
        worklist={"enabled": True},
        study={"max_age_days": 7},
        triage={"use_experimental": True, "findings": {"Pneumothorax": {"threshold": 0.6, "priority": "STAT"}}},
    )
    made.run = made.begin()
    yield made
    made.store.close()


def test_nothing_of_a_trial_is_to_be_seen_outside(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    assert ward.outside() == dict.fromkeys((table.name for table in LEAVES), 0)
    row = ward.row()
    assert (row.state, row.trial_run_id) == ("analysed", ward.run.run_id)
    with ward.store.read() as connection:
        (found,) = trials.results_of(connection, ward.run.run_id)
    assert found.assessment.priority is Priority.STAT and found.predictions[0].probabilities["Pneumothorax"] == 0.99


def test_a_study_that_was_really_sent_is_no_trial(ward: Trials) -> None:
    ward.ended_study(STUDY, Pneumothorax=0.99)
    before, row = ward.outside(), ward.row()
    again = ward.arrive(study=STUDY, sop="1.2.3.1.77")
    with pytest.raises(NotWanted, match="really sent"):
        ward.fetch(ward.run, again)
    assert ward.row() == row and ward.outside() == before
    assert before["result"] == before["worklist_entry"] == before["work_item"] == 1 and before["delivery"] > 1
    assert not list((ward.settings.spool / "films").rglob("*.part"))
    with ward.store.read() as connection:
        assert images.newest_version(connection, "1.2.3.1.77") is None


def test_a_run_takes_no_film_from_another_study(ward: Trials) -> None:
    ward.ended_study(STUDY)
    with ward.store.read() as connection:
        (film,) = studies.images_of(connection, ward.row().id)
    with pytest.raises(NotWanted, match="another study"):
        ward.fetch(ward.run, study="1.2.99", sop=film.sop_instance_uid, PatientID="OTHER")
    assert ward.row("1.2.99") is None
    with ward.store.read() as connection:
        assert studies.images_of(connection, ward.row().id) == [film]


@pytest.mark.parametrize("new_film", [False, True], ids=["the same film", "another film"])
def test_a_trial_that_is_really_sent_is_a_study_like_any_other(ward: Trials, new_film: bool) -> None:
    ward.tried(Pneumothorax=0.99)
    ward.at(100)
    ward.intake.take(ward.arrive(study=STUDY, sop="1.2.3.1.2", calling="CR_ROOM_1") if new_film else ward.same_film())
    row = ward.row()
    assert (row.state, row.revision, row.trial_run_id, row.calling_ae_title) == ("receiving", 1, None, "CR_ROOM_1")
    assert row.received_at == moment(100).at
    assert ward.outside() | {"worklist_entry": 1, "work_item": 1} == ward.outside()
    ward.analyse(101, Pneumothorax=0.1)
    assert ward.sum_up(130) == 1
    once, newest = ward.outside(), ward.newest()
    ward.ended_study("1.2.4", seconds=200)
    assert ward.outside() == {name: 2 * count for name, count in once.items()}, "as of a study that was no trial"
    assert newest.sent and newest.revision == 1
    assert newest.priority == Priority.ROUTINE, "what a trial found raises nothing"


def test_a_result_that_looks_like_the_trials_leaves_all_the_same(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    ward.at(100)
    ward.intake.take(ward.same_film())
    ward.analyse(101, Pneumothorax=0.99)
    assert ward.sum_up(130) == 1
    assert ward.newest().sent and ward.newest().priority == Priority.STAT
    assert ward.outside()["delivery"] > 1


def test_a_film_that_is_really_sent_while_the_trial_is_analysed_is_analysed_by_our_model(ward: Trials) -> None:
    trial = ward.begin("/elsewhere/new-model")
    ward.at(0)
    ward.fetch(trial, study=STUDY, sop="1.2.3.1.1")
    (held,) = ward.claim(moment(1))
    assert held.trial and held.bundle == "/elsewhere/new-model"
    ward.at(2)
    ward.intake.take(ward.same_film())
    assert not ward.end_analysed(held, moment(3), Pneumothorax=0.99), "what the other model says comes too late"
    (claim,) = ward.claim(moment(4))
    assert claim.bundle is None and not claim.trial
    ward.end_analysed(claim, moment(5))
    assert ward.sum_up(60) == 1
    assert ward.newest().sent
    with ward.store.read() as connection:
        assert trials.results_of(connection, trial.run_id) == []


def test_a_study_that_is_sent_while_its_trial_is_summed_up_is_not_ended_as_one(ward: Trials) -> None:
    ward.at(0)
    ward.fetch(ward.run, study=STUDY, sop="1.2.3.1.1")
    ward.analyse(1, Pneumothorax=0.99)
    with ward.store.read() as connection:
        (ready,) = studies.ready_to_sum_up(connection, quiet_period_s=1, max_open_s=900, limit=1, now=moment(60))
    ward.at(61)
    ward.intake.take(ward.same_film())
    assert not ward.summing_up.sum_up(ready)
    assert ward.row().state == "receiving"
    assert ward.outside()["worklist_entry"] == 1


def test_a_trial_whose_films_were_deleted_is_read_when_it_is_really_sent(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    ward.at(31 * DAY)
    assert ward.care.retention() == 1
    ward.intake.take(ward.same_film())
    (claim,) = ward.claim(moment(31 * DAY + 1))
    ward.end_analysed(claim, moment(31 * DAY + 2))
    assert ward.sum_up(31 * DAY + 60) == 1
    assert ward.newest().sent and ward.row().state == "analysed"


def test_what_was_deleted_after_a_trial_and_was_not_sent_is_said_to_be_missing(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    ward.at(31 * DAY)
    assert ward.care.retention() == 1
    ward.intake.take(ward.arrive(study=STUDY, sop="1.2.3.1.2"))
    ward.analyse(31 * DAY + 1)
    assert ward.sum_up(31 * DAY + 60) == 1
    with ward.store.read() as connection:
        states = [(one.state, one.prediction is None) for one in studies.images_of(connection, ward.row().id)]
    assert states == [("not_analysed", True), ("analysed", False)]
    assert ward.newest().priority == Priority.ROUTINE
    ward.at(31 * DAY + 70)
    ward.intake.take(ward.same_film())
    ward.analyse(31 * DAY + 71, Pneumothorax=0.99)
    assert ward.sum_up(31 * DAY + 120) == 1
    assert ward.newest().priority == Priority.STAT


def test_an_order_is_not_raised_by_a_trial_and_finds_its_study_when_that_is_sent(ward: Trials) -> None:
    inbox = Inbox(ward.store)
    assert b"MSA|AA" in inbox(order("1", accession="ACC1", placer="PL1", patient="PH0001"), "127.0.0.1:1")
    ward.tried(Pneumothorax=0.99)
    with ward.store.write() as connection:
        assert make_missing(connection, moment(50), 10) == 0
        (listed,) = reading_list.open_entries(connection)
    assert listed.study is None and listed.raised is None and not listed.readable
    ward.at(100)
    ward.intake.take(ward.same_film())
    with ward.store.read() as connection:
        (listed,) = reading_list.open_entries(connection)
    assert listed.study is not None


def test_an_order_of_a_trials_own_study_does_not_show_it(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    with ward.store.write() as connection:
        from firstread.agent.store import worklist as list_store
        from firstread.models.prediction import StudyIdentity

        list_store.ensure_entry(connection, StudyIdentity(STUDY), moment(30).at)
        assert make_missing(connection, moment(50), 10) == 0
        (listed,) = reading_list.open_entries(connection)
        full = reading_list.in_full(connection, listed.id)
    assert listed.study is None and full.assessment is None and full.images == ()


def test_old_studies_are_what_a_trial_is_for(ward: Trials) -> None:
    ward.at(0)
    ward.fetch(ward.run, study=STUDY, StudyDate="20260101")
    ward.intake.take(ward.arrive(study="1.2.4", StudyDate="20260101"))
    claims = {one.identity.study_instance_uid: one for one in ward.claim(moment(1))}
    assert claims[STUDY].trial and not claims["1.2.4"].trial
    assert prior_study(claims["1.2.4"].identity, claims["1.2.4"].received_at, 7) is not None


def test_a_late_film_of_a_trial_keeps_its_model(ward: Trials) -> None:
    trial = ward.begin("/elsewhere/new-model")
    ward.at(0)
    ward.fetch(trial, study=STUDY, sop="1.2.3.1.1")
    with ward.store.write() as connection:
        assert images.claim(connection, owner="o", lease_s=60, limit=1, now=moment(1))[0].bundle == trial.bundle
        row = studies.find(connection, STUDY)
        (ready,) = studies.ready_to_sum_up(connection, quiet_period_s=1, max_open_s=1, limit=1, now=moment(9))
        assert studies.end(connection, ready, None, "test", moment(9))
        assert studies.reopen(connection, row.id, "a late image", "test", moment(10))
    assert ward.row().bundle == "/elsewhere/new-model"


def test_another_run_reads_the_same_studies_anew_and_the_first_ones_words_stay(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.99)
    second = ward.begin()
    ward.at(100)
    with ward.store.write() as connection:
        trials.take_over(connection, ward.row(), second, "archive", moment(100))
        images.analyse_anew(connection, ward.row().id, actor="archive", now=moment(100))
    ward.analyse(101, Pneumothorax=0.2)
    assert ward.sum_up(160) == 1
    with ward.store.read() as connection:
        found = [trials.results_of(connection, run)[0] for run in (ward.run.run_id, second.run_id)]
    assert [one.predictions[0].probabilities["Pneumothorax"] for one in found] == [0.99, 0.2]
    assert ward.outside() == dict.fromkeys((table.name for table in LEAVES), 0)


def test_a_run_breaks_no_silence(ward: Trials) -> None:
    from firstread.agent.store import overdue

    ward.ended_study(STUDY)
    ward.tried("1.2.4", seconds=5000)
    with ward.store.read() as connection:
        assert overdue.last_study(connection, None) == moment(0).at


def test_a_presentation_state_of_a_trial_that_is_sent_makes_it_a_study(ward: Trials) -> None:
    ward.tried()
    ward.at(100)
    ward.intake.take(ward.arrive(study=STUDY, sop="1.2.3.1.9", sop_class=GSPS, Modality="PR"))
    assert ward.row().trial_run_id is None
    assert ward.outside()["worklist_entry"] == ward.outside()["work_item"] == 1


def test_our_own_result_from_the_archive_makes_no_study_of_a_trial(ward: Trials) -> None:
    ward.tried()
    ward.at(100)
    ward.intake.take(ward.arrive(study=STUDY, sop="1.2.3.1.9", DeviceUID=ward.site_uid))
    assert ward.row().trial_run_id == ward.run.run_id
    with ward.store.read() as connection:
        assert holdings.find_object(connection, "1.2.3.1.1") is not None


def test_trials_make_room_before_films_that_were_really_sent(ward: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = ward.ended_study(STUDY)
    ward.deliver_all()
    with ward.store.write() as connection:
        while held := deliveries.claim(connection, "worklist", on_hold=False, owner="o", lease_s=60, now=moment(40)):
            deliveries.end_delivered(connection, held, status="AA", detail="", actor="t", now=moment(40))
    ward.tried("1.2.4", seconds=100)
    trial = ward.file_of("1.2.4")
    usage = shutil.disk_usage(ward.settings.spool)
    full, room = usage._replace(used=85, free=15), usage._replace(used=75, free=25)
    monkeypatch.setattr(care_module, "PURGE_WHEN_FULL", 1)
    monkeypatch.setattr(care_module.shutil, "disk_usage", lambda _: full if trial.exists() else room)
    storage = ward.settings.storage.model_copy(update={"max_disk_percent": 80})
    ward.at(700)
    assert Care(ward.settings.model_copy(update={"storage": storage}), ward.store).retention() == 1
    assert sent.exists() and not trial.exists()


def test_a_trial_never_gets_a_result_that_could_leave(ward: Trials) -> None:
    ward.tried()
    with ward.store.write() as connection:
        ready = studies.load(connection, ward.row())
        (found,) = trials.results_of(connection, ward.run.run_id)
        with pytest.raises(ValueError, match="could leave"):
            results.commit(connection, ready, found.assessment, [], sent=True, actor="test", now=moment(1))


def test_a_replayed_trial_is_a_trial(ward: Trials) -> None:
    ward.tried(Pneumothorax=0.2)
    ward.at(100)
    (replayed,) = analyse_again(ward.store, [ward.row()], bundle=None, why="")
    assert replayed.done
    ward.analyse(101, Pneumothorax=0.99)
    assert ward.sum_up(160) == 1
    assert ward.outside() == dict.fromkeys((table.name for table in LEAVES), 0)
    (shown,) = deliver_again(ward.settings, ward.store, [ward.row()], None, dry_run=False)
    assert not shown.done
    with ward.store.read() as connection:
        (found,) = trials.results_of(connection, ward.run.run_id)
    assert found.assessment.priority is Priority.STAT


def test_the_command_line_says_that_a_study_is_a_trial(ward: Trials, tmp_path: Path) -> None:
    ward.tried()
    config = tmp_path / "firstread.toml"
    config.write_text(f'[storage]\npath = "{ward.settings.spool}"\n')
    for words in (["studies"], ["study", STUDY]):
        said = CliRunner().invoke(app, [*words, "-c", str(config)])
        assert "of run 1" in said.output and said.exit_code == 0, said.output


def test_only_a_trial_is_kept_as_one(ward: Trials) -> None:
    ward.tried()
    with ward.store.write() as connection:
        ready = replace(studies.load(connection, ward.row()), trial_run_id=None)
        with pytest.raises(ValueError, match="really sent"):
            trials.commit(connection, ready, ready.earlier, "test", moment(1))  # type: ignore[arg-type]
