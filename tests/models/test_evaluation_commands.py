"""``models evaluate`` and ``models compare`` from table to files, on phantoms, and what they say to bad input."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.models.findings import LABELS
from firstread.models.phantoms import training_phantom
from tests.models.tiny import make_tiny_bundle

COUNT = 44


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms in NIH's layout with two readers, a list of some, one broken and one missing."""
    folder = tmp_path_factory.mktemp("nih")
    (folder / "images").mkdir()
    rows = []
    for n in range(COUNT):
        phantom = training_phantom(n, 5, (160, 160))
        name = f"{n:08}_000.png"
        Image.fromarray(phantom.image).save(folder / "images" / name)
        labels = [label for label, present in zip(LABELS, phantom.target, strict=True) if present] or ["No Finding"]
        said = "|".join(labels)
        rows.append(
            [name, said, n // 2, 20 + n, "FM"[n % 2], ("PA", "AP")[n % 3 == 0], said, "No Finding", f"ward {n % 2}"]
        )
    (folder / "images" / "00000003_000.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        names = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"]
        writer.writerow([*names, "reader_1", "reader_2", "ward"])
        writer.writerows(rows)
    (folder / "test_list.txt").write_text("\n".join(row[0] for row in rows[:30]) + "\n")
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_full_run_writes_table_json_page_and_every_probability(bundle: Path, films: Path, tmp_path: Path) -> None:
    files = {kind: tmp_path / "out" / f"evaluation.{kind}" for kind in ("json", "html", "csv")}
    code, said = run(
        "evaluate", bundle, "--labels", films / "labels.csv", "--images", films / "images", "--by", "ward",
        "--json", files["json"], "--html", files["html"], "--csv", files["csv"], "--draws", 100, "--threads", 1,
    )  # fmt: skip
    assert code == 0, said
    t = json.loads(files["json"].read_text())
    assert t["data"]["films"] == COUNT and t["data"]["patients"] == COUNT // 2 and t["data"]["read"] == COUNT - 1
    assert "00000003_000.png" in t["data"]["unreadable"][0]["problem"] and t["data"]["unreadable"][0]["row"] == 5
    normal = t["labels"]["No Finding"]["auroc"]
    assert 0 <= normal["low"] <= normal["value"] <= normal["high"] <= 1 and normal["positives"] >= 10
    assert {group["level"] for group in t["groups"] if group["by"] == "ward"} == {"ward 0", "ward 1"}
    assert t["readers"]["readers"] == {"reader_1": COUNT, "reader_2": COUNT}
    with files["csv"].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == COUNT and rows[3]["No Finding"] == "" and rows[3]["problem"]
    assert all(0 <= float(row["Pneumothorax"]) <= 1 for n, row in enumerate(rows) if n != 3)
    assert rows[0]["No Finding (table)"] in ("0", "1")
    assert files["html"].read_text().startswith("<!DOCTYPE html>")
    assert "No Finding" in said and "1 films could not be read" in said and "Fleiss" in said
    assert sorted(path.name for path in files["json"].parent.iterdir()) == sorted(path.name for path in files.values())


def test_a_subset_judges_by_its_films_alone(bundle: Path, films: Path, tmp_path: Path) -> None:
    code, said = run(
        "evaluate", bundle, "--labels", films / "labels.csv", "--images", films / "images", "--subset", "test",
        "--json", tmp_path / "e.json", "--draws", 100, "--threads", 1,
    )  # fmt: skip
    assert code == 0, said
    assert json.loads((tmp_path / "e.json").read_text())["data"]["films"] == 30


def test_a_bundle_compared_with_another_names_the_films_that_flip(bundle: Path, films: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=8, version="0.0.2")
    code, said = run(
        "compare", bundle, other, "--labels", films / "labels.csv", "--images", films / "images",
        "--json", tmp_path / "c.json", "--draws", 100, "--threads", 1,
    )  # fmt: skip
    assert code == 0, said
    t = json.loads((tmp_path / "c.json").read_text())
    assert t["first"]["version"] == "0.0.1" and t["second"]["version"] == "0.0.2" and t["data"]["read"] == COUNT - 1
    flips = [flip for one in t["labels"].values() for flip in one["flips"]]
    assert flips and flips[0]["film"].endswith(".png") and "McNemar" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--by", "wing"], "no column 'wing'"),
        (["--subset", "train"], "train_val_list.txt lies neither"),
        (["--readers", "reader_1,reader_7"], "no column 'reader_7'"),
    ],
)
def test_bad_input_is_one_sentence(bundle: Path, films: Path, arguments: list[str], sentence: str) -> None:
    code, said = run("evaluate", bundle, "--labels", films / "labels.csv", "--images", films / "images", *arguments)
    assert code == 1 and sentence in said and "Traceback" not in said and len(said.strip().splitlines()) == 1


def test_a_place_that_cannot_be_written_is_said_before_the_films_are_scored(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for place, sentence in ((tmp_path, "is a folder"), (tmp_path / "file" / "e.json", "cannot be written")):
        code, said = run(
            "evaluate", bundle, "--labels", films / "nowhere.csv", "--images", films / "images", "--json", place
        )
        assert code == 1 and sentence in said


def test_no_bundle_no_table_and_no_images_are_sentences(bundle: Path, films: Path, tmp_path: Path) -> None:
    images = ("--images", films / "images")
    for arguments in (
        [tmp_path / "none", "--labels", films / "labels.csv", *images],
        [bundle, "--labels", films / "none.csv", *images],
        [bundle, "--labels", films / "labels.csv", "--images", tmp_path / "none"],
    ):
        code, said = run("evaluate", *arguments)
        assert code == 1 and "none" in said and "Traceback" not in said


@pytest.mark.slow
@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="real films are not part of the product")
def test_the_shipped_bundle_on_some_dozen_real_films(tmp_path: Path) -> None:
    nih = Path(os.environ["FIRSTREAD_TEST_DATA"]) / "nih"
    with (nih / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row["Image Index"] for row in rows[:: len(rows) // 40]]
    (tmp_path / "list.txt").write_text("\n".join(chosen))
    code, said = run(
        "evaluate", "reference", "--labels", nih / "labels.csv", "--images", nih / "images",
        "--subset", tmp_path / "list.txt", "--json", tmp_path / "e.json", "--draws", 200,
    )  # fmt: skip
    assert code == 0, said
    t = json.loads((tmp_path / "e.json").read_text())
    assert t["data"]["films"] == t["data"]["read"] == len(chosen) and t["data"]["refused"]["share"] <= 0.1
    figure = t["labels"]["No Finding"]["auroc"]
    assert figure["value"] > 0.6 and np.isfinite([figure["low"], figure["high"]]).all()
