"""Images per second, memory and start of each engine on this machine: ``python benchmarks/engines.py [--bundle DIR]``.

Each engine is measured in a process of its own, so that its memory is its own. Prints a Markdown table with machine,
date and versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

ENGINES = ("cpu/onnxruntime", "cpu/torchscript", "cpu/torch", "cuda/torch")


def measure(name: str, folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """Open one engine in this process and time it."""
    from firstread.models.bundle import load_bundle
    from firstread.models.canary import check
    from firstread.models.engine import Engine

    started = time.perf_counter()
    bundle = load_bundle(folder)
    engine: Engine
    if name == "cpu/onnxruntime":
        from firstread.models.engine_onnx import OnnxEngine

        engine = OnnxEngine(bundle, None, threads)
    else:
        from firstread.models.engine_torch import CudaEngine, EagerEngine, ScriptEngine, torch

        torch.set_num_threads(threads)
        makers = {
            "cpu/torchscript": lambda: ScriptEngine(bundle, threads),
            "cpu/torch": lambda: EagerEngine(bundle),
            "cuda/torch": lambda: CudaEngine(bundle),
        }
        engine = makers[name]()
    opened = time.perf_counter() - started
    worst = check(engine, bundle).worst_difference
    rng = np.random.default_rng(0)
    speed = {}
    for size in (1, 8):
        batch = rng.random((size, bundle.input_size, bundle.input_size), dtype=np.float32)
        engine.run(batch)
        times = []
        for _ in range(rounds):
            before = time.perf_counter()
            engine.run(batch)
            times.append(time.perf_counter() - before)
        speed[size] = size / float(np.median(times))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"open_s": opened, "peak_mb": peak, "worst": worst, "batch_1": speed[1], "batch_8": speed[8]}


def main() -> None:
    """Measure every engine and print the table."""
    from firstread.models.bundle import reference_bundle

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=reference_bundle())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options.engine, options.bundle, options.threads, options.rounds)))
        return
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "torch"))
    print(f"{platform.machine()}, {options.threads} threads, {datetime.now(UTC).date()}, {versions}\n")
    print("| engine | images/s, one | images/s, eight | open | peak memory | canaries |")
    print("|---|---|---|---|---|---|")
    for name in ENGINES:
        command = [sys.executable, __file__, "--engine", name, "--bundle", str(options.bundle)]
        command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | {done.stderr.strip().splitlines()[-1]} | | | | |")
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {row['batch_1']:.1f} | {row['batch_8']:.1f} | {row['open_s']:.1f} s |"
            f" {row['peak_mb']:.0f} MB | {row['worst']:.0e} |"
        )


if __name__ == "__main__":
    main()
