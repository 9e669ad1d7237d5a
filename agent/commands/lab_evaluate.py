"""``models evaluate``: how good a bundle is on films with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail
from firstread.agent.commands.lab_options import (
    BoxesOption,
    ConsensusOption,
    DeviceOption,
    DrawsOption,
    ImagesOption,
    LabelsOption,
    ReadersOption,
    SubsetOption,
    ThreadsOption,
    progress,
)


def evaluate(
    bundle: Annotated[str, typer.Argument(help="Name or folder of the bundle.")],
    labels: LabelsOption,
    images: ImagesOption,
    boxes: BoxesOption = None,
    subset: SubsetOption = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN", help="A column to group by, besides sex, age and view; may be repeated."
        ),
    ] = None,
    readers: ReadersOption = "",
    consensus: ConsensusOption = False,
    calliper: Annotated[
        float,
        typer.Option("--calliper", min=0.01, max=3.0, help="How far matched films may differ, in standard deviations."),
    ] = 0.3,
    draws: DrawsOption = 1000,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write every figure as JSON, for programs and the card."),
    ] = None,
    html_file: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page with curves, groups, misses, a gallery."),
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write every film's probabilities.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """How good a bundle is on labelled films: every film is scored, none is dropped."""
    from datetime import UTC, datetime

    from rich.console import Console

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.data.film import DataError
    from firstread.models.engine import EngineError
    from firstread.models.evaluation import run
    from firstread.models.evaluation.console import print_evaluation, print_readers
    from firstread.models.evaluation.files import must_be_writable, write_json, write_text

    wanted = run.Films(labels, images, boxes, subset, run.column_names(readers), consensus)
    try:
        for path in (json_file, html_file, csv_file):
            must_be_writable(path)
        with progress("scoring") as tell:
            evaluation, table = run.evaluate_bundle(
                load_bundle(bundle_folder(bundle)),
                wanted,
                datetime.now(UTC),
                by=by or (),
                draws=draws,
                calliper=calliper,
                device=device,
                threads=threads,
                on_progress=tell,
            )
        if json_file is not None:
            write_json(json_file, table)
        if csv_file is not None:
            write_text(csv_file, run.probabilities_csv(evaluation.scores))
        if html_file is not None:
            from firstread.models.evaluation.page import page

            write_text(html_file, page(evaluation, table, threads))
    except (BundleError, DataError, EngineError) as error:
        fail(str(error))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    print_evaluation(table, console)
    if table["readers"] is not None:
        print_readers(table["readers"], console)
