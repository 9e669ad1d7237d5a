"""``models train``: from a recipe and a folder of films to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail


def train(
    recipe: Annotated[str, typer.Argument(help="seed, default, metadata, scratch, or a .toml file.")],
    out: Annotated[Path, typer.Option(help="Folder to work in; run the same command again to go on after a stop.")],
    labels: Annotated[Path | None, typer.Option(help="Table of labels: NIH's Data_Entry, or any CSV.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that holds the images.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="NIH's BBox_List: maps learn to point into its boxes.")] = None,
    split: Annotated[str, typer.Option(help="hash (by patient), or official: NIH's own test list judges.")] = "hash",
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Hold one part out and train once: quicker, judged by less.")
    ] = False,
    folds: Annotated[int, typer.Option(min=2, help="Into how many parts the patients are divided.")] = 5,
    weights: Annotated[
        Path | None, typer.Option(help="First weights: a file or a bundle's folder, instead of the recipe's.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe, as stage.0.epochs=1; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; the recipe's without.")] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "1.0.0",
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the card's known failures.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; several GPUs by torchrun.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; every core without.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare films; 0 for a thread.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say after every epoch how long the network waited for films.")
    ] = False,
) -> None:
    """Trains a recipe on films with labels, judges it on patients it never saw, and writes a bundle."""
    from firstread.models.bundle import BundleError
    from firstread.models.data.film import DataError
    from firstread.models.training.command import Order, train_to_bundle

    order = Order(
        recipe=recipe,
        out=out,
        labels=labels,
        images=images,
        boxes=boxes,
        changes=tuple(changes or ()),
        split=split,
        folds=folds,
        hold_out=hold_out,
        weights=weights,
        threads=threads,
        workers=workers,
        device=device,
        name=name,
        version=version,
        notes=tuple(note or ()),
        profile=profile,
    )
    try:
        bundle = train_to_bundle(order)
    except (DataError, BundleError) as error:
        fail(str(error))
    if bundle is not None:
        typer.echo(f"{bundle.name} {bundle.version} lies in {bundle.folder}")
