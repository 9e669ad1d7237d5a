"""Published weights become a bundle: read, named, prepared for as their library does, tried out, and only then kept."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from firstread.models.architecture import GIVES, Architecture, Graph
from firstread.models.bundle import Bundle, BundleError, Calibration
from firstread.models.bundle_writer import BundleDraft, default_canaries, write_bundle
from firstread.models.data.film import DataError
from firstread.models.importing import labels as names
from firstread.models.importing import record
from firstread.models.importing.checkpoint import read_tensors
from firstread.models.importing.graphs import GraphFile, read_graph
from firstread.models.importing.origins import (
    ARCHITECTURES,
    AUTO,
    ONNX,
    ORIGINS,
    TORCHVISION,
    XRAYVISION,
    Origin,
    Wanted,
    normalisation_of,
    preprocessing_of,
)
from firstread.models.importing.parity import Parity, compare, graph_answers, network_answers
from firstread.models.importing.points import Points, operating_points
from firstread.models.importing.resnet_names import ResNetWeights, resnet_of
from firstread.models.new_version import toml_ready
from firstread.models.preprocess import Preprocessing, prepare

OUTPUTS = ("sigmoid", "softmax")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be imported and what the user says of it; empty and None leave a choice to the file and its library.

    ``labels``: a list with commas, a file, or the name of a collection, in the order of the outputs. ``output``:
    ``sigmoid`` or ``softmax``. ``thresholds``: a file of operating points. ``graph_output``: for ONNX files,
    with ``graph_gives`` (``logits`` or ``probabilities``) where the graph does not tell.
    ``precision``: ``float32`` keeps every bit; ``float16`` halves the bundle and changes answers a little.
    """

    file: Path
    arch: str = AUTO
    labels: str = ""
    name: str = ""
    version: str = "1.0.0"
    out: Path | None = None
    wanted: Wanted = field(default_factory=Wanted)
    output: str = ""
    thresholds: Path | None = None
    precision: str = "float32"
    graph_output: str = ""
    graph_gives: str = ""
    note: str = ""
    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True)
class Imported:
    """A bundle made of somebody's weights. ``outputs``: the name of each output and the label it became, if any.

    ``remarks``: sentences that the user must read. ``parity``: the bundle in force against the weights as they came.
    """

    bundle: Bundle
    arch: str
    outputs: tuple[tuple[str, str | None], ...]
    points: Points
    remarks: tuple[str, ...]
    parity: Parity

    @property
    def dropped(self) -> tuple[str, ...]:
        """Outputs that the product has no label for."""
        return tuple(name or f"output {i}" for i, (name, label) in enumerate(self.outputs) if label is None)


@dataclass(frozen=True)
class _Material:
    """A file read: its network for all known labels, and what must be said of it."""

    origin: Origin
    outputs: tuple[str, ...]
    labels: tuple[str | None, ...]
    architecture: Architecture
    preprocessing: Preprocessing
    tensors: Mapping[str, Tensor] | None
    graph: GraphFile | None
    stored_points: tuple[float, ...]
    read: Mapping[str, object]
    remarks: tuple[str, ...]
    sure: bool = True

    @property
    def known(self) -> tuple[str, ...]:
        """The labels of the bundle, in the order of the outputs."""
        return tuple(label for label in self.labels if label is not None)

    @property
    def columns(self) -> tuple[int, ...]:
        """The outputs that the bundle uses."""
        return tuple(column for column, label in enumerate(self.labels) if label is not None)


def import_weights(request: Request) -> Imported:
    """Read a file of weights, write a bundle of it, and compare the two on the bundle's canaries.

    Every label of the bundle is experimental: it raises nothing until a site's policy says so or its calibration on
    films of its own has been looked at. Labels that the weights lack are absent, that is, not assessed.

    Raises:
        DataError: the file, its labels or an option cannot be used; says which and what to do.
        BundleError: the bundle cannot be written, or answers differently from the weights. Nothing is left behind.
    """
    file = Path(request.file)
    if request.arch not in (AUTO, *ARCHITECTURES):
        raise DataError(f"--arch {request.arch} is unknown: use {AUTO}, {', '.join(ARCHITECTURES)}")
    if request.output not in ("", *OUTPUTS):
        raise DataError(f"--output {request.output} is unknown: use {' or '.join(OUTPUTS)}")
    given = names.read_points(request.thresholds) if request.thresholds else {}
    is_graph = request.arch == ONNX or (request.arch == AUTO and file.suffix.lower() == ".onnx")
    material = _graph_material(request) if is_graph else _resnet_material(request)
    points = operating_points(
        material.labels,
        given=given,
        stored=material.stored_points,
        published=material.origin.arch == XRAYVISION and material.outputs == material.origin.labels,
    )
    folder, name = _place(request)
    canaries = default_canaries()
    squares = np.stack(
        [prepare(np.asarray(film, np.float32) / np.float32(255), material.preprocessing) for film in canaries]
    )
    expected, constant = _original_answers(material, squares)
    remarks = [*material.remarks, *points.remarks, *constant]
    dropped = [one or f"number {i}" for i, one in enumerate(material.outputs) if material.labels[i] is None]
    if dropped:
        remarks.append(f"Outputs that the product has no label for were left out: {', '.join(dropped)}.")
    facts = record.Facts(
        file=file.name,
        sha256=_sha256(file),
        origin=material.origin,
        outputs=tuple(zip(material.outputs, material.labels, strict=True)),
        output=material.architecture.output,
        preprocessing=material.preprocessing,
        mean=material.architecture.mean,
        std=material.architecture.std,
        points=points,
        precision="as given" if material.graph else request.precision,
        read=material.read,
        remarks=tuple(remarks),
        note=request.note,
    )
    draft = BundleDraft(
        name=name,
        version=request.version,
        labels=material.known,
        thresholds=points.values,
        architecture=material.architecture,
        preprocessing=material.preprocessing,
        calibration=Calibration.identity(len(material.known)),
        experimental=material.known,
        weights=None if material.tensors is None else material.tensors,
        onnx=None if material.graph is None else material.graph.content,
        precision=request.precision,
        canaries=canaries,
        provenance=toml_ready(record.provenance(facts)),
        card=record.card(name, request.version, facts),
    )
    bundle = write_bundle(draft, folder)
    try:
        parity = compare(bundle, squares, expected, exact=request.precision == "float32", device=request.device,
                         threads=request.threads)  # fmt: skip
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if parity.remark:
        remarks.append(parity.remark)
    return Imported(bundle, material.origin.arch, facts.outputs, points, tuple(remarks), parity)


def _resnet_material(request: Request) -> _Material:
    file = Path(request.file)
    if file.suffix.lower() == ".onnx":
        raise DataError(f"{file} is an ONNX file: use --arch onnx")
    found = resnet_of(read_tensors(file), str(file))
    arch, remarks = _arch_of(request.arch, found)
    origin = ORIGINS[arch]
    if arch == XRAYVISION and found.channels != 1:
        raise DataError(
            f"{file}: its first layer reads {found.channels} channels, torchxrayvision's ResNet50 reads one: use "
            f"--arch {TORCHVISION}"
        )
    outputs = _outputs(request, origin, found.outputs)
    labels = names.matched(outputs)
    softmax = request.output == "softmax"
    known = [column for column, label in enumerate(labels) if label is not None]
    if softmax and len(known) < found.outputs:
        left = ", ".join(repr(outputs[i]) for i in range(found.outputs) if labels[i] is None)
        raise DataError(
            f"a softmax shares one sum among all its outputs, and the product has no label for {left}: export the "
            "network to ONNX with its softmax and use --arch onnx"
        )
    if softmax and found.outputs < 2:
        raise DataError("a softmax over one output is always 1: use --output sigmoid")
    mean, std = normalisation_of(origin, request.wanted, found.channels)
    tensors = {
        **found.tensors,
        "fc.weight": found.tensors["fc.weight"][known],
        "fc.bias": found.tensors["fc.bias"][known],
    }
    return _Material(
        origin=origin,
        outputs=outputs,
        labels=labels,
        architecture=Architecture(
            outputs=len(known),
            width=found.width,
            dilate_last=False,
            mean=mean,
            std=std,
            input_channels=found.channels,
            output="softmax" if softmax else "sigmoid",
        ),
        preprocessing=preprocessing_of(origin, request.wanted),
        tensors=tensors,
        graph=None,
        stored_points=found.op_threshs,
        read={"prefix": found.prefix, "head": found.head, "ignored": list(found.ignored)},
        remarks=tuple(remarks),
    )


def _arch_of(asked: str, found: ResNetWeights) -> tuple[str, list[str]]:
    if asked != AUTO:
        return asked, []
    if found.channels == 1 and found.outputs == len(ORIGINS[XRAYVISION].labels):
        return XRAYVISION, [f"Taken for {XRAYVISION}: one input channel and {found.outputs} outputs."]
    return TORCHVISION, [
        f"Taken for {TORCHVISION} (torchvision): its names and shapes fit. timm's are the same, but timm prepares "
        "films otherwise: use --arch timm-resnet50 if they come from there."
    ]


def _graph_material(request: Request) -> _Material:
    file = Path(request.file)
    if not file.is_file():
        raise DataError(f"{file}: there is no such file: give the file that holds the weights")
    if request.precision != "float32":
        raise DataError("an ONNX file is kept as it is: leave --precision out")
    origin = ORIGINS[ONNX]
    graph = read_graph(file, request.graph_output)
    outputs = _outputs(request, origin, graph.outputs)
    labels = names.matched(outputs)
    if graph.end and request.output and graph.end != request.output:
        raise DataError(
            f"--output is {request.output}, the graph ends in a {graph.end} of its own: leave the option out"
        )
    gives = request.graph_gives or ("probabilities" if graph.end else "logits")
    if gives not in GIVES:
        raise DataError(f"--graph-gives {gives} is unknown: use {' or '.join(GIVES)}")
    if graph.end and gives == "logits":
        raise DataError(f"the graph ends in a {graph.end}: it gives probabilities; leave --graph-gives out")
    columns = tuple(column for column, label in enumerate(labels) if label is not None)
    mean, std = normalisation_of(origin, request.wanted, graph.channels)
    remarks = [] if request.arch == ONNX else ["Taken for an ONNX file, by its name."]
    if request.output == "softmax" and not graph.end and len(outputs) < 2:
        raise DataError("a softmax over one output is always 1: use --output sigmoid")
    return _Material(
        origin=origin,
        outputs=outputs,
        labels=labels,
        architecture=Architecture(
            outputs=len(columns),
            name="onnx",
            mean=mean,
            std=std,
            input_channels=graph.channels,
            output=graph.end or request.output or "sigmoid",
            graph=Graph(graph.input, graph.output, columns, gives=gives),
        ),
        preprocessing=preprocessing_of(origin, request.wanted, graph.size),
        tensors=None,
        graph=graph,
        stored_points=(),
        read={"graph_input": graph.input, "graph_output": graph.output},
        remarks=tuple(remarks),
        sure=bool(request.graph_gives or graph.end),
    )


def _outputs(request: Request, origin: Origin, outputs: int | None) -> tuple[str, ...]:
    """The name of each output, as the user gives them or the library defines them."""
    given = names.read_names(request.labels) if request.labels else origin.labels
    if not given:
        raise DataError(
            f"the {outputs or ''} outputs of {request.file} need names: give --labels, in the order of the training, "
            f"as a list with commas, a file, or one of {', '.join(names.COLLECTIONS)}".replace("  ", " ")
        )
    if outputs is not None and len(given) != outputs:
        source = "--labels names" if request.labels else f"{origin.arch} has"
        raise DataError(
            f"{request.file} has {outputs} outputs, {source} {len(given)}: name each output in its order, with - for "
            "one that is not to be used"
        )
    return tuple(given)


def _original_answers(material: _Material, squares: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Probabilities [N, L] of the weights as they came, and what is odd about them."""
    architecture = material.architecture
    if material.graph is None:
        assert material.tensors is not None
        answers = network_answers(architecture, material.tensors, squares)
    else:
        answers = graph_answers(material.graph, architecture, squares, sure=material.sure)
    if not np.isfinite(answers).all():
        raise DataError("the network answers with values that are not numbers: the weights are broken")
    if float(np.ptp(answers, axis=0).max()) < 1e-4:
        return answers, [
            "The network gives four different phantoms the same answer: the normalisation (--mean, --std) is probably "
            "not the one of its training."
        ]
    return answers, []


def _place(request: Request) -> tuple[Path, str]:
    name = request.name or re.sub(r"[^A-Za-z0-9._-]+", "-", Path(request.file).name.split(".")[0]).strip("-._")[:48]
    if not name or not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._ -]{0,63}", name):
        raise DataError(f"the name {name!r} cannot be used: give --name with up to 64 letters, digits and . _ -")
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}", request.version):
        raise DataError(
            f"the version {request.version!r} cannot be used: up to 64 letters, digits and . + - _, as 1.0.0"
        )
    folder = request.out or Path(f"{name}-{request.version}".replace(" ", "-"))
    if folder.exists() or folder.is_symlink():
        raise BundleError(f"{folder} exists: a bundle is never overwritten; choose another folder, or remove it first")
    return folder, name


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
