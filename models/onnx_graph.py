"""A bundle's weights as an ONNX graph, written node by node: no torch needed, batch normalisation folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from firstread.models.architecture import (
    Architecture,
    Bottleneck,
    bottlenecks,
    dense_layers,
    metadata_layers,
)
from firstread.models.metadata import encoded_length

GRAPH_VERSION = 3
"""Part of the name of every cached graph: raise it when the graph built here changes."""

OPSET = 18
EPSILON = 1e-5
"""What torch adds to a variance in batch normalisation."""

Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass
class _Graph:
    weights: Weights
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x: str, name: str, norm: str, *, stride: int, padding: int, dilation: int = 1) -> str:
        """A convolution with the batch normalisation that follows it folded into its weights."""
        kernel = self.weights[f"{name}.weight"].astype(np.float64)
        scale = self.weights[f"{norm}.weight"] / np.sqrt(
            self.weights[f"{norm}.running_var"].astype(np.float64) + EPSILON
        )
        shift = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        return self.add(
            "Conv",
            [
                x,
                self.constant(f"{name}.kernel", (kernel * scale[:, None, None, None]).astype(np.float32)),
                self.constant(f"{name}.shift", shift.astype(np.float32)),
            ],
            f"{name}.out",
            kernel_shape=list(kernel.shape[2:]),
            strides=[stride, stride],
            pads=[padding] * 4,
            dilations=[dilation, dilation],
        )

    def dense(self, x: str, layers: tuple[tuple[str, int, int], ...]) -> str:
        """Dense layers with a ReLU after each but the last."""
        for name, _, _ in layers:
            weight = self.constant(f"{name}.kernel", self.weights[f"{name}.weight"].astype(np.float32))
            bias = self.constant(f"{name}.shift", self.weights[f"{name}.bias"].astype(np.float32))
            x = self.add("Gemm", [x, weight, bias], f"{name}.out", transB=1)
            if name != layers[-1][0]:
                x = self.add("Relu", [x], f"{name}.relu")
        return x

    def block(self, x: str, block: Bottleneck) -> str:
        name = block.prefix
        y = self.convolution(x, f"{name}.conv1", f"{name}.bn1", stride=1, padding=0)
        y = self.add("Relu", [y], f"{name}.relu1")
        y = self.convolution(
            y, f"{name}.conv2", f"{name}.bn2", stride=block.stride, padding=block.dilation, dilation=block.dilation
        )
        y = self.add("Relu", [y], f"{name}.relu2")
        y = self.convolution(y, f"{name}.conv3", f"{name}.bn3", stride=1, padding=0)
        if block.projects:
            x = self.convolution(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=block.stride, padding=0)
        return self.add("Relu", [self.add("Add", [y, x], f"{name}.sum")], f"{name}.out")


def build_graph(architecture: Architecture, weights: Weights, input_size: int) -> ModelProto:
    """The network as a graph from ``squares`` [N, S, S] to ``logits`` [N, L] and ``activations`` [N, L, h, w].

    With a dense head there are no ``activations``; a network that takes metadata has a second input, ``metadata``
    [N, 2 M]. ``weights``: every tensor of :func:`~firstread.models.architecture.parameter_shapes`, float32.
    """
    graph = _Graph(weights)
    channels, outputs = architecture.input_channels, architecture.outputs
    mean = graph.constant("mean", np.asarray(architecture.mean, np.float32).reshape(1, channels, 1, 1))
    std = graph.constant("std", np.asarray(architecture.std, np.float32).reshape(1, channels, 1, 1))
    x = graph.add("Unsqueeze", ["squares", graph.constant("axis", np.array([1], np.int64))], "grey")
    x = graph.add("Div", [graph.add("Sub", [x, mean], "centred"), std], "normal")
    x = graph.add("Relu", [graph.convolution(x, "conv1", "bn1", stride=2, padding=3)], "stem")
    x = graph.add("MaxPool", [x], "pooled", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for block in bottlenecks(architecture):
        x = graph.block(x, block)
    cells = -(-input_size // architecture.stride)
    said = (
        _dense_head(graph, architecture, x)
        if architecture.head == "dense"
        else _linear_head(graph, architecture, x, cells)
    )
    given = [helper.make_tensor_value_info("squares", TensorProto.FLOAT, ["n", input_size, input_size])]
    if architecture.metadata:
        given.append(
            helper.make_tensor_value_info("metadata", TensorProto.FLOAT, ["n", encoded_length(architecture.metadata)])
        )
        said = graph.add("Add", [said, graph.dense("metadata", metadata_layers(architecture))], "with_metadata")
    graph.add("Identity", [said], "logits")
    answers = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", outputs])]
    if architecture.has_maps:
        answers.append(helper.make_tensor_value_info("activations", TensorProto.FLOAT, ["n", outputs, cells, cells]))
    return helper.make_model(
        helper.make_graph(graph.nodes, "firstread", given, answers, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="firstread",
    )


def _dense_head(graph: _Graph, architecture: Architecture, x: str) -> str:
    return graph.dense(graph.add("Flatten", [x], "flat", axis=1), dense_layers(architecture))


def _linear_head(graph: _Graph, architecture: Architecture, x: str, cells: int) -> str:
    classes = graph.constant("classes", graph.weights["fc.weight"][:, :, None, None].astype(np.float32))
    activations = graph.add("Conv", [x, classes], "activations", kernel_shape=[1, 1])
    over_cells = graph.constant("cell_axes", np.array([2, 3], np.int64))
    if architecture.pooling == "mean":
        pooled = graph.add("ReduceMean", [activations, over_cells], "pooled_cells", keepdims=0)
    else:
        total = graph.add("ReduceLogSumExp", [activations, over_cells], "summed_cells", keepdims=0)
        share = graph.constant("log_cells", np.array(2 * np.log(cells), np.float32))
        pooled = graph.add("Sub", [total, share], "pooled_cells")
    return graph.add(
        "Add", [pooled, graph.constant("bias", graph.weights["fc.bias"].astype(np.float32))], "film_logits"
    )
