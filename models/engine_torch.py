"""The network in torch: frozen TorchScript on the processor, plain on a GPU, eager as the measure of all others."""

from __future__ import annotations

import warnings
from threading import Lock
from typing import cast

import structlog
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from firstread.models.bundle import Bundle, read_weights
from firstread.models.engine import Coded, DeviceLost, Engine, EngineError, OutOfMemory, Raw, Squares
from firstread.models.metadata import encoded_length
from firstread.models.network import ChestNetwork, load_state

log = structlog.get_logger(__name__)


def network_of(bundle: Bundle) -> ChestNetwork:
    """The bundle's network with its weights, in float32 and ready to answer."""
    network = ChestNetwork(bundle.architecture)
    load_state(network, {name: torch.from_numpy(array) for name, array in read_weights(bundle).items()})
    return network.eval().requires_grad_(False)


def fold_norms(network: ChestNetwork) -> ChestNetwork:
    """The same network with every batch normalisation folded into the convolution before it, in place."""
    for module in list(network.modules()):
        for name, convolution in list(module.named_children()):
            if not isinstance(convolution, torch.nn.Conv2d):
                continue
            # ResNet calls them conv1 and bn1, and 0 and 1 where a stage shrinks.
            norm_name = "1" if name == "0" else name.replace("conv", "bn")
            norm = getattr(module, norm_name, None)
            if isinstance(norm, torch.nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, torch.nn.Identity())
    return network


class EagerEngine(Engine):
    """torch as it is: slow on a processor, and what every other engine must agree with."""

    name = "cpu/torch"
    device = "cpu"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self._network: torch.nn.Module = network_of(bundle)

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch."""
        with torch.inference_mode():
            answer = self._network(torch.from_numpy(batch), *([] if coded is None else [torch.from_numpy(coded)]))
        return _numbers(answer)


class ScriptEngine(EagerEngine):
    """Frozen TorchScript: constants folded, convolutions fused.

    torch calls TorchScript deprecated; a version without it fails here, and the engine is passed over.
    """

    name = "cpu/torchscript"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        super().__init__(bundle)
        torch.set_num_threads(threads)
        example = [torch.zeros(1, bundle.input_size, bundle.input_size)]
        if bundle.architecture.metadata:
            example.append(torch.zeros(1, encoded_length(bundle.architecture.metadata)))
        network = self._network if bundle.architecture.has_maps else _LogitsOnly(self._network).eval()
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # The number of cells becomes a constant of the trace: rightly, since the square's size is one.
            warnings.filterwarnings("ignore", category=Warning, message="Converting a tensor")
            traced = torch.jit.trace(network, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]
            self._network = torch.jit.optimize_for_inference(torch.jit.freeze(traced))


class _LogitsOnly(torch.nn.Module):
    """TorchScript cannot give None for a map that is not there."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Logits [N, L] alone."""
        return cast(torch.Tensor, self.network(*given)[0])


_CAPTURING = Lock()
"""One capture at a time in this process: what a second one allocates meanwhile would spoil the first."""

GRAPHED = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are kept as CUDA graphs; a batch between two takes the larger, one above all is run plainly."""


class CudaEngine(Engine):
    """torch on one GPU, channels last, a CUDA graph for each batch size.

    ``precision``: ``f32`` (TF32 off) or ``f16``; which one reports is for the canaries to say. A graph is captured when
    its size first comes; launching kernel by kernel would take longer than the network itself for a single film.
    """

    def __init__(self, bundle: Bundle, device: str = "cuda:0", precision: str = "f32") -> None:
        super().__init__(bundle)
        self.name = "cuda/torch" if precision == "f32" else f"cuda/torch-{precision}"
        if not torch.cuda.is_available():
            raise EngineError(f"device {device} was asked for, and there is no usable GPU: set device to cpu or auto")
        if torch.device(device).index >= torch.cuda.device_count():
            raise EngineError(f"device {device} does not exist: this machine has {torch.cuda.device_count()} GPU(s)")
        self.device = device
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._dtype = torch.float16 if precision == "f16" else torch.float32
        folded = fold_norms(network_of(bundle))
        self._network = folded.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._graphs: dict[int, _Graph | None] = {}

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch.

        Raises:
            OutOfMemory: the GPU has no room for it. DeviceLost: the GPU does not answer.
        """
        try:
            with torch.inference_mode(), torch.cuda.device(self.device):
                graph = self._graph(len(batch), coded)
                if graph is not None:
                    return graph.run(batch, coded)
                given = [
                    torch.from_numpy(one).to(self.device, self._dtype) for one in (batch, coded) if one is not None
                ]
                return _numbers(self._network(*given))
        except torch.cuda.OutOfMemoryError as error:
            self._graphs.clear()
            torch.cuda.empty_cache()
            raise OutOfMemory(f"{self.device} has no room for {len(batch)} images: free its memory") from error
        except RuntimeError as error:  # torch raises this (AcceleratorError) for every failure of the driver
            raise DeviceLost(f"{self.device}: {str(error).splitlines()[0]}") from error

    def _graph(self, films: int, coded: Coded | None) -> _Graph | None:
        size = next((size for size in GRAPHED if size >= films), None)
        if size is None:
            return None
        if size not in self._graphs:
            self._graphs[size] = self._captured(size, None if coded is None else coded.shape[1])
        return self._graphs[size]

    def _captured(self, size: int, coded: int | None) -> _Graph | None:
        """None where this network cannot be captured: it then runs kernel by kernel, slower and as right."""
        try:
            with _CAPTURING:
                return _Graph(
                    self._network, size, self.bundle.input_size, coded, torch.device(self.device), self._dtype
                )
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()  # a lost device raises here as well, and then it is lost
            log.warning("cuda_graph_not_captured", films=size, error=str(error).splitlines()[0][:200])
            return None


class _Graph:
    """One batch size, captured: pinned memory in, replay, pinned memory out, all on one stream."""

    def __init__(
        self,
        network: torch.nn.Module,
        size: int,
        side: int,
        coded: int | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        shapes = [(size, side, side)] if coded is None else [(size, side, side), (size, coded)]
        self._in = [torch.zeros(shape, pin_memory=True) for shape in shapes]
        self._there = [torch.zeros(shape, device=device) for shape in shapes]

        def forward() -> tuple[torch.Tensor, torch.Tensor | None]:
            answer = network(*(one.to(dtype) for one in self._there))
            logits, maps = answer if isinstance(answer, tuple) else (answer, None)
            return logits.float(), None if maps is None else maps.float()

        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(3):  # cuDNN chooses its kernels before the capture
                forward()
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Only what this thread does is watched: other devices' threads go on working.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._answers = [one for one in forward() if one is not None]
        self._out = [torch.empty(one.shape, pin_memory=True) for one in self._answers]

    def run(self, batch: Squares, coded: Coded | None) -> Raw:
        """Logits and activations of a batch of this size or less."""
        films = len(batch)
        for pinned, one in zip(self._in, (batch, coded), strict=False):
            if one is not None:
                pinned[:films].copy_(torch.from_numpy(one))
        with torch.cuda.stream(self._stream):
            for there, pinned in zip(self._there, self._in, strict=True):
                there.copy_(pinned, non_blocking=True)
            self._graph.replay()
            for out, answer in zip(self._out, self._answers, strict=True):
                out.copy_(answer, non_blocking=True)
        self._stream.synchronize()
        logits, *maps = [out[:films].numpy().copy() for out in self._out]
        return logits, maps[0] if maps else None


def _numbers(answer: torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]) -> Raw:
    logits, activations = (answer, None) if isinstance(answer, torch.Tensor) else answer
    return logits.float().cpu().numpy(), None if activations is None else activations.float().cpu().numpy()


def cuda_devices() -> list[str]:
    """The GPUs that torch can use here."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def cuda_available() -> bool:
    """Whether torch can use a GPU here."""
    return bool(cuda_devices())
