"""A bundle is written whole, tried out and named once, or it is not there."""

from __future__ import annotations

import errno
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstread.models import bundle_writer
from firstread.models.bundle import BundleError, Calibration, load_bundle, read_weights, reference_bundle
from firstread.models.bundle_writer import BundleDraft, default_canaries, draft_of, stored_weights, write_bundle
from firstread.models.engine_torch import EagerEngine
from firstread.models.preprocess import Preprocessing
from tests.models.tiny import tiny_draft

LABELS = ("Effusion", "Mass", "No Finding")


@pytest.fixture(scope="module")
def draft() -> BundleDraft:
    return tiny_draft(labels=LABELS)


def refusal(draft: BundleDraft, folder: Path) -> str:
    before = sorted(folder.parent.iterdir())
    with pytest.raises(BundleError) as caught:
        write_bundle(draft, folder)
    assert sorted(folder.parent.iterdir()) == before, "nothing is left behind"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_is_returned_as_it_loads(draft: BundleDraft, tmp_path: Path) -> None:
    made = write_bundle(draft, tmp_path / "deep" / "down" / "here")
    assert made == load_bundle(tmp_path / "deep" / "down" / "here")
    assert made.labels == LABELS
    assert [path.name for path in made.folder.parent.iterdir()] == ["here"]


def test_its_canaries_say_what_eager_torch_says(draft: BundleDraft, tmp_path: Path) -> None:
    from firstread.models.canary import canary_squares

    made = write_bundle(draft, tmp_path / "made")
    found = EagerEngine(made).run(canary_squares(made)).probabilities
    expected = [[canary.expected[label] for label in LABELS] for canary in made.canaries]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_bundle_is_never_overwritten(draft: BundleDraft, tmp_path: Path) -> None:
    made = write_bundle(draft, tmp_path / "made")
    assert "a bundle is never overwritten" in refusal(replace(draft, version="2"), tmp_path / "made")
    assert load_bundle(tmp_path / "made") == made


def test_an_empty_folder_is_not_taken_over_either(draft: BundleDraft, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "exists" in refusal(draft, tmp_path / "there")


def test_two_bundles_of_one_name_and_version_do_not_stand_side_by_side(draft: BundleDraft, tmp_path: Path) -> None:
    write_bundle(draft, tmp_path / "made")
    assert "made is tiny 0.0.1 already" in refusal(draft, tmp_path / "another")
    write_bundle(replace(draft, version="0.0.2"), tmp_path / "another")


def test_who_comes_second_does_not_replace_the_first(
    draft: BundleDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer is done between our look and our rename."""
    sync = bundle_writer._sync

    def meanwhile(building: Path) -> None:
        sync(building)
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "theirs").write_text("first")

    monkeypatch.setattr(bundle_writer, "_sync", meanwhile)
    with pytest.raises(BundleError, match="made by somebody else meanwhile"):
        write_bundle(draft, tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_full_disk_leaves_nothing_and_says_so(
    draft: BundleDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_writer, "_sync", full)
    said = refusal(draft, tmp_path / "made")
    assert "could not be written" in said
    assert "No space left on device" in said


class Killed(BaseException):
    """What nobody catches, as nobody catches a signal."""


@pytest.mark.parametrize(("step", "when"), [("_write_weights", "after"), ("_try_out", "after"), ("_sync", "before")])
def test_a_writer_that_is_killed_leaves_nothing_that_can_be_found(
    draft: BundleDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    done = getattr(bundle_writer, step)

    def die(*given: Any) -> None:
        if when == "after":
            done(*given)
        raise Killed

    monkeypatch.setattr(bundle_writer, step, die)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # the dead do not clear up
    with pytest.raises(Killed):
        write_bundle(draft, tmp_path / "made")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".made-")
    assert left.name.endswith(".partial")
    if step != "_sync":
        with pytest.raises(BundleError, match=r"is missing: install the bundle again"):
            load_bundle(left)


def test_a_hidden_folder_beside_the_shipped_bundles_is_not_listed(
    draft: BundleDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from firstread.agent.commands import bundles
    from firstread.models import bundle

    write_bundle(draft, tmp_path / "shown")
    write_bundle(replace(draft, version="2"), tmp_path / "other").folder.rename(tmp_path / ".other.partial")
    monkeypatch.setattr(bundle, "reference_bundle", lambda: tmp_path / "shown")
    output = CliRunner().invoke(bundles.app, ["list"]).output
    assert "shown" in output
    assert ".partial" not in output


def test_what_is_synced_is_every_file_then_the_folder_then_its_parent(
    draft: BundleDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(handle: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    made = write_bundle(draft, tmp_path / "made")
    files = [path.name for path in made.folder.iterdir()]
    assert sorted(steps[: len(files)]) == sorted(files)
    assert steps[len(files)].startswith(".made-")
    assert steps[len(files) + 1 :] == ["rename", tmp_path.name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: replace(d, labels=LABELS[:2]), "the network has 3 outputs, 2 labels were given"),
        (lambda d: replace(d, thresholds={"Mass": 0.5}), "Effusion has no operating point"),
        (lambda d: replace(d, thresholds=dict.fromkeys(LABELS, 0.0)), "the operating point of Effusion is 0.0"),
        (lambda d: replace(d, calibration=Calibration.identity(2)), "a slope and an offset for each label"),
        (lambda d: replace(d, calibration=Calibration("beta", (1.0,) * 3, (0.0,) * 3)), "method 'beta' is unknown"),
        (lambda d: replace(d, calibration=Calibration("identity", (1.0, 2.0, 1.0), (0.0,) * 3)), "changes Mass"),
        (lambda d: replace(d, calibration=Calibration("temperature", (2.0,) * 3, (1.0,) * 3)), "has offsets"),
        (lambda d: replace(d, precision="int8"), "precision 'int8' is unknown"),
        (lambda d: replace(d, weights=None), "weights or an ONNX file, and not both"),
        (lambda d: replace(d, onnx=b"x"), "weights or an ONNX file, and not both"),
        (lambda d: replace(d, weights=None, onnx=b"x"), "'resnet50' does not go with what was given"),
        (lambda d: replace(d, canary_metadata=[{}]), "3 canaries came with 1 rows of metadata"),
        (lambda d: replace(d, extra_files={"../out": b""}), "'../out' cannot be an extra file"),
        (lambda d: replace(d, extra_files={"bundle.toml": b""}), "'bundle.toml' cannot be an extra file"),
        (lambda d: replace(d, extra_files={"canary_1.png": b""}), "'canary_1.png' cannot be an extra file"),
        (lambda d: replace(d, provenance={"made": None}), "the provenance cannot be written as TOML"),
        (lambda d: replace(d, largest_bytes=10), "at most 10 are allowed"),
        (lambda d: replace(d, name=""), "a name and a version"),
        (lambda d: replace(d, preprocessing=Preprocessing(input_size=64), weights=Path("/nowhere")), "No such file"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    draft: BundleDraft, tmp_path: Path, change: Callable[[BundleDraft], BundleDraft], said: str
) -> None:
    assert said in refusal(change(draft), tmp_path / "made")


def spoilt(draft: BundleDraft, name: str, value: float) -> BundleDraft:
    weights: dict[str, Any] = stored_weights(draft.weights, "float32")  # type: ignore[arg-type]
    weights[name] = weights[name].copy()
    weights[name].flat[3] = value
    return replace(draft, weights=weights)


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_weights_that_are_no_numbers_as_stored_are_refused(draft: BundleDraft, tmp_path: Path, value: float) -> None:
    """70,000 is a number in float32 and infinite in float16."""
    said = refusal(spoilt(draft, "layer2.0.conv1.weight", value), tmp_path / "made")
    assert "layer2.0.conv1.weight holds values that are no numbers" in said


def test_a_weight_too_large_for_half_precision_fits_in_full(draft: BundleDraft, tmp_path: Path) -> None:
    write_bundle(replace(spoilt(draft, "conv1.weight", 70_000.0), precision="float32"), tmp_path / "made")


def test_full_precision_keeps_every_bit(draft: BundleDraft, tmp_path: Path) -> None:
    made = write_bundle(replace(draft, precision="float32"), tmp_path / "made")
    for name, array in read_weights(made).items():
        np.testing.assert_array_equal(array, draft.weights[name].detach().numpy())  # type: ignore[index, call-overload]


def test_a_missing_and_a_foreign_tensor_are_named(draft: BundleDraft, tmp_path: Path) -> None:
    weights: dict[str, Any] = dict(draft.weights)  # type: ignore[arg-type]
    weights["classifier.weight"] = weights.pop("fc.bias")
    said = refusal(replace(draft, weights=weights), tmp_path / "made")
    assert "no fc.bias" in said
    assert "unknown classifier.weight" in said


def test_a_dense_head_for_another_size_is_refused(tmp_path: Path) -> None:
    dense = tiny_draft(labels=LABELS, head="dense", hidden=(8,))
    said = refusal(replace(dense, preprocessing=Preprocessing(input_size=96)), tmp_path / "made")
    assert "takes squares of 64 pixels, the preprocessing makes 96" in said


def test_a_softmax_with_a_calibration_of_its_own_is_refused(tmp_path: Path) -> None:
    softmax = tiny_draft(labels=LABELS, output="softmax")
    said = refusal(replace(softmax, calibration=Calibration("platt", (2.0,) * 3, (0.0,) * 3)), tmp_path / "made")
    assert "its outputs are a softmax, and its calibration is platt" in said


def test_a_derived_version_keeps_weights_canaries_and_extra_files(draft: BundleDraft, tmp_path: Path) -> None:
    first = write_bundle(replace(draft, extra_files={"evaluation.json": b"{}"}), tmp_path / "first")
    changed = replace(draft_of(first), version="0.0.1+site.1", thresholds={**first.thresholds, "Mass": 0.7})
    second = write_bundle(changed, tmp_path / "second")
    assert second.weights_sha256 == first.weights_sha256
    assert second.canaries == first.canaries
    assert second.files["evaluation.json"] == first.files["evaluation.json"]
    assert second.thresholds["Mass"] == 0.7
    assert (second.preprocessing, second.architecture) == (first.preprocessing, first.architecture)


def test_a_derived_reference_bundle_answers_as_before_and_reads_as_before(tmp_path: Path) -> None:
    """What older versions of the product read is written as they read it: no new keys where nothing is new."""
    first = load_bundle(reference_bundle())
    second = write_bundle(replace(draft_of(first), version="9"), tmp_path / "second")
    assert second.weights_sha256 == first.weights_sha256
    assert [one.file for one in second.canaries] == [one.file for one in first.canaries]
    for old, new in zip(first.canaries, second.canaries, strict=True):
        for label in first.labels:
            assert new.expected[label] == pytest.approx(old.expected[label], abs=1e-6)
    tables = [tomllib.loads((one.folder / "bundle.toml").read_text()) for one in (first, second)]
    for part in ("network", "preprocessing", "calibration"):
        assert tables[0][part] == tables[1][part]


def test_the_default_canaries_differ_from_one_another() -> None:
    films = default_canaries(96)
    assert len(films) == 4
    assert all(film.dtype == np.uint8 and film.shape == (96, 96) for film in films)
    assert len({film.tobytes() for film in films}) == 4
