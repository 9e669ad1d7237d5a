"""``models audit``: does a bundle see disease, or how the film was made?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail
from firstread.agent.commands.lab_options import (
    DeviceOption,
    ImagesOption,
    LabelsOption,
    SubsetOption,
    ThreadsOption,
    progress,
)


def audit(
    bundle: Annotated[str, typer.Argument(help="Name or folder of the bundle.")],
    labels: LabelsOption,
    images: ImagesOption,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="A label to audit, all of the bundle's if left out; repeatable."),
    ] = None,
    subset: SubsetOption = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN", help="A column to compare films within, besides view, sex and site; repeatable."
        ),
    ] = None,
    max_films: Annotated[
        int, typer.Option("--max-films", min=1, help="At most so many films are altered and read again.")
    ] = 200,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write every figure as JSON, for programs and the card."),
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with verdicts, figures and pictures.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Does a bundle see disease, or how the film was made? One verdict per label, with what is behind it."""
    from datetime import UTC, datetime

    from rich.console import Console

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.audit.console import print_audit
    from firstread.models.audit.run import audit_bundle
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.data.film import DataError
    from firstread.models.engine import EngineError
    from firstread.models.evaluation.files import must_be_writable, write_json, write_text
    from firstread.models.evaluation.run import Films

    try:
        for path in (json_file, html_file):
            must_be_writable(path)
        found, table = audit_bundle(
            load_bundle(bundle_folder(bundle)),
            Films(labels, images, None, subset),
            datetime.now(UTC),
            labels=label or (),
            by=by or (),
            most_films=max_films,
            device=device,
            threads=threads,
            stage=progress,
        )
        if json_file is not None:
            write_json(json_file, table)
        if html_file is not None:
            from firstread.models.audit.page import page

            write_text(html_file, page(found, table))
    except (BundleError, DataError, EngineError) as error:
        fail(str(error))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    print_audit(table, console)
