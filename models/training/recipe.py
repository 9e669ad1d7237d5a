"""A recipe: everything that decides a training's outcome, in one TOML file that is printed into the bundle."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import tomli_w
from pydantic import TypeAdapter, ValidationError

from firstread.models.architecture import Architecture
from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.preprocess import Preprocessing
from firstread.models.training.augment import Augmentation

RECIPES = Path(__file__).parent / "recipes"

NORMALISATIONS: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (tuple(v / 255 for v in (103.939, 116.779, 123.68)), (1 / 255, 1 / 255, 1 / 255)),  # type: ignore[dict-item]
}
"""Mean and standard deviation per channel, of greys in [0, 1]. ``imagenet`` is what torchvision's weights were trained
with; ``caffe`` is Keras's ``resnet50.preprocess_input`` (greys 0 to 255, each channel's mean taken off, not scaled)."""

AUXILIARY = ("sex", "age")
AUXILIARY_WEIGHT = 2.0
STAGE_PARTS = ("head", "layer4", "layer3", "layer2", "all")

Section = TypeVar("Section")


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser over the films.

    ``films``: ``phantoms`` or ``all``. ``phantoms_per_epoch``: how many phantoms are drawn from the store for each
    epoch (real films are all seen once). ``rate``: learning rate; ``schedule`` ``one_cycle`` rises to it and falls
    again, ``constant`` keeps it. ``smoothing``: label smoothing on real films, whose labels are noisy; phantoms are
    known. ``average``: decay of the moving average of the weights, which is what the stage hands on; 0 for none.
    ``input_size``: another square than the bundle's, smaller and so faster, for a stage that is not the last.
    ``reduce``: films are shrunk by this whole factor before they are varied (blur with them), for a stage whose squares
    are much smaller than the stored films: a quarter of the work with 2.
    ``dilate_last``: another resolution of the last stage of the network than the bundle's, likewise.
    ``pointing``: weight of the demand that a map's peak lie in its lesion's box, where a box is known.
    ``trains``: ``all``, or from which part upwards: ``layer2``, ``layer3``, ``layer4`` or ``head`` alone; what lies
    below is locked, its batch normalisation included. ``backbone_rate``: the rate of what is not the head, as a share.
    ``labels``: only these are learned, what the head says of all others stays as it is; every label when empty.
    ``patience``: epochs without a better validation figure after which the stage ends; its best weights are handed on.
    """

    name: str
    films: Literal["phantoms", "all"]
    epochs: int
    rate: float
    phantoms_per_epoch: int = 0
    batch: int = 16
    weight_decay: float = 0.05
    smoothing: float = 0.05
    average: float = 0.99
    input_size: int | None = None
    reduce: int = 1
    dilate_last: bool | None = None
    pointing: float = 0.0
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    trains: Literal["head", "layer4", "layer3", "layer2", "all"] = "all"
    backbone_rate: float = 1.0
    labels: tuple[str, ...] = ()
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be meant.

        Raises:
            ValueError: names the key and its range.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"stage name {self.name!r} becomes a file name: use letters, digits, - and _")
        ranges: tuple[tuple[str, float, float], ...] = (
            ("epochs", 1, 100_000),
            ("rate", 1e-9, 10),
            ("batch", 2, 65_536),
            ("weight_decay", 0, 10),
            ("smoothing", 0, 0.5),
            ("average", 0, 0.99999),
            ("pointing", 0, 100),
            ("backbone_rate", 0, 10),
            ("phantoms_per_epoch", 0, 10_000_000),
            ("reduce", 1, 16),
        )
        _check_ranges(self, ranges, f"stage {self.name}: ")
        if self.input_size is not None and not 32 <= self.input_size <= 1024:
            raise ValueError(f"stage {self.name}: input_size is {self.input_size}, it must lie between 32 and 1024")
        unknown = sorted(set(self.labels) - set(LABELS))
        if unknown:
            raise ValueError(f"stage {self.name}: labels knows the 15 labels, not {', '.join(unknown)}")
        if self.labels and (self.trains != "head" or self.weight_decay > 0):
            raise ValueError(
                f'stage {self.name}: labels needs trains = "head" and weight_decay = 0, or others move too'
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"stage {self.name}: patience is {self.patience}, at least one epoch is needed")


@dataclass(frozen=True)
class Recipe:
    """A training from the first weight to the last.

    ``store_side``: side in pixels at which films are kept and varied before they are prepared.
    ``phantoms``: how many phantoms are drawn in all; ``judged_phantoms`` others judge.
    ``initial``: ``random``, or ``imagenet`` (torchvision's published weights; ``--weights`` replaces both).
    ``normalisation``: a name out of NORMALISATIONS. ``head``, ``hidden``, ``metadata``, ``width``, ``blocks``,
    ``dilate_last``, ``pooling``: the network's, see Architecture.
    ``loss``: ``sigmoid`` (each label for itself) or ``softmax`` (one class per entry). ``once_per_label``: a film is
    entered once under each of its labels, as a softmax needs it.
    ``balance``: rare labels weigh more: (without / with) to this power, 0 for not at all, 1 for full balance, never
    more than ``balance_limit``.
    ``auxiliary``: what is learned besides and dropped from the bundle (``sex``, ``age``); ``label_weights``: weight of
    a label on real films. ``metadata_missing``: chance that a known value is hidden in training, so that the network
    knows what to do without it.
    ``validation``: share of the learning patients kept aside to choose by (early stopping, tuning); ``stop_on``: the
    figure that is watched: ``loss``, ``auroc`` (mean over labels) or ``auroc.<label>``.
    ``precision``: ``auto`` takes half precision where the device is good at it.
    ``evidence``: the labels that the films at hand can say something about, if enough of them judge; all others are
    experimental. Without it, those with enough judged real films of either kind.
    """

    name: str
    seed: int
    store_side: int
    preprocessing: Preprocessing
    stages: tuple[Stage, ...]
    phantoms: int = 0
    judged_phantoms: int = 0
    dilate_last: bool = True
    pooling: Literal["mean", "log_mean_exp"] = "mean"
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    head: Literal["linear", "dense"] = "linear"
    hidden: tuple[int, ...] = (512, 512)
    normalisation: Literal["half", "imagenet", "caffe"] = "half"
    initial: Literal["random", "imagenet"] = "random"
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    once_per_label: bool = False
    balance: float = 0.0
    balance_limit: float = 20.0
    optimiser: Literal["adamw", "rmsprop"] = "adamw"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    auxiliary: tuple[Literal["sex", "age"], ...] = ()
    label_weights: Mapping[str, float] = field(default_factory=dict)
    metadata: tuple[Literal["age", "sex", "view"], ...] = ()
    metadata_missing: float = 0.3
    validation: float = 0.0
    stop_on: str = "auroc"
    evidence: tuple[str, ...] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    augmentation_phantoms: Augmentation = field(default_factory=Augmentation)
    text: str = ""

    def __post_init__(self) -> None:
        """Refuse what does not fit together.

        Raises:
            ValueError: says which keys.
        """
        ranges: tuple[tuple[str, float, float], ...] = (
            ("store_side", 32, 4096),
            ("phantoms", 0, 10_000_000),
            ("judged_phantoms", 0, 1_000_000),
            ("balance", 0, 1),
            ("balance_limit", 1, 1e6),
            ("metadata_missing", 0, 1),
            ("validation", 0, 0.5),
        )
        _check_ranges(self, ranges, "")
        if not self.stages:
            raise ValueError("it has no [[stage]]")
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError("two stages have the same name")
        if self.stages[-1].input_size not in (None, self.preprocessing.input_size):
            raise ValueError("the last stage must train at preprocessing.input_size, the square that the bundle serves")
        for stage in self.stages:
            size = stage.input_size or self.preprocessing.input_size
            if stage.reduce > 1 and self.store_side // stage.reduce < size:
                reduced = f"{self.store_side} px reduced by {stage.reduce}"
                raise ValueError(f"stage {stage.name}: films of {reduced} are smaller than its squares of {size} px")
        if self.stages[-1].dilate_last not in (None, self.dilate_last):
            raise ValueError("the last stage must train the network that the bundle serves: leave its dilate_last out")
        if any(stage.patience for stage in self.stages) and self.validation == 0:
            raise ValueError("a stage with patience needs films to choose by: set validation, as 0.1")
        if (self.loss == "softmax") != self.once_per_label:
            raise ValueError('loss = "softmax" and once_per_label = true belong together')
        if self.loss == "softmax" and (self.auxiliary or self.metadata or self.phantoms):
            raise ValueError("a softmax learns labels alone: leave auxiliary, metadata and phantoms out")
        unknown = sorted({*self.label_weights, *(self.evidence or ())} - set(LABELS))
        if unknown:
            raise ValueError(f"label_weights and evidence know the 15 labels, not {', '.join(unknown)}")
        if self.stop_on not in ("loss", "auroc", *(f"auroc.{label}" for label in LABELS)):
            raise ValueError(f"stop_on is {self.stop_on!r}: it must be loss, auroc or auroc.<label>")
        if self.head == "dense" and any(stage.input_size or stage.pointing for stage in self.stages):
            raise ValueError("a dense head knows one input_size and has no map: leave input_size and pointing out")
        self.architecture(len(LABELS))

    def architecture(self, outputs: int, stage: Stage | None = None) -> Architecture:
        """The network with so many outputs, as a stage trains it or, without one, as the bundle serves it."""
        own = None if stage is None else stage.dilate_last
        mean, std = NORMALISATIONS[self.normalisation]
        return Architecture(
            outputs=outputs,
            width=self.width,
            blocks=self.blocks,
            dilate_last=self.dilate_last if own is None else own,
            pooling=self.pooling,
            mean=mean,
            std=std,
            head=self.head,
            hidden=self.hidden,
            output=self.loss,
            metadata=self.metadata,
            input_size=self.preprocessing.input_size if self.head == "dense" else 0,
        )


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the name of one that comes with the product, or by path.

    ``changes``: ``key=value`` with a dotted key (``stage.0.epochs=1``, ``stage.all.rate=1e-4``,
    ``augmentation.flip=0``) and a value as TOML writes it. They are applied before anything is checked and stand in
    the recipe's text.

    Raises:
        DataError: no such recipe, or a key or value that no recipe has.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml")))
        raise DataError(f"no recipe {name!r}: give a .toml file or one of {known}")
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a recipe: {error}") from error
    if changes:
        for change in changes:
            _change(table, change)
        said = "".join(f"# changed: {change}\n" for change in changes)
        text = f"# {path.name}, with changes\n{said}\n{tomli_w.dumps(table)}"
    return recipe_of(table, text, str(path))


def recipe_of(table: Mapping[str, Any], text: str, where: str) -> Recipe:
    """A recipe of its table. ``text`` is kept as it is; ``where`` names it in an error.

    Raises:
        DataError: names the key that is unknown, missing or has a wrong value.
    """
    values = dict(table)
    try:
        stages = values.pop("stage", None)
        if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
            raise ValueError("[[stage]] is missing: at least one stage is needed")
        values["stages"] = tuple(_section(Stage, one, f"stage.{n}.") for n, one in enumerate(stages))
        values["preprocessing"] = _section(Preprocessing, values.get("preprocessing", {}), "preprocessing.")
        for part in ("augmentation", "augmentation_phantoms"):
            values[part] = _section(Augmentation, values.get(part, {}), f"{part}.")
        return _section(Recipe, {**values, "text": text}, "")
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: not a recipe: {error}") from error


def _change(table: dict[str, Any], change: str) -> None:
    key, sign, written = change.partition("=")
    if not sign:
        raise DataError(f"--set {change!r}: write KEY=VALUE, as stage.0.epochs=1")
    try:
        value = tomllib.loads(f"value = {written.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = written.strip()  # a word without quotes is meant as text
    set_value(table, key.strip(), value)


def set_value(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of a recipe's table; a stage goes by its number or its name.

    Raises:
        DataError: the key leads nowhere.
    """
    *way, last = _parts(key)
    place: Any = table
    for step in way:
        if isinstance(place, list):
            place = _stage(place, step, key)
        elif isinstance(place, dict):
            place = place.setdefault(step, {})
    if isinstance(place, list) or not isinstance(place, dict) or not last:
        raise DataError(f"{key!r} is no key of a recipe: write it as seed, augmentation.flip or stage.0.epochs")
    place[last] = value


def _parts(key: str) -> list[str]:
    """``label_weights.No Finding`` is two parts; quotes are allowed around each."""
    return [part.strip().strip("\"'") for part in key.split(".")]


def _stage(stages: list[Any], step: str, key: str) -> Any:
    for number, stage in enumerate(stages):
        if step in (str(number), stage.get("name")):
            return stage
    known = ", ".join(f"{number} ({stage.get('name')})" for number, stage in enumerate(stages))
    raise DataError(f"{key!r}: there is no such stage: the recipe has {known}")


def _section(kind: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """A dataclass of a table, its keys and the types of its values checked."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where.rstrip('.')} must be a table")
    known = {each.name for each in fields(kind) if (kind, each.name) != (Recipe, "stages")}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known - {"stages"})
    if unknown:
        raise ValueError(f"there is no key {', '.join(where + name for name in unknown)} (known: {_listed(known)})")
    hints = get_type_hints(kind)
    built = {}
    for name, value in values.items():
        if value.__class__ in (Stage, Preprocessing, Augmentation) or name == "stages":
            built[name] = value
            continue
        try:
            built[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{where}{name} is {value!r}: {reason[0].lower()}{reason[1:]}") from error
    try:
        return kind(**built)
    except TypeError as error:
        missing = re.findall(r"'(\w+)'", str(error))
        raise ValueError(f"{', '.join(where + name for name in missing)} is missing") from error


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names - {"text"}))


def _check_ranges(section: Any, ranges: Sequence[tuple[str, float, float]], where: str) -> None:
    for name, low, high in ranges:
        if not low <= getattr(section, name) <= high:
            raise ValueError(f"{where}{name} is {getattr(section, name)}, it must lie between {low:g} and {high:g}")
