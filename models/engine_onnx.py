"""The network in ONNX Runtime on the processor: starts in a second, without torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from firstread.models.bundle import Bundle, read_weights
from firstread.models.engine import Engine, Raw, Squares
from firstread.models.onnx_graph import GRAPH_VERSION, build_graph


class OnnxEngine(Engine):
    """ONNX Runtime's processor provider."""

    name = "cpu/onnxruntime"
    device = "cpu"

    def __init__(self, bundle: Bundle, cache: Path | None, threads: int) -> None:
        super().__init__(bundle)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait would take a core from the receiver between batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = _graph_file(bundle, cache) if cache is not None else _graph_bytes(bundle)
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def raw(self, batch: Squares) -> Raw:
        """Logits and class activations of a batch."""
        logits, activations = self._session.run(["logits", "activations"], {"squares": batch})
        return np.asarray(logits, np.float32), np.asarray(activations, np.float32)


def _graph_bytes(bundle: Bundle) -> bytes:
    return bytes(build_graph(bundle.architecture, read_weights(bundle), bundle.input_size).SerializeToString())


def _graph_file(bundle: Bundle, cache: Path) -> str:
    """The graph as a file, written once; a torn file from a crash cannot stand there (rename after fsync)."""
    a = bundle.architecture
    shape = f"{a.width}-{'.'.join(map(str, a.blocks))}-{int(a.dilate_last)}-{a.pooling}-{bundle.input_size}"
    path = cache / f"{bundle.weights_sha256[:24]}-{shape}-v{GRAPH_VERSION}.onnx"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, suffix=".partial", delete=False) as stream:
            stream.write(_graph_bytes(bundle))
            stream.flush()
            os.fsync(stream.fileno())
        Path(stream.name).replace(path)
    return str(path)
