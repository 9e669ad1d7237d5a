"""Scoring: exactly what the service would say, and no film dropped in silence."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.data.film import DataError
from firstread.models.engine import EngineError, open_engine
from firstread.models.evaluation.score import score
from firstread.models.findings import ReasonCode
from firstread.models.preprocess import prepare
from tests.models.dicom_files import data_set, film, write
from tests.models.evaluation_films import film_of, films_on_disk, picture
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def brighter(grey: np.ndarray) -> np.ndarray:
    return np.clip(grey + np.float32(0.2), 0, 1)


def ends_the_process_on_film_3(grey: np.ndarray) -> np.ndarray:
    if np.array_equal(np.rint(grey * 255).astype(np.uint8), picture(3)):
        os._exit(9)
    return grey


def test_scores_are_what_the_engine_says_of_the_prepared_film(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 11)
    progress: list[tuple[int, int]] = []
    found = score(bundle, films, threads=1, on_progress=lambda done, total: progress.append((done, total)))
    squares = np.stack(
        [prepare(picture(n).astype(np.float32) / np.float32(255), bundle.preprocessing) for n in range(11)]
    )
    output = open_engine(bundle, "cpu", threads=1).run(squares)
    assert np.allclose(found.probabilities, output.probabilities, atol=1e-6)
    slope, offset = bundle.calibration.slope[0], bundle.calibration.offset[0]
    assert np.allclose(1 / (1 + np.exp(-(found.logits * slope + offset))), found.probabilities, atol=1e-6)
    assert progress[-1] == (11, 11) and found.labels == bundle.labels and found.maps is None
    assert found.read.all() and all(placement is not None for placement in found.placements)


def test_a_broken_and_a_missing_film_cost_themselves_alone_and_are_named_with_their_row(
    bundle: Bundle, tmp_path: Path
) -> None:
    films = films_on_disk(tmp_path, 6)
    whole = (tmp_path / "film_0002.png").read_bytes()
    (tmp_path / "film_0002.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "film_0004.png").unlink()
    found = score(bundle, films, threads=1)
    assert [n for n, problem in enumerate(found.problems) if problem] == [2, 4]
    assert "film_0002.png" in (found.problems[2] or "") and "row 4" in (found.problems[2] or "")
    assert "film_0004.png" in (found.problems[4] or "") and "row 6" in (found.problems[4] or "")
    assert np.isnan(found.probabilities[[2, 4]]).all() and np.isnan(found.logits[[2, 4]]).all()
    assert np.isfinite(found.probabilities[[0, 1, 3, 5]]).all() and found.refused[2] is None


@pytest.mark.slow
def test_a_film_that_takes_its_process_down_is_found_and_the_others_are_scored(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 50)
    found = score(bundle, films, threads=1, workers=2, transform=ends_the_process_on_film_3)
    assert [n for n, problem in enumerate(found.problems) if problem] == [3]
    assert "film_0003.png" in (found.problems[3] or "") and "row 5" in (found.problems[3] or "")
    assert np.array_equal(found.read, np.arange(50) != 3) and np.isfinite(found.probabilities[found.read]).all()
    here = score(bundle, films[10:20], threads=1, workers=0)
    assert np.allclose(found.probabilities[10:20], here.probabilities, atol=1e-6)


def test_what_the_gate_would_refuse_is_scored_all_the_same(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 3)
    Image.fromarray(np.full((144, 144), 255, np.uint8)).save(tmp_path / "film_0001.png")
    Image.fromarray(picture(2)[:100, :100]).save(tmp_path / "film_0002.png")
    found = score(bundle, films, threads=1)
    blank, small = found.refused[1], found.refused[2]
    assert blank is not None and blank.code is ReasonCode.OUTSIDE_EXPERIENCE
    assert small is not None and small.code is ReasonCode.TOO_SMALL
    assert np.isfinite(found.probabilities).all() and found.read.all()


def test_a_transform_changes_what_is_read_whether_or_not_it_can_travel(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 3)
    plain = score(bundle, films, threads=1)
    mirrored = score(bundle, films, threads=1, workers=2, transform=lambda grey: grey[:, ::-1])
    assert np.abs(plain.probabilities - mirrored.probabilities).max() > 1e-3
    shifted = score(bundle, films, threads=1, transform=brighter)
    assert shifted.probabilities.shape == plain.probabilities.shape


def test_maps_come_only_when_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 2)
    found = score(bundle, films, threads=1, maps=True)
    assert found.maps is not None and found.maps.shape[:2] == (2, len(bundle.labels))
    assert found.maps.min() >= 0 and found.maps.max() <= 1 and found.maps.max() > 0


def test_a_film_larger_than_the_service_keeps_is_shrunk_as_there(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 1)
    large = np.kron(picture(0), np.ones((16, 16), np.uint8))
    Image.fromarray(large).save(tmp_path / "film_0000.png")
    found = score(bundle, films, threads=1)
    placement = found.placements[0]
    assert large.shape == (2304, 2304) and placement is not None
    assert (placement.film_rows, placement.film_columns) == (1024, 1024)


def test_no_films_and_an_unknown_label_are_sentences(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no films"):
        score(bundle, [])
    found = score(bundle, films_on_disk(tmp_path, 1), threads=1)
    with pytest.raises(DataError, match="does not assess 'Scoliosis'"):
        found.column("Scoliosis")


def test_a_film_without_a_file_is_a_problem_and_not_a_crash(bundle: Bundle, tmp_path: Path) -> None:
    films = [*films_on_disk(tmp_path, 1)]
    found = score(bundle, [*films, replace(films[0], key="nowhere", path=None)], threads=1)
    assert found.problems[0] is None and "nowhere" in (found.problems[1] or "")


def test_how_films_were_made_is_the_tables_word_or_else_measured(bundle: Bundle, tmp_path: Path) -> None:
    films = films_on_disk(tmp_path, 3)
    measured = score(bundle, films, threads=1)
    assert all(set(making) == {"file_bytes", "noise", "brightness"} for making in measured.making)
    assert measured.making[1]["file_bytes"] == (tmp_path / "film_0001.png").stat().st_size
    told = score(bundle, [replace(films[0], nuisances={"kilovolt": 90.0}), *films[1:]], threads=1)
    assert told.making == ({"kilovolt": 90.0}, {}, {})


def test_a_dicom_film_is_judged_by_its_tags_too_and_told_apart_from_pictures(bundle: Bundle, tmp_path: Path) -> None:
    films = []
    for n, view in enumerate(("PA", "LL")):
        header = data_set(film(), 12, Modality="DX", BodyPartExamined="CHEST", ViewPosition=view)
        films.append(film_of(n, path=write(tmp_path / f"film_{n}.dcm", header)))
    found = score(bundle, films, threads=1)
    assert found.read.all() and np.isfinite(found.probabilities).all()
    lateral = found.refused[1]
    assert lateral is not None and lateral.code is ReasonCode.LATERAL_VIEW
    assert found.refused[0] is None or found.refused[0].code is not ReasonCode.LATERAL_VIEW


def test_an_answer_that_is_no_probability_is_a_sentence(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def senseless(*_: object) -> None:
        raise ValueError("it answers with NaN")

    engine = open_engine(bundle, "cpu", threads=1)
    monkeypatch.setattr(engine, "run", senseless)
    monkeypatch.setattr("firstread.models.evaluation.score.open_engine", lambda *_, **__: engine)
    with pytest.raises(EngineError, match=r"gives no answer to film_0000\.png.*NaN"):
        score(bundle, films_on_disk(tmp_path, 1), threads=1)
