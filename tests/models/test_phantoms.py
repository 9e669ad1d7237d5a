"""Phantoms: the same spec draws the same film, and the truth boxes hold what was drawn."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from firstread.models.findings import LABELS
from firstread.models.phantoms import (
    DRAWABLE,
    NON_CHEST,
    Lesion,
    PhantomError,
    PhantomSpec,
    draw,
    draw_non_chest,
    random_spec,
    training_phantom,
    training_phantoms,
)
from firstread.models.phantoms.anatomy import measure


def _spec(label: str, seed: int, size: tuple[int, int] = (256, 240)) -> PhantomSpec:
    spec = random_spec(np.random.default_rng(seed), (label,), size)
    return replace(spec, noise=0.0, lesions=tuple(replace(lesion, strength=1.0) for lesion in spec.lesions))


def test_the_same_spec_draws_the_same_pixels_and_another_seed_does_not() -> None:
    spec = random_spec(np.random.default_rng(3), ("Mass",), (200, 180))
    first, second, other = draw(spec), draw(spec), draw(replace(spec, seed=spec.seed + 1))
    assert np.array_equal(first.image, second.image)
    assert first.truth == second.truth
    assert not np.array_equal(first.image, other.image)


def test_an_image_is_float32_in_the_unit_range_with_the_size_asked_for() -> None:
    for view in ("PA", "AP", "LATERAL", "HAND"):
        image = draw(PhantomSpec(seed=1, view=view, size=(130, 170))).image
        assert image.dtype == np.float32
        assert image.shape == (130, 170)
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("label", DRAWABLE)
def test_what_a_lesion_changes_lies_in_its_truth_box(label: str, seed: int) -> None:
    spec = _spec(label, seed)
    phantom, without = draw(spec), draw(replace(spec, lesions=()))
    box = phantom.truth[label]
    difference = (
        phantom.image - without.image
    ) ** 2  # squared: the wide, faint halo of a film's processing is no lesion
    rows, columns = difference.shape
    assert 0 <= box.left < box.right <= columns
    assert 0 <= box.top < box.bottom <= rows
    inside = difference[int(box.top) : int(np.ceil(box.bottom)), int(box.left) : int(np.ceil(box.right))]
    assert inside.sum() > 0.9 * difference.sum()
    assert inside.max() > 0.04**2


@pytest.mark.parametrize("label", ["Mass", "Nodule", "Consolidation"])
def test_a_lesion_lies_where_its_fractions_say(label: str) -> None:
    spec = replace(_spec(label, 5), rotation_deg=0.0)
    size = spec.lesions[0].size
    left = draw(replace(spec, lesions=(Lesion(label, 0.25, 0.5, size, 1.0),))).truth[label]
    right = draw(replace(spec, lesions=(Lesion(label, 0.75, 0.5, size, 1.0),))).truth[label]
    low = draw(replace(spec, lesions=(Lesion(label, 0.25, 0.8, size, 1.0),))).truth[label]
    assert left.right < right.left
    assert low.top > left.top


def test_a_stronger_lesion_shows_more() -> None:
    spec = _spec("Consolidation", 9)
    plain = draw(replace(spec, lesions=())).image
    lesion = spec.lesions[0]
    shown = [
        np.abs(draw(replace(spec, lesions=(replace(lesion, strength=strength),))).image - plain).sum()
        for strength in (0.1, 0.5, 1.0)
    ]
    assert shown == sorted(shown)
    assert shown[2] > 1.5 * shown[0]


def test_cardiomegaly_is_a_heart_wider_than_half_the_chest_and_no_other_film_has_one() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert measure(random_spec(rng, ("Cardiomegaly",))).cardiothoracic_ratio > 0.55
        assert measure(random_spec(rng, ("Mass",))).cardiothoracic_ratio < 0.54


def test_a_pneumothorax_is_darker_than_the_lung_was_and_free_of_vessels() -> None:
    spec = _spec("Pneumothorax", 11)
    spec = replace(spec, lesions=(Lesion("Pneumothorax", 0.9, 0.2, 0.45, 1.0),), devices=(), rotation_deg=0.0)
    image, without = draw(spec).image, draw(replace(spec, lesions=())).image
    changed = image - without
    apex = np.zeros_like(changed, dtype=bool)
    box = draw(spec).truth["Pneumothorax"]
    middle = int((box.left + box.right) / 2)
    apex[int(box.top) + 4 : int(box.top) + 14, middle : int(box.right) - 4] = True
    assert changed[apex].mean() < -0.01


def test_a_film_without_findings_has_no_truth() -> None:
    phantom = draw(random_spec(np.random.default_rng(1), ("No Finding",), (128, 128)))
    assert phantom.labels == ("No Finding",)
    assert not phantom.truth


def test_devices_lie_as_often_on_normal_films_as_on_others() -> None:
    normal = sum(bool(random_spec(np.random.default_rng(seed)).devices) for seed in range(300))
    diseased = sum(bool(random_spec(np.random.default_rng(seed), ("Effusion",)).devices) for seed in range(300))
    assert normal == diseased > 60


def test_two_films_of_a_person_share_the_bones() -> None:
    first = random_spec(np.random.default_rng(1), (), (128, 128), view="PA")
    again = replace(first, seed=first.seed + 1, person=first.seed)
    assert measure(first) == measure(again)
    assert not np.array_equal(draw(first).image, draw(again).image)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"view": "OBLIQUE"}, "choose among PA"),
        ({"size": (8, 8)}, "change size"),
        ({"view": "HAND", "lesions": (Lesion("Mass", 0.5, 0.5, 0.2, 1.0),)}, "change view or lesions"),
    ],
)
def test_a_spec_that_cannot_be_drawn_says_what_to_change(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(PhantomError, match=says):
        PhantomSpec(seed=1, **wrong)  # type: ignore[arg-type]


def test_a_finding_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(PhantomError, match="choose among Cardiomegaly"):
        Lesion("Hernia", 0.5, 0.5, 0.1, 1.0)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(PhantomError, match="choose among leads"):
        draw(PhantomSpec(seed=1, devices=("crown",), size=(64, 64)))


def test_training_phantoms_are_the_same_however_the_work_is_split() -> None:
    whole = list(training_phantoms(4, seed=7, size=(96, 96)))
    split = [*training_phantoms(4, seed=7, size=(96, 96), start=1, step=2)]
    for left, right in zip(whole[1::2], split, strict=True):
        assert np.array_equal(left.image, right.image)
        assert np.array_equal(left.target, right.target)
    assert whole[0].image.dtype == np.uint8


def test_a_training_target_names_the_labels_in_their_order() -> None:
    for index in range(12):
        phantom = training_phantom(index, seed=3, size=(64, 64))
        named = tuple(label for label, on in zip(LABELS, phantom.target, strict=True) if on)
        assert named == tuple(sorted(named, key=LABELS.index))
        assert set(named) == set(phantom.spec.labels)


def test_a_large_film_is_drawn_in_good_time() -> None:
    draw(PhantomSpec(seed=1, size=(64, 64)))
    begun = time.process_time()
    draw(random_spec(np.random.default_rng(2), ("Mass",), (2048, 2048)))
    assert time.process_time() - begun < 4.0  # 0.8 s on an idle core; the margin is for shared ones


@pytest.mark.parametrize("kind", NON_CHEST)
def test_a_picture_of_no_chest_is_drawn_in_any_shape_and_again_the_same(kind: str) -> None:
    image = draw_non_chest(kind, 3, (91, 140))
    assert image.shape == (91, 140)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.array_equal(image, draw_non_chest(kind, 3, (91, 140)))
    assert not np.array_equal(image, draw_non_chest(kind, 4, (91, 140)))


def test_an_unknown_kind_of_picture_is_refused() -> None:
    with pytest.raises(PhantomError, match="choose among hand"):
        draw_non_chest("a cup of coffee", 1)
