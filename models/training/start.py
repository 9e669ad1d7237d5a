"""The weights that a training begins with: ImageNet's through torchvision, a file's, a bundle's, or random ones."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from firstread.models.architecture import Architecture
from firstread.models.bundle import load_bundle, read_weights
from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.importing.checkpoint import read_tensors
from firstread.models.importing.resnet_names import resnet_of
from firstread.models.network import ChestNetwork, load_state, state_of
from firstread.models.training.recipe import Recipe, Stage

State = dict[str, Tensor]


def network_of(recipe: Recipe, outputs: int, stage: Stage | None = None) -> ChestNetwork:
    """The recipe's network with random weights from its seed, as a stage trains it or as the bundle serves it."""
    torch.manual_seed(recipe.seed)
    return ChestNetwork(recipe.architecture(outputs, stage))


def first_weights(recipe: Recipe, given: Path | None) -> State | None:
    """What the first stage begins with; None for random weights.

    ``given``: a file of weights (.pth, .pt, .ckpt, .safetensors) or a bundle's folder, instead of the recipe's choice.

    Raises:
        DataError: the weights cannot be had or are another network's; says what to do.
        BundleError: the bundle must not be used.
    """
    if given is not None:
        return _of_bundle(given) if given.is_dir() else _of_file(given)
    return imagenet_weights() if recipe.initial == "imagenet" else None


def imagenet_weights() -> State:
    """ResNet50_Weights.IMAGENET1K_V2, downloaded once by torchvision into torch's cache and checked by its hash.

    Raises:
        DataError: it could not be fetched, or is not what was published.
    """
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.IMAGENET1K_V2
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        # The hash is checked while downloading alone: a file that is there already is taken as it is by torch.
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except RuntimeError as error:
        if "hash" not in str(error):
            raise DataError(f"{cached} is broken ({error}): remove it and run again") from error
        raise DataError(
            f"{weights.url} is not the file that torchvision published ({error}): fetch it elsewhere and give it as "
            "--weights FILE"
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"ImageNet's weights could not be fetched from {weights.url} ({reason}): without a network, bring that "
            "file here and give it as --weights FILE"
        ) from error
    except Exception as error:  # a torn file in the cache makes torch raise nearly anything
        raise DataError(f"{cached} is broken ({error}): remove it and run again") from error
    return dict(resnet_of(state, weights.url).tensors)


def take(network: ChestNetwork, state: State, outputs: tuple[str, ...], source: str) -> None:
    """Put weights into a network: the backbone whole, the head as far as it is the same one.

    ``outputs``: what the network's outputs mean. A head with one row per label is taken over row by row (auxiliary
    outputs beyond the labels begin at random); a head for anything else is left out. What reads metadata is taken if it
    is there.

    Raises:
        DataError: the backbone is another network's.
    """
    full = state_of(network)
    head = tuple(name for name in full if name.startswith(("fc.", "metadata.")))
    wanted = {name for name in full if name not in head}
    missing = sorted(wanted - set(state))
    unlike = sorted(name for name in wanted & set(state) if state[name].shape != full[name].shape)
    if missing or unlike:
        name = (missing or unlike)[0]
        found = "missing" if missing else f"{list(state[name].shape)} instead of {list(full[name].shape)}"
        raise DataError(f"{source}: {name} is {found}: these are not the weights of this recipe's network")
    merged = {name: tensor.clone() for name, tensor in full.items()}
    merged |= {name: state[name].to(full[name].dtype) for name in wanted}
    last = {name for name in head if name in state and _same_but_rows(state[name], full[name])}
    for name in head:
        if name in state and state[name].shape == full[name].shape:
            merged[name] = state[name].to(full[name].dtype)
        elif name in last and len(state[name]) == len(LABELS) < len(outputs):
            merged[name][: len(LABELS)] = state[name].to(full[name].dtype)
    load_state(network, merged)


def without_rows(state: State, architecture: Architecture, kept: list[int]) -> State:
    """The weights with only these outputs, in this order: the last layer's other rows are cut off."""
    last = f"fc.{2 * len(architecture.hidden)}." if architecture.head == "dense" else "fc."
    cut = (f"{last}weight", f"{last}bias", "metadata.2.weight", "metadata.2.bias")
    return {name: tensor[kept].contiguous() if name in cut else tensor for name, tensor in state.items()}


def _same_but_rows(one: Tensor, other: Tensor) -> bool:
    return one.shape[1:] == other.shape[1:]


def _of_file(path: Path) -> State:
    return dict(resnet_of(read_tensors(path), str(path)).tensors)


def _of_bundle(folder: Path) -> State:
    bundle = load_bundle(folder)
    if bundle.architecture.name != "resnet50":
        raise DataError(f"{folder} holds an ONNX file, which cannot be trained on: give its original weights as a file")
    state = {name: torch.from_numpy(values) for name, values in read_weights(bundle).items()}
    if bundle.labels != LABELS:
        # Its outputs are not ours: the backbone is what it can give.
        state = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "metadata."))}
    return state
