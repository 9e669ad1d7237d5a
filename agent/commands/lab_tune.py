"""``models tune``: a recipe's values varied, judged on validation patients, the best printed as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from firstread.agent.commands.common import fail


def tune(
    recipe: Annotated[str, typer.Argument(help="seed, default, metadata, scratch, or a .toml file.")],
    space: Annotated[Path, typer.Option(help='TOML file of values: "stage.0.rate" = { low = 1e-5, high = 1e-2 }.')],
    study: Annotated[Path, typer.Option(help="SQLite file of the study; run the same command again to go on.")],
    labels: Annotated[Path, typer.Option(help="Table of labels: NIH's Data_Entry, or any CSV.")],
    images: Annotated[Path, typer.Option(help="Folder that holds the images.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curves, best.toml and tuning.html.")],
    trials: Annotated[int, typer.Option(min=1, help="How many trials the study is to have in the end.")] = 20,
    boxes: Annotated[Path | None, typer.Option(help="NIH's BBox_List: maps learn to point into its boxes.")] = None,
    split: Annotated[str, typer.Option(help="hash (by patient), or official: NIH's test list is left out.")] = "hash",
    folds: Annotated[int, typer.Option(min=2, help="One of so many parts of the patients is left out.")] = 5,
    weights: Annotated[
        Path | None, typer.Option(help="First weights: a file or a bundle's folder, instead of the recipe's.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe, as stage.0.epochs=1; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads; every core without.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that prepare films; 0 for a thread.")] = None,
) -> None:
    """Tries values of a recipe and prints the best ones as a recipe; trials that fall behind are given up early."""
    from firstread.models.bundle import BundleError
    from firstread.models.data.film import DataError
    from firstread.models.training.command import Order

    try:
        from firstread.models.training.tune import tune as run
    except ModuleNotFoundError as error:
        fail(f"{error.name} is not installed: pip install 'firstread[training]'")

    order = Order(
        recipe=recipe,
        out=out,
        labels=labels,
        images=images,
        boxes=boxes,
        changes=tuple(changes or ()),
        split=split,
        folds=folds,
        weights=weights,
        device=device,
        threads=threads,
        workers=workers,
    )
    try:
        found = run(order, space, trials, study)
    except (DataError, BundleError) as error:
        fail(str(error))
    typer.echo(found.recipe.read_text(encoding="utf-8"))
    typer.echo(f"{found.ended} trials, {found.given_up} given up early; best {found.figure:.4f}", err=True)
    typer.echo(f"the recipe is {found.recipe}, the page {found.report}", err=True)
