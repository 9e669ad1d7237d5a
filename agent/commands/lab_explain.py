"""``models explain``: does a bundle look where the lesion is?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail
from firstread.agent.commands.lab_options import BoxesOption, DeviceOption, SubsetOption, ThreadsOption, progress


def explain(
    bundle: Annotated[str, typer.Argument(help="Name or folder of the bundle.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="CSV", help="Table of labels: NIH's, or any CSV.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Folder that holds the films.")] = None,
    boxes: BoxesOption = None,
    subset: SubsetOption = "",
    phantoms: Annotated[
        int, typer.Option("--phantoms", min=0, max=100_000, help="Draw so many phantoms with a known lesion as well.")
    ] = 0,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0.0, max=4.0, help="How far outside a box a peak may lie, in map cells."),
    ] = 0.5,
    randomisation: Annotated[
        bool, typer.Option(help="Compare with maps of a network whose weights are made random.")
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure as JSON, for the card.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with figures and pictures.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Where a bundle looks: its maps against boxes that people drew, phantoms, and random weights."""
    from datetime import UTC, datetime

    from rich.console import Console

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.data.film import DataError
    from firstread.models.engine import EngineError
    from firstread.models.evaluation.files import must_be_writable, write_json, write_text
    from firstread.models.explanation import run
    from firstread.models.explanation.console import print_explanation

    if (labels is None) != (images is None) or (boxes is not None and labels is None):
        fail("--labels, --images and --boxes belong together: give all three, or --phantoms alone")
    wanted = None if labels is None or images is None else run.Films(labels, images, boxes, subset)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    try:
        for path in (json_file, html_file):
            must_be_writable(path)
        with progress("looking") as tell:
            found = run.explain_bundle(
                load_bundle(bundle_folder(bundle)),
                wanted,
                phantoms,
                randomise=randomisation,
                tolerance_cells=tolerance,
                device=device,
                threads=threads,
                on_progress=tell,
            )
        told = run.as_json(found, datetime.now(UTC))
        if json_file is not None:
            write_json(json_file, told)
        if html_file is not None:
            from firstread.models.explanation.page import page

            write_text(html_file, page(found, told))
    except (BundleError, DataError, EngineError) as error:
        fail(str(error))
    print_explanation(told, console)
