"""The weights as they came against the bundle as it serves: the same squares through both, and the worst difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from firstread.models.architecture import Architecture
from firstread.models.bundle import Bundle, BundleError
from firstread.models.canary import TOLERANCE
from firstread.models.data.film import DataError
from firstread.models.engine import EngineError, open_engine
from firstread.models.importing.graphs import GraphFile, plain_answers
from firstread.models.network import ChestNetwork, load_state

EXACT = 1e-5
"""In probability: what rounding in float32 may cost between two libraries."""

HALVED = 1e-2
"""The most that float16 kernels may cost before the bundle is refused."""

Squares = npt.NDArray[np.float32]
Answers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Parity:
    """``worst_difference``: in probability, over all labels and squares. ``where``: its label. ``engine``: its name."""

    worst_difference: float
    where: str
    engine: str
    squares: int
    remark: str = ""


def network_answers(architecture: Architecture, tensors: Mapping[str, Tensor], squares: Squares) -> Answers:
    """Probabilities [N, L] of eager torch with the tensors as they were read, nothing stored in between."""
    network = ChestNetwork(architecture)
    load_state(network, dict(tensors))
    network.eval()
    with torch.inference_mode():
        logits = torch.cat([network(torch.from_numpy(square[None]))[0] for square in squares]).double()
        chances = logits.softmax(dim=1) if architecture.output == "softmax" else logits.sigmoid()
    return np.asarray(chances.numpy(), np.float64)


def graph_answers(graph: GraphFile, architecture: Architecture, squares: Squares, *, sure: bool) -> Answers:
    """Probabilities [N, L] of the ONNX file itself, fed by hand. ``sure``: the user says what its numbers are.

    Raises:
        DataError: its numbers are not what they must be.
    """
    if architecture.graph is None:
        raise ValueError("an architecture without a graph")
    shape = (1, architecture.input_channels, 1, 1)
    mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (architecture.mean, architecture.std))
    pixels = (np.repeat(squares[:, None], architecture.input_channels, axis=1) - mean) / std
    try:
        found = plain_answers(graph, pixels.astype(np.float32)).astype(np.float64)
    except Exception as error:  # ONNX Runtime raises its own, undocumented kinds
        raise DataError(f"the graph cannot run on squares of {squares.shape[1]} px ({_first_line(error)})") from error
    columns = list(architecture.graph.columns)
    if found.shape[1] <= max(columns):
        raise DataError(
            f"the graph answers {found.shape[1]} numbers, {max(columns) + 1} labels were given: name each output"
        )
    if architecture.graph.gives == "probabilities":
        if found[:, columns].min() < 0 or found[:, columns].max() > 1:
            raise DataError("the numbers that the graph gives reach beyond 0 and 1: use --graph-gives logits")
        return found[:, columns]
    if not sure and found.min() >= 0 and found.max() <= 1:
        raise DataError(
            "all the numbers that the graph gives lie between 0 and 1, as probabilities do, and it ends in no sigmoid "
            "or softmax that could be recognised: say which with --graph-gives probabilities (or logits)"
        )
    if architecture.output == "softmax":
        powers = np.exp(found - found.max(axis=1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, columns])
    return np.asarray(1 / (1 + np.exp(-found[:, columns])))


def compare(
    bundle: Bundle,
    squares: Squares,
    expected: Answers,
    *,
    exact: bool,
    device: str = "auto",
    threads: int | None = None,
) -> Parity:
    """Run the squares through the engine that would serve the bundle and compare with the original's answers [N, L].

    ``exact``: the weights were stored bit by bit.

    Raises:
        BundleError: no engine runs it, or the answers differ by more than can be rounding.
    """
    try:
        engine = open_engine(bundle, device, threads=threads)
        found = engine.run(squares).probabilities.astype(np.float64)
    except (EngineError, ValueError) as error:
        raise BundleError(f"the imported network cannot be served here, and was removed: {error}") from error
    difference = np.abs(found - expected)
    row, column = np.unravel_index(int(difference.argmax()), difference.shape)
    worst = float(difference[row, column])
    where = bundle.labels[column]
    if worst > (TOLERANCE if exact else HALVED):
        raise BundleError(
            f"the bundle answers {found[row, column]:.4f} for {where}, the weights {expected[row, column]:.4f}; "
            f"it was removed: {'report this' if exact else 'use --precision float32'}"
        )
    remark = ""
    if worst > EXACT:
        why = "more than rounding between libraries usually costs" if exact else "what float16 costs"
        remark = f"The bundle differs from the weights by up to {worst:.1e} ({where}): {why}."
    return Parity(worst, where, engine.name, len(squares), remark)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
