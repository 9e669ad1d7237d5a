"""An ONNX file from elsewhere: which of its inputs and outputs to use, and what its numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from firstread.models import onnx_file
from firstread.models.data.film import DataError

_PASSING = ("Identity", "Squeeze", "Reshape", "Flatten", "Cast", "Clip", "Dropout")


@dataclass(frozen=True)
class GraphFile:
    """``content``: the file's bytes. ``size``: side of its square, None for any. ``outputs``: columns, None if unsaid.

    ``end``: ``sigmoid`` or ``softmax`` when the graph ends in one, else empty: it gives logits.
    """

    content: bytes
    input: str
    output: str
    channels: int
    size: int | None
    outputs: int | None
    end: str


def read_graph(path: Path, output: str = "") -> GraphFile:
    """Read and check an ONNX file; ``output`` names the output to use where there are several.

    Raises:
        DataError: no ONNX file, one that needs code or files of its own, or one that does not turn films into numbers.
    """
    try:
        if path.stat().st_size > onnx_file.LARGEST_BYTES:
            raise DataError(f"{path} is larger than {onnx_file.LARGEST_BYTES // 10**6} MB: use a smaller network")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the ONNX file") from error
    try:
        model = onnx_file.read(content)
        session = _session(content)
    except onnx_file.OnnxFileError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # ONNX Runtime raises its own, undocumented kinds
        raise DataError(f"{path} cannot be run by ONNX Runtime ({str(error).splitlines()[0][:200]})") from error
    given = session.get_inputs()
    if len(given) != 1:
        names = ", ".join(one.name for one in given)
        raise DataError(f"{path} takes {len(given)} inputs ({names}): a network that takes the film alone is needed")
    channels, size = _layout(given[0], path)
    named = {one.name: one for one in session.get_outputs()}
    if output and output not in named:
        raise DataError(f"{path} has no output {output!r}: it has {', '.join(named)}")
    if not output and len(named) > 1:
        raise DataError(f"{path} has {len(named)} outputs ({', '.join(named)}): name one with --graph-output")
    chosen = output or next(iter(named))
    shape = list(named[chosen].shape or [])
    width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
    return GraphFile(content, given[0].name, chosen, channels, size, width, _end(model, chosen))


def plain_answers(graph: GraphFile, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the file itself answers to normalised pixels [N, C, S, S], film by film: float32 [N, K]."""
    session = _session(graph.content)
    rows = [session.run([graph.output], {graph.input: film[None]})[0] for film in pixels]
    return np.concatenate([np.asarray(row, np.float32).reshape(1, -1) for row in rows])


def _session(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _layout(given: Any, path: Path) -> tuple[int, int | None]:
    shape = list(given.shape)
    if len(shape) != 4 or given.type != "tensor(float)":
        said = "x".join(map(str, shape)) or "a scalar"
        raise DataError(
            f"{path}: its input {given.name!r} is {given.type} of {said}: films are given as float32 N x C x S x S; "
            "export it in that layout"
        )
    if isinstance(shape[0], int) and shape[0] > 1:
        raise DataError(f"{path} takes {shape[0]} films at a time: export it with a free batch size, or with 1")
    channels, rows, columns = shape[1:]
    if channels not in (1, 3):
        hint = " (channels last?)" if columns in (1, 3) else ""
        raise DataError(f"{path}: its input {given.name!r} has {channels} channels{hint}: 1 or 3 are needed")
    if isinstance(rows, int) and isinstance(columns, int) and rows != columns:
        raise DataError(f"{path}: its input {given.name!r} is {rows} x {columns}: a square is needed")
    fixed = next((side for side in (rows, columns) if isinstance(side, int)), None)
    return channels, fixed


def _end(model: ModelProto, output: str) -> str:
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING:
        node = makers.get(node.input[0])
    return {"Sigmoid": "sigmoid", "Softmax": "softmax"}.get(node.op_type, "") if node is not None else ""
