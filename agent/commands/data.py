"""``data``: films with labels, looked over before anybody trains on them or judges by them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import FAILED, fail
from firstread.agent.commands.lab_options import BoxesOption, progress

app = typer.Typer(no_args_is_help=True, help="Films with labels: check them before training or judging.")


@app.callback()
def _group() -> None:
    """Films with labels: check them before training or judging."""


@app.command()
def check(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Table of labels: NIH's, or any CSV.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder that holds the films.")],
    boxes: BoxesOption = None,
    train_list: Annotated[
        Path | None,
        typer.Option("--train-list", metavar="FILE", help="Names of films to train on, as in train_val_list.txt."),
    ] = None,
    test_list: Annotated[
        Path | None, typer.Option("--test-list", metavar="FILE", help="Names of films to test on, as in test_list.txt.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="FINDING", help="A finding outside the fifteen labels; may be repeated."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything that was found as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with tables and plots.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that decode, one per core if left out.")
    ] = None,
) -> None:
    """Whether films can be used (exit code 0 or 1), and what tells their labels apart without looking at anatomy."""
    from datetime import UTC, datetime

    from rich.console import Console

    import firstread
    from firstread.models.data.check import check as check_films
    from firstread.models.data.check_console import print_check
    from firstread.models.data.check_page import page
    from firstread.models.data.film import DataError
    from firstread.models.data.summary import summary
    from firstread.models.evaluation.files import must_be_writable, write_json, write_text

    try:
        for path in (json_file, html_file):
            must_be_writable(path)
        with progress("measuring") as tell:
            checked = check_films(
                labels,
                images,
                boxes=boxes,
                train_list=train_list,
                test_list=test_list,
                ignore=ignore or (),
                workers=workers,
                on_progress=tell,
            )
        found = summary(checked, datetime.now(UTC).isoformat(timespec="seconds"), firstread.__version__)
        console = Console()
        print_check(found, console if console.is_terminal else Console(width=200))
        if json_file is not None:
            write_json(json_file, found)
        if html_file is not None:
            write_text(html_file, page(checked, found))
    except DataError as error:
        fail(str(error))
    if not checked.usable:
        raise typer.Exit(FAILED)
