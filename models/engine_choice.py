"""Which engine is fastest on this processor: measured once, in a process of its own, and remembered in the cache.

The first start does not wait for it: it takes ONNX Runtime, has the others measured at the lowest priority beside the
work, and the next start takes the winner. With little memory the engines that load torch are not measured, and so come
last.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import structlog

from firstread.models.bundle import Bundle, BundleError, load_bundle
from firstread.models.canary import check
from firstread.models.engine import Engine
from firstread.models.onnx_graph import GRAPH_VERSION

Make = Callable[[], Engine]

log = structlog.get_logger(__name__)

MEASURE_LIMIT_S = 600
BATCHES = (1, 8)
"""What a quiet hour and a busy one bring: an engine's speed is the geometric mean of the two."""

NEARLY = 0.97
"""An engine this near to the fastest is as good: then the one that needs less memory is taken."""

TORCH_NEEDS_BYTES = 6 << 30
"""With less memory torch, which takes one GB of it, is not loaded to be measured beside the work."""


@dataclass(frozen=True)
class Measurement:
    """``images_per_s`` of an engine; 0 when it is not to be used, then ``refused`` says why."""

    name: str
    images_per_s: float
    refused: str = ""


def cpu_engines(bundle: Bundle, cache: Path | None, threads: int) -> list[tuple[str, Make]]:
    """The processor's engines, the fastest first; eager torch last, which always agrees with itself.

    Without a cache nothing is measured: ONNX Runtime comes first, because it needs neither torch nor its memory. It is
    the only one for a network that came as an ONNX file.
    """
    makers = _makers(bundle, cache, threads)
    if cache is None or len(makers) == 1:
        return list(makers.items())
    known = remembered(bundle, cache, threads)
    if not known:
        threading.Thread(target=measurements, args=(bundle, cache, threads), name="engine-choice", daemon=True).start()
    return [(name, makers[name]) for name in ranked(makers, known)]


def ranked(names: Iterable[str], known: Sequence[Measurement]) -> list[str]:
    """The names, the fastest first; of nearly equal ones that which stands first in ``names``."""
    speed, left, order = {m.name: m.images_per_s for m in known}, list(names), []
    while left:
        best = max(speed.get(name, 0.0) for name in left)
        order.append(next(name for name in left if speed.get(name, 0.0) >= NEARLY * best))
        left.remove(order[-1])
    return order


def described(threads: int) -> dict[str, object]:
    """What of this machine matters to the choice, for the log."""
    return {"threads": threads, "avx2": "avx2" in _flags(), "memory_gb": round(memory_bytes() / 1e9, 1)}


def memory_bytes() -> int:
    """The machine's memory, or the less that its control group leaves this process."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return whole
    return min(whole, int(allowed)) if allowed.isdigit() else whole


def _makers(bundle: Bundle, cache: Path | None, threads: int) -> dict[str, Make]:
    def file() -> Engine:
        from firstread.models.engine_onnx import OnnxFileEngine

        return OnnxFileEngine(bundle, threads)

    def onnx() -> Engine:
        from firstread.models.engine_onnx import OnnxEngine

        return OnnxEngine(bundle, cache, threads)

    def openvino(precision: str) -> Engine:
        from firstread.models.engine_openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, cache, threads, precision)

    def script() -> Engine:
        from firstread.models.engine_torch import ScriptEngine

        return ScriptEngine(bundle, threads)

    def eager() -> Engine:
        from firstread.models.engine_torch import EagerEngine

        return EagerEngine(bundle)

    if bundle.architecture.name == "onnx":
        return {"cpu/onnxruntime": file}
    found: dict[str, Make] = {"cpu/onnxruntime": onnx, "cpu/openvino": partial(openvino, "f32")}
    if _has_bfloat16():
        found["cpu/openvino-bf16"] = partial(openvino, "bf16")
    return found | {"cpu/torchscript": script, "cpu/torch": eager}


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; where it does not, that is only slower."""
    return any(flag in _flags() for flag in ("avx512_bf16", "amx_bf16"))


def _flags() -> frozenset[str]:
    return frozenset(next((line for line in _cpuinfo() if line.startswith("flags")), "").split())


def _cpuinfo() -> list[str]:
    """What Linux says of the processor; empty elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def remembered(bundle: Bundle, cache: Path, threads: int) -> tuple[Measurement, ...]:
    """What was measured on this machine before, with these weights and libraries; empty when nothing was."""
    try:
        return _rows(_file(bundle, cache, threads).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def _rows(text: str) -> tuple[Measurement, ...]:
    """Raises ValueError, TypeError or KeyError for what is no list of measurements."""
    found = tuple(
        Measurement(str(row["name"]), float(row["images_per_s"]), str(row.get("refused", "")))
        for row in json.loads(text)
    )
    if not all(np.isfinite(row.images_per_s) for row in found):
        raise ValueError("a speed is no number")
    return found


def measurements(bundle: Bundle, cache: Path, threads: int) -> tuple[Measurement, ...]:
    """Measure every engine in a process of its own and remember the outcome in the cache.

    Nothing is remembered, and nothing returned, when the measuring itself failed: the next start tries again.
    """
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "firstread.models.engine_choice", str(bundle.folder), str(cache), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEASURE_LIMIT_S, check=True)  # noqa: S603 - our own module, arguments as a list
        said = done.stdout.splitlines()[-1]
        found = _rows(said)
        with tempfile.NamedTemporaryFile("w", dir=cache, suffix=".partial", delete=False, encoding="utf-8") as stream:
            stream.write(said)
        Path(stream.name).replace(_file(bundle, cache, threads))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, LookupError) as error:
        log.warning("engines_not_measured", reason=str(error)[:300])
        return ()
    log.info("engines_measured", **{row.name: row.refused or row.images_per_s for row in found})
    return found


def _file(bundle: Bundle, cache: Path, threads: int) -> Path:
    return cache / f"engines-{_key(bundle, threads)}.json"


def _key(bundle: Bundle, threads: int) -> str:
    """What a measurement depends on: the weights, their size, this processor and the libraries."""
    libraries = [_version(name) for name in ("onnxruntime", "openvino", "torch")]
    parts = [
        bundle.weights_sha256,
        repr(bundle.architecture),
        bundle.input_size,
        threads,
        GRAPH_VERSION,
        _processor(),
        *libraries,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"


def _processor() -> str:
    lines = _cpuinfo()
    if not lines:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.machine())


def _measure(name: str, make: Make, bundle: Bundle) -> Measurement:
    if "torch" in name and memory_bytes() < TORCH_NEEDS_BYTES:
        return Measurement(name, 0.0, f"not tried with {memory_bytes() / 1e9:.1f} GB of memory")
    try:
        engine = make()
        result = check(engine, bundle)
        if not result.ok:
            return Measurement(name, 0.0, result.detail)
        return Measurement(name, round(speed_of(engine), 2))
    except Exception as error:  # whatever a library raises, the other engines are still to be measured
        return Measurement(name, 0.0, f"{type(error).__name__}: {error}"[:300])


def speed_of(engine: Engine) -> float:
    """Images a second: the geometric mean over ``BATCHES``, of each the best of three."""
    side, found = engine.bundle.input_size, []
    for films in BATCHES:
        batch = np.random.default_rng(films).random((films, side, side), dtype=np.float32)
        engine.run(batch)
        found.append(films / min(_timed(engine, batch) for _ in range(3)))
    return float(np.exp(np.mean(np.log(found))))


def _timed(engine: Engine, batch: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    started = time.perf_counter()
    engine.run(batch)
    return time.perf_counter() - started


def _end_with(parent: int) -> None:
    """Leave when the process that asked is gone: its answer is wanted by nobody."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _main(folder: str, cache: str, threads: str) -> None:
    os.nice(19)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        bundle = load_bundle(Path(folder))
    except BundleError as error:
        raise SystemExit(str(error)) from error
    rows = [vars(_measure(name, make, bundle)) for name, make in _makers(bundle, Path(cache), int(threads)).items()]
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:4])
