"""``models calibrate``: a site's own version of a bundle, from some hundred of its films."""

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


def calibrate(
    bundle: Annotated[str, typer.Argument(help="Name or folder of the bundle.")],
    labels: LabelsOption,
    images: ImagesOption,
    subset: SubsetOption = "",
    method: Annotated[
        str,
        typer.Option(
            "--method", help="auto (by cross-validated log loss), keep, shared-temperature, temperature or platt."
        ),
    ] = "auto",
    sensitivity: Annotated[
        list[str] | None,
        typer.Option(
            "--sensitivity",
            metavar="LABEL=SHARE",
            help="Operating point by wanted sensitivity; Abnormal=0.98 bounds who is called No Finding. Repeatable.",
        ),
    ] = None,
    specificity: Annotated[
        list[str] | None,
        typer.Option("--specificity", metavar="LABEL=SHARE", help="Operating point by wanted specificity. Repeatable."),
    ] = None,
    alerts_per_day: Annotated[
        float | None,
        typer.Option("--alerts-per-day", help="Raise so many films a day; a film with several findings counts once."),
    ] = None,
    films_per_day: Annotated[
        float | None, typer.Option("--films-per-day", help="The site's volume of chest films.")
    ] = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            "--prevalence",
            metavar="LABEL=SHARE,...",
            help="How often a finding truly occurs at the site, where the films at hand hold more or fewer of it.",
        ),
    ] = None,
    raising: Annotated[
        list[str] | None,
        typer.Option("--raising", metavar="LABEL,...", help="Findings that raise a film, else those not experimental."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the new bundle, else the old one's.")] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Its version, else the old one's with +site and the day.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the new bundle, else NAME-VERSION here.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what changes as JSON.")
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write what changes as one page with plots.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change and write no bundle.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """A site's own version of a bundle: calibration and operating points from its films, the weights as they are."""
    from datetime import date

    from rich.console import Console

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.calibration import run
    from firstread.models.calibration.console import print_calibration
    from firstread.models.calibration.wishes import read_wishes
    from firstread.models.data.film import DataError
    from firstread.models.engine import EngineError
    from firstread.models.evaluation.files import must_be_writable, write_json, write_text

    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    try:
        for path in (json_file, html_file):
            must_be_writable(path)
        loaded = load_bundle(bundle_folder(bundle))
        wishes = read_wishes(
            loaded,
            method=method,
            sensitivity=sensitivity or (),
            specificity=specificity or (),
            prevalence=prevalence or (),
            raising=raising or (),
            alerts_per_day=alerts_per_day,
            films_per_day=films_per_day,
        )
        place = run.place_of(loaded, out, name, version, date.today(), dry_run)
        with progress("scoring") as tell:
            done = run.calibrate_bundle(
                loaded,
                run.Films(labels, images, subset=subset),
                wishes,
                device=device,
                threads=threads,
                on_progress=tell,
            )
        print_calibration(done.told, console)
        made = None if dry_run else run.write(loaded, done, place)
        if json_file is not None:
            write_json(json_file, done.told)
        if html_file is not None:
            from firstread.models.calibration.page import page

            written = "" if made is None else f"{made.name} {made.version} in {made.folder}"
            write_text(html_file, page(done.told, done.site, written))
    except (BundleError, DataError, EngineError) as error:
        fail(str(error))
    if made is None:
        typer.echo("Nothing was written: a dry run.")
    else:
        typer.echo(f"{made.name} {made.version} lies in {made.folder}: `firstread models verify {made.folder}`")
