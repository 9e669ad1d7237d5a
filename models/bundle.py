"""A bundle: weights and everything they must never be parted from, in one folder that is verified before it is used.

``bundle.toml`` holds the labels in order, preprocessing, network, calibration, operating points, canaries, provenance
and the SHA-256 of every other file; ``bundle.toml.sha256`` (as ``sha256sum`` writes it) holds that of ``bundle.toml``.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from firstread.models.architecture import Architecture, parameter_shapes
from firstread.models.findings import LABELS
from firstread.models.prediction import ModelIdentity
from firstread.models.preprocess import Preprocessing

FORMAT = 1
WEIGHTS = "weights.safetensors"
DESCRIPTION = "bundle.toml"
SEAL = "bundle.toml.sha256"


class BundleError(Exception):
    """A bundle must not be used; the message names the folder, says what is wrong and what to do."""


@dataclass(frozen=True)
class Calibration:
    """Platt scaling per label: probability = sigmoid(slope * logit + offset), both in the order of the labels."""

    method: str
    slope: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Canary:
    """A film kept in the bundle (8-bit PNG, upright, bone bright) and the probability that each label must get."""

    file: str
    expected: Mapping[str, float]


@dataclass(frozen=True)
class Bundle:
    """Weights, and all that makes their numbers mean something.

    ``labels``: one per output, in the order of the weights. ``experimental``: labels that no evidence on real films
    supports; they raise nothing unless a site's policy says so. ``thresholds``: operating point per label.
    ``provenance``: how it came to be, as a plain table for people. ``files``: SHA-256 of each file by name.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    experimental: frozenset[str]
    thresholds: Mapping[str, float]
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    canaries: tuple[Canary, ...]
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    folder: Path

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file."""
        return self.files[WEIGHTS]

    @property
    def input_size(self) -> int:
        """Side of the square in pixels."""
        return self.preprocessing.input_size

    @property
    def identity(self) -> ModelIdentity:
        """How results name this bundle."""
        return ModelIdentity(self.name, self.version, self.weights_sha256)

    @property
    def card(self) -> str:
        """The model card as Markdown, empty when the bundle has none."""
        path = self.folder / "card.md"
        return path.read_text(encoding="utf-8") if path.is_file() else ""


def reference_bundle() -> Path:
    """The folder of the bundle that comes with the product."""
    return Path(__file__).parent / "bundles" / "reference"


def load_bundle(folder: Path) -> Bundle:
    """Verify a bundle and say what is in it. The weights themselves are read by :func:`read_weights`.

    Raises:
        BundleError: a file is missing, changed or unreadable, or what it says does not fit together.
    """
    folder = Path(folder)
    bundle, problems = _examine(folder)
    if problems or bundle is None:
        raise BundleError(f"bundle {folder} must not be used: {problems[0]}")
    return bundle


def verify_bundle(folder: Path) -> list[str]:
    """Every problem of a bundle, as sentences; an empty list when it may be used."""
    return _examine(Path(folder))[1]


def read_weights(bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by torchvision's names, as float32.

    Raises:
        BundleError: the file cannot be read.
    """
    try:
        with safe_open(bundle.folder / WEIGHTS, framework="numpy") as stored:
            return {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder / WEIGHTS} cannot be read ({error}): install the bundle again") from error


def _examine(folder: Path) -> tuple[Bundle | None, list[str]]:
    if not folder.is_dir():
        return None, [f"there is no folder {folder}: give the path of a bundle, or leave the setting out"]
    problems = _seal_problems(folder)
    if problems:
        return None, problems
    try:
        table = tomllib.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return None, [f"{DESCRIPTION} cannot be read ({error}): install the bundle again"]
    if table.get("format") != FORMAT:
        return None, [f"it is of format {table.get('format')!r}, this version reads {FORMAT}: update one of the two"]
    problems = _file_problems(folder, table)
    if problems:
        return None, problems
    try:
        bundle = _bundle(folder, table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        return None, [f"{DESCRIPTION}: {text}: it was not made by this product's tools"]
    problems = [*_meaning_problems(bundle), *_weight_problems(bundle)]
    return bundle, problems


def _seal_problems(folder: Path) -> list[str]:
    for name in (DESCRIPTION, SEAL):
        if not (folder / name).is_file():
            return [f"{name} is missing: install the bundle again"]
    words = (folder / SEAL).read_text(encoding="ascii", errors="replace").split()
    if not words or words[0] != sha256_of(folder / DESCRIPTION):
        return [f"{DESCRIPTION} was changed after the bundle was made: install it again, or make a new version"]
    return []


def _file_problems(folder: Path, table: Mapping[str, Any]) -> list[str]:
    listed = table.get("files", {})
    if WEIGHTS not in listed:
        return [f"{DESCRIPTION} lists no {WEIGHTS}: it was not made by this product's tools"]
    problems = []
    for name, expected in listed.items():
        if Path(name).name != name:
            problems.append(f"file name {name!r} leads out of the folder: this bundle is not to be trusted")
        elif not (folder / name).is_file():
            problems.append(f"{name} is missing: install the bundle again")
        elif sha256_of(folder / name) != expected:
            problems.append(f"{name} is not the file that the bundle was made with (SHA-256 differs): install it again")
    return problems


def _bundle(folder: Path, table: Mapping[str, Any]) -> Bundle:
    labels = tuple(table["labels"])
    calibration = table["calibration"]
    network = {key: tuple(value) if isinstance(value, list) else value for key, value in table["network"].items()}
    return Bundle(
        name=str(table["name"]),
        version=str(table["version"]),
        labels=labels,
        experimental=frozenset(table["experimental"]),
        thresholds=MappingProxyType({label: float(table["thresholds"][label]) for label in labels}),
        architecture=_built(Architecture, {**network, "outputs": len(labels)}),
        preprocessing=_built(Preprocessing, table["preprocessing"]),
        calibration=Calibration(
            method=str(calibration["method"]),
            slope=tuple(float(calibration["slope"][label]) for label in labels),
            offset=tuple(float(calibration["offset"][label]) for label in labels),
        ),
        canaries=tuple(
            Canary(str(canary["file"]), MappingProxyType({k: float(v) for k, v in canary["expected"].items()}))
            for canary in table["canary"]
        ),
        provenance=MappingProxyType(dict(table.get("provenance", {}))),
        files=MappingProxyType({str(name): str(digest) for name, digest in table["files"].items()}),
        folder=folder,
    )


def _built(kind: type[Any], values: Mapping[str, Any]) -> Any:
    unknown = sorted(set(values) - {field.name for field in fields(kind)})
    if unknown:
        raise ValueError(f"{kind.__name__.lower()} has no {', '.join(unknown)}")
    return kind(**values)


def _meaning_problems(bundle: Bundle) -> list[str]:
    labels = bundle.labels
    problems = [f"label {label!r} is unknown to this product" for label in labels if label not in LABELS]
    if len(set(labels)) != len(labels) or not labels:
        problems.append("its labels are empty or one stands twice: outputs and labels cannot be matched")
    for label in sorted(bundle.experimental - set(labels)):
        problems.append(f"{label!r} is called experimental but is no label of it")
    for label, threshold in bundle.thresholds.items():
        if not 0 < threshold <= 1:
            problems.append(f"the operating point of {label} is {threshold}: it must lie in (0, 1]")
    for label, slope, offset in zip(labels, bundle.calibration.slope, bundle.calibration.offset, strict=True):
        if not (math.isfinite(slope) and math.isfinite(offset)) or slope <= 0:
            problems.append(f"the calibration of {label} is {slope}, {offset}: a slope above 0 is needed")
    if bundle.calibration.method != "platt":
        problems.append(f"calibration method {bundle.calibration.method!r} is unknown: this version reads platt")
    if not bundle.canaries:
        problems.append("it has no canaries: without them nobody can tell that it works")
    for canary in bundle.canaries:
        if set(canary.expected) != set(labels):
            problems.append(f"canary {canary.file} does not say what to expect for each label")
        if canary.file not in bundle.files:
            problems.append(f"canary {canary.file} is not in the list of files")
    return problems


def _weight_problems(bundle: Bundle) -> list[str]:
    expected = parameter_shapes(bundle.architecture)
    try:
        with safe_open(bundle.folder / WEIGHTS, framework="numpy") as stored:
            found = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        return [f"{WEIGHTS} cannot be read ({error}): install the bundle again"]
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        names = ", ".join([*(f"no {name}" for name in missing[:3]), *(f"unknown {name}" for name in unknown[:3])])
        return [f"{WEIGHTS} does not hold this network ({names}): weights and description belong to different models"]
    if found["fc.weight"][0] != len(bundle.labels):
        return [f"the weights have {found['fc.weight'][0]} outputs, {DESCRIPTION} names {len(bundle.labels)} labels"]
    wrong = [name for name in expected if found[name] != expected[name]]
    if wrong:
        name = wrong[0]
        return [f"{WEIGHTS}: {name} is {list(found[name])}, the network needs {list(expected[name])}: other weights"]
    return []


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
