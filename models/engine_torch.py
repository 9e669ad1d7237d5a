"""The network in torch: frozen TorchScript on the processor, plain on a GPU, eager as the measure of all others."""

from __future__ import annotations

import warnings
from typing import cast

import torch

from firstread.models.bundle import Bundle, read_weights
from firstread.models.engine import Coded, DeviceLost, Engine, EngineError, OutOfMemory, Raw, Squares
from firstread.models.metadata import encoded_length
from firstread.models.network import ChestNetwork, load_state


def network_of(bundle: Bundle) -> ChestNetwork:
    """The bundle's network with its weights, in float32 and ready to answer."""
    network = ChestNetwork(bundle.architecture)
    load_state(network, {name: torch.from_numpy(array) for name, array in read_weights(bundle).items()})
    return network.eval().requires_grad_(False)


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


class CudaEngine(Engine):
    """torch on one GPU, channels last, TF32 off so that the canaries hold."""

    name = "cuda/torch"

    def __init__(self, bundle: Bundle, device: str = "cuda:0") -> None:
        super().__init__(bundle)
        if not torch.cuda.is_available():
            raise EngineError(f"device {device} was asked for, and there is no usable GPU: set device to cpu or auto")
        if torch.device(device).index >= torch.cuda.device_count():
            raise EngineError(f"device {device} does not exist: this machine has {torch.cuda.device_count()} GPU(s)")
        self.device = device
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._network = network_of(bundle).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def raw(self, batch: Squares, coded: Coded | None = None) -> Raw:
        """Logits and class activations of a batch.

        Raises:
            OutOfMemory: the GPU has no room for it. DeviceLost: the GPU does not answer.
        """
        try:
            with torch.inference_mode():
                given = [torch.from_numpy(one).to(self.device) for one in (batch, coded) if one is not None]
                return _numbers(self._network(*given))
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory(f"{self.device} has no room for {len(batch)} images: free its memory") from error
        except RuntimeError as error:  # torch raises this (AcceleratorError) for every failure of the driver
            raise DeviceLost(f"{self.device}: {str(error).splitlines()[0]}") from error


def _numbers(answer: torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]) -> Raw:
    logits, activations = (answer, None) if isinstance(answer, torch.Tensor) else answer
    return logits.cpu().numpy(), None if activations is None else activations.cpu().numpy()


def cuda_available() -> bool:
    """Whether torch can use a GPU here."""
    return bool(torch.cuda.is_available() and torch.cuda.device_count() > 0)
