"""Silence is counted in working time, told by sender, and over when a study comes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest

from firstread.agent import care as care_module
from firstread.agent import clock
from firstread.agent.silence import working_seconds
from firstread.agent.store import watch
from tests.agent.builders import moment
from tests.agent.ward import Ward
from tests.models.tiny import make_tiny_bundle

WEEK = ("Mon", "Tue", "Wed", "Thu", "Fri")
FRIDAY_17 = datetime(2026, 2, 27, 17, 0, tzinfo=UTC)


def hours(start: datetime, end: datetime, begins: int = 8, ends: int = 18, days: tuple[str, ...] = WEEK) -> float:
    return working_seconds(start, end, days, time(begins), time(ends)) / 3600


@pytest.mark.parametrize(
    ("day", "hour", "expected"),
    [(27, 17, 0.0), (27, 18, 1.0), (27, 23, 1.0), (28, 12, 1.0), (29, 12, 1.0), (30, 8, 1.0), (30, 11, 4.0)],
)
def test_a_weekend_is_no_silence(day: int, hour: int, expected: float) -> None:
    end = datetime(2026, 2, day, hour, tzinfo=UTC) if day <= 28 else datetime(2026, 3, day - 28, hour, tzinfo=UTC)
    assert hours(FRIDAY_17, end) == expected


def test_round_the_clock_counts_every_hour_and_a_night_shift_ends_on_the_next_day() -> None:
    saturday, sunday = datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    every = (*WEEK, "Sat", "Sun")
    assert hours(saturday, sunday, 0, 0, every) == 24
    assert hours(saturday, sunday, 22, 6, ("Fri",)) == 6, "Friday's shift goes on until six"
    assert hours(saturday, sunday, 22, 6, ("Sat",)) == 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def make_ward(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Ward] = []

    def make(**alarms: Any) -> Ward:
        whole_day = {"working_days": (*WEEK, "Sat", "Sun"), "working_from": "00:00", "working_to": "00:00"}
        made.append(Ward(tmp_path / "spool", bundle, monkeypatch, alarms={**whole_day, **alarms}))
        with made[-1].store.write() as connection:
            watch.beat(connection, "receive", "receive-1", {}, moment(0))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def test_nobody_sent_for_hours_is_an_alarm_until_a_study_comes(make_ward: Any) -> None:
    ward = make_ward(silent_after_h=4)
    ward.receive(study="1.2.3")
    ward.at(3.9 * 3600)
    ward.care.watch()
    assert "silence" not in ward.alarms()
    ward.at(4.1 * 3600)
    ward.care.watch()
    alarm = ward.alarms()["silence"]
    assert "no study has come for 4.1 hours" in alarm.text and "route" in alarm.remedy
    ward.receive(study="1.2.4")
    ward.care.watch()
    assert "silence" not in ward.alarms()


def test_each_expected_sender_is_watched_by_itself(make_ward: Any) -> None:
    ward = make_ward(silent_after_h=2, expected_senders=("PACS", "MOBILE"))
    ward.at(1.5 * 3600)
    ward.receive(study="1.2.3", calling="PACS")
    ward.at(2.5 * 3600)
    ward.care.watch()
    assert "silence/MOBILE" in ward.alarms() and "silence/PACS" not in ward.alarms()
    assert "MOBILE has sent no study" in ward.alarms()["silence/MOBILE"].text


def test_zero_hours_mean_that_silence_is_no_alarm(make_ward: Any) -> None:
    ward = make_ward(silent_after_h=0)
    ward.at(1000 * 3600)
    ward.care.watch()
    assert "silence" not in ward.alarms()


def test_a_clock_that_is_set_is_an_alarm_for_an_hour(make_ward: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = make_ward()
    boot = 1000.0
    monkeypatch.setattr(clock, "boot_seconds", lambda: boot)
    care = care_module.Care(ward.settings, ward.store)
    care.watch()
    assert "clock" not in ward.alarms()
    ward.at(3600)  # the wall clock alone
    care.watch()
    assert "forward by 3600 s" in ward.alarms()["clock"].text
    boot += 3601
    ward.at(3600 + 3601)
    care.watch()
    assert "clock" not in ward.alarms()
