"""``models audit`` from table to page, on a tiny bundle and, where they are at hand, on real films."""

from __future__ import annotations

import csv
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from firstread.agent.cli import app
from firstread.models.audit import run
from firstread.models.audit.page import page
from firstread.models.bundle import load_bundle, reference_bundle
from firstread.models.phantoms import draw, random_spec
from tests.models.tiny import make_tiny_bundle

FILMS = 66


def audit(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["models", "audit", *map(str, arguments)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", input_size=64)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table and phantoms of 160 pixels, every other one with an effusion, from two scanners."""
    folder = tmp_path_factory.mktemp("films")
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "labels", "patient", "sex", "age", "view", "Manufacturer"])
        for number in range(FILMS):
            rng = np.random.default_rng([8, number])
            labels = ("Effusion",) if number % 2 else ()
            image = draw(random_spec(rng, labels, (160, 160))).image
            Image.fromarray((image * 255).astype(np.uint8)).save(folder / f"<film> {number}.png")
            name = "Effusion" if labels else "No Finding"
            writer.writerow([f"<film> {number}.png", name, number, "FM"[number % 2], 50, "PA", "AB"[number // 33]])
    return folder


@pytest.fixture(scope="module")
def results(bundle: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    out = tmp_path_factory.mktemp("out")
    told = ["--labels", films / "labels.csv", "--images", films, "--label", "Effusion", "--label", "Mass"]
    written = ["--max-films", 8, "--threads", 1, "--json", out / "audit.json", "--html", out / "audit.html"]
    return audit(bundle, *told, *written), out


def test_the_command_prints_verdicts_and_writes_its_files(results: tuple[Result, Path]) -> None:
    result, out = results
    assert result.exit_code == 0, result.output
    assert "Effusion" in result.output
    assert "not judged" in result.output
    assert "Cannot be judged: no film with it; 30 of either kind are needed." in result.output
    assert sorted(path.name for path in out.iterdir()) == ["audit.html", "audit.json"]


def test_the_json_has_verdicts_on_top_and_no_nan(results: tuple[Result, Path]) -> None:
    text = (results[1] / "audit.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))
    assert list(found)[:2] == ["schema", "verdicts"]
    assert found["schema"] == "firstread.audit/1"
    assert [one["label"] for one in found["verdicts"]] == ["Effusion", "Mass"]
    for one in found["verdicts"]:
        assert one["verdict"] in ("shortcut", "suspect", "clean", "not_judged")
        assert one["sentence"].endswith(".")
    effusion = found["labels"]["Effusion"]
    assert effusion["auroc"]["positives"] + effusion["auroc"]["negatives"] == found["audited"]["films"]
    assert {each["by"] for each in effusion["within"]} <= {"Manufacturer", "sex", "view"}
    assert found["audited"]["altered"] == 8
    assert found["data"]["films"] == FILMS


def test_the_page_is_one_file_without_script_or_network_and_escapes_names(results: tuple[Result, Path]) -> None:
    text = (results[1] / "audit.html").read_text()
    assert text.count("<html") == 1
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert "&lt;film&gt;" in text and "<film>" not in text
    assert text.count("data:image/jpeg") > 25
    assert "data:image/svg+xml" in text
    assert len(text) < 2_000_000
    assert "Does it see disease, or how the film was made?" in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--label": "Fever"}, "label 'Fever' is unknown"),
        ({"--by": "Scanner"}, "the table has no column 'Scanner' to group by"),
        ({"--label": "Mass"}, "no label can be audited: of Mass none is both present and absent"),
        ({"--labels": "nothing.csv"}, "nothing.csv"),
        ({"--json": "labels.csv/audit.json"}, "cannot be written"),
    ],
)
def test_what_cannot_be_audited_is_said_in_a_sentence(
    bundle: Path, films: Path, change: dict[str, str], sentence: str
) -> None:
    options: dict[str, object] = {"--labels": films / "labels.csv", "--images": films, **change}
    for name in ("--labels", "--json"):
        if name in change:
            options[name] = films / change[name]
    result = audit(bundle, *(each for pair in options.items() for each in pair))
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_a_table_without_labels_is_refused_in_a_sentence(bundle: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,patient\n<film> 0.png,1\n")
    result = audit(bundle, "--labels", tmp_path / "labels.csv", "--images", films)
    assert result.exit_code == 1
    assert "labels.csv" in result.output


@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="real films are not at hand")
def test_the_shipped_bundle_is_audited_on_forty_real_films_within_twenty_seconds(tmp_path: Path) -> None:
    nih = Path(os.environ["FIRSTREAD_TEST_DATA"]) / "nih"
    with (nih / "labels.csv").open(newline="") as stream:
        names = [row["Image Index"] for row in csv.DictReader(stream)][::20][:40]
    (tmp_path / "some.txt").write_text("\n".join(names))
    wanted = run.Films(nih / "labels.csv", nih / "images", None, str(tmp_path / "some.txt"))
    began = time.process_time()
    found, table = run.audit_bundle(
        load_bundle(reference_bundle()), wanted, datetime.now(UTC), most_films=4, phantoms=2, threads=1
    )
    assert time.process_time() - began < 20
    assert table["data"]["films"] == 40
    assert len(found.altered) == 4
    assert all(one["verdict"] == "not_judged" for one in table["verdicts"])
    blur = next(each for each in table["labels"]["No Finding"]["effects"] if each["key"] == "blur-0.5")
    assert 0 <= blur["median"] < 0.1
    assert "No Finding" in page(found, table)
