"""What a person sees while a training runs: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

Say = Callable[[str], None]

LINE_EVERY_S = 60.0


class Progress:
    """An epoch's progress: films done of all, films per second, time left. Use as a context.

    ``say``: where sentences go that are not part of a bar. ``shown``: False for all but one of several processes.
    """

    def __init__(self, title: str, films: int, say: Say, shown: bool = True, terminal: bool | None = None) -> None:
        self._title, self._films, self._say = title, films, say
        terminal = sys.stderr.isatty() if terminal is None else terminal
        self._bar = _bar(title, films) if shown and terminal else None
        self._plain = shown and not terminal
        self._begun = self._last = time.monotonic()
        self._done = 0

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, films: int, loss: float) -> None:
        """So many films more."""
        self._done += films
        if self._bar is not None:
            task = self._bar.tasks[0].id
            speed = self._done / max(time.monotonic() - self._begun, 1e-9)
            self._bar.update(task, advance=films, said=f"{speed:.1f} films/s  loss {loss:.4f}")
            return
        now = time.monotonic()
        if self._plain and now - self._last >= LINE_EVERY_S:
            self._last = now
            speed = self._done / (now - self._begun)
            left = (self._films - self._done) / speed
            self._say(
                f"{self._title}: {self._done} of {self._films} films, loss {loss:.4f}, {speed:.1f} films/s, "
                f"{left:.0f} s left"
            )


def _bar(title: str, films: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bars.add_task(title, total=films, said="")
    return bars


def to_stderr(sentence: str) -> None:
    """A sentence for the person who waits."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


@contextmanager
def counted(title: str, say: Say, terminal: bool) -> Iterator[Callable[[int, int], None]]:
    """Something to tell (done, all) to: a bar with the time left, or a line now and then."""
    bar = None
    last = time.monotonic()

    def told(done: int, number: int) -> None:
        nonlocal bar, last
        if terminal:
            if bar is None:
                bar = _bar(title, number)
                bar.start()
            bar.update(bar.tasks[0].id, completed=done, total=number)
        elif time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            say(f"{title}: {done} of {number}")

    try:
        yield told
    finally:
        if bar is not None:
            bar.stop()
