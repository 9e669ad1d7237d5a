"""A run over the archive: its studies listed day by day, then fetched one by one, at a pace that hurts nobody."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

from firstread.agent import clock
from firstread.agent.config import StorageSettings
from firstread.agent.fetch import Archive, ArchiveAway, FetchFailed
from firstread.agent.identify import parse_date
from firstread.agent.store import images, overdue, studies, trials
from firstread.agent.store.archive_tables import ArchiveState
from firstread.agent.store.engine import Store
from firstread.agent.store.trials import Run, RunStudy

ACTOR = "archive"
AWAY_S = (60.0, 120.0, 240.0, 480.0, 900.0)
"""Waits while the archive is away, one after the other; then the run stops and can be resumed."""
MOST_FAILED_IN_A_ROW = 10
"""What fails so often is no matter of one study: the run stops."""
SEARCH_S = 0.5
"""From one search to the next request, at least."""
_LOOK_S = 1.0
_LOCK = "archive-run.lock"
_T = TypeVar("_T")


class RunStopped(Exception):
    """The run stopped before its end; the message says why. It can be resumed."""


class RunInProgress(Exception):
    """Another run asks the archive at this moment."""


@dataclass(frozen=True)
class Pace:
    """``per_hour``: studies at most. ``most_waiting``: so many films may wait to be analysed, whoever sent them."""

    per_hour: int = 240
    most_waiting: int = 8


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``done`` of ``total``, and what it does or waits for in words."""

    done: int
    total: int
    words: str


@contextlib.contextmanager
def alone(spool: Path) -> Iterator[None]:
    """While the block runs no other run asks the archive from here. Raises RunInProgress."""
    descriptor = os.open(spool / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunInProgress("another run asks the archive now: wait for its end, or stop it") from None
        yield
    finally:
        os.close(descriptor)


class ArchiveRun:
    """Works on one run until nothing of it waits. Every step is durable: it may be killed and resumed at any moment."""

    def __init__(
        self,
        store: Store,
        archive: Archive,
        run: Run,
        pace: Pace,
        *,
        spool: Path,
        storage: StorageSettings,
        wait: Callable[[float], None] = time.sleep,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._archive = archive
        self._run = run
        self._pace = pace
        self._spool = spool
        self._storage = storage
        self._wait = wait
        self._tell = tell
        self._due = 0.0

    def work(self) -> None:
        """Lists what is not listed yet, fetches what waits. Raises RunStopped."""
        self._list()
        failed = 0
        while (one := self._next()) is not None:
            state, reason, films = self._patiently(one)
            with self._store.write() as connection:
                trials.end_study(connection, one, state, clock.now(), reason=reason, films=films)
            failed = failed + 1 if state is ArchiveState.FAILED and not films else 0
            if failed >= MOST_FAILED_IN_A_ROW:
                raise RunStopped(f"{failed} studies in a row did not come, the last one: {reason}")
        with self._store.write() as connection:
            trials.end(connection, self._run.id, clock.now())
        self._say("done")

    def _list(self) -> None:
        wanted = self._run.wanted
        for day in days(wanted.date_from, wanted.date_until):
            if day <= self._run.listed_until:
                continue
            self._say(f"asks for the studies of {day}")
            uids: dict[str, None] = {}
            for modality in wanted.modalities or ("",):
                try:
                    uids |= dict.fromkeys(self._asked(lambda: self._archive.studies_of(day, modality)))  # noqa: B023
                except FetchFailed as error:
                    raise RunStopped(str(error)) from error
            with self._store.write() as connection:
                trials.list_day(connection, self._run, day, list(uids))
                if wanted.most is not None and sum(trials.counts(connection, self._run.id).values()) >= wanted.most:
                    trials.list_day(connection, self._run, wanted.date_until, ())
                    return

    def _patiently(self, one: RunStudy) -> tuple[ArchiveState, str, int]:
        """What became of a study; while the archive is away it is waited for, longer each time."""
        for wait_s in (*AWAY_S, None):
            self._look_at_disk()
            self._wait_for_queue()
            try:
                return self._take(one.study_instance_uid)
            except ArchiveAway as error:
                if wait_s is None:
                    raise RunStopped(str(error)) from error
                self._say(f"{error}; asks again in {wait_s:.0f} s")
                self._wait(wait_s)
            except FetchFailed as error:
                return ArchiveState.FAILED, str(error), 0
        raise AssertionError

    def _take(self, uid: str) -> tuple[ArchiveState, str, int]:
        """Fetches one study. Raises FetchFailed, ArchiveAway."""
        with self._store.read() as connection:
            row = studies.find(connection, uid)
            lies_here = row is not None and trials.lies_here(connection, row)
        if row is not None and row.trial_run_id is None:
            return ArchiveState.HERE, "", 0
        body_part = self._run.wanted.body_part
        if body_part and not lies_here:
            said = self._asked(lambda: self._archive.body_parts(uid))
            if said and not {body_part.upper(), ""} & {one.upper() for one in said}:
                return ArchiveState.SKIPPED, f"its series are of {', '.join(said)}"[:200], 0
        self._say(f"fetches {uid}")
        every_s = 3600.0 / self._pace.per_hour
        fetched = None if lies_here else self._asked(lambda: self._archive.fetch(uid, self._run.trial), every_s)
        refused = fetched.refused if fetched is not None else ()
        with self._store.write() as connection:
            row = studies.find(connection, uid)
            if row is not None and row.trial_run_id is None:
                return ArchiveState.HERE, "", 0  # it was sent to us meanwhile
            if row is not None and row.trial_run_id != self._run.id:
                trials.take_over(connection, row, self._run.trial, ACTOR, clock.now())
                images.analyse_anew(connection, row.id, actor=ACTOR, now=clock.now())
            films = len(studies.images_of(connection, row.id)) if row is not None else 0
        if refused:
            return ArchiveState.FAILED, f"{len(refused)} objects were not taken: {refused[0]}", films
        if row is None:
            return ArchiveState.FAILED, "the archive sent no object of this study", 0
        return ArchiveState.FETCHED, "", films

    def _asked(self, ask: Callable[[], _T], every_s: float = SEARCH_S) -> _T:
        """One request, when its time has come. The next one comes ``every_s`` later, or when the archive has rested for
        as long as this one took it."""
        now = time.monotonic()
        if self._due > now:
            self._wait(self._due - now)
        began = time.monotonic()
        try:
            return ask()
        finally:
            ended = time.monotonic()
            self._due = max(began + every_s, ended + (ended - began))

    def _next(self) -> RunStudy | None:
        with self._store.read() as connection:
            return trials.next_waiting(connection, self._run.id)

    def _wait_for_queue(self) -> None:
        """Films that are really sent go first: nothing is fetched while more than a few wait."""
        most = self._pace.most_waiting
        while True:
            with self._store.read() as connection:
                if overdue.waiting(connection, most + 1) <= most:
                    return
            self._say(f"more than {most} films wait to be analysed")
            self._wait(_LOOK_S)

    def _look_at_disk(self) -> None:
        usage, most = shutil.disk_usage(self._spool), self._storage.max_disk_percent
        if usage.free >> 20 < self._storage.reserve_mb:
            raise RunStopped(f"disk: {usage.free >> 20} MB free, {self._storage.reserve_mb} MB in reserve")
        if most is not None and usage.used * 100 > most * (usage.used + usage.free):
            raise RunStopped(f"disk: fuller than the {most} % of [storage] max_disk_percent")

    def _say(self, words: str) -> None:
        with self._store.read() as connection:
            counts = trials.counts(connection, self._run.id)
        total = sum(counts.values())
        self._tell(Progress(total - counts[ArchiveState.WAITING], total, words))


def wait_for_results(
    store: Store,
    run_id: int,
    tell: Callable[[Progress], None],
    *,
    still_s: float = 120.0,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Waits until every trial of a run is analysed, or nothing moves for ``still_s``; answers how many are not."""
    least, still = None, 0.0
    while True:
        with store.read() as connection:
            left, total = trials.unfinished(connection, run_id), trials.analysed(connection, run_id)
        if not left or still >= still_s:
            return left
        least, still = (left, 0.0) if least is None or left < least else (least, still + _LOOK_S)
        tell(Progress(total, total + left, "waits for the results"))
        wait(_LOOK_S)


def days(first: str, last: str) -> Sequence[str]:
    """Every day from the first to the last (YYYYMMDD). Raises ValueError for what is no day, or a wrong order."""
    begin, end = _day(first), _day(last)
    if end < begin:
        raise ValueError(f"{last} lies before {first}")
    return [f"{begin + timedelta(days=number):%Y%m%d}" for number in range((end - begin).days + 1)]


def _day(text: str) -> date:
    day = parse_date(text)
    if day is None or len(text) != 8:
        raise ValueError(f"{text!r} is not a day: write YYYYMMDD")
    return day
