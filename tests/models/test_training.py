"""Training learns, goes on where it was stopped to the same result, and stops with a sentence when it cannot go on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from firstread.models.data.film import DataError, FilmSet
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.importing.checkpoint import read_tensors
from firstread.models.network import load_state, state_of
from firstread.models.preprocess import Preprocessing
from firstread.models.training import curves
from firstread.models.training import train as training
from firstread.models.training.augment import Augmentation
from firstread.models.training.curves import Row
from firstread.models.training.optim import lock, optimiser_of
from firstread.models.training.phantom_films import draw_phantoms
from firstread.models.training.recipe import Recipe
from firstread.models.training.scoring import logits_of, watch
from firstread.models.training.start import State, network_of
from firstread.models.training.steps import NotANumber, Setup, Stepper
from firstread.models.training.train import Aside, train
from tests.models.training_films import discs, recipe, stage, still

MASS = LABELS.index("Mass")
QUIET = Setup(say=lambda _: None)


@pytest.fixture(autouse=True)
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these trainings; one test looks at them."""
    torch.set_num_threads(1)
    if "picture" not in request.node.name:
        monkeypatch.setattr(curves, "_write_png", lambda *_: None)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "curves.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in rows_of(folder)]


def area(made: Recipe, weights: State, films: FilmSet, label: str = "Mass", outputs: int = len(LABELS)) -> float:
    network = network_of(made, outputs)
    load_state(network, weights)
    column = LABELS.index(label)
    present = [bool(film.target[column] > 0) for film in films.films]
    return float(roc_auc_score(present, logits_of(network, films, made.preprocessing)[:, column]))


def stopping_after(epochs: int) -> Setup:
    """As if somebody pressed Ctrl-C."""
    seen: list[Row] = []

    def told(row: Row) -> None:
        seen.append(row)
        if len(seen) == epochs:
            raise KeyboardInterrupt

    return replace(QUIET, on_epoch=told)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stopped_training_goes_on_to_the_same_losses_and_weights(tmp_path: Path, precision: str) -> None:
    made = recipe(stage(epochs=2), stage(name="more", epochs=2, patience=2), precision=precision, validation=0.1)
    films, aside = discs(12, 0), Aside(discs(8, 1), "validation patients", chooses=True)
    whole = train(made, films, tmp_path / "whole", aside=aside, setup=QUIET)
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            train(made, films, tmp_path / "stopped", aside=aside, setup=stopping_after(stop))
    resumed = train(made, films, tmp_path / "stopped", aside=aside, setup=QUIET)
    np.testing.assert_allclose(losses(tmp_path / "stopped"), losses(tmp_path / "whole"), atol=1e-6)
    assert len(losses(tmp_path / "whole")) == 4
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_training_that_has_ended_is_not_done_again(tmp_path: Path) -> None:
    films = discs(12, 0)
    first = train(recipe(), films, tmp_path, setup=QUIET)
    epochs: list[Row] = []
    again = train(recipe(), films, tmp_path, setup=replace(QUIET, on_epoch=epochs.append))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(epochs) == 2, "told again, not trained again"
    assert losses(tmp_path) == [pytest.approx(float(row["loss"]), abs=1e-6) for row in epochs]


def test_a_checkpoint_of_another_recipe_other_films_or_other_first_weights_is_not_taken_up(tmp_path: Path) -> None:
    films = discs(12, 0)
    weights = train(recipe(), films, tmp_path, setup=QUIET)
    with pytest.raises(DataError, match="checkpoint of another recipe"):
        train(replace(recipe(), text="other"), films, tmp_path, setup=QUIET)
    with pytest.raises(DataError, match="made with other films or first weights"):
        train(recipe(), films.subset(range(10)), tmp_path, setup=QUIET)
    with pytest.raises(DataError, match="made with other films or first weights"):
        train(recipe(), films, tmp_path, start=weights, setup=QUIET)


def test_a_checkpoint_that_wants_to_run_code_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('ran')",))

    torch.save({"recipe": Evil()}, tmp_path / "only.pt")
    with pytest.raises(DataError, match=r"only\.pt is no checkpoint of this training"):
        train(recipe(), discs(12, 0), tmp_path, setup=QUIET)


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    films = discs(12, 0)
    train(recipe(), films, tmp_path, setup=QUIET)
    content = (tmp_path / "only.pt").read_bytes()
    (tmp_path / "only.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"only\.pt is no checkpoint .* remove it to begin the stage anew"):
        train(recipe(), films, tmp_path, setup=QUIET)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = discs(12, 0)
    made = recipe(stage(epochs=3))
    answer = Stepper._learn
    steps = []

    def breaking(stepper: Any, batch: Any) -> float:
        steps.append(1)
        return float("nan") if len(steps) == 5 else answer(stepper, batch)

    monkeypatch.setattr(Stepper, "_learn", breaking)
    with pytest.raises(
        NotANumber,
        match=r"stage only, epoch 2, step 2: the loss is nan; the checkpoint of epoch 1 is kept.*stage\.only\.rate=",
    ):
        train(made, films, tmp_path, setup=QUIET)
    assert len(losses(tmp_path)) == 1
    assert set(read_tensors(tmp_path / "only.pt")) == set(state_of(network_of(made, len(LABELS)))), (
        "usable as --weights"
    )


def test_a_rate_that_is_far_too_high_ends_with_that_sentence(tmp_path: Path) -> None:
    made = recipe(stage(rate=9.9, epochs=40, schedule="constant", weight_decay=9.0), optimiser="rmsprop")
    films = discs(12, 0)
    broken = FilmSet(films.films, films.pixels)
    weights = state_of(network_of(made, len(LABELS)))
    weights["conv1.weight"] = weights["conv1.weight"] * float("inf")
    with pytest.raises(NotANumber, match="no epoch of this stage was kept"):
        train(made, broken, tmp_path, start=weights, setup=QUIET)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_the_device_cannot_hold_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Stepper, "_learn", full)
    with pytest.raises(DataError, match=r"no memory for a batch of 4 squares of 32 px: --set stage\.only\.batch=2"):
        train(recipe(), discs(12, 0), tmp_path, setup=QUIET)


def test_it_learns_to_tell_and_to_point(tmp_path: Path) -> None:
    made = recipe(stage(epochs=8, phantoms_per_epoch=64, rate=4e-3, pointing=0.3, average=0.9))
    weights = train(made, discs(64, 0), tmp_path, setup=QUIET)
    assert area(made, weights, discs(40, 1)) > 0.9
    assert losses(tmp_path)[-1] < losses(tmp_path)[0] / 2


@pytest.mark.slow
def test_a_minute_on_phantoms_at_64_pixels_learns(tmp_path: Path) -> None:
    made = recipe(
        stage(epochs=12, phantoms_per_epoch=240, batch=8, rate=4e-3, pointing=0.2, average=0.95),
        preprocessing=Preprocessing(input_size=64),
        store_side=96,
        augmentation_phantoms=Augmentation(flip=0.5, blur_px=0.3, noise=0.01, erase=0.0, texture=0.0),
    )
    weights = train(made, draw_phantoms(240, 1, 96), tmp_path, setup=QUIET)
    assert area(made, weights, draw_phantoms(80, 2, 96), NO_FINDING) > 0.7


def test_a_softmax_learns_one_class_per_entry(tmp_path: Path) -> None:
    made = recipe(
        stage(films="all", epochs=8, rate=4e-3, average=0.9, batch=8, smoothing=0.0),
        loss="softmax",
        once_per_label=True,
        balance=1.0,
        augmentation=still(),
    )
    weights = train(made, discs(48, 0, phantom=False), tmp_path, setup=QUIET)
    assert area(made, weights, discs(40, 1)) > 0.9


def test_what_is_locked_does_not_move_its_batch_normalisation_included(tmp_path: Path) -> None:
    made = recipe(stage(trains="layer4", average=0.0), pooling="mean")
    before = state_of(network_of(made, len(LABELS)))
    after = train(made, discs(12, 0), tmp_path, setup=QUIET)
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {"layer4", "fc"}


def test_a_stage_on_some_labels_leaves_what_is_said_of_the_others_as_it_is(tmp_path: Path) -> None:
    made = recipe(stage(trains="head", labels=("Mass",), weight_decay=0.0, average=0.0, pointing=0.2))
    before = state_of(network_of(made, len(LABELS)))
    after = train(made, discs(12, 0), tmp_path, setup=QUIET)
    moved = [LABELS[i] for i in range(15) if not torch.equal(before["fc.weight"][i], after["fc.weight"][i])]
    assert moved == ["Mass"]
    with pytest.raises(ValueError, match="or others move too"):
        stage(labels=("Mass",))


def test_a_stage_may_train_at_half_the_maps_resolution_and_hand_its_weights_on(tmp_path: Path) -> None:
    made = recipe(stage(dilate_last=False, pointing=0.2, epochs=1), stage(name="fine", pointing=0.2, epochs=1))
    weights = train(made, discs(12, 0), tmp_path, setup=QUIET)
    network = network_of(made, len(LABELS))
    load_state(network, weights)
    _, activations = network(torch.zeros(1, 32, 32))
    assert activations is not None
    assert activations.shape[-1] == 2, "one cell per 16 pixels is what the bundle serves"


def test_the_backbone_learns_at_its_own_rate_and_batch_normalisation_does_not_decay() -> None:
    made = recipe(stage(rate=1e-3, backbone_rate=0.1, weight_decay=0.05))
    network = network_of(made, len(LABELS))
    lock(network, made.stages[0])
    groups = optimiser_of(made, made.stages[0], network).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (1e-3, 0.05),
        (1e-3, 0.0),
        (pytest.approx(1e-4), 0.05),
        (pytest.approx(1e-4), 0.0),
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_the_seeds_optimiser_is_rmsprop_as_keras_has_it() -> None:
    made = recipe(stage(schedule="constant"), optimiser="rmsprop")
    network = network_of(made, len(LABELS))
    (group, *_) = optimiser_of(made, made.stages[0], network).param_groups
    assert (group["alpha"], group["eps"], group["momentum"]) == (0.9, 1e-7, 0)


def test_early_stopping_hands_on_the_weights_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.6, 0.8, 0.7, 0.75, 0.9])

    def told(*arguments: Any) -> Any:
        found = watch(*arguments)
        return replace(found, auroc={**found.auroc, "Mass": next(values)})

    monkeypatch.setattr(training, "watch", told)
    films = discs(12, 0)
    aside = Aside(discs(8, 1), "validation patients", chooses=True)
    one = stage(epochs=5, patience=2, average=0.5, schedule="constant")
    made = recipe(one, validation=0.2, stop_on="auroc.Mass")
    said: list[str] = []
    kept = train(made, films, tmp_path / "stops", aside=aside, setup=Setup(say=said.append))
    assert len(losses(tmp_path / "stops")) == 4, "two epochs without a better figure"
    assert any("the weights of epoch 2 go on" in sentence for sentence in said)
    two = train(recipe(replace(one, epochs=2, patience=None)), films, tmp_path / "two", setup=QUIET)
    assert all(torch.equal(kept[name], two[name]) for name in two)


def test_films_that_judge_have_no_say_in_when_to_stop(tmp_path: Path) -> None:
    made = recipe(stage(epochs=3, patience=1, rate=1e-6), validation=0.2)
    judges = Aside(discs(8, 1), "held-out patients", chooses=False)
    train(made, discs(12, 0), tmp_path, aside=judges, setup=QUIET)
    assert len(losses(tmp_path)) == 3


def test_a_figure_that_cannot_be_measured_is_not_waited_for(tmp_path: Path) -> None:
    made = recipe(stage(patience=1), validation=0.2, stop_on="auroc.Hernia")
    with pytest.raises(DataError, match=r"auroc\.Hernia cannot be measured on the 8 films kept aside"):
        train(made, discs(12, 0), tmp_path, aside=Aside(discs(8, 1), "v", True), setup=QUIET)


def test_auxiliary_outputs_help_in_training_and_are_cut_off_when_weights_are_handed_on(tmp_path: Path) -> None:
    films = discs(16, 0, phantom=False)
    made = recipe(stage(films="all"), stage(name="more", films="all"), auxiliary=("sex", "age"), text="aux")
    weights = train(made, films, tmp_path, setup=QUIET)
    assert weights["fc.weight"].shape[0] == len(LABELS)
    saved = torch.load(tmp_path / "more.pt", weights_only=True)
    assert saved["state_dict"]["fc.weight"].shape[0] == len(LABELS) + 2
    again = train(replace(made, text="again"), films, tmp_path / "again", start=weights, setup=QUIET)
    assert again["fc.weight"].shape[0] == len(LABELS), "weights without the extra rows are a good start as well"


def test_metadata_reach_the_network_and_their_absence_does_too(tmp_path: Path) -> None:
    films = discs(24, 0, phantom=False)
    made = recipe(stage(films="all", epochs=6, rate=1e-2, average=0.5), metadata=("sex",), metadata_missing=0.2)
    weights = train(made, films, tmp_path, setup=QUIET)
    network = network_of(made, len(LABELS))
    load_state(network, weights)
    told = logits_of(network, films, made.preprocessing)
    hidden = logits_of(network, films, made.preprocessing, metadata=False)
    assert np.abs(told - hidden).max() > 0.01


def test_curves_are_written_after_every_epoch_as_table_picture_and_events(tmp_path: Path) -> None:
    aside = Aside(discs(8, 1), "held-out patients", chooses=False)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(stage(epochs=3)), discs(12, 0), tmp_path, aside=aside, setup=stopping_after(2))
    rows = rows_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[0]["auroc.Mass"]) <= 1
    assert rows[0]["auroc.Hernia"] == "", "no film with it: no figure"
    assert 0 <= float(rows[0]["waiting"]) <= 1
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    train(recipe(stage(epochs=3)), discs(12, 0), tmp_path, aside=aside, setup=QUIET)
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [one.step for one in board.Scalars("training/loss")] == [1, 2, 3], "no epoch twice after a stop"


def test_auroc_while_training_is_nan_where_all_films_are_of_one_kind() -> None:
    films = discs(10, 0).films
    found = watch(films, np.random.default_rng(0).normal(size=(10, len(LABELS))), softmax=False)
    assert np.isfinite(found.auroc["Mass"])
    assert np.isnan(found.auroc["Hernia"])
    assert found.figure("auroc") == pytest.approx(
        np.mean([value for value in found.auroc.values() if np.isfinite(value)])
    )
    assert found.figure("loss") == -found.loss
