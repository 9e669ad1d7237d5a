"""Engines: a batch of squares becomes calibrated probabilities and class activation maps, on a GPU or on the processor.

:func:`open_engine` takes the fastest engine that gives the bundle's canaries the answers they must get. What was found
to be fastest is remembered in the cache, by bundle, machine and library versions (``engine_choice``).
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstread.models.bundle import Bundle
from firstread.models.canary import check
from firstread.models.metadata import Known, encode

Squares = npt.NDArray[np.float32]
Coded = npt.NDArray[np.float32]
Raw = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]


class EngineError(Exception):
    """No engine can run this bundle here; the message says why and what to do."""


class DeviceLost(EngineError):
    """The device stopped answering: open another engine, on the processor."""


class OutOfMemory(EngineError):
    """The device has no room for a single image."""


@dataclass(frozen=True)
class EngineOutput:
    """``probabilities``: [N, L], calibrated, in the order of the bundle's labels. ``saliency``: [N, L, h, w] in [0, 1].

    A saliency map is the positive evidence for its label, 1 where it is strongest; all zero where there is none. It is
    None where the bundle's network cannot show where it saw anything (``bundle.has_maps``).
    ``logits``: [N, L], before calibration; of a softmax the logarithms of its probabilities.
    """

    probabilities: npt.NDArray[np.float32]
    saliency: npt.NDArray[np.float32] | None
    logits: npt.NDArray[np.float32] | None = None


class Engine(ABC):
    """A loaded network on one device. Calls are taken one at a time.

    ``name``: library and device, ``cpu/onnxruntime``. ``device``: ``cpu`` or ``cuda:0``.
    ``struck_off``: the engines that were tried before it, each with what was wrong with it.
    """

    name: str
    device: str
    struck_off: tuple[str, ...] = ()

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._slope = np.asarray(bundle.calibration.slope, np.float32)
        self._offset = np.asarray(bundle.calibration.offset, np.float32)
        self._turn = threading.Lock()

    def run(self, batch: Squares, metadata: Sequence[Known | None] | None = None) -> EngineOutput:
        """Probabilities and saliency of squares [N, S, S] in [0, 1], as ``prepare`` makes them.

        ``metadata``: for each film what is known of it by name (``age`` in years, ``sex``, ``view``), for bundles whose
        network takes that. What is unknown, None or senseless counts as missing; other bundles do not look at it.
        A batch that does not fit the device's memory is halved until it does.

        Raises:
            ValueError: not squares of the bundle's size, or not as many rows of metadata as films; or the network
                answers with something that is no probability.
            OutOfMemory: not even one image fits.
            DeviceLost: the device is gone.
        """
        size, names = self.bundle.input_size, self.bundle.architecture.metadata
        if batch.ndim != 3 or batch.shape[1:] != (size, size):
            raise ValueError(f"a batch of shape {batch.shape} is not [N, {size}, {size}]: prepare the images first")
        if len(batch) == 0:
            raise ValueError("an empty batch has no answer")
        if metadata is not None and len(metadata) != len(batch):
            raise ValueError(
                f"{len(batch)} films came with {len(metadata)} rows of metadata: one row per film is needed"
            )
        coded = encode([None] * len(batch) if metadata is None else metadata, names) if names else None
        with self._turn:
            logits, activations = self._fitting(np.ascontiguousarray(batch, np.float32), coded)
        if self.bundle.architecture.output == "softmax":
            logits = log_softmax(logits) if self.bundle.architecture.name != "onnx" else logits
            probabilities = np.exp(logits)
        else:
            probabilities = _sigmoid(logits * self._slope + self._offset)
        return EngineOutput(probabilities, None if activations is None else _relative(activations), logits)

    @abstractmethod
    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits [N, L] and class activations [N, L, h, w] of one batch.

        ``coded``: the metadata [N, 2 M] as numbers, None for networks that take none. Activations are None for networks
        without maps. An ONNX file's softmax is taken over all its columns: its "logits" are log-probabilities already.

        Raises:
            OutOfMemory: the batch does not fit. DeviceLost: the device is gone.
        """

    def _fitting(self, batch: Squares, coded: Coded | None) -> Raw:
        try:
            return self.raw(batch, coded)
        except OutOfMemory:
            if len(batch) == 1:
                raise
        half = len(batch) // 2
        first = self._fitting(batch[:half], None if coded is None else coded[:half])
        second = self._fitting(batch[half:], None if coded is None else coded[half:])
        maps = None if first[1] is None or second[1] is None else np.concatenate([first[1], second[1]])
        return np.concatenate([first[0], second[0]]), maps


class SpreadEngine(Engine):
    """Several devices as one: a batch is cut in as many parts, which run at the same time."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines[0].bundle)
        self._engines = list(engines)
        self._threads = ThreadPoolExecutor(len(engines), thread_name_prefix="device")
        self.name, self.device = engines[0].name, ",".join(one.device for one in engines)
        self.struck_off = tuple(reason for one in engines for reason in one.struck_off)

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """As one of the engines answers, in the batch's order; raises what one of them raises."""
        edges = np.linspace(0, len(batch), min(len(self._engines), len(batch)) + 1).astype(int)
        parts = [slice(first, last) for first, last in pairwise(edges)]
        running = [
            self._threads.submit(engine.raw, batch[part], None if coded is None else coded[part])
            for engine, part in zip(self._engines, parts, strict=False)
        ]
        answers = [one.result() for one in running]
        maps = [answer[1] for answer in answers if answer[1] is not None]
        return np.concatenate([answer[0] for answer in answers]), np.concatenate(maps) if maps else None


class FallbackEngine(Engine):
    """An engine on a device that may be lost: then it opens another one, raises an alarm and answers all the same."""

    def __init__(self, first: Engine, fallback: Callable[[], Engine], on_alarm: Callable[[str], None]) -> None:
        super().__init__(first.bundle)
        self._current, self._fallback, self._on_alarm = first, fallback, on_alarm
        self._lost = False
        self.name, self.device, self.struck_off = first.name, first.device, first.struck_off

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """As the engine in force answers; the first loss of its device is made good by the other one."""
        try:
            return self._current.raw(batch, coded)
        except (DeviceLost, OutOfMemory) as error:
            # A device that cannot hold one image, filled up by somebody else, is lost as well.
            if self._lost or (isinstance(error, OutOfMemory) and len(batch) > 1):
                raise
            self._lost = True
            lost = self.device
            self._current = self._fallback()
            self.name, self.device = self._current.name, self._current.device
            self._on_alarm(f"{lost} was lost ({error}); analysis goes on with {self.name}, slower: look at the device")
            return self._fitting(batch, coded)


def open_engine(
    bundle: Bundle,
    device: str = "auto",
    cache: Path | None = None,
    threads: int | None = None,
    on_alarm: Callable[[str], None] | None = None,
) -> Engine:
    """Open the fastest engine for a bundle whose canaries come out right.

    ``device``: ``auto`` (all GPUs when there are any), ``cpu``, ``cuda`` (all GPUs) or ``cuda:1``. ``cache``: a folder
    for graphs and measurements; without it nothing is measured or kept. ``threads``: processor threads, all cores by
    default.
    ``on_alarm``: told, in a sentence, when a GPU is passed over or lost and the processor takes its place; without it a
    lost GPU raises :class:`DeviceLost` to the caller.

    Raises:
        EngineError: the device does not exist, or no engine gives the canaries the answers they must get.
    """
    if device not in ("auto", "cpu", "cuda") and not (device.startswith("cuda:") and device[5:].isdigit()):
        raise EngineError(f"device {device!r} is unknown: use auto, cpu, cuda or cuda:N")
    if bundle.architecture.name == "onnx" and device not in ("auto", "cpu"):
        raise EngineError(
            f"bundle {bundle.folder} is an ONNX file, which runs on the processor, not on {device}: "
            "set device to cpu or auto"
        )
    if bundle.architecture.name == "onnx" or (device == "auto" and not _has_gpu()) or device == "cpu":
        return _open_cpu(bundle, cache, threads)
    return _open_cuda(bundle, device, cache, threads, on_alarm)


def processor_threads(threads: int | None) -> int:
    """The threads to use: as asked, or the cores this process may run on."""
    return threads or len(os.sched_getaffinity(0))


def _open_cpu(bundle: Bundle, cache: Path | None, threads: int | None) -> Engine:
    from firstread.models.engine_choice import cpu_engines

    refused: list[str] = []
    for name, make in cpu_engines(bundle, cache, processor_threads(threads)):
        try:
            engine = make()
            result = check(engine, bundle)
            reason = "" if result.ok else result.detail
        except Exception as error:  # any library's failure leaves the next engine to try
            reason = f"{type(error).__name__}: {error}"
        if not reason:
            engine.struck_off = tuple(refused)
            return engine
        refused.append(f"{name}: {reason}")
    raise EngineError(f"no engine can run bundle {bundle.folder} here: {'; '.join(refused)}")


def _open_cuda(
    bundle: Bundle, device: str, cache: Path | None, threads: int | None, on_alarm: Callable[[str], None] | None
) -> Engine:
    from firstread.models.engine_torch import cuda_devices

    try:
        wanted = (cuda_devices() or ["cuda:0"]) if device in ("auto", "cuda") else [device]
        opened = [_on_gpu(bundle, one) for one in wanted]
        engine = opened[0] if len(opened) == 1 else SpreadEngine(opened)
    except EngineError as error:
        if device != "auto":
            raise
        if on_alarm is not None:
            on_alarm(f"the GPU cannot be used ({error}); analysis runs on the processor")
        return _open_cpu(bundle, cache, threads)
    if on_alarm is None:
        return engine
    return FallbackEngine(engine, lambda: _open_cpu(bundle, cache, threads), on_alarm)


def _on_gpu(bundle: Bundle, device: str) -> Engine:
    """One GPU's engine: half precision where the canaries allow it, else float32."""
    from firstread.models.engine_torch import CudaEngine

    refused: list[str] = []
    for precision in ("f16", "f32"):
        engine = CudaEngine(bundle, device, precision)
        result = check(engine, bundle)
        if result.ok:
            engine.struck_off = tuple(refused)
            return engine
        refused.append(f"{engine.name}: {result.detail}")
    raise EngineError("; ".join(refused))


def _has_gpu() -> bool:
    """Whether a driver offers a GPU: asked of the driver's files, since importing torch takes seconds and memory."""
    if not (
        Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()
    ):
        return False
    from firstread.models.engine_torch import cuda_available

    return cuda_available()


def log_softmax(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logarithms of the softmax over the last axis."""
    lowered = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
    return np.asarray(lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True)), np.float32)


def _sigmoid(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))), np.float32)


def _relative(activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    positive = np.maximum(activations, 0)
    highest = positive.max(axis=(2, 3), keepdims=True)
    return np.asarray(positive / np.where(highest > 0, highest, 1), np.float32)
