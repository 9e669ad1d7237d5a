"""What is looked after: leases that ran out, alarms that come and go, films whose days are over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstread.agent import care as care_module
from firstread.agent.care import Care
from firstread.agent.replay import PURGED, analyse_again
from firstread.agent.store import events, studies
from firstread.agent.store.tables import StudyState
from firstread.integration.dicom.identity import series_uid
from tests.agent.builders import moment
from tests.agent.ward import Ward
from tests.models.tiny import make_tiny_bundle

DAY = 86400.0
WHEN_DAYS_ARE_OVER = 31 * DAY


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def ward(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    made = Ward(tmp_path / "spool", bundle, monkeypatch, triage={"use_experimental": True})
    yield made
    made.store.close()


def test_a_film_goes_when_its_days_are_over_and_result_and_trail_stay(ward: Ward) -> None:
    film = ward.ended_study("1.2.3")
    ward.deliver_all()
    ward.at(29 * DAY)
    assert ward.care.retention() == 0 and film.exists()
    ward.at(WHEN_DAYS_ARE_OVER)
    assert ward.care.retention() == 1 and not film.exists()
    assert list((ward.settings.spool / "previews").rglob("*.*")) == []
    with ward.store.read() as connection:
        row = studies.find(connection, "1.2.3")
        assert row.state == StudyState.ANALYSED and len(studies.results_of(connection, row.id)) == 1
        assert "film purged" in [one.kind for one in events.of_study(connection, row.id)]
    assert ward.care.retention() == 0, "once"


def test_a_film_whose_result_was_not_delivered_yet_stays_however_old_it_is(ward: Ward) -> None:
    film = ward.ended_study("1.2.3")
    ward.at(400 * DAY)
    assert ward.care.retention() == 0 and film.exists()
    ward.deliver_all(400 * DAY)
    assert ward.care.retention() == 1 and not film.exists()


def test_a_film_of_a_study_that_is_still_open_stays_however_old_it_is(ward: Ward) -> None:
    ward.receive(study="1.2.3")
    film = ward.file_of("1.2.3")
    ward.at(400 * DAY)
    assert ward.care.retention() == 0 and film.exists()


def test_a_study_that_was_opened_again_keeps_its_films(ward: Ward) -> None:
    film = ward.ended_study("1.2.3")
    ward.deliver_all()
    with ward.store.read() as connection:
        row = studies.find(connection, "1.2.3")
    (replayed,) = analyse_again(ward.store, [row], bundle=None, why="")
    assert replayed.done
    ward.at(WHEN_DAYS_ARE_OVER)
    assert ward.care.retention() == 0 and film.exists()


def test_a_replay_of_purged_films_says_to_fetch_them_and_changes_nothing(ward: Ward) -> None:
    ward.ended_study("1.2.3")
    ward.deliver_all()
    ward.at(WHEN_DAYS_ARE_OVER)
    ward.care.retention()
    with ward.store.read() as connection:
        row = studies.find(connection, "1.2.3")
    (replayed,) = analyse_again(ward.store, [row], bundle=None, why="")
    assert not replayed.done and replayed.words == (PURGED,)
    with ward.store.read() as connection:
        assert studies.find(connection, "1.2.3").revision == 1


def test_a_row_names_no_film_that_is_gone_also_when_the_power_fails_between(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = ward.ended_study("1.2.3")
    ward.deliver_all()
    ward.at(WHEN_DAYS_ARE_OVER)

    def power_fails(self: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", power_fails)
        with pytest.raises(KeyboardInterrupt):
            ward.care.retention()
    assert film.exists()
    with ward.store.read() as connection:
        (image,) = studies.images_of(connection, studies.find(connection, "1.2.3").id)
    assert not image.path


def test_without_a_limit_films_stay_for_ever(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path / "spool", bundle, monkeypatch)
    ward.settings = ward.settings.model_copy(
        update={"storage": ward.settings.storage.model_copy(update={"keep_days": None})}
    )
    film = ward.ended_study("1.2.3")
    ward.deliver_all()
    ward.at(4000 * DAY)
    assert Care(ward.settings, ward.store).retention() == 0 and film.exists()
    ward.store.close()


def test_a_full_disk_is_an_alarm_until_there_is_room(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(ward.settings.spool)
    monkeypatch.setattr(care_module.shutil, "disk_usage", lambda _: usage._replace(free=10 << 20))
    reserve = ward.settings.storage.model_copy(update={"reserve_mb": 50})
    care = Care(ward.settings.model_copy(update={"storage": reserve}), ward.store)
    care.watch()
    care.watch()
    alarm = ward.alarms()["disk"]
    assert "10 MB are free" in alarm.text and "the reserve is 50 MB" in alarm.text and alarm.sightings == 2
    monkeypatch.setattr(care_module.shutil, "disk_usage", lambda _: usage)
    care.watch()
    assert "disk" not in ward.alarms()


def test_a_film_that_waits_too_long_is_an_alarm_until_it_is_analysed(ward: Ward) -> None:
    ward.receive(study="1.2.3")
    ward.at(599)
    ward.care.watch()
    assert "waiting" not in ward.alarms()
    ward.at(601)
    ward.care.watch()
    assert "films are kept and will be analysed" in ward.alarms()["waiting"].remedy
    ward.claim(moment(602))
    ward.care.watch()
    assert "waiting" not in ward.alarms()


def test_a_burst_of_raised_studies_is_an_alarm_and_a_usual_day_is_none(ward: Ward) -> None:
    for number in range(9):
        ward.ended_study(f"1.2.3.{number}", number * 60, Pneumothorax=0.99)
    ward.care.watch()
    assert "burst" not in ward.alarms()
    ward.ended_study("1.2.3.9", 600, Pneumothorax=0.99)
    ward.at(700)
    ward.care.watch()
    assert "10 studies were raised within an hour" in ward.alarms()["burst"].text
    ward.at(2 * 3600)
    ward.care.watch()
    assert "burst" not in ward.alarms()


def test_a_lease_that_ran_out_is_freed_and_a_live_one_is_not(ward: Ward) -> None:
    ward.receive(study="1.2.3")
    (claim,) = ward.claim(moment(0))
    ward.at(59)
    ward.care.free_leases()
    assert ward.claim(moment(59)) == []
    ward.at(61)
    ward.care.free_leases()
    (again,) = ward.claim(moment(61))
    assert again.id == claim.id and again.attempts == 2


def test_an_unknown_study_s_result_that_came_back_is_purged_too(ward: Ward) -> None:
    ward.receive(study="9.9", series=series_uid(ward.site_uid, "9.9", "sr"), sop_class="1.2.840.10008.5.1.4.1.1.88.34")
    (file,) = (ward.settings.spool / "films").rglob("*.dcm")
    ward.at(WHEN_DAYS_ARE_OVER)
    assert ward.care.retention() == 1 and not file.exists()
