"""The network alone: ours beside the engines that a site might use instead, each with its best settings.

    python -m benchmarks.inference [--short] [--rounds N] [--json FILE] [--device cpu|cuda] [--bundle DIR]

Batches of 1, 8 and 32 squares of 224 and 512 pixels, all cores. Every contender is a process of its own that lives
through all rounds, so that memory and threads are its own; they run one after the other, round after round.

- ours: what the agent would choose here, by measuring, from what agrees with the canaries;
- on a processor: torch eager (channels last), torch.compile, frozen TorchScript, ONNX Runtime, OpenVINO in float32;
- on a GPU: torch eager as most write it, eager in half precision, torch.compile with CUDA graphs.

Checked first: every contender's probabilities lie within 0.001 of eager torch in float32 (half precision: 0.02); ours
passes the bundle's canaries besides.

Last line, ``ratio``: images a second, ours to the fastest peer of the same batch, of 224 pixels, the worst batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Measured, PeerMissing, arguments, report, require, rounds
from firstread.models.bundle import Bundle, load_bundle, reference_bundle
from firstread.models.engine import Engine

BATCHES, SIDES = (1, 8, 32), (224, 512)
OURS = "ours"
EAGER = "torch eager"
ON_CPU = (OURS, EAGER, "torch.compile", "TorchScript", "ONNX Runtime", "OpenVINO")
ON_CUDA = (OURS, EAGER, "torch eager, half", "torch.compile, half")
HALF = 0.02
LARGEST_DIFFERENCE = 1e-3

Squares = npt.NDArray[np.float32]
Answers = Callable[[Squares], npt.NDArray[np.float32]]


def of_side(bundle: Bundle, side: int) -> Bundle:
    """The same network for squares of another side."""
    return dataclasses.replace(bundle, preprocessing=dataclasses.replace(bundle.preprocessing, input_size=side))


def squares(films: int, side: int) -> Squares:
    """The same squares for everybody."""
    return np.random.default_rng(films).random((films, side, side), dtype=np.float32)


# A contender's own process


def contender(name: str, folder: Path, cache: Path, side: int, device: str) -> tuple[Answers, str]:
    """What answers logits [N, L] to squares, and the name of what it is."""
    bundle, threads = of_side(load_bundle(folder), side), len(os.sched_getaffinity(0))
    if name == OURS:
        engine = (ours_on_cuda if device == "cuda" else ours_on_cpu)(load_bundle(folder), bundle, cache, threads)
        return (lambda batch: engine.raw(batch)[0]), f"{OURS}: {engine.name}"
    if name in ("ONNX Runtime", "OpenVINO"):
        return processor_library(name, bundle, threads), name
    import torch

    torch.set_num_threads(threads)
    from firstread.models.engine_torch import ScriptEngine, network_of

    if name == "TorchScript":
        script = ScriptEngine(bundle, threads)
        return (lambda batch: script.raw(batch)[0]), name
    return in_torch(name, network_of(bundle), device), name


def ours_on_cpu(canaries: Bundle, bundle: Bundle, cache: Path, threads: int) -> Engine:
    """What the agent would choose for these squares, of the engines that pass the canaries of the bundle as it is."""
    from firstread.models.engine_choice import Measurement, _makers, measurements, ranked, speed_of

    allowed = [row.name for row in measurements(canaries, cache, threads) if not row.refused]
    require(bool(allowed), "no engine passes the canaries")
    makers = _makers(bundle, None, threads)
    found = [Measurement(name, speed_of(makers[name]())) for name in allowed]
    return makers[ranked(allowed, found)[0]]()


def ours_on_cuda(canaries: Bundle, bundle: Bundle, cache: Path, threads: int) -> Engine:
    """On the first GPU, in the precision that passes the canaries."""
    from firstread.models.engine import open_engine
    from firstread.models.engine_torch import CudaEngine

    chosen = open_engine(canaries, "cuda:0", cache, threads)
    return CudaEngine(bundle, "cuda:0", "f16" if chosen.name.endswith("f16") else "f32")


def processor_library(name: str, bundle: Bundle, threads: int) -> Answers:
    """ONNX Runtime or OpenVINO as their guides set them up, on the same graph."""
    from firstread.models.engine_onnx import graph_bytes

    graph = graph_bytes(bundle)
    if name == "ONNX Runtime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return lambda batch: np.asarray(session.run(["logits"], {"squares": batch})[0])
    try:
        import openvino
    except ImportError as error:
        raise PeerMissing("OpenVINO is missing: pip install openvino") from error
    core = openvino.Core()
    wanted = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = core.compile_model(core.read_model(graph), "CPU", wanted).create_infer_request()
    return lambda batch: np.array(request.infer({"squares": batch})["logits"])


def in_torch(name: str, network: Any, device: str) -> Answers:
    """Eager or compiled torch."""
    import torch

    half = name.endswith("half")
    network = network.to(device, torch.float16 if half else torch.float32)
    if device == "cpu" or half:
        network = network.to(memory_format=torch.channels_last)
    if name.startswith("torch.compile"):
        if device == "cpu" and shutil.which("g++") is None:
            raise PeerMissing("torch.compile needs a C++ compiler: apt-get install g++")
        network = torch.compile(network, dynamic=False, mode="reduce-overhead" if device == "cuda" else "default")

    def answers(batch: Squares) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            given = torch.from_numpy(batch).to(device, torch.float16 if half else torch.float32)
            return np.asarray(network(given)[0].float().cpu().numpy())

    return answers


def serve(name: str, folder: Path, cache: Path, side: int, device: str) -> None:
    """Answers lines with the number of films of a batch, until there is none: seconds, and the first row's logits."""
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    try:
        answers, what = contender(name, folder, cache, side, device)
    except PeerMissing as error:
        print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    print(json.dumps({"ready": what}), file=out, flush=True)
    for line in sys.stdin:
        films, times = (int(part) for part in line.split())
        batch, took = squares(films, side), []
        for _ in range(times):
            began = time.perf_counter()
            logits = answers(batch)
            took.append(time.perf_counter() - began)
        print(json.dumps({"seconds": took, "logits": logits[-1].tolist()}), file=out, flush=True)


# The benchmark


class Process:
    """A contender that lives through all rounds."""

    def __init__(self, name: str, folder: Path, cache: Path, side: int, device: str) -> None:
        self.name, self.side = name, side
        program = [sys.executable, "-m", "benchmarks.inference", "--serve", name, "--side", str(side)]
        program += ["--device", device, "--bundle", str(folder), "--cache", str(cache)]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = self._said()
        self.missing, self.what = said.get("missing", ""), said.get("ready", "")
        self.logits: dict[int, npt.NDArray[np.float64]] = {}
        for films in () if self.missing else BATCHES:  # compiles, captures and chooses, before anything is timed
            self.logits[films] = np.array(self._ask(films, 2)["logits"])

    def play(self, films: int, times: int) -> Mapping[str, float]:
        """Images a second of one batch, the best of a few."""
        if self.missing:
            raise PeerMissing(self.missing)
        return {"images/s": films / min(self._ask(films, times)["seconds"])}

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _ask(self, films: int, times: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{films} {times}\n")
        self._process.stdin.flush()
        return self._said()

    def _said(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        require(bool(line), f"{self.name} ended: see above")
        said: dict[str, Any] = json.loads(line)
        return said


def check(processes: list[Process], eager: Process) -> None:
    """Raises WrongResult for a contender that answers something else."""
    for one in processes:
        for films, logits in one.logits.items():
            apart = np.abs(1 / (1 + np.exp(-logits)) - 1 / (1 + np.exp(-eager.logits[films]))).max()
            allowed = HALF if "half" in one.name or one.what.endswith(("f16", "bf16")) else LARGEST_DIFFERENCE
            require(apart < allowed, f"{one.name} answers {apart:.4f} off at {one.side} px, batch {films}")


def main() -> None:
    """Starts everybody, checks, measures, prints."""
    parser = arguments(__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bundle", type=Path, default=reference_bundle())
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve, asked.bundle, asked.cache, asked.side, asked.device)
        return
    names = ON_CUDA if asked.device == "cuda" else ON_CPU
    sides = SIDES[:1] if asked.short else SIDES
    count, rows = asked.rounds or (3 if asked.short else 7), []
    with tempfile.TemporaryDirectory(prefix="firstread-inference-") as cache:
        for side in sides:
            found = [Process(name, asked.bundle, Path(cache), side, asked.device) for name in names]
            check(found, next(one for one in found if one.name == EAGER))
            played = [
                Measured(
                    f"{side} px, batch {films}", one.what or one.name, partial(one.play, films, 4 if films < 32 else 2)
                )
                for films in BATCHES
                for one in found
            ]
            rounds(played, count)
            rows += played
            for one in found:
                one.close()

    def ratio() -> float:
        worst = []
        for films in BATCHES:
            of_batch = [row for row in rows if row.case == f"{sides[0]} px, batch {films}"]
            ours = next(row for row in of_batch if row.contender.startswith(OURS)).median("images/s")
            peers = [
                row.median("images/s") for row in of_batch if not row.contender.startswith(OURS) and not row.missing
            ]
            worst.append(ours / max(peers))
        return min(worst)

    libraries = ("torch",) if asked.device == "cuda" else ("torch", "onnxruntime", "openvino")
    report(rows, ratio, packages=libraries, file=asked.json)


if __name__ == "__main__":
    main()
