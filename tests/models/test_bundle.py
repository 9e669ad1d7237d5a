"""A bundle is used only when it is what it was made to be."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from firstread.models import bundle as bundles
from firstread.models.bundle import BundleError, load_bundle, read_weights, reference_bundle, verify_bundle
from firstread.models.findings import LABELS
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the description as somebody would who also knows how to seal it."""
    path = folder / bundles.DESCRIPTION
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    change(table)
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / bundles.SEAL).write_text(f"{digest}  bundle.toml\n", encoding="ascii")


def rehash(folder: Path, name: str) -> None:
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    reseal(folder, lambda table: table["files"].__setitem__(name, digest))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert verify_bundle(folder), "what is refused has a problem to tell"
    return str(caught.value)


def test_a_bundle_says_everything_about_itself(tiny: Path) -> None:
    bundle = load_bundle(tiny)
    assert verify_bundle(tiny) == []
    assert bundle.labels == LABELS
    assert "Pneumonia" not in bundle.experimental
    assert "Mass" in bundle.experimental
    assert bundle.thresholds["Effusion"] == 0.5
    assert bundle.input_size == bundle.preprocessing.input_size == 64
    assert bundle.identity.weights_sha256 == hashlib.sha256((tiny / "weights.safetensors").read_bytes()).hexdigest()
    assert bundle.card.startswith("# tiny")
    assert set(read_weights(bundle)) >= {"conv1.weight", "layer4.0.bn3.running_var", "fc.bias"}


def test_one_changed_byte_in_the_weights_is_refused(copy: Path) -> None:
    path = copy / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "weights.safetensors is not the file that the bundle was made with" in refusal(copy)


def test_one_changed_byte_in_any_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    for path in tiny.iterdir():
        damaged = Path(shutil.copytree(tiny, tmp_path / path.name))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        (damaged / path.name).write_bytes(content)
        assert refusal(damaged)


def test_an_edited_threshold_is_refused_as_a_change(copy: Path) -> None:
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace("Pneumonia = 0.5", "Pneumonia = 0.9"))
    assert "bundle.toml was changed after the bundle was made" in refusal(copy)


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "bundle.toml", "bundle.toml.sha256", "canary_1.png", "card.md"]
)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert f"{name} is missing: install the bundle again" in refusal(copy)


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    assert "give the path of a bundle" in refusal(tmp_path / "nowhere")


def test_fewer_labels_than_outputs_are_refused(copy: Path) -> None:
    def forget(table: dict[str, Any]) -> None:
        table["labels"].remove("Hernia")
        table["experimental"].remove("Hernia")
        for canary in table["canary"]:
            del canary["expected"]["Hernia"]

    reseal(copy, forget)
    assert "the weights have 15 outputs, bundle.toml names 14 labels" in refusal(copy)


def test_an_unknown_label_is_refused(copy: Path) -> None:
    def rename(table: dict[str, Any]) -> None:
        text = json.dumps(table).replace("Hernia", "Hiatus")
        table.clear()
        table.update(json.loads(text))

    reseal(copy, rename)
    assert "label 'Hiatus' is unknown to this product" in refusal(copy)


def test_a_label_that_stands_twice_is_refused(copy: Path) -> None:
    reseal(copy, lambda table: table["labels"].__setitem__(0, "Edema"))
    assert "stands twice" in refusal(copy)


def test_weights_of_another_width_are_refused(copy: Path) -> None:
    reseal(copy, lambda table: table["network"].update(width=16))
    assert "the network needs" in refusal(copy)


def test_weights_of_another_depth_are_refused(copy: Path) -> None:
    reseal(copy, lambda table: table["network"].update(blocks=[1, 1, 1, 2]))
    assert "weights and description belong to different models" in refusal(copy)


def test_an_unknown_architecture_is_refused(copy: Path) -> None:
    reseal(copy, lambda table: table["network"].update(name="vgg16"))
    assert "'vgg16' is unknown" in refusal(copy)


def test_weights_that_are_a_pickle_are_not_opened(copy: Path) -> None:
    (copy / "weights.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    rehash(copy, "weights.safetensors")
    assert "weights.safetensors cannot be read" in refusal(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(copy: Path, value: float) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(copy / "weights.safetensors")
    weights["layer3.0.conv2.weight"][0, 0, 0, 0] = value
    save_file(weights, copy / "weights.safetensors")
    rehash(copy, "weights.safetensors")
    assert "layer3.0.conv2.weight holds values that are no numbers" in refusal(copy)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n and then nothing"])
def test_a_canary_that_is_no_picture_is_refused(copy: Path, content: bytes) -> None:
    (copy / "canary_2.png").write_bytes(content)
    rehash(copy, "canary_2.png")
    assert "canary canary_2.png is no grey PNG" in refusal(copy)


def test_a_bundle_that_may_not_be_read_says_so(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(bundles, "sha256_of", forbidden)
    assert "bundle.toml cannot be read (Permission denied): let the agent's user read it" in refusal(copy)


def test_a_file_name_that_leads_out_of_the_folder_is_not_followed(copy: Path) -> None:
    reseal(copy, lambda table: table["files"].__setitem__("../secret", "0"))
    assert "leads out of the folder" in refusal(copy)


def test_a_newer_format_asks_for_an_update(copy: Path) -> None:
    reseal(copy, lambda table: table.update(format=2))
    assert "update one of the two" in refusal(copy)


def test_a_missing_entry_is_named(copy: Path) -> None:
    reseal(copy, lambda table: table.pop("thresholds"))
    assert "'thresholds' is missing" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table["thresholds"].update(Mass=0.0), "operating point of Mass"),
        (lambda table: table["calibration"]["slope"].update(Mass=-1.0), "calibration of Mass"),
        (lambda table: table["preprocessing"].update(input_size=5), "preprocessing.input_size is 5"),
        (lambda table: table["preprocessing"].update(inputsize=128), "has no inputsize"),
        (lambda table: table["experimental"].append("Fracture"), "'Fracture' is called experimental"),
        (lambda table: table.update(canary=[]), "no canaries"),
        (lambda table: table["canary"][0]["expected"].pop("Mass"), "does not say what to expect"),
        (lambda table: table["network"].update(metadata=["age", "height"]), "'height' in it is unknown"),
        (lambda table: table["network"].update(metadata=["age", "age"]), "a name stands twice"),
        (lambda table: table["network"].update(metadata=["age"]), "no metadata.0.bias"),
        (lambda table: table["network"].update(head="dense"), "no fc.0.bias"),
        (lambda table: table["network"].update(head="attention"), "network.head is 'attention'"),
        (lambda table: table["network"].update(output="argmax"), "network.output is 'argmax'"),
        (lambda table: table["network"].update(output="softmax"), "its outputs are a softmax"),
        (lambda table: table["network"].update(input_channels=1), "a value per input channel (1 each)"),
        (lambda table: table["network"].update(input_channels=4), "network.input_channels is 4"),
        (lambda table: table["network"].update(name="onnx"), "lists no network.onnx"),
        (lambda table: table["network"].update(graph={"input": "x"}), "'columns' is missing"),
        (lambda table: table["network"].update(colour="green"), "architecture has no colour"),
        (lambda table: table["network"].update(blocks=[1, 1, 1, 1.5]), "a list, each of it a whole number, is needed"),
        (lambda table: table["network"].update(blocks=[1, 1, 1, 10**9]), "four stages of 1 to 64 blocks"),
        (lambda table: table["network"].update(width="8"), "width is '8': a whole number is needed"),
        (lambda table: table["network"].update(std=[0.2, 0.2, float("nan")]), "each of it a number"),
        (lambda table: table["preprocessing"].update(equalise=0), "equalise is 0: true or false is needed"),
        (lambda table: table["preprocessing"].update(fit="tile"), "preprocessing.fit is 'tile'"),
        (lambda table: table["calibration"].update(method="spline"), "calibration method 'spline' is unknown"),
    ],
)
def test_what_cannot_be_meant_is_refused(copy: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    reseal(copy, change)
    assert said in refusal(copy)


def test_a_bundle_of_fewer_labels_assesses_only_those(tmp_path: Path) -> None:
    labels = ("Effusion", "Mass", "No Finding")
    bundle = load_bundle(make_tiny_bundle(tmp_path / "three", labels=labels))
    assert bundle.labels == labels
    assert read_weights(bundle)["fc.weight"].shape[0] == 3


def test_the_same_seed_builds_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    again = make_tiny_bundle(tmp_path / "again")
    assert load_bundle(again).weights_sha256 == load_bundle(tiny).weights_sha256
    first, second = read_weights(load_bundle(tiny)), read_weights(load_bundle(again))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_the_bundle_that_comes_with_the_product_is_whole() -> None:
    folder = reference_bundle()
    assert verify_bundle(folder) == []
    bundle = load_bundle(folder)
    assert bundle.name == "reference"
    assert bundle.labels == LABELS
    assert set(LABELS) - bundle.experimental == {"No Finding", "Pneumonia"}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 50_000_000
    assert 2 <= len(bundle.canaries) <= 4
