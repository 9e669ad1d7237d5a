"""``models card``: a bundle's card, from what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail


def card(
    bundle: Annotated[str, typer.Argument(help="Name or folder of the bundle.")],
    evaluation: Annotated[
        Path | None, typer.Option("--evaluation", metavar="FILE", help="What `models evaluate --json` wrote.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option("--audit", metavar="FILE", help="What `models audit --json` wrote.")
    ] = None,
    explanation: Annotated[
        Path | None, typer.Option("--explanation", metavar="FILE", help="What `models explain --json` wrote.")
    ] = None,
    training: Annotated[
        Path | None, typer.Option("--training", metavar="FILE", help="A training's summary, else the bundle's own.")
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option("--note", metavar="SENTENCE", help="A known failure to list. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write a version of the bundle with this card there, else print it."),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Version of that bundle, else the old one's with +card and the day.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of that bundle, else the old one's.")] = None,
) -> None:
    """A bundle's card from what was measured of it; what was not measured says so."""
    from datetime import date

    from firstread.agent.models_at_hand import bundle_folder
    from firstread.models.bundle import BundleError, load_bundle
    from firstread.models.card import run
    from firstread.models.data.film import DataError

    files = {"evaluation": evaluation, "audit": audit, "explanation": explanation, "training": training}
    try:
        loaded = load_bundle(bundle_folder(bundle))
        sources = run.read_sources(loaded, files)
        if out is None:
            typer.echo(run.card_of(loaded, sources, version=version, name=name, notes=note or ()))
            return
        made = run.write_carded(
            loaded,
            sources,
            out,
            version=version or run.card_version(loaded, date.today()),
            name=name,
            notes=note or (),
        )
    except (BundleError, DataError) as error:
        fail(str(error))
    typer.echo(f"{made.name} {made.version} with its card lies in {made.folder}")
