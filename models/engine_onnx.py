"""The network in ONNX Runtime on the processor: starts in a second, without torch."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from firstread.models import onnx_file
from firstread.models.bundle import Bundle, read_weights, sha256_of
from firstread.models.engine import Coded, Engine, EngineError, Raw, Squares, log_softmax
from firstread.models.onnx_graph import GRAPH_VERSION, build_graph

SMALLEST = 1e-7
"""A probability that a foreign graph gives is kept this far from 0 and 1, so that it has a logit."""


class OnnxEngine(Engine):
    """ONNX Runtime's processor provider, for our own networks."""

    name = "cpu/onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, cache: Path | None, threads: int) -> None:
        super().__init__(bundle)
        self._session = _session(graph_file(bundle, cache) if cache is not None else graph_bytes(bundle), threads)
        self._names = ["logits", "activations"] if bundle.architecture.has_maps else ["logits"]

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch."""
        given = {"squares": batch} if coded is None else {"squares": batch, "metadata": coded}
        answers = [np.asarray(one, np.float32) for one in self._session.run(self._names, given)]
        return answers[0], answers[1] if len(answers) > 1 else None


class OnnxFileEngine(Engine):
    """ONNX Runtime's processor provider, for a network that came as an ONNX file."""

    name = "cpu/onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle)
        graph = bundle.architecture.graph
        if graph is None:
            raise EngineError(f"bundle {bundle.folder} holds no ONNX file")
        self._graph = graph
        try:
            model = onnx_file.read((bundle.folder / bundle.weights_file).read_bytes())
            self._one_by_one = onnx_file.batch_of(model, graph.input) == 1
            self._session = _session(onnx_file.wrapped(model, bundle.architecture).SerializeToString(), threads)
        except onnx_file.OnnxFileError as error:
            raise EngineError(f"{bundle.weights_file}: {error}") from error
        self._names = [graph.output, *([onnx_file.OWN + "activations"] if graph.maps else [])]

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch; of a softmax, logarithms of probabilities.

        Raises:
            ValueError: the graph gives what is no row of numbers per film, or no probabilities where it should.
        """
        parts = [batch[i : i + 1] for i in range(len(batch))] if self._one_by_one else [batch]
        answers = [self._session.run(self._names, {onnx_file.OWN + "squares": part[:, None]}) for part in parts]
        found = np.concatenate([np.asarray(answer[0], np.float32) for answer in answers])
        if found.ndim != 2 or len(found) != len(batch) or found.shape[1] <= max(self._graph.columns):
            raise ValueError(
                f"the ONNX file answers {list(found.shape)} to {len(batch)} films: a row of at least "
                f"{max(self._graph.columns) + 1} numbers for each is needed"
            )
        maps = np.concatenate([np.asarray(answer[1], np.float32) for answer in answers]) if self._graph.maps else None
        return self._as_logits(found), maps

    def _as_logits(self, found: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        softmax, columns = self.bundle.architecture.output == "softmax", list(self._graph.columns)
        if self._graph.gives == "logits":
            return (log_softmax(found) if softmax else found)[:, columns]
        chosen = found[:, columns].astype(np.float64)
        if not ((chosen >= -SMALLEST) & (chosen <= 1 + SMALLEST)).all():  # NaN is not either
            raise ValueError(
                f"the ONNX file gives {chosen.min():.3g} to {chosen.max():.3g} where probabilities were promised: "
                "say that it gives logits"
            )
        chosen = np.clip(chosen, SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(chosen) if softmax else np.log(chosen) - np.log1p(-chosen), np.float32)


def _session(graph: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait would take a core from the receiver between batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def graph_bytes(bundle: Bundle) -> bytes:
    """Our own network's ONNX graph."""
    return bytes(build_graph(bundle.architecture, read_weights(bundle), bundle.input_size).SerializeToString())


def graph_file(bundle: Bundle, cache: Path) -> str:
    """The graph in the cache, with its SHA-256 beside it; written anew when it is not there or not what was written."""
    shape = hashlib.sha256(repr((bundle.architecture, bundle.input_size)).encode()).hexdigest()[:16]
    path = cache / f"{bundle.weights_sha256[:24]}-{shape}-v{GRAPH_VERSION}.onnx"
    if not _is_whole(path):
        cache.mkdir(parents=True, exist_ok=True)
        graph = graph_bytes(bundle)
        _put(path, graph)
        _put(_seal(path), hashlib.sha256(graph).hexdigest().encode())
    return str(path)


def _seal(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        return sha256_of(path) == _seal(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def _put(path: Path, content: bytes) -> None:
    """A file that is there as a whole or not at all, whenever the machine stops."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    Path(stream.name).replace(path)
