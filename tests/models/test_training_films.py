"""What a network sees: phantoms and what is known of them, variation, entries, splits, balance."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from firstread.models.data.film import DataError, FilmSet, fold_of
from firstread.models.findings import LABELS, NO_FINDING
from firstread.models.prediction import Box
from firstread.models.training.augment import Augmentation, vary
from firstread.models.training.batches import Sight, made_ahead
from firstread.models.training.entries import (
    Entry,
    course,
    epoch_entries,
    in_batches,
    label_balance,
    learnable,
    share,
)
from firstread.models.training.films import nih_test_films, real_films
from firstread.models.training.phantom_films import draw_phantoms, phantom_film
from firstread.models.training.plan import planned
from tests.models.training_films import discs, film, nih_miniature, recipe, stage, still, target_of

MASS = LABELS.index("Mass")


def quiet(_: str) -> None:
    pass


def test_no_patient_is_on_both_sides_of_any_split() -> None:
    films = [film(f"f{i}", f"p{i // 3}") for i in range(300)]
    for hold_out in (True, False):
        for part in planned(films, 0.2, folds=5, hold_out=hold_out).parts:
            sides = [{films[i].patient for i in side} for side in (part.learned, part.aside, part.judged)]
            assert not sides[0] & sides[1]
            assert not sides[0] & sides[2]
            assert not sides[1] & sides[2]


def test_eighty_twenty_and_then_eighty_twenty_again() -> None:
    films = [film(f"f{i}", f"p{i}") for i in range(4000)]
    (part,) = planned(films, 0.2, folds=5, hold_out=True).parts
    assert len(part.judged) / 4000 == pytest.approx(0.2, abs=0.02)
    assert len(part.aside) / 4000 == pytest.approx(0.16, abs=0.02)


def test_every_film_is_judged_once_and_the_last_training_sees_all() -> None:
    films = [film(f"f{i}", f"p{i}") for i in range(50)]
    plan = planned(films, 0.0, folds=5, hold_out=False)
    assert sorted(np.concatenate([part.judged for part in plan.parts])) == list(range(50))
    assert len(plan.parts[-1].learned) == 50


def test_the_split_does_not_depend_on_the_other_patients() -> None:
    # A fixed answer: a change of the hash would silently mix what earlier bundles held out.
    assert [fold_of(f"nih-{number}", 5) for number in (1, 61, 150, 30805)] == [0, 3, 1, 2]


def test_too_few_patients_are_said_to_be_too_few() -> None:
    with pytest.raises(DataError, match="more patients are needed"):
        planned([film("a", "p1"), film("b", "p1")], 0.0, folds=5, hold_out=True)


def test_nihs_own_test_list_judges_when_asked(tmp_path: Path) -> None:
    table = nih_miniature(tmp_path, films=16)
    films = real_films(table, tmp_path / "images", 32, boxes=None, cache=tmp_path / "cache", workers=1, say=quiet)
    test = nih_test_films(films.films, table, tmp_path / "images")
    assert {films.films[i].patient for i in test} == {"nih-4", "nih-8"}
    assert len(films) == 16
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(DataError, match=r"put NIH's lists there, or use --split hash"):
        nih_test_films(films.films, table, tmp_path / "images")


def test_boxes_of_a_table_arrive_in_pixels_of_the_square_that_training_sees(tmp_path: Path) -> None:
    table = nih_miniature(tmp_path, films=4, side=96)
    boxes = tmp_path / "BBox_List_2017.csv"
    boxes.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,512,256,128,64,,,\n")
    films = real_films(table, tmp_path / "images", 32, boxes=boxes, cache=tmp_path / "cache", workers=1, say=quiet)
    box = films.films[0].boxes["Mass"]
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((16, 8, 20, 10))


def test_what_a_drawn_lesion_could_be_called_as_well_is_unknown() -> None:
    corners = np.full((len(LABELS), 4), np.nan, np.float32)
    drawn = phantom_film("p", target_of("Consolidation"), corners)
    known = dict(zip(LABELS, drawn.known, strict=True))
    assert known["Infiltration"] == known["Atelectasis"] == 0
    assert drawn.target[LABELS.index("Pneumonia")] == 1, "a drawn consolidation teaches what pneumonia looks like"
    assert known["Consolidation"] == known["Pneumothorax"] == known[NO_FINDING] == 1


def test_phantoms_that_were_kept_are_the_ones_that_were_drawn(tmp_path: Path) -> None:
    drawn = draw_phantoms(3, 5, 64, tmp_path)
    kept = draw_phantoms(3, 5, 64, tmp_path)
    np.testing.assert_array_equal(drawn.pixels, kept.pixels)
    assert [one.boxes for one in drawn.films] == [one.boxes for one in kept.films]
    np.testing.assert_array_equal(drawn.pixels[:2], draw_phantoms(2, 5, 64).pixels)


@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_a_box_follows_its_lesion_through_the_variation(shear: float) -> None:
    image = np.zeros((128, 128), np.float32)
    image[30:40, 80:90] = 1
    moving = Augmentation(blur_px=0, noise=0, gamma=1, shading=0, erase=0, texture=0, flip=1.0, shear=shear)
    varied = vary(image, np.random.default_rng(4), moving)
    box = varied.follow(Box(80, 30, 90, 40))
    rows, columns = np.nonzero(varied.image > 0.5)
    assert columns.min() >= box.left - 1
    assert columns.max() + 1 <= box.right + 1
    assert rows.min() >= box.top - 1
    assert rows.max() + 1 <= box.bottom + 1
    assert columns.mean() < 64, "mirrored to the other side"


def test_what_moves_in_from_outside_is_the_films_own_edge_when_asked() -> None:
    image = np.full((64, 64), 0.7, np.float32)
    kept = Augmentation(rotate_degrees=10, shift=0.3, blur_px=0, noise=0, gamma=1, shading=0, erase=0, texture=0)
    black = vary(image, np.random.default_rng(1), kept).image
    filled = vary(image, np.random.default_rng(1), Augmentation(**{**vars(kept), "fill_edge": True})).image
    assert black.min() == 0
    assert filled.min() == pytest.approx(0.7, abs=1e-5)


def test_the_same_generator_varies_a_film_in_the_same_way() -> None:
    image = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    first = vary(image, np.random.default_rng(9), Augmentation())
    second = vary(image, np.random.default_rng(9), Augmentation())
    np.testing.assert_array_equal(first.image, second.image)
    assert not np.array_equal(first.image, vary(image, np.random.default_rng(10), Augmentation()).image)


def test_a_film_is_entered_once_under_each_of_its_labels() -> None:
    films = [film("a", "p1", target_of("Mass", "Effusion")), film("b", "p2", target_of(NO_FINDING))]
    made = recipe(stage(films="all"), loss="softmax", once_per_label=True)
    entries = epoch_entries(made, made.stages[0], films, 0)
    assert {(one.film, LABELS[one.label or 0]) for one in entries} == {(0, "Mass"), (0, "Effusion"), (1, NO_FINDING)}
    sight = Sight(made, made.stages[0], FilmSet(tuple(films), np.zeros((2, 64, 64), np.uint8)))
    batch = sight.batch(entries)
    assert batch.targets.sum(dim=1).tolist() == [1.0, 1.0, 1.0], "one class each"


def test_two_processes_see_the_films_that_one_would_see() -> None:
    films = discs(23, 0).films
    made = recipe(stage(phantoms_per_epoch=100, batch=8))
    alone = list(course(made, made.stages[0], films, 0, 1))
    together = list(course(made, made.stages[0], films, 0, 2))
    assert [len(batch) for batch in together] == [8, 8, 7] * 2
    assert [sorted(map(vars_of, b)) for b in alone] == [sorted(map(vars_of, b)) for b in together]
    for batch in together:
        halves = [share(batch, rank, 2) for rank in (0, 1)]
        assert sorted(map(vars_of, halves[0] + halves[1])) == sorted(map(vars_of, batch))
        assert min(map(len, halves)) >= 2, "batch normalisation needs two"


def vars_of(entry: Entry) -> tuple[int, int]:
    return entry.epoch, entry.film


def test_a_rest_too_small_for_batch_normalisation_joins_the_last_batch_instead_of_being_dropped() -> None:
    entries = [Entry(i, 0) for i in range(9)]
    assert [len(batch) for batch in in_batches(entries, 4)] == [4, 5]
    assert [len(batch) for batch in in_batches(entries, 3, ranks=2)] == [3, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_made_ahead_are_the_same_by_thread_and_by_processes(workers: int) -> None:
    films = discs(10, 0)
    made = recipe(stage(batch=4))
    sight = Sight(made, made.stages[0], films)
    wanted = [sight.batch(entries) for entries in course(made, made.stages[0], films.films, 0, 1)]
    found = list(made_ahead(sight, course(made, made.stages[0], films.films, 0, 1), workers))
    assert len(found) == len(wanted) == 6
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one.squares, other.squares)
        assert torch.equal(one.targets, other.targets)


def test_an_error_in_a_worker_comes_through() -> None:
    films = FilmSet(discs(6, 0).films, np.zeros((2, 64, 64), np.uint8))  # pixels of two films alone
    made = recipe()
    with pytest.raises(IndexError):
        list(made_ahead(Sight(made, made.stages[0], films), course(made, made.stages[0], films.films, 0, 1), 0))


def test_a_worker_that_is_killed_is_a_sentence() -> None:
    class Killed(Sight):
        def __getitem__(self, entry: Entry) -> dict[str, np.ndarray]:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    films = discs(6, 0)
    made = recipe()
    with pytest.raises(DataError, match=r"ended from outside .* fewer --workers"):
        list(made_ahead(Killed(made, made.stages[0], films), course(made, made.stages[0], films.films, 0, 1), 1))


def test_a_reduced_film_is_seen_as_the_whole_one_and_its_boxes_stay_where_they_are() -> None:
    films = discs(4, 0)
    whole, half = (
        Sight(made, made.stages[0], films)[Entry(1, 0)]
        for made in (recipe(stage(pointing=0.1, reduce=n), augmentation_phantoms=still()) for n in (1, 2))
    )
    np.testing.assert_array_equal(whole["cells"], half["cells"])
    assert whole["cells"].any()
    assert np.corrcoef(whole["squares"].ravel(), half["squares"].ravel())[0, 1] > 0.99
    with pytest.raises(ValueError, match="smaller than its squares"):
        recipe(stage(reduce=3))


def test_auxiliary_targets_follow_the_labels_and_are_unknown_where_nobody_said() -> None:
    films = (film("a", "p", target_of("Mass"), sex="M", age=40.0), film("b", "p"), *discs(1, 0).films)
    made = recipe(stage(films="all"), auxiliary=("sex", "age"), augmentation=still())
    batch = Sight(made, made.stages[0], FilmSet(films, np.zeros((3, 64, 64), np.uint8))).batch(
        [Entry(0, 0), Entry(1, 0), Entry(2, 0)]
    )
    np.testing.assert_allclose(batch.targets[0, -2:], [1.0, 0.4], rtol=1e-6)
    assert batch.weights[:, -2:].tolist() == [[2.0, 2.0], [0.0, 0.0], [0.0, 0.0]]


def test_label_weights_count_on_real_films_alone() -> None:
    films = (film("a", "p"), *discs(1, 0).films)
    made = recipe(label_weights={NO_FINDING: 4.0})
    batch = Sight(made, made.stages[0], FilmSet(films, np.zeros((2, 64, 64), np.uint8))).batch(
        [Entry(0, 0), Entry(1, 0)]
    )
    assert batch.weights[:, LABELS.index(NO_FINDING)].tolist() == [4.0, 1.0]


def test_metadata_are_hidden_as_often_as_the_recipe_says() -> None:
    films = discs(2, 0, phantom=False)
    made = recipe(stage(films="all"), metadata=("age", "sex", "view"), metadata_missing=0.3)
    sight = Sight(made, made.stages[0], films)
    missing = np.stack([sight[Entry(0, epoch)]["metadata"][3:] for epoch in range(300)])
    assert missing.mean() == pytest.approx(0.3, abs=0.05)
    never = Sight(recipe(stage(films="all"), metadata=("age",), metadata_missing=0.0), made.stages[0], films)
    assert never[Entry(0, 0)]["metadata"].tolist() == pytest.approx([(30 - 45) / 20, 0])


def test_class_weights_are_scikit_learns_balanced_ones() -> None:
    films = [film(f"{i}", f"{i}", target_of("Mass" if i < 3 else NO_FINDING)) for i in range(12)]
    found = label_balance(recipe(loss="softmax", once_per_label=True, balance=1.0), films)
    wanted = compute_class_weight("balanced", classes=np.array([0, 1]), y=[0] * 3 + [1] * 9)
    assert (found[MASS], found[LABELS.index(NO_FINDING)]) == pytest.approx(tuple(wanted))


def test_a_rare_label_weighs_more_up_to_a_limit() -> None:
    films = [film(f"{i}", f"{i}", target_of("Mass") if i == 0 else target_of(NO_FINDING)) for i in range(101)]
    assert label_balance(recipe(balance=0.5), films)[MASS] == pytest.approx(10.0)
    assert label_balance(recipe(balance=1.0, balance_limit=20.0), films)[MASS] == pytest.approx(20.0)
    assert label_balance(recipe(balance=1.0), films)[LABELS.index("Hernia")] == 1.0, "no film with it: nothing to weigh"
    assert label_balance(recipe(balance=0.0), films).tolist() == [1.0] * 15


def test_films_of_one_kind_cannot_be_learned_from() -> None:
    films = [film(f"{i}", f"{i}", target_of(NO_FINDING)) for i in range(5)]
    with pytest.raises(DataError, match="all carry No Finding and nothing else: films with and without a label"):
        learnable(recipe(), films)


def test_only_labels_with_films_of_both_kinds_can_be_learned() -> None:
    films = [film(f"{i}", f"{i}", target_of("Mass") if i % 2 else target_of(NO_FINDING)) for i in range(6)]
    assert learnable(recipe(), films) == ("Mass", NO_FINDING)
