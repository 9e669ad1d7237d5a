"""``models compare``: two bundles on the same films."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail
from firstread.agent.commands.lab_options import (
    BoxesOption,
    DeviceOption,
    DrawsOption,
    ImagesOption,
    LabelsOption,
    SubsetOption,
    ThreadsOption,
    progress,
)


def compare(
    bundle_a: Annotated[str, typer.Argument(help="Name or folder of the first bundle.")],
    bundle_b: Annotated[str, typer.Argument(help="Name or folder of the second bundle.")],
    labels: LabelsOption,
    images: ImagesOption,
    boxes: BoxesOption = None,
    subset: SubsetOption = "",
    draws: DrawsOption = 1000,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the comparison as JSON, each flipped film named."),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Two bundles on the same films: the difference, how sure it is, and the films whose call flips."""
    from datetime import UTC, datetime

    from rich.console import Console

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.data.film import DataError
    from firstread.models.engine import EngineError
    from firstread.models.evaluation import run
    from firstread.models.evaluation.console import print_comparison
    from firstread.models.evaluation.files import must_be_writable, write_json

    try:
        must_be_writable(json_file)
        with progress("scoring with both") as tell:
            _, table = run.compare_bundles(
                load_bundle(bundle_folder(bundle_a)),
                load_bundle(bundle_folder(bundle_b)),
                run.Films(labels, images, boxes, subset),
                datetime.now(UTC),
                draws=draws,
                device=device,
                threads=threads,
                on_progress=tell,
            )
        if json_file is not None:
            write_json(json_file, table)
    except (BundleError, DataError, EngineError) as error:
        fail(str(error))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    print_comparison(table, console)
