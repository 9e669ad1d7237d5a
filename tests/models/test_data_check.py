"""``firstread data check``: what is wrong with a set, and what tells its labels apart without anatomy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from firstread.agent.cli import app
from firstread.models.data import nuisance
from firstread.models.data.check import check
from firstread.models.data.separability import separability
from firstread.models.data.tables import read_labels
from firstread.models.findings import LABELS, NO_FINDING
from tests.models.nih_release import picture, write_csv, write_films, write_image, write_table
from tests.peers import real_films


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments), "--workers", "1"])


def kinds(found: dict[str, Any], severity: str) -> dict[str, int]:
    return {one["kind"]: one["count"] for one in found["problems"] if one["severity"] == severity}


def cohort(folder: Path, *, planted: bool, films: int = 80) -> Path:
    """Half of the films carry Mass. ``planted``: these are noisier; else nothing tells them apart."""
    rows = []
    for number in range(films):
        ill = number % 2 == 0
        grey = picture(number).astype(np.float32)
        if planted and ill:
            grey += np.random.default_rng(number).normal(0, 12, grey.shape)
        write_image(folder / "films" / f"{number}.png", np.clip(grey, 0, 255).astype(np.uint8))
        rows.append(
            f"{number}.png,p{number // 2 if number % 3 else number},{'Mass' if ill else 'No Finding'},{40 + number % 7}"
        )
    return write_csv(folder / "labels.csv", "path,patient,labels,age", *rows)


def test_a_planted_shortcut_is_told_in_words_and_a_clean_set_is_cleared(tmp_path: Path) -> None:
    planted = check(cohort(tmp_path / "a", planted=True), tmp_path / "a" / "films", workers=1)
    (mass,) = (one for one in planted.labels if one.label == "Mass")
    assert mass.alone[0].name in ("noise", "file_bytes", "bytes_per_pixel")
    assert mass.alone[0].auroc.value > 0.95
    assert mass.alone[0].larger
    assert "alone tells Mass apart at AUROC" in mass.verdict
    assert "a network will learn that" in mass.verdict
    clean = check(cohort(tmp_path / "b", planted=False), tmp_path / "b" / "films", workers=1)
    for one in clean.labels:
        assert one.together is not None
        assert one.together.value < 0.7
        assert "a network" not in one.verdict


def test_the_command_shows_writes_and_ends_with_zero_when_films_can_be_used(tmp_path: Path) -> None:
    table = cohort(tmp_path, planted=True)
    done = run(table, tmp_path / "films", "--json", tmp_path / "out" / "c.json", "--html", tmp_path / "c.html")
    assert done.exit_code == 0, done.output
    assert "a network will learn that" in done.output
    found = json.loads((tmp_path / "out" / "c.json").read_text())
    assert found["usable"]
    assert (found["films"], found["labels"]["Mass"]["present"], found["labels"]["Hernia"]["unknown"]) == (80, 40, 40)
    assert found["co_occurrence"]["Mass"]["No Finding"] == 0
    assert found["kinds"] == {"8-bit grey PNG": 80}
    page = (tmp_path / "c.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 5
    assert "http" not in page.replace("http-equiv", "")


def test_everything_that_is_wrong_is_listed_with_its_row_and_ends_with_one(tmp_path: Path) -> None:
    films = tmp_path / "films"
    for number in range(6):
        write_image(films / f"{number}.png", picture(number))
    (films / "2.png").write_bytes(b"rubbish")
    write_image(films / "same.png", picture(0))
    Image.fromarray(picture(1, 384)).save(films / "large.png")
    Image.fromarray(picture(1, 384)).resize((200, 200), Image.Resampling.BOX).save(films / "small.jpg", quality=80)
    write_image(films / "blank.png", np.full((96, 96), 90, np.uint8))
    table = write_csv(
        tmp_path / "t.csv",
        "path,patient,labels,sex",
        "0.png,a,Mass,M",
        "same.png,b,No Finding,F",
        "large.png,c,Mass,M",
        "small.jpg,c,Mass,F",
        "2.png,d,Mass,M",
        "3.png,e,Mass|No Finding,M",
        "4.png,f,Masss,M",
        "gone.png,g,Mass,M",
        "blank.png,h,No Finding,<script>alert(1)</script>",
    )
    done = run(table, films, "--json", tmp_path / "c.json", "--html", tmp_path / "c.html")
    assert done.exit_code == 1
    assert "not usable as it is" in done.output
    found = json.loads((tmp_path / "c.json").read_text())
    assert kinds(found, "error") == {
        "missing image": 1,
        "contradictory row": 1,
        "unknown label": 1,
        "broken image": 1,
    }
    assert kinds(found, "warning") == {
        "blank film": 1,
        "duplicate film of another patient": 1,
        "near duplicate": 1,
        "contradictory sex": 1,
        "odd sex": 1,
    }
    rows = {one["kind"]: one["listed"][0]["row"] for one in found["problems"]}
    assert (rows["broken image"], rows["missing image"], rows["near duplicate"]) == (6, 9, 5)
    (twice,) = (one for one in found["problems"] if one["kind"].startswith("duplicate"))
    assert "their labels differ (Mass, No Finding)" in twice["listed"][0]["message"]
    assert "<script>" not in (tmp_path / "c.html").read_text()


def test_lists_that_leak_patients_or_films_are_errors(tmp_path: Path) -> None:
    table, root = write_table(tmp_path / "Data_Entry_2017.csv", old=True), write_films(tmp_path, layout="kaggle")
    write_image(next(root.rglob("00000004_000.png")), picture(0))  # the same as 00000001_000.png
    train = write_csv(tmp_path / "train_val_list.txt", "00000001_000.png", "00000001_001.png", "00000003_000.png")
    test = write_csv(tmp_path / "test_list.txt", "00000003_001.png", "00000004_000.png")
    done = run(table, root, "--train-list", train, "--test-list", test, "--json", tmp_path / "c.json")
    assert done.exit_code == 1
    found = json.loads((tmp_path / "c.json").read_text())
    assert kinds(found, "error") == {"patient on both sides": 1, "duplicate film across the split": 1}
    assert kinds(found, "warning") == {"film in neither list": 1}
    alone = run(table, root, "--train-list", train)
    assert alone.exit_code == 1
    assert "needs both lists" in alone.stderr


@pytest.mark.parametrize(("labels", "kind"), [("Mass", "one class only"), ("Mass,No Finding", "one patient for all")])
def test_what_cannot_be_learned_from_or_split_is_an_error(tmp_path: Path, labels: str, kind: str) -> None:
    said = labels.split(",")
    rows = []
    for number in range(4):
        write_image(tmp_path / "films" / f"{number}.png", picture(number))
        patient = 1 if kind == "one patient for all" else number
        rows.append(f"{number}.png,{patient},{said[number % len(said)]}")
    table = write_csv(tmp_path / "t.csv", "path,patient,labels", *rows)
    found = check(table, tmp_path / "films", workers=1)
    assert [one.kind for one in found.problems] == [kind]
    assert not found.usable


def test_a_missing_table_or_folder_is_a_sentence(tmp_path: Path) -> None:
    table = cohort(tmp_path, planted=False, films=4)
    for arguments, sentence in (
        ((tmp_path / "none.csv", tmp_path / "films"), "there is no such file"),
        ((table, tmp_path / "none"), "there is no such folder"),
        ((table, tmp_path / "films", "--boxes", tmp_path / "none.csv"), "there is no such file"),
        ((table, tmp_path / "films", "--json", tmp_path), "is a folder"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.output


def test_measures_answer_to_what_they_are_called_after(tmp_path: Path) -> None:
    grey = picture(3, 160).astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 5 / 255, grey.shape).astype(np.float32)
    plain = nuisance.measure(grey)
    assert nuisance.measure(grey + noise)["noise"] > plain["noise"] + 2
    np.testing.assert_allclose(nuisance.measure(grey * 0.5)["brightness"], plain["brightness"] / 2, rtol=1e-4)
    np.testing.assert_allclose(nuisance.measure(grey * 0.5)["contrast"], plain["contrast"] / 2, rtol=1e-4)
    bordered = np.pad(grey, ((0, 0), (40, 0)))
    np.testing.assert_allclose(nuisance.measure(bordered)["black_border"], 40 / 200, atol=1e-6)
    np.testing.assert_allclose(nuisance.measure(bordered)["clipped_dark"], 40 / 200, atol=0.01)
    assert nuisance.measure(bordered)["aspect"] == 200 / 160
    path = write_image(tmp_path / "a.jpg", picture(3, 160))
    of_file = nuisance.measure(grey, path)
    assert (of_file["file_bytes"], of_file["is_jpeg"], of_file["is_dicom"]) == (path.stat().st_size, 1, 0)


def test_file_size_alone_separates_the_real_films_as_their_makers_say() -> None:
    folder = real_films() / "nih"
    one_question = np.array([label == NO_FINDING for label in LABELS], np.float32)
    films = [replace(film, known=one_question) for film in read_labels(folder / "labels.csv", folder / "images")]
    (nothing,) = separability(films, [nuisance.of_film(film) for film in films])
    figures = {cue.name: round(cue.auroc.value, 2) for cue in nothing.alone}
    assert figures["source_png_bytes"] == 0.95
    assert figures["source_noise"] == 0.89
    assert figures["source_mean_grey"] == 0.72
    assert figures["view_ap"] == 0.62
    assert nothing.verdict.startswith("File size of the original alone tells No Finding apart at AUROC 0.95")
