"""The network in OpenVINO on the processor: Intel's kernels, in float32 or, where it may be, bfloat16."""

from __future__ import annotations

import sys
from functools import cache as made_once
from pathlib import Path
from typing import Any

import numpy as np

from firstread.models.bundle import Bundle
from firstread.models.engine import Coded, Engine, Raw, Squares
from firstread.models.engine_onnx import graph_bytes, graph_file


@made_once
def _core() -> Any:
    """The library, loaded once and never let go.

    Its plug-in gives the thread that loads it a stack for signals, and frees that stack with the last ``Core``, in
    whichever thread that happens: the next signal would then end the process by SIGSEGV.
    """
    # Its converter, which is not used here, reports to its maker; without this module it has nothing to do so with.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


class OpenVinoEngine(Engine):
    """OpenVINO's processor plug-in, for our own networks. ``precision``: ``f32`` or ``bf16``.

    It would choose bfloat16 by itself where the processor has it; which one is used is said here, and judged by the
    canaries as any engine is.
    """

    device = "cpu"

    def __init__(self, bundle: Bundle, cache: Path | None, threads: int, precision: str = "f32") -> None:
        super().__init__(bundle)
        self.name = "cpu/openvino" if precision == "f32" else f"cpu/openvino-{precision}"
        core = _core()
        graph = graph_file(bundle, cache) if cache is not None else graph_bytes(bundle)
        compiled = core.compile_model(
            core.read_model(graph),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": precision,
                "ENABLE_CPU_PINNING": False,  # the receiver must find a core, whichever it is
            },
        )
        self._request = compiled.create_infer_request()
        self._has_maps = bundle.architecture.has_maps

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch."""
        given = {"squares": batch} if coded is None else {"squares": batch, "metadata": coded}
        answers = self._request.infer(given)
        maps = np.array(answers["activations"], np.float32) if self._has_maps else None
        return np.array(answers["logits"], np.float32), maps
