"""Reading weights: every container that training scripts write, nothing that runs, nothing without bounds."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from firstread.models.data.film import DataError
from firstread.models.importing import checkpoint
from firstread.models.importing.checkpoint import read_tensors

STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def same(found: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(STATE) and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3, "global_step": 5, "hyper_parameters": {"lr": 1e-3}, "callbacks": {}},
        {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model_state_dict": OrderedDict(STATE), "loss": 0.5},
        {"args": argparse.Namespace(lr=1, out=Path("somewhere")), "model": STATE},
        {"model": {"state_dict": STATE}},
    ],
    ids=["plain", "ordered", "lightning", "model", "model_state_dict", "namespace", "nested"],
)
def test_every_usual_container_is_opened(wrapped: object, tmp_path: Path) -> None:
    torch.save(wrapped, tmp_path / "w.ckpt")
    assert same(read_tensors(tmp_path / "w.ckpt"))


def test_safetensors_and_older_torch_files_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(read_tensors(tmp_path / "w.safetensors"))
    assert same(read_tensors(tmp_path / "w.pth"))


def test_settings_of_lightning_are_passed_over_without_importing_them(tmp_path: Path) -> None:
    module = types.ModuleType("pytorch_lightning.utilities.parsing")

    class AttributeDict(dict):  # type: ignore[type-arg]
        pass

    AttributeDict.__module__, AttributeDict.__qualname__ = module.__name__, "AttributeDict"
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    names = ["pytorch_lightning", "pytorch_lightning.utilities", module.__name__]
    try:
        sys.modules.update(
            {names[0]: types.ModuleType(names[0]), names[1]: types.ModuleType(names[1]), names[2]: module}
        )
        torch.save({"hyper_parameters": AttributeDict(lr=0.1), "state_dict": STATE}, tmp_path / "w.ckpt")
    finally:
        for name in names:
            sys.modules.pop(name, None)
    assert same(read_tensors(tmp_path / "w.ckpt"))
    assert not any(name in sys.modules for name in names)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_never_runs(zipped: bool, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    stored = {"state_dict": STATE, "extra": Hostile(canary)}
    torch.save(stored, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"wants to run code when it is read \((posix|os)\.system\), and was not read"):
        read_tensors(tmp_path / "w.pt")
    assert not canary.exists()
    pickle.loads(pickle.dumps(Hostile(canary)))  # the same object does run where pickle is trusted
    assert canary.exists()


def test_a_bare_pickle_never_runs_either(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Hostile(canary)))
    with pytest.raises(DataError):
        read_tensors(tmp_path / "w.pkl")
    assert not canary.exists()


def test_code_behind_a_harmless_name_never_runs(tmp_path: Path) -> None:
    """``numpy`` is among the names that are passed over; what it could run must be passed over too, not run."""
    canary = tmp_path / "ran"

    class Sly:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            import numpy.testing._private.utils as utils

            return utils.runstring, (f"open({str(canary)!r}, 'w')", "{}")

    import numpy.testing._private.utils as utils

    if not hasattr(utils, "runstring"):
        pytest.skip("this numpy has no runstring")
    torch.save({"state_dict": STATE, "x": Sly()}, tmp_path / "w.pt")
    assert same(read_tensors(tmp_path / "w.pt"))
    assert not canary.exists()


def test_a_whole_pickled_network_is_refused_and_it_is_said_how_to_get_its_weights(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"whole pickled network.*torch\.nn\.modules\.linear\.Linear.*state_dict\(\)"):
        read_tensors(tmp_path / "w.pt")


def test_a_torchscript_program_is_refused_and_it_is_said_what_to_do(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"x")
        archive.writestr("w/constants.pkl", b"x")
    with pytest.raises(DataError, match="TorchScript"):
        read_tensors(tmp_path / "w.pt")


def test_an_archive_that_unpacks_without_end_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "LARGEST_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"x")
        archive.writestr("w/data/0", bytes(30_000_000))
    assert (tmp_path / "w.pt").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"unpacks to .* not to be trusted"):
        read_tensors(tmp_path / "w.pt")


def test_a_file_beyond_any_resnet_is_not_even_opened(tmp_path: Path) -> None:
    with (tmp_path / "w.pth").open("wb") as stream:
        stream.truncate(checkpoint.LARGEST_BYTES + 1)
    with pytest.raises(DataError, match="no ResNet50 is larger"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("w.pth", b"", "is empty"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS"),
        ("w.pth", b"<!DOCTYPE html><html>", "web page"),
        ("w.pth", b"\x89HDF\r\n\x1a\nxxxx", "HDF5"),
        ("w.pth", b"\x80\x02}garbage" * 30, "cannot be read|wants to run code"),
        ("w.safetensors", b"\xff" * 64, "cannot be read as safetensors"),
        ("w.docx", b"x", "ending '.docx' is unknown"),
    ],
)
def test_what_is_no_file_of_weights_is_named_for_what_it_is(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_tensors(tmp_path / name)


def test_a_torn_download_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for share in (0.3, 0.6, 0.95):
        (tmp_path / "w.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"w\.pt"):
            read_tensors(tmp_path / "w.pt")


def test_a_file_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="a dict with the keys epoch"):
        read_tensors(tmp_path / "w.pt")
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(DataError, match="a bare tensor"):
        read_tensors(tmp_path / "w.pt")


def test_names_that_would_drive_a_terminal_are_not_printed(tmp_path: Path) -> None:
    torch.save({"conv1\x1b[2J.weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="not to be trusted") as refused:
        read_tensors(tmp_path / "w.pt")
    assert str(refused.value).isprintable()
    torch.save({"epoch\x1b[2J": 3}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="no weights by name") as refused:
        read_tensors(tmp_path / "w.pt")
    assert str(refused.value).isprintable()
