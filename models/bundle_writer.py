"""Weights become a bundle: canaries with their answers, hashes, a seal; whole and tried out, or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tomli_w
from PIL import Image

from firstread.models import bundle as bundles
from firstread.models import canary
from firstread.models.architecture import Architecture
from firstread.models.bundle import Bundle, BundleError, Calibration
from firstread.models.metadata import Known
from firstread.models.preprocess import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

PRECISIONS = ("float16", "float32")
CANARY_SIDE = 512

_OLD_NETWORK = ("name", "width", "blocks", "dilate_last", "pooling", "mean", "std")
_OLD_PREPROCESSING = (
    "input_size",
    "max_aspect",
    "trim_span",
    "trim_limit",
    "equalise_margin",
    "equalise_levels",
    "smoothing_px",
)
"""What every version writes and reads; the rest is written where it says something else than its default."""

_TOLD: tuple[Known, ...] = ({"age": 58.0, "sex": "F", "view": "PA"}, {"age": 31.0, "sex": "M", "view": "AP"}, {})
"""What the canaries' networks are told besides the pixels: everything, everything else, nothing."""


@dataclass(frozen=True, kw_only=True)
class BundleDraft:
    """All that goes into a bundle; :func:`write_bundle` adds canaries' answers, hashes and the seal.

    Exactly one of ``weights`` and ``onnx`` is given. ``weights``: tensors or arrays by torchvision's names, stored in
    ``precision`` (``float16`` halves the kernels, biases and batch normalisation stay in float32); or the path of a
    ``weights.safetensors`` that is taken over byte by byte. ``onnx``: the bytes of an ONNX file; ``architecture.graph``
    says how it is used, and whether it has maps is found out here.
    ``canaries``: uint8 [rows, columns] films, upright, bone bright; phantoms by default (:func:`default_canaries`).
    ``canary_metadata``: what is told of each canary besides, for networks that take metadata; varied by default.
    ``provenance``: a plain table for people (TOML values only). ``card``: Markdown. ``extra_files``: other files by
    name, ``evaluation.json``: hashed with the rest, read by nobody here.
    ``largest_bytes``: refuse a bundle that is larger, for those that are shipped.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    thresholds: Mapping[str, float]
    architecture: Architecture
    preprocessing: Preprocessing
    calibration: Calibration
    experimental: tuple[str, ...] = ()
    weights: Mapping[str, Tensor | npt.NDArray[Any]] | Path | None = None
    onnx: bytes | None = None
    precision: str = "float16"
    canaries: Sequence[npt.NDArray[np.uint8]] = ()
    canary_metadata: Sequence[Known] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    extra_files: Mapping[str, bytes] = field(default_factory=dict)
    largest_bytes: int | None = None


def write_bundle(draft: BundleDraft, folder: Path) -> Bundle:
    """Write a bundle at ``folder``, which must not exist yet, and return it as it loads from there.

    It is written into a hidden folder beside, checked, its canaries answered by eager torch (an ONNX file: by ONNX
    Runtime) in float32 on the weights as stored, put on disk, sealed, and then renamed: what is interrupted can neither
    be loaded nor be found.

    Raises:
        BundleError: there is something at ``folder``, or a bundle of this name and version beside it; what was given
            does not fit together (the sentence says what); or the disk does not take it. Nothing is left behind.
    """
    folder = Path(folder)
    _check_place(draft, folder)
    building: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
        _build(draft, building, folder)
        _sync(building)
        os.rename(building, folder)
        _sync_folder(folder.parent)
    except OSError as error:
        if folder.exists():
            raise BundleError(f"{folder} was made by somebody else meanwhile: choose another folder") from error
        raise BundleError(
            f"the bundle {folder} could not be written ({error}): make room or choose another place"
        ) from error
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    return bundles.load_bundle(folder)


def draft_of(bundle: Bundle) -> BundleDraft:
    """A bundle as a draft, weights and canaries as they are: ``replace`` some of it and write it under another version.

    Its card and extra files go along; what they say is of the old bundle, so give new ones where that matters.
    """
    own = {bundles.ONNX, bundles.WEIGHTS, "card.md", *(one.file for one in bundle.canaries)}
    films = []
    for one in bundle.canaries:
        with Image.open(bundle.folder / one.file) as stored:
            films.append(np.asarray(stored.convert("L")))
    foreign = bundle.weights_file == bundles.ONNX
    return BundleDraft(
        name=bundle.name,
        version=bundle.version,
        labels=bundle.labels,
        thresholds=bundle.thresholds,
        architecture=bundle.architecture,
        preprocessing=bundle.preprocessing,
        calibration=bundle.calibration,
        experimental=tuple(sorted(bundle.experimental)),
        weights=None if foreign else bundle.folder / bundles.WEIGHTS,
        onnx=(bundle.folder / bundles.ONNX).read_bytes() if foreign else None,
        canaries=films,
        canary_metadata=[one.metadata for one in bundle.canaries],
        provenance=bundle.provenance,
        card=bundle.card,
        extra_files={name: (bundle.folder / name).read_bytes() for name in bundle.files if name not in own},
    )


def default_canaries(side: int = CANARY_SIDE) -> list[npt.NDArray[np.uint8]]:
    """Four phantoms [side, side]: one without a lesion and three that differ from it and from one another."""
    from firstread.models.phantoms import draw as draw_phantom
    from firstread.models.phantoms import random_spec

    films = []
    for number, labels in enumerate(((), ("Effusion",), ("Pneumothorax",), ("Cardiomegaly", "Mass"))):
        phantom = draw_phantom(random_spec(np.random.default_rng([20240607, number]), labels, (side, side)))
        films.append((phantom.image * 255 + 0.5).astype(np.uint8))
    return films


def stored_weights(
    weights: Mapping[str, Tensor | npt.NDArray[Any]], precision: str = "float16"
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Weights as a bundle stores them: kernels in ``precision``; biases and batch normalisation always in float32.

    Counters of batches are left out. Raises BundleError for a precision that is unknown.
    """
    if precision not in PRECISIONS:
        raise BundleError(f"precision {precision!r} is unknown: use {' or '.join(PRECISIONS)}")
    kernels = np.float16 if precision == "float16" else np.float32
    stored: dict[str, npt.NDArray[np.floating[Any]]] = {}
    for name, tensor in weights.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().float().numpy()
        with np.errstate(over="ignore"):  # what is too large for float16 is found, and said, when the bundle is checked
            stored[name] = np.ascontiguousarray(array, kernels if array.ndim > 1 else np.float32)
    return stored


def _check_place(draft: BundleDraft, folder: Path) -> None:
    if not draft.name or not draft.version or "/" in draft.name + draft.version:
        raise BundleError("a bundle needs a name and a version, both without a slash")
    if not folder.name or folder.name.startswith("."):
        raise BundleError(f"{folder} cannot hold a bundle: give a folder whose name does not begin with a point")
    if folder.exists() or folder.is_symlink():
        raise BundleError(f"{folder} exists: a bundle is never overwritten; choose another folder, or remove it first")
    for path in folder.parent.glob("[!.]*/" + bundles.DESCRIPTION):
        with suppress(OSError, ValueError):
            table = tomllib.loads(path.read_text(encoding="utf-8"))
            if (table.get("name"), table.get("version")) == (draft.name, draft.version):
                raise BundleError(
                    f"{path.parent} is {draft.name} {draft.version} already: results could not tell the two apart; "
                    "choose another version"
                )


def _build(draft: BundleDraft, building: Path, folder: Path) -> None:
    draft = _completed(draft)
    _write_weights(draft, building)
    (building / "card.md").write_text(draft.card, encoding="utf-8")
    for number, film in enumerate(draft.canaries, start=1):
        Image.fromarray(np.asarray(film, np.uint8)).save(building / f"canary_{number}.png", optimize=True)
    for name, content in draft.extra_files.items():
        if Path(name).name != name or name.startswith(".") or (building / name).exists() or name in _RESERVED:
            raise BundleError(f"{name!r} cannot be an extra file: a plain name that the bundle does not use is needed")
        (building / name).write_bytes(content)
    _describe(building, draft, np.zeros((len(draft.canaries), len(draft.labels))))
    unanswered = _examined(building, folder)
    answers = _answers(unanswered)
    if not np.isfinite(answers).all():
        raise BundleError(f"the bundle made for {folder} was thrown away: its network answers with what is no number")
    _describe(building, draft, answers)
    _try_out(_examined(building, folder), folder)
    size = sum(path.stat().st_size for path in building.iterdir())
    if draft.largest_bytes is not None and size > draft.largest_bytes:
        raise BundleError(
            f"the bundle made for {folder} was thrown away: it has {size} bytes, at most {draft.largest_bytes} are "
            "allowed"
        )
    building.chmod(0o755)
    for path in building.iterdir():
        path.chmod(0o644)
    seal = f"{bundles.sha256_of(building / bundles.DESCRIPTION)}  {bundles.DESCRIPTION}\n"
    (building / bundles.SEAL).write_text(seal, encoding="ascii")


_RESERVED = frozenset({bundles.DESCRIPTION, bundles.SEAL, bundles.WEIGHTS, bundles.ONNX, "card.md"})


def _completed(draft: BundleDraft) -> BundleDraft:
    """What is found out about a draft before it is written: canaries, and whether an ONNX file has maps."""
    if (draft.weights is None) == (draft.onnx is None):
        raise BundleError("a bundle needs weights or an ONNX file, and not both")
    if (draft.architecture.name == "onnx") != (draft.onnx is not None):
        raise BundleError(
            f"network {draft.architecture.name!r} does not go with what was given: weights or an ONNX file"
        )
    if draft.architecture.outputs != len(draft.labels):
        raise BundleError(
            f"the network has {draft.architecture.outputs} outputs, {len(draft.labels)} labels were given"
        )
    if draft.architecture.head == "dense" and draft.architecture.input_size != draft.preprocessing.input_size:
        raise BundleError(
            f"the dense head takes squares of {draft.architecture.input_size} pixels, the preprocessing makes "
            f"{draft.preprocessing.input_size}"
        )
    short = [label for label in draft.labels if label not in draft.thresholds]
    if short:
        raise BundleError(f"{short[0]} has no operating point: give each label one, above 0 and at most 1")
    if not len(draft.labels) == len(draft.calibration.slope) == len(draft.calibration.offset):
        raise BundleError("the calibration needs a slope and an offset for each label")
    films = list(draft.canaries) or default_canaries()
    told = list(draft.canary_metadata) or [_TOLD[number % len(_TOLD)] for number in range(len(films))]
    if len(told) != len(films):
        raise BundleError(f"{len(films)} canaries came with {len(told)} rows of metadata: one for each is needed")
    return replace(draft, architecture=_with_maps(draft), canaries=films, canary_metadata=told)


def _with_maps(draft: BundleDraft) -> Architecture:
    architecture = draft.architecture
    if draft.onnx is None or architecture.graph is None:
        return architecture
    from firstread.models import onnx_file

    try:
        model = onnx_file.read(draft.onnx)
        onnx_file.check(
            model, replace(architecture, graph=replace(architecture.graph, maps=False)), draft.preprocessing.input_size
        )
        maps = onnx_file.pooled_features(model, architecture.graph.output) is not None
    except onnx_file.OnnxFileError as error:
        raise BundleError(f"the ONNX file cannot be used: {error}") from error
    return replace(architecture, graph=replace(architecture.graph, maps=maps))


def _write_weights(draft: BundleDraft, building: Path) -> None:
    if draft.onnx is not None:
        (building / bundles.ONNX).write_bytes(draft.onnx)
    elif isinstance(draft.weights, Path):
        shutil.copyfile(draft.weights, building / bundles.WEIGHTS)
    elif draft.weights is not None:
        from safetensors.numpy import save_file

        save_file(stored_weights(draft.weights, draft.precision), building / bundles.WEIGHTS)


def _examined(building: Path, folder: Path) -> Bundle:
    bundle, problems = bundles.examine(building, sealed=False)
    if bundle is None or problems:
        raise BundleError(f"the bundle made for {folder} was thrown away: {'; '.join(problems)}")
    return bundle


def _answers(bundle: Bundle) -> npt.NDArray[np.float64]:
    """The probabilities [canaries, L] that every engine must give from now on."""
    squares, told = canary.canary_squares(bundle), canary.canary_metadata(bundle)
    try:
        if bundle.architecture.name == "onnx":
            from firstread.models.engine_onnx import OnnxFileEngine

            return OnnxFileEngine(bundle, 1).run(squares, told).probabilities.astype(np.float64)
        from firstread.models.engine_torch import EagerEngine

        return EagerEngine(bundle).run(squares, told).probabilities.astype(np.float64)
    except BundleError:
        raise
    except Exception as error:  # whatever a library raises at a network that cannot run
        raise BundleError(f"the network cannot run: {str(error).strip().splitlines()[0]}") from error


def _try_out(bundle: Bundle, folder: Path) -> None:
    """The canaries through an engine of the service: a bundle that no engine can run is none."""
    from firstread.models.engine import EngineError, open_engine

    try:
        open_engine(bundle, "cpu", threads=1)
    except EngineError as error:
        raise BundleError(f"the bundle made for {folder} was thrown away: {error}") from error


def _describe(building: Path, draft: BundleDraft, expected: npt.NDArray[np.float64]) -> None:
    labels, calibration = draft.labels, draft.calibration
    table = {
        "format": bundles.FORMAT,
        "name": draft.name,
        "version": draft.version,
        "labels": list(labels),
        "experimental": sorted(draft.experimental),
        "thresholds": {label: float(draft.thresholds[label]) for label in labels},
        "network": _network_table(draft),
        "preprocessing": _telling(draft.preprocessing, _OLD_PREPROCESSING),
        "calibration": {
            "method": calibration.method,
            "slope": {label: float(value) for label, value in zip(labels, calibration.slope, strict=True)},
            "offset": {label: float(value) for label, value in zip(labels, calibration.offset, strict=True)},
        },
        "provenance": dict(draft.provenance),
        "canary": [_canary_table(draft, number, row) for number, row in enumerate(expected)],
        "files": {
            path.name: bundles.sha256_of(path)
            for path in sorted(building.iterdir())
            if path.name not in (bundles.DESCRIPTION, bundles.SEAL)
        },
    }
    try:
        text = tomli_w.dumps(table)
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"the provenance cannot be written as TOML ({error}): give text, numbers, lists and tables"
        ) from error
    (building / bundles.DESCRIPTION).write_text(text, encoding="utf-8")


def _network_table(draft: BundleDraft) -> dict[str, Any]:
    architecture = draft.architecture
    if architecture.graph is not None:
        graph = asdict(architecture.graph)
        graph["columns"] = dict(zip(draft.labels, architecture.graph.columns, strict=True))
        return {
            "name": architecture.name,
            "input_channels": architecture.input_channels,
            "mean": list(architecture.mean),
            "std": list(architecture.std),
            "output": architecture.output,
            "graph": graph,
        }
    table = _telling(architecture, _OLD_NETWORK)
    for said_elsewhere in ("outputs", "input_size"):
        table.pop(said_elsewhere, None)
    if architecture.head == "dense":
        table["hidden"] = list(architecture.hidden)
    return table


def _telling(values: Architecture | Preprocessing, always: tuple[str, ...]) -> dict[str, Any]:
    default = {name: one.default for name, one in type(values).__dataclass_fields__.items()}
    chosen = {name: value for name, value in asdict(values).items() if name in always or value != default[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def _canary_table(draft: BundleDraft, number: int, expected: npt.NDArray[np.float64]) -> dict[str, Any]:
    table: dict[str, Any] = {
        "file": f"canary_{number + 1}.png",
        "expected": {label: round(float(p), 7) for label, p in zip(draft.labels, expected, strict=True)},
    }
    if draft.architecture.metadata:
        table["metadata"] = {name: value for name, value in draft.canary_metadata[number].items() if value is not None}
    return table


def _sync(building: Path) -> None:
    for path in building.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_folder(building)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
