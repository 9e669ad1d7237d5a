"""Splits: by patient, the same for ever, and never with a patient on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.models.data.film import DataError, Film
from firstread.models.data.splits import fold_of, folds, official, read_list, split
from firstread.models.findings import LABELS
from tests.models.nih_release import write_csv


def films(patients: int, each: int = 3) -> list[Film]:
    zeros = np.zeros(len(LABELS), np.float32)
    return [
        Film(f"{p:08d}_{n:03d}.png", f"nih-{p}", zeros, zeros, phantom=False, row=2 + p * each + n)
        for n in range(each)
        for p in range(patients)
    ]


def patients_of(all_films: list[Film], indices: tuple[int, ...]) -> set[str]:
    return {all_films[i].patient for i in indices}


def test_no_patient_stands_in_two_parts_and_shares_are_as_asked() -> None:
    whole = films(2000)
    parts = split(whole, validation=0.1, test=0.2)
    people = [patients_of(whole, part) for part in (parts.train, parts.validation, parts.test)]
    assert people[0] | people[1] | people[2] == {film.patient for film in whole}
    assert sum(map(len, people)) == 2000
    np.testing.assert_allclose([len(part) / 2000 for part in people], [0.7, 0.1, 0.2], atol=0.03)


def test_more_films_and_another_order_move_nobody() -> None:
    few, many = films(100), films(300)[::-1]
    small, large = split(few), split(many)
    for name in ("train", "validation", "test"):
        assert patients_of(few, getattr(small, name)) <= patients_of(many, getattr(large, name))


def test_the_hash_is_the_one_that_bundles_were_trained_with() -> None:
    assert [fold_of(f"nih-{n}", 5) for n in (61, 150, 211, 1000)] == [3, 1, 0, 2]


def test_every_film_is_held_out_once_with_all_of_its_patient() -> None:
    whole = films(60)
    held = [index for _, out in folds(whole, 5) for index in out]
    assert sorted(held) == list(range(len(whole)))
    for train, out in folds(whole, 5):
        assert not patients_of(whole, train) & patients_of(whole, out)


def test_nihs_lists_are_followed_and_validation_is_taken_from_training_patients(tmp_path: Path) -> None:
    whole = films(200)
    names = sorted({film.key for film in whole})
    cut = 3 * 150
    lists = (
        write_csv(tmp_path / "train_val_list.txt", *names[:cut]),
        write_csv(tmp_path / "test_list.txt", *names[cut:]),
    )
    parts = official(whole, *lists)
    assert {whole[i].key for i in parts.test} == set(names[cut:])
    assert {whole[i].key for i in (*parts.train, *parts.validation)} == set(names[:cut])
    assert parts.validation
    assert not patients_of(whole, parts.train) & patients_of(whole, parts.validation)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (
            ["00000000_000.png", "00000001_000.png"],
            ["00000000_001.png", "00000001_001.png"],
            "patient nih-0 stands on both",
        ),
        (["00000000_000.png", "00000001_000.png"], ["00000001_000.png"], "line 1: 00000001_000.png stands in"),
        (["00000000_000.png"], ["00000001_000.png"], "stands neither in"),
        (
            ["00000000_000.png", "00000000_000.png"],
            ["00000001_000.png"],
            "line 2: 00000000_000.png stands in line 1 too",
        ),
    ],
)
def test_lists_that_leak_or_leave_out_are_refused(
    tmp_path: Path, train: list[str], test: list[str], sentence: str
) -> None:
    lists = write_csv(tmp_path / "train_val_list.txt", *train), write_csv(tmp_path / "test_list.txt", *test)
    with pytest.raises(DataError) as error:
        official(films(2, 2), *lists)
    assert sentence in str(error.value)


def test_shares_and_folds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for wrong in (lambda: split(films(9), 0.5, 0.5), lambda: split(films(1)), lambda: folds(films(2), 5)):
        with pytest.raises(DataError):
            wrong()
    with pytest.raises(DataError, match="is empty"):
        read_list(write_csv(tmp_path / "empty.txt", ""))
