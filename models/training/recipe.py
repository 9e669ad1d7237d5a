"""A recipe: everything that decides a training's outcome, in one TOML file that is printed into the bundle."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from firstread.models.preprocess import Preprocessing
from firstread.models.training.augment import Augmentation
from firstread.models.training.dataset import TrainingDataError

RECIPES = Path(__file__).parent / "recipes"

Section = TypeVar("Section")


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser over the films.

    ``films``: ``phantoms`` or ``all``. ``phantoms_per_epoch``: how many phantoms are drawn from the store for each
    epoch (real films are all seen once). ``rate``: peak of the one-cycle learning rate. ``smoothing``: label
    smoothing on real films, whose labels are noisy; phantoms are known. ``average``: decay of the moving average
    of the weights, which is what the stage hands on. ``input_size``: another square than the bundle's, smaller and so
    faster, for a stage that is not the last. ``pointing``: weight of the demand that a map's peak lie in its lesion's
    box, where a box is known.
    """

    name: str
    films: str
    epochs: int
    rate: float
    phantoms_per_epoch: int = 0
    batch: int = 16
    weight_decay: float = 0.05
    smoothing: float = 0.05
    average: float = 0.99
    input_size: int | None = None
    pointing: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A training from the first weight to the last.

    ``store_side``: side in pixels at which films are kept and varied before they are prepared.
    ``phantoms``: how many phantoms are drawn in all; the first ones train, others judge.
    """

    name: str
    seed: int
    store_side: int
    phantoms: int
    judged_phantoms: int
    preprocessing: Preprocessing
    stages: tuple[Stage, ...]
    dilate_last: bool = True
    pooling: str = "mean"
    augmentation: Augmentation = field(default_factory=Augmentation)
    augmentation_phantoms: Augmentation = field(default_factory=Augmentation)
    text: str = ""


def load_recipe(name: str) -> Recipe:
    """Read a recipe by the name of one that comes with the product, or by path.

    Raises:
        TrainingDataError: no such recipe, or a key or value that no recipe has.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise TrainingDataError(f"no recipe {name!r}: give a .toml file or one of {known}")
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
        stages = tuple(_section(Stage, stage, "stage") for stage in table.pop("stage"))
        preprocessing = _section(Preprocessing, table.pop("preprocessing"), "preprocessing")
        augmentation = _section(Augmentation, table.pop("augmentation", {}), "augmentation")
        drawn = _section(Augmentation, table.pop("augmentation_phantoms", {}), "augmentation_phantoms")
        varied = {"augmentation": augmentation, "augmentation_phantoms": drawn}
        rest = {**table, **varied, "stages": stages, "preprocessing": preprocessing, "text": text}
        return _section(Recipe, rest, "recipe")
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingDataError(f"{path}: not a recipe: {error}") from error


def _section(kind: type[Section], values: Mapping[str, Any], where: str) -> Section:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"{where} has no {', '.join(unknown)} (it has {', '.join(sorted(names))})")
    return kind(**values)
