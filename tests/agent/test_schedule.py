"""Periodic jobs: they run, they run again after a failure, and a clock that is set stops none of them."""

from __future__ import annotations

import datetime as real
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers import interval

from firstread.agent import schedule as schedule_module
from firstread.agent.schedule import JOBS, Schedule
from tests.system.agent import wait_for


class Clock:
    """The wall clock of this process, which an administrator may set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset_s = 0.0
        clock = self

        class Datetime(real.datetime):
            @classmethod
            def now(cls, tz: real.tzinfo | None = None) -> real.datetime:
                return real.datetime.fromtimestamp(time.time() + clock.offset_s, tz)

        for module in (base, interval):
            monkeypatch.setattr(module, "datetime", Datetime)
        monkeypatch.setattr(schedule_module, "time", SimpleNamespace(time=lambda: time.time() + self.offset_s))


class Counter:
    """A job that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> None:
        self.runs += 1

    def runs_on(self, timeout_s: float = 20) -> bool:
        """Whether it runs three more times within ``timeout_s``."""
        goal = self.runs + 3
        try:
            return wait_for(lambda: self.runs >= goal, "the job runs", timeout_s)
        except AssertionError:
            return False


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def studies() -> Iterator[Callable[..., tuple[Schedule, Counter]]]:
    """Starts the jobs of the role "studies"; the counter is its quickest."""
    started: list[Schedule] = []

    def start(call: Counter | None = None) -> tuple[Schedule, Counter]:
        counter = call or Counter()
        others = {job.name: lambda: None for job in JOBS if job.role in ("studies", "every role")}
        started.append(Schedule("studies", {**others, "close studies": counter}))
        started[-1].start()
        return started[-1], counter

    yield start
    for one in started:
        one.stop()


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_stops_no_job(wall: Clock, studies: Callable[..., tuple[Schedule, Counter]], jump_s: float):
    _, counter = studies()
    assert counter.runs_on()
    wall.offset_s = jump_s
    assert counter.runs_on()
    wall.offset_s = 0.0
    assert counter.runs_on()


def test_without_the_watchdog_a_clock_set_back_would_stop_them(
    wall: Clock, studies: Callable[..., tuple[Schedule, Counter]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schedule_module, "JUMP_S", float("inf"))
    _, counter = studies()
    assert counter.runs_on()
    wall.offset_s = -3600.0
    counter.runs_on(1.5)  # one that is due already may still run
    assert not counter.runs_on(3), "the test above would see it"


def test_a_job_that_fails_runs_again(studies: Callable[..., tuple[Schedule, Counter]]):
    class Failing(Counter):
        def __call__(self) -> None:
            super().__call__()
            raise ValueError("once more")

    _, counter = studies(Failing())
    assert counter.runs_on()


def test_a_job_that_takes_long_does_not_run_twice_at_once(studies: Callable[..., tuple[Schedule, Counter]]):
    inside, most, lock = 0, 0, threading.Lock()
    done = threading.Event()

    class Slow(Counter):
        def __call__(self) -> None:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            done.wait(0.7)
            with lock:
                inside -= 1
            super().__call__()

    _, counter = studies(Slow())
    assert counter.runs_on() and most == 1
    done.set()


def test_a_role_must_do_exactly_the_jobs_that_are_listed_for_it():
    with pytest.raises(ValueError, match="role deliver must do"):
        Schedule("deliver", {"beat": lambda: None})
    with pytest.raises(ValueError, match="role web must do"):
        Schedule("web", {"beat": lambda: None, "close studies": lambda: None})


def test_every_job_says_who_does_it_and_why():
    assert len({(job.role, job.name) for job in JOBS}) == len(JOBS)
    assert all(job.every_s > 0 and job.why and job.role for job in JOBS)
