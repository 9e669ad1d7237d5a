"""Work on many films in processes of their own, results in order; what kills its process costs that film alone."""

from __future__ import annotations

import multiprocessing
import os
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

    ``work`` must be a function of a module. Few jobs, or one worker, are done here.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers == 1 or len(jobs) < FEW:
        for number, job in enumerate(jobs):
            yield work(job)
            if on_progress is not None:
                on_progress(number + 1, len(jobs))
        return
    at = 0
    while at < len(jobs):
        with _pool(workers) as pool:
            try:
                for made in _windowed(pool, work, jobs[at:], 8 * workers):
                    yield made
                    at += 1
                    if on_progress is not None:
                        on_progress(at, len(jobs))
            except BrokenProcessPool:
                pass
        if at < len(jobs):
            # Some job near here kills its process: the next few each get one of their own, to find which.
            for job in jobs[at : at + 8 * workers]:
                with _pool(1) as alone:
                    try:
                        made = alone.submit(work, job).result()
                    except BrokenProcessPool:
                        made = Failed("the decoder crashed on it")  # type: ignore[assignment]
                yield made
                at += 1
                if on_progress is not None:
                    on_progress(at, len(jobs))


def _windowed(
    pool: ProcessPoolExecutor, work: Callable[[Given], Made], jobs: Sequence[Given], window: int
) -> Iterator[Made]:
    """Results in order, never more than ``window`` of them under way: what is done waits in memory."""
    waiting: list[Future[Made]] = []
    for job in jobs:
        waiting.append(pool.submit(work, job))
        if len(waiting) >= window:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _pool(workers: int) -> ProcessPoolExecutor:
    # A forked copy of a process with threads (torch has them) may hang: processes start afresh.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
