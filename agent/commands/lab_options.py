"""Options and progress that the lab's judging commands share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

LabelsOption = Annotated[Path, typer.Option("--labels", metavar="CSV", help="Table of labels: NIH's, or any CSV.")]
ImagesOption = Annotated[Path, typer.Option("--images", metavar="DIR", help="Folder that holds the films.")]
BoxesOption = Annotated[Path | None, typer.Option("--boxes", metavar="CSV", help="List of boxes as NIH gives it.")]
SubsetOption = Annotated[
    str, typer.Option("--subset", help="NIH's own list (train or test), or a text file with an image name per line.")
]
ReadersOption = Annotated[
    str, typer.Option("--readers", metavar="COL,COL", help="Columns of several readers, else those called reader_...")
]
ConsensusOption = Annotated[
    bool, typer.Option("--consensus", help="Judge by the readers' majority instead of the table's labels.")
]
DrawsOption = Annotated[int, typer.Option("--draws", min=100, max=100_000, help="Bootstrap draws per interval.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor threads, all cores if left out.")
]


@contextmanager
def progress(words: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar with films per second and time left, on standard error; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="")
        began = time.monotonic()

        def tell(done: int, total: int) -> None:
            seconds = max(time.monotonic() - began, 1e-3)
            bar.update(task, completed=done, total=total, rate=f"{done / seconds:.1f} films/s")

        yield tell
