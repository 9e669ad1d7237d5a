"""A network that comes as an ONNX file: what it may hold, where its maps come from, and how it is fed our squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from firstread.models.architecture import Architecture, Graph

LARGEST_BYTES = 1_000_000_000
"""Of an ONNX file; above 2 GB it could not hold its own weights anyway."""

OWN = "firstread."
"""Begins the name of everything that is added to a foreign graph."""

_STANDARD = ("", "ai.onnx")
_ENDLESS = ("Loop", "Scan")
_ENDS = ("Sigmoid", "Softmax")
_PASSING = ("Flatten", "Reshape", "Squeeze", "Identity", "Dropout")


class OnnxFileError(Exception):
    """An ONNX file cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Pooled:
    """Where a graph averages its features: their name [N, C, h, w], and the linear layer [K, C] behind (None: none)."""

    features: str
    classifier: npt.NDArray[np.float32] | None


def problems(path: Path, architecture: Architecture, input_size: int) -> list[str]:
    """Why the file must not be used as the architecture says, as sentences; empty when it may."""
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            return [f"{path.name} has {size} bytes, {LARGEST_BYTES} are allowed: use a smaller network"]
        check(read(path.read_bytes()), architecture, input_size)
    except OnnxFileError as error:
        return [f"{path.name}: {error}"]
    except OSError as error:
        return [f"{path.name} cannot be read ({error}): install the bundle again"]
    return []


def read(content: bytes) -> ModelProto:
    """The model that the bytes of an ONNX file hold, its local functions inlined.

    Raises:
        OnnxFileError: they are no ONNX file, or one that needs more than the standard operators and itself.
    """
    if len(content) > LARGEST_BYTES:
        raise OnnxFileError(f"it has {len(content)} bytes, {LARGEST_BYTES} are allowed: use a smaller network")
    try:
        model = onnx.load_model_from_string(content)
        if not model.graph.node or not model.opset_import:
            raise OnnxFileError("it is no ONNX file: export the network again")
        if model.functions:
            from onnx import inliner

            model = inliner.inline_local_functions(model)
        _refuse_foreign_parts(model)
        onnx.checker.check_model(model)
    except OnnxFileError:
        raise
    except Exception as error:  # protobuf, the checker and the inliner each raise their own
        said = str(error).strip().splitlines()
        raise OnnxFileError(f"it is no valid ONNX file ({said[0] if said else type(error).__name__})") from error
    return model


def check(model: ModelProto, architecture: Architecture, input_size: int) -> None:
    """Raise OnnxFileError where input, output and columns are not those that the architecture names."""
    graph = _graph_of(architecture)
    inputs = _inputs(model.graph)
    names = ", ".join(one.name for one in inputs) or "none"
    if [one.name for one in inputs] != [graph.input]:
        raise OnnxFileError(f"its input must be {graph.input!r} alone, it has {names}: name the right one")
    kind = inputs[0].type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        found = TensorProto.DataType.Name(kind)
        raise OnnxFileError(f"input {graph.input!r} takes {found}: export the network in float32")
    shape = _shape(inputs[0])
    wanted = (None, architecture.input_channels, input_size, input_size)
    if len(shape) != 4 or any(a not in (None, b) for a, b in zip(shape[1:], wanted[1:], strict=True)):
        said = "x".join("?" if side is None else str(side) for side in shape)
        raise OnnxFileError(
            f"input {graph.input!r} is {said}, the bundle gives N x {architecture.input_channels} x {input_size} x "
            f"{input_size}: set channels and size as the network has them, or export it in this layout"
        )
    if shape[0] not in (None, 1):
        raise OnnxFileError(f"it takes {shape[0]} films at a time: export it with a free batch size, or with 1")
    outputs = {one.name: one for one in model.graph.output}
    if graph.output not in outputs:
        raise OnnxFileError(f"it has no output {graph.output!r}, but {', '.join(outputs)}: name the right one")
    width = _shape(outputs[graph.output])
    if width and len(width) != 2:
        raise OnnxFileError(
            f"output {graph.output!r} has {len(width)} dimensions: one row of numbers per film is needed"
        )
    if width and width[1] is not None and max(graph.columns) >= width[1]:
        raise OnnxFileError(
            f"output {graph.output!r} has {width[1]} columns, a label is to be in column {max(graph.columns)}"
        )
    end = _producers(model.graph).get(graph.output)
    if graph.gives == "logits" and end is not None and end.op_type in _ENDS:
        raise OnnxFileError(f"it ends in {end.op_type}: what it gives are probabilities, not logits; say so")
    if graph.maps and pooled_features(model, graph.output) is None:
        raise OnnxFileError("it has no average over features before its last layer: it cannot have maps")


def batch_of(model: ModelProto, name: str) -> int | None:
    """How many films a graph takes at a time: None for any number."""
    return next(_shape(one)[0] for one in _inputs(model.graph) if one.name == name)


def pooled_features(model: ModelProto, output: str) -> Pooled | None:
    """Where the features are averaged that the output is a linear layer of; None where the graph ends otherwise."""
    makers = _producers(model.graph)
    values = _constants(model.graph)
    node = makers.get(output)
    if node is not None and node.op_type in _ENDS:
        node = makers.get(node.input[0])
    if node is not None and node.op_type == "Add" and any(name in values for name in node.input):
        node = next((makers[name] for name in node.input if name in makers and name not in values), None)
        if node is None or node.op_type != "MatMul":
            return None
    classifier = None
    if node is not None and node.op_type in ("Gemm", "MatMul"):
        classifier = _classifier(node, values)
        if classifier is None:
            return None
        node = makers.get(node.input[0])
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    if node is None or not _averages(node, values):
        return None
    return Pooled(node.input[0], classifier)


def wrapped(model: ModelProto, architecture: Architecture) -> ModelProto:
    """The model with our squares in front: ``firstread.squares`` [N, 1, S, S] in, the output as it is.

    Where the architecture says that there are maps, ``firstread.activations`` [N, L, h, w] come out as well.
    """
    graph = _graph_of(architecture)
    made = ModelProto()
    made.CopyFrom(model)
    body = made.graph
    channels = architecture.input_channels
    mean = np.asarray(architecture.mean, np.float32).reshape(1, channels, 1, 1)
    std = np.asarray(architecture.std, np.float32).reshape(1, channels, 1, 1)
    for name, value in (("mean", mean), ("std", std)):
        body.initializer.append(numpy_helper.from_array(value, OWN + name))
    given = next(one for one in body.input if one.name == graph.input)
    size = _shape(given)[2]
    body.input.remove(given)
    batch = _shape(given)[0] or "n"
    body.input.append(
        helper.make_tensor_value_info(OWN + "squares", TensorProto.FLOAT, [batch, 1, size or "s", size or "s"])
    )
    front = [
        helper.make_node("Sub", [OWN + "squares", OWN + "mean"], [OWN + "centred"]),
        helper.make_node("Div", [OWN + "centred", OWN + "std"], [graph.input]),
    ]
    nodes = [*front, *body.node]
    del body.node[:]
    body.node.extend(nodes)
    pooled = pooled_features(model, graph.output) if graph.maps else None
    if pooled is not None:
        _add_maps(body, pooled, graph.columns)
    return made


def _add_maps(body: GraphProto, pooled: Pooled, columns: tuple[int, ...]) -> None:
    if pooled.classifier is None:
        body.initializer.append(numpy_helper.from_array(np.array(columns, np.int64), OWN + "columns"))
        node = helper.make_node("Gather", [pooled.features, OWN + "columns"], [OWN + "activations"], axis=1)
    else:
        kernel = np.ascontiguousarray(pooled.classifier[list(columns)][:, :, None, None], np.float32)
        body.initializer.append(numpy_helper.from_array(kernel, OWN + "classes"))
        node = helper.make_node("Conv", [pooled.features, OWN + "classes"], [OWN + "activations"], kernel_shape=[1, 1])
    body.node.append(node)
    body.output.append(
        helper.make_tensor_value_info(OWN + "activations", TensorProto.FLOAT, ["m", len(columns), "h", "w"])
    )


def _graph_of(architecture: Architecture) -> Graph:
    if architecture.graph is None:
        raise OnnxFileError("nothing says how its input and output are used")
    return architecture.graph


def _inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """What must be fed: older files list their weights among the inputs as well."""
    weights = {one.name for one in graph.initializer}
    return [one for one in graph.input if one.name not in weights]


def _shape(value: ValueInfoProto) -> list[int | None]:
    return [side.dim_value if side.HasField("dim_value") else None for side in value.type.tensor_type.shape.dim]


def _producers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _constants(graph: GraphProto) -> dict[str, npt.NDArray[np.generic]]:
    """Every value that never changes, as far as the end of a classifier is made of: weights, Constant nodes."""
    found = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in found and found[node.input[0]].ndim == 2:
            found[node.output[0]] = found[node.input[0]].T
    return found


def _classifier(node: NodeProto, values: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32] | None:
    """The linear layer's weights as [K, C]; None where they are computed or scaled."""
    weights = values.get(node.input[1])
    if weights is None or weights.ndim != 2:
        return None
    said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type == "Gemm" and (said.get("alpha", 1.0) != 1.0 or said.get("transA", 0)):
        return None
    turned = weights if node.op_type == "Gemm" and said.get("transB", 0) else weights.T
    return np.ascontiguousarray(turned, np.float32)


def _averages(node: NodeProto, values: dict[str, npt.NDArray[np.generic]]) -> bool:
    """Whether a node averages [N, C, h, w] over h and w."""
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    axes = next((list(one.ints) for one in node.attribute if one.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in values:
        axes = [int(axis) for axis in np.ravel(values[node.input[1]])]
    return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


def _refuse_foreign_parts(model: ModelProto) -> None:
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.op_type in _ENDLESS:
                raise OnnxFileError(f"it uses {node.op_type}, which may never end: export it without loops")
            if node.domain not in _STANDARD:
                raise OnnxFileError(
                    f"it uses {node.domain}.{node.op_type}, which is not in the ONNX standard: export it with standard "
                    "operators only"
                )
            for one in node.attribute:
                _refuse_tensors([one.t, *one.tensors])
        _refuse_tensors(list(graph.initializer))
        _refuse_tensors([part for one in graph.sparse_initializer for part in (one.values, one.indices)])


def _refuse_tensors(tensors: list[TensorProto]) -> None:
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise OnnxFileError(
                f"weight {tensor.name!r} lies in another file: save the network with its weights inside "
                "(save_as_external_data=False)"
            )
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            values = numpy_helper.to_array(tensor)
            if not np.isfinite(values).all():
                raise OnnxFileError(f"weight {tensor.name!r} holds values that are no numbers: export it again")


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for one in node.attribute:
            for inner in (one.g, *one.graphs):
                if inner.node:
                    yield from _graphs(inner)
