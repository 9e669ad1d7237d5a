"""A bundle: weights and everything they must never be parted from, in one folder that is verified before it is used.

``bundle.toml`` holds the labels in order, preprocessing, network, calibration, operating points, canaries, provenance
and the SHA-256 of every other file; ``bundle.toml.sha256`` (as ``sha256sum`` writes it) holds that of ``bundle.toml``.
The weights are ``weights.safetensors``, or ``network.onnx`` where the network itself came from elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from firstread.models import bundle_checks
from firstread.models.architecture import Architecture, Graph
from firstread.models.prediction import ModelIdentity
from firstread.models.preprocess import Preprocessing

FORMAT = 1
WEIGHTS = "weights.safetensors"
ONNX = "network.onnx"
DESCRIPTION = "bundle.toml"
SEAL = "bundle.toml.sha256"


class BundleError(Exception):
    """A bundle must not be used; the message names the folder, says what is wrong and what to do."""


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities that can be meant: sigmoid(slope * logit + offset), in the order of the labels.

    ``method``: ``platt`` (both are fitted), ``temperature`` (offsets are 0) or ``identity`` (slopes 1, offsets 0, the
    network is taken at its word; the only one for a softmax, whose outputs hang together).
    """

    method: str
    slope: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def identity(cls, labels: int) -> Calibration:
        """The calibration that changes nothing, for so many labels."""
        return cls("identity", (1.0,) * labels, (0.0,) * labels)


@dataclass(frozen=True)
class Canary:
    """A film kept in the bundle (8-bit PNG, upright, bone bright) and the probability that each label must get.

    ``metadata``: what the network is told of it besides, for networks that take metadata.
    """

    file: str
    expected: Mapping[str, float]
    metadata: Mapping[str, float | str] = field(default_factory=dict)


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
    def weights_file(self) -> str:
        """Name of the file that holds the weights, or the whole network."""
        return ONNX if self.architecture.name == "onnx" else WEIGHTS

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights' file (of an ONNX bundle: of the network's file)."""
        return self.files[self.weights_file]

    @property
    def has_maps(self) -> bool:
        """Whether the model shows where it saw what; without maps there is no heat map and no region."""
        return self.architecture.has_maps

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
    bundle, problems = examine(folder)
    if problems or bundle is None:
        raise BundleError(f"bundle {folder} must not be used: {problems[0]}")
    return bundle


def verify_bundle(folder: Path) -> list[str]:
    """Every problem of a bundle, as sentences; an empty list when it may be used."""
    return examine(Path(folder))[1]


def read_weights(bundle: Bundle) -> dict[str, npt.NDArray[np.float32]]:
    """The weights by torchvision's names, as float32.

    Raises:
        BundleError: the file cannot be read, or the bundle holds an ONNX file instead.
    """
    if bundle.weights_file != WEIGHTS:
        raise BundleError(f"bundle {bundle.folder} holds an ONNX file: its weights cannot be taken out")
    try:
        with safe_open(bundle.folder / WEIGHTS, framework="numpy") as stored:
            return {name: stored.get_tensor(name).astype(np.float32) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{bundle.folder / WEIGHTS} cannot be read ({error}): install the bundle again") from error


def examine(folder: Path, *, sealed: bool = True) -> tuple[Bundle | None, list[str]]:
    """What a folder holds, as far as it can be read, and every problem with it.

    ``sealed``: False while a bundle is being written, before the file that makes it loadable is there.
    """
    try:
        return _examined(folder, sealed)
    except OSError as error:
        name = error.filename or folder
        return None, [f"{name} cannot be read ({error.strerror or error}): let the agent's user read it"]


def _examined(folder: Path, sealed: bool) -> tuple[Bundle | None, list[str]]:
    if not folder.is_dir():
        return None, [f"there is no folder {folder}: give the path of a bundle, or leave the setting out"]
    problems = _seal_problems(folder) if sealed else []
    if problems:
        return None, problems
    try:
        table = tomllib.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except ValueError as error:
        return None, [f"{DESCRIPTION} cannot be read ({error}): install the bundle again"]
    if table.get("format") != FORMAT:
        return None, [f"it is of format {table.get('format')!r}, this version reads {FORMAT}: update one of the two"]
    try:
        problems = _file_problems(folder, table)
        bundle = None if problems else _bundle(folder, table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        return None, [f"{DESCRIPTION}: {text}: it was not made by this product's tools"]
    if bundle is None:
        return None, problems
    return bundle, bundle_checks.problems(bundle)


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
    wanted = ONNX if table["network"].get("name") == "onnx" else WEIGHTS
    if wanted not in listed:
        return [f"{DESCRIPTION} lists no {wanted}: it was not made by this product's tools"]
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
    preprocessing: Preprocessing = _built(Preprocessing, table["preprocessing"])
    return Bundle(
        name=str(table["name"]),
        version=str(table["version"]),
        labels=labels,
        experimental=frozenset(table["experimental"]),
        thresholds=MappingProxyType({label: float(table["thresholds"][label]) for label in labels}),
        architecture=_architecture(table["network"], labels, preprocessing),
        preprocessing=preprocessing,
        calibration=Calibration(
            method=str(calibration["method"]),
            slope=tuple(float(calibration["slope"][label]) for label in labels),
            offset=tuple(float(calibration["offset"][label]) for label in labels),
        ),
        canaries=tuple(_canary(canary) for canary in table["canary"]),
        provenance=MappingProxyType(dict(table.get("provenance", {}))),
        files=MappingProxyType({str(name): str(digest) for name, digest in table["files"].items()}),
        folder=folder,
    )


def _architecture(network: Mapping[str, Any], labels: tuple[str, ...], preprocessing: Preprocessing) -> Architecture:
    """What the labels and the preprocessing say already does not stand in the network's table a second time."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in network.items()}
    if "graph" in values:
        graph = dict(values["graph"])
        graph["columns"] = tuple(graph["columns"][label] for label in labels)
        values["graph"] = _built(Graph, graph)
    if values.get("head") == "dense":
        values["input_size"] = preprocessing.input_size
    built: Architecture = _built(Architecture, {**values, "outputs": len(labels)})
    return built


def _canary(table: Mapping[str, Any]) -> Canary:
    return Canary(
        str(table["file"]),
        MappingProxyType({label: float(value) for label, value in table["expected"].items()}),
        MappingProxyType(dict(table.get("metadata", {}))),
    )


def _built(kind: type[Any], values: Mapping[str, Any]) -> Any:
    known = {field.name: str(field.type) for field in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{kind.__name__.lower()} has no {', '.join(unknown)}")
    for name, value in values.items():
        if not _is_a(value, known[name]):
            raise ValueError(f"{kind.__name__.lower()}.{name} is {value!r}: {_in_words(known[name])} is needed")
    return kind(**values)


def _in_words(wanted: str) -> str:
    each = wanted.removeprefix("tuple[").removesuffix(", ...]")
    said = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}.get(each, "a table")
    return f"a list, each of it {said}," if wanted != each else said


def _is_a(value: object, wanted: str) -> bool:
    """Whether a value of a TOML file is what a field says it takes; True is no number, and a number must be finite."""
    if wanted.startswith("tuple["):
        each = wanted.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, tuple) and all(_is_a(one, each) for one in value)
    if wanted == "float":
        return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
    if wanted == "int":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31
    simple: dict[str, type] = {"str": str, "bool": bool}
    return isinstance(value, simple[wanted]) if wanted in simple else True


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
