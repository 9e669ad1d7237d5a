"""A file of weights becomes named tensors, and nothing in it is ever run.

``torch.load`` is called with ``weights_only=True`` and in no other way. What a checkpoint of a training framework keeps
beside its weights (settings, paths, callbacks) is replaced by an inert stand-in while it is read; anything else that is
no plain value is refused by name.
"""

from __future__ import annotations

import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from firstread.models.data.film import DataError

LARGEST_BYTES = 2_000_000_000
"""A file larger than this, packed or unpacked, holds no network that this product builds (a ResNet50 has 100 MB)."""

LARGEST_PICKLE_BYTES = 50_000_000
MOST_TENSORS = 20_000
LONGEST_NAME = 300

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "state_dict_ema",
    "model_ema",
)
"""Keys under which training scripts keep the weights, the first that is there counts."""

_DICTIONARIES = ("AttributeDict", "Namespace", "Box", "EasyDict", "DictConfig", "defaultdict")
_HARMLESS_ROOTS = ("lightning", "pytorch_lightning", "lightning_fabric", "omegaconf", "numpy", "pathlib", "datetime")
_HARMLESS = ("argparse.Namespace", "collections.defaultdict", "easydict.EasyDict", "typing.Any")


class _StandIn:
    """Takes the place of a value that is not needed: takes anything, does nothing."""

    def __new__(cls, *_args: object, **_named: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_named: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.pt``, ``.pth`` or ``.ckpt`` file by the names they have there.

    Containers (``state_dict``, ``model``, ``model_state_dict`` ...) are opened. Tensors may share memory and are not
    converted.

    Raises:
        DataError: the file is missing, broken, too large, holds no weights, or wants to run code.
    """
    path = Path(path)
    _check_file(path)
    if path.suffix.lower() == ".safetensors":
        found = _read_safetensors(path)
    elif path.suffix.lower() in PICKLES:
        found = _weights_in(_load(path), path)
    else:
        raise DataError(
            f"{path}: the ending {path.suffix!r} is unknown: .safetensors, .pt, .pth, .ckpt or .onnx is read"
        )
    odd = next((name for name in found if not name.isprintable() or len(name) > LONGEST_NAME), None)
    if odd is not None:
        raise DataError(f"{path} names a tensor {odd[:60]!r}: no network does; this file is not to be trusted")
    if len(found) > MOST_TENSORS:
        raise DataError(f"{path} holds {len(found)} tensors, more than any network that this product builds")
    return found


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file: give the file that holds the weights")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path} is empty: fetch it again")
    if size > LARGEST_BYTES:
        raise DataError(f"{path} has {size / 1e9:.1f} GB: no ResNet50 is larger than {LARGEST_BYTES / 1e9:.0f} GB")
    with path.open("rb") as stream:
        start = stream.read(120)
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` where it came from")
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or start.lstrip()[:5].lower() == b"<html":
        raise DataError(f"{path} is a web page, not weights: the download failed or needs a login; fetch it again")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as safetensors ({_first_line(error)}): fetch it again") from error


def _load(path: Path) -> Any:
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(b"\x89HDF"):
        raise DataError(f"{path} is an HDF5 file (Keras): export the network to ONNX and use --arch onnx")
    names = _names_wanted(path) if start.startswith(b"PK") or zipfile.is_zipfile(path) else set()
    refused = sorted(name for name in names if not _harmless(name))
    if refused:
        raise DataError(_refusal(path, refused))
    try:
        with _standing_in(names), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the age of the file, for nobody here
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise DataError(_refusal(path, _named_in(str(error)))) from error
    except Exception as error:  # a hostile or torn file makes torch raise nearly anything
        raise DataError(
            f"{path} cannot be read as a checkpoint of torch ({_first_line(error)}): fetch it again"
        ) from error


def _names_wanted(path: Path) -> set[str]:
    """What a zip checkpoint would import beyond what torch allows, found without unpickling; bounds are held here."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is a broken archive ({_first_line(error)}): fetch it again") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > LARGEST_BYTES:
        raise DataError(f"{path} unpacks to {unpacked / 1e9:.1f} GB: no ResNet50 does; this file is not to be trusted")
    if any(e.file_size > LARGEST_PICKLE_BYTES for e in entries if e.filename.endswith("data.pkl")):
        raise DataError(f"{path}: its table of contents is far too large: this file is not to be trusted")
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise DataError(
            f"{path} is a TorchScript program, not weights: save its state dict "
            "(`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')`), or export the network to ONNX"
        )
    if not any(entry.filename.endswith("data.pkl") for entry in entries):
        raise DataError(f"{path} is an archive, but no checkpoint of torch: unpack it and give the file of weights")
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception as error:  # whatever a torn pickle makes the disassembler raise
        raise DataError(
            f"{path} cannot be read as a checkpoint of torch ({_first_line(error)}): fetch it again"
        ) from error


def _harmless(name: str) -> bool:
    return name in _HARMLESS or name.split(".")[0] in _HARMLESS_ROOTS


def _standing_in(names: set[str]) -> AbstractContextManager[Any]:
    """Within it, each of ``names`` is an inert stand-in for the unpickler: none of them is imported."""
    stand_ins: list[Any] = []
    for name in names:
        kind: type = OrderedDict if name.rpartition(".")[2] in _DICTIONARIES else _StandIn
        stand_ins.append((kind, name))
    return torch.serialization.safe_globals(stand_ins)


def _refusal(path: Path, names: list[str]) -> str:
    wanted = ", ".join(_shown(name) for name in names[:3]) or "something that is no tensor"
    first = names[0].split(".")[0] if names else ""
    if first in ("torch", "torchvision", "timm", "torchxrayvision", "__main__", "models", "model"):
        return (
            f"{path} is a whole pickled network, not weights (it wants to import {wanted}), and reading it would run "
            "its code. If you trust its origin, in an environment with nothing to lose run "
            f"`torch.save(torch.load({path.name!r}, weights_only=False).state_dict(), 'weights.pt')` "
            "and import weights.pt"
        )
    return (
        f"{path} wants to run code when it is read ({wanted}), and was not read: weights need no code. "
        "Do not open it elsewhere either; fetch the weights from their author as .safetensors or as a plain state dict"
    )


def _named_in(message: str) -> list[str]:
    """The name that torch's refusal speaks of, for older files that cannot be looked through beforehand."""
    for line in message.splitlines():
        words = line.replace("`", " ").split()
        for before, after in pairwise(words):
            if before == "GLOBAL":
                return [after.strip(",.'\"")]
    return []


def _weights_in(stored: Any, path: Path) -> dict[str, Tensor]:
    """The mapping of names to tensors in what was loaded, containers opened."""
    seen = stored
    for _ in range(4):
        if not isinstance(seen, Mapping):
            break
        tensors = {str(name): value for name, value in seen.items() if isinstance(value, Tensor)}
        inner = next((seen[key] for key in CONTAINERS if isinstance(seen.get(key), Mapping)), None)
        if inner is not None:
            seen = inner
        elif tensors:
            return tensors
        else:
            break
    kind = "a bare tensor" if isinstance(stored, Tensor) else f"a {type(stored).__name__}"
    keys = (
        f" with the keys {', '.join(map(_shown, list(stored)[:6]))}" if isinstance(stored, Mapping) and stored else ""
    )
    raise DataError(
        f"{path} holds {kind}{keys}, and no weights by name in it: save the state dict, or put it under 'state_dict'"
    )


def _shown(name: object) -> str:
    """A name out of a foreign file, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:100])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
