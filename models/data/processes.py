"""Work on many films in processes of their own, results in order; what kills its process costs that film alone."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

OnProgress = Callable[[int, int], None]
"""Told (done, all)."""

FEW = 48
"""Below so many films starting processes takes longer than they save."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Failed:
    """What became of a film that could not be read."""

    reason: str


def in_processes(
    work: Callable[[Given], Made],
    jobs: Sequence[Given],
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[Made | Failed]:
    """``work`` on each job in processes of their own, results in order; a job that kills its process is ``Failed``.

    ``work`` must be a function of a module. ``workers``: one per core by default. Few jobs, or one worker, are done in
    this process, and so are all where none can be started (a script without ``if __name__ == "__main__"``).
    """
    workers = workers or len(os.sched_getaffinity(0))
    here = workers == 1 or len(jobs) < FEW
    results: Iterator[Made | Failed] = _here(work, jobs) if here else _elsewhere(work, jobs, workers)
    for done, made in enumerate(results, start=1):
        yield made
        if on_progress is not None:
            on_progress(done, len(jobs))


def _here(work: Callable[[Given], Made], jobs: Sequence[Given]) -> Iterator[Made]:
    for job in jobs:
        yield work(job)


def _elsewhere(work: Callable[[Given], Made], jobs: Sequence[Given], workers: int) -> Iterator[Made | Failed]:
    window = 8 * workers
    at = 0
    while at < len(jobs):
        with _pool(workers) as pool:
            if not _starts(pool):
                yield from _here(work, jobs[at:])
                return
            try:
                for made in _windowed(pool, work, jobs[at:], window):
                    yield made
                    at += 1
            except BrokenProcessPool:
                pass
        if at < len(jobs):
            # Some job under way then killed its process: those are done one at a time, to find which.
            suspects = jobs[at : at + window]
            yield from _one_at_a_time(work, suspects)
            at += len(suspects)


def _one_at_a_time(work: Callable[[Given], Made], jobs: Sequence[Given]) -> Iterator[Made | Failed]:
    pool = _pool(1)
    try:
        for job in jobs:
            try:
                yield pool.submit(work, job).result()
            except BrokenProcessPool:
                yield Failed("the decoder crashed on it")
                pool.shutdown()
                pool = _pool(1)
    finally:
        pool.shutdown()


def _windowed(
    pool: ProcessPoolExecutor, work: Callable[[Given], Made], jobs: Sequence[Given], window: int
) -> Iterator[Made]:
    """Results in order, never more than ``window`` of them under way: what is done waits in memory."""
    waiting: deque[Future[Made]] = deque()
    for job in jobs:
        waiting.append(pool.submit(work, job))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _starts(pool: ProcessPoolExecutor) -> bool:
    # A fresh process imports the main module again: impossible for code from standard input, whose file has no name.
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    if name is not None and not os.path.exists(name):
        return False
    try:
        return pool.submit(bool, 1).result()
    except BrokenProcessPool:
        return False


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked copy of a process with threads (torch has them) may hang: processes start afresh.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
