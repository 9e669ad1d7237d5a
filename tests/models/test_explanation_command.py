"""``models explain`` from NIH's files to JSON and page, on phantoms, and what it says to bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.models.bundle import load_bundle
from firstread.models.data.film import Film
from firstread.models.explanation.cases import phantom_cases, upright_boxes
from firstread.models.findings import LABELS
from firstread.models.phantoms import draw, random_spec
from firstread.models.prediction import Box
from firstread.models.preprocess import Placement
from tests.models.test_explanation_randomisation import bundle_without_maps
from tests.models.tiny import make_tiny_bundle

COUNT = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen phantoms with a mass, in NIH's layout; the boxes are in pixels of 1024, the films have 256."""
    folder = tmp_path_factory.mktemp("nih")
    (folder / "images").mkdir()
    rows, boxes = [], []
    for n in range(COUNT):
        phantom = draw(random_spec(np.random.default_rng(n), ("Mass",), (256, 256)))
        name = f"{n:08}_000.png"
        Image.fromarray((phantom.image * 255).astype(np.uint8)).save(folder / "images" / name)
        rows.append([name, "Mass", 0, n, 50, "F", "PA"])
        box = phantom.truth["Mass"]
        scale = 1024 / phantom.image.shape[1]
        corner = [box.left * scale, box.top * scale]
        boxes.append([name, "Mass", *corner, (box.right - box.left) * scale, (box.bottom - box.top) * scale])
    with (folder / "Data_Entry_2017.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        columns = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
        writer.writerow(columns.split(","))
        writer.writerows(rows)
    with (folder / "BBox_List_2017.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""])
        writer.writerows([*row, "", "", ""] for row in boxes)
    return folder


def explained(bundle: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", "explain", str(bundle), "--threads", "1", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def nih(release: Path) -> list[str]:
    images, table = str(release / "images"), str(release / "Data_Entry_2017.csv")
    return ["--labels", table, "--images", images, "--boxes", str(release / "BBox_List_2017.csv")]


def test_boxes_phantoms_and_random_weights_become_json_and_a_page(bundle: Path, release: Path, tmp_path: Path) -> None:
    json_file, html_file = tmp_path / "a" / "explanation.json", tmp_path / "explanation.html"
    options = ["--phantoms", "10", "--json", str(json_file), "--html", str(html_file)]
    code, said = explained(bundle, *nih(release), *options)
    assert code == 0, said
    told = json.loads(json_file.read_text())
    assert told["schema"] == "firstread.explanation/1"
    assert told["data"]["cases"] + told["data"]["refused"] == COUNT
    assert set(told["labels"]) == {"Mass"}
    mass = told["labels"]["Mass"]
    if mass["cases"] >= 10:
        assert 0 < mass["pointing"]["chance"] < 0.3
        assert [one["limit"] for one in mass["boxes"]["wang"]["iobb"]] == [0.1, 0.25, 0.5, 0.75, 0.9]
    assert told["phantoms"]["drawn"] == 10
    assert sum(one["cases"] for one in told["phantoms"]["labels"].values()) == 10 - told["phantoms"]["refused"]
    assert told["randomisation"]["stages"][0]["stage"] == "head"
    page = html_file.read_text()
    assert "NaN" not in page and "None" not in page
    assert page.count("<img") >= 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_boxes_are_scaled_to_the_stored_film(release: Path) -> None:
    path = release / "images" / "00000000_000.png"
    film = Film("x", "p", np.zeros(15, np.float32), np.ones(15, np.float32), False, path=path)
    shrunk = Placement(film_rows=128, film_columns=128, left=0, top=0, right=128, bottom=128, size=64)
    assert upright_boxes(film, shrunk)(Box(0, 0, 256, 128)) == Box(0, 0, 128, 64)


def test_every_finding_that_can_be_drawn_gets_its_share_of_the_phantoms(bundle: Path) -> None:
    drawn = phantom_cases(load_bundle(bundle), 8, device="cpu", threads=1)
    assert drawn.drawn == 8
    assert len(drawn.cases) == 8 - drawn.refused
    assert drawn.cases[0].label != drawn.cases[1].label
    for case in drawn.cases:
        assert len(case.boxes) == 1 and 0 <= case.probability <= 1 and case.cam.shape == (4, 4)


def test_a_bundle_without_maps_says_so_and_is_no_error(tmp_path: Path) -> None:
    dense = bundle_without_maps(tmp_path / "dense")
    files = ["--json", str(tmp_path / "e.json"), "--html", str(tmp_path / "e.html")]
    code, said = explained(dense, "--phantoms", "6", *files)
    assert code == 0
    assert "has no maps" in said
    told = json.loads((tmp_path / "e.json").read_text())
    assert told["has_maps"] is False and told["phantoms"] is None and told["randomisation"] is None
    assert "no maps" in (tmp_path / "e.html").read_text()


def test_a_bundle_that_knows_none_of_the_drawn_findings_has_no_phantoms(tmp_path: Path) -> None:
    labels = tuple(label for label in LABELS if label in ("Pneumonia", "No Finding"))
    code, said = explained(make_tiny_bundle(tmp_path / "two", labels=labels), "--phantoms", "6", "--no-randomisation")
    assert code == 0, said
    assert "0 phantoms" in said


def test_what_is_missing_or_does_not_belong_together_is_said_in_a_sentence(
    bundle: Path, release: Path, tmp_path: Path
) -> None:
    assert "nothing to explain" in explained(bundle)[1]
    table, images = nih(release)[:2], nih(release)[2:4]
    assert "belong together" in explained(bundle, *table)[1]
    assert "without boxes" in explained(bundle, *table, *images)[1]
    other = tmp_path / "boxes.csv"
    other.write_text("Image Index,Finding Label,Bbox [x,y,w,h]\n99999999_000.png,Mass,1,1,10,10\n")
    code, said = explained(bundle, *table, *images, "--boxes", str(other))
    assert code == 1 and "no box for any film" in said
    code, said = explained(tmp_path / "nowhere", "--phantoms", "6")
    assert code == 1 and "no folder" in said
