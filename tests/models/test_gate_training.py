"""How the gate's numbers are made: by patient, with an honest figure, and never a half-written table."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firstread.models import gate_training
from firstread.models.data.film import DataError
from firstread.models.gate_material import IMPOSTORS, Material, RealFilm, prepare, read_films
from firstread.models.gate_training import cross_validate, fit, main, report, share_with_interval, to_toml
from firstread.models.likeness import from_table
from firstread.models.phantoms import draw, random_spec


def films(count: int) -> list[RealFilm]:
    """Phantoms in the place of films, two of each patient."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        image = draw(random_spec(rng, size=(128, 128))).image
        row = {"Finding Labels": "No Finding" if number % 2 else "Effusion|Mass", "Patient Age": "44"}
        rows.append(RealFilm(image, f"patient {number // 2}", row))
    return rows


@pytest.fixture(scope="module")
def few() -> list[RealFilm]:
    return films(60)


@pytest.fixture(scope="module")
def material(few: list[RealFilm]) -> Material:
    return prepare(few, phantoms=10, drawn=2)


def test_a_patients_films_and_all_that_was_made_of_them_are_in_one_fold(
    few: list[RealFilm], material: Material
) -> None:
    folds = material.folds[material.as_they_are]
    assert len(folds) == len(few)
    assert (folds[::2] == folds[1::2]).all()
    assert len(set(folds.tolist())) == 5


def test_every_kind_of_impostor_is_among_the_material(material: Material) -> None:
    assert set(IMPOSTORS) <= set(material.kinds)
    assert "drawn lateral" in material.kinds
    assert not material.chest[np.isin(material.kinds, list(IMPOSTORS))].any()
    assert material.chest[material.kinds == "phantom"].all()


def test_what_was_learnt_tells_chests_from_impostors_of_patients_that_it_has_not_seen(
    few: list[RealFilm], material: Material
) -> None:
    judged = cross_validate(material)
    assert judged.passed[material.as_they_are].mean() > 0.8
    impostors = ~material.chest
    assert judged.passed[impostors].mean() < 0.1
    assert judged.scores[material.as_they_are].mean() > judged.scores[impostors].mean() + 3
    lines = report(few, material, judged)
    assert lines[0].startswith("of 60 real chest films, each judged by a gate that had not seen its patient")
    assert any(line.startswith("  label Effusion: ") for line in lines)
    assert any(line.startswith("  inverted: ") for line in lines)


def test_only_negatives_of_chests_may_be_put_right(material: Material) -> None:
    judged = cross_validate(material)
    put_right = set(material.kinds[judged.put_right])
    assert put_right <= {"inverted"}
    assert not judged.put_right[material.as_they_are].any()


def test_the_threshold_of_a_gate_comes_from_scores_of_films_that_it_has_not_seen(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[np.ndarray] = []

    def spied(given: Material, chosen: np.ndarray) -> object:
        trained.append(chosen.copy())
        return fit(given, chosen)

    monkeypatch.setattr(gate_training, "fit", spied)
    chosen = material.folds != 0
    own, _ = gate_training.unseen_scores(material, chosen)
    assert np.isfinite(own[chosen]).all()
    assert np.isnan(own[~chosen]).all()
    assert len(trained) == 4
    for rows in trained:
        assert not rows[~chosen].any()
        held_back = chosen & ~rows
        assert len(set(material.folds[held_back].tolist())) == 1


def test_the_interval_grows_when_films_of_one_patient_share_their_fate() -> None:
    refused = np.arange(200) % 20 < 10
    alone = share_with_interval(refused, [str(number) for number in range(200)])
    together = share_with_interval(refused, [str(number // 10) for number in range(200)])
    assert alone[0] == together[0] == 0.5
    assert together[2] - together[1] > 2 * (alone[2] - alone[1])
    assert alone[1] < 0.5 < alone[2]


def test_the_table_written_is_the_table_read(material: Material) -> None:
    likeness = fit(material, np.ones(len(material.kinds), bool))
    again = from_table(tomllib.loads(to_toml(likeness))["likeness"])
    np.testing.assert_allclose(again(material.traits), likeness(material.traits), atol=0.35)


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_films_that_are_not_there_are_left_out_and_broken_ones_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "a.png")
    named = table(tmp_path, [{"Image Index": name, "Patient ID": "1"} for name in ("a.png", "b.png")])
    (film,) = read_films(tmp_path, named)
    assert film.pixels.shape == (128, 128)
    assert "blank" in film.outside
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png, row 3: cannot be read"):
        read_films(tmp_path, named)


@pytest.mark.parametrize("columns", [{"Image": "a.png", "Patient ID": "1"}, {"Image Index": "a.png"}])
def test_a_table_of_another_form_is_refused(tmp_path: Path, columns: dict[str, str]) -> None:
    with pytest.raises(DataError, match="no column"):
        read_films(tmp_path, table(tmp_path, [columns]))


def test_bad_input_is_a_sentence_and_leaves_the_table_that_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gate.toml"
    output.write_text("as it was")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), str(tmp_path / "nowhere.csv"), str(output)])
    assert ended.value.code == 1
    assert "nowhere.csv: cannot be read" in capsys.readouterr().err
    assert output.read_text() == "as it was"
