"""``models card`` and ``models calibrate`` from files to bundles, and what they say to bad input."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from firstread.agent.cli import app
from firstread.models.bundle import load_bundle, reference_bundle, sha256_of, verify_bundle
from firstread.models.card import run
from firstread.models.phantoms import draw, random_spec
from tests.models.test_card_writing import audit, explanation, says_nothing_senseless, summary
from tests.models.tiny import make_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", version="1.0.0")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six drawn films, every third with a mass, in a table of one's own."""
    folder = tmp_path_factory.mktemp("site")
    rows = []
    for n in range(36):
        labels = ("Mass",) if n % 3 == 0 else ()
        phantom = draw(random_spec(np.random.default_rng(n), labels, (160, 160)))
        Image.fromarray((phantom.image * 255).astype(np.uint8)).save(folder / f"{n}.png")
        rows.append([f"{n}.png", labels[0] if labels else "No Finding", f"p{n}"])
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "labels", "patient"])
        writer.writerows(rows)
    return folder


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def written(folder: Path, name: str, table: dict, bundle: Path | None = None) -> str:
    path = folder / f"{name}.json"
    if bundle is not None:
        table = {**table, "bundle": {"weights_sha256": load_bundle(bundle).weights_sha256}}
    path.write_text(json.dumps(table))
    return str(path)


def test_without_a_folder_the_card_is_printed(bundle: Path) -> None:
    code, card = said("card", str(bundle), "--note", "Seen | once.")
    assert code == 0
    assert card.startswith("# tiny 1.0.0")
    assert "Seen \\| once." in card
    says_nothing_senseless(card)


def test_with_a_folder_a_version_with_the_card_is_written_and_sealed(bundle: Path, tmp_path: Path) -> None:
    before = {path.name: sha256_of(path) for path in bundle.iterdir()}
    found = {
        **explanation(),
        "data": {"table": "/secret/place/t.csv", "images": "/secret/place", "boxes": "/secret/b.csv", "films": 3},
        "all": None,
    }
    code, words = said(
        "card",
        str(bundle),
        *("--audit", written(tmp_path, "a", audit(), bundle)),
        *("--explanation", written(tmp_path, "e", found, bundle)),
        *("--training", written(tmp_path, "t", summary())),
        *("--version", "1.1.0"),
        *("--out", str(tmp_path / "new")),
    )
    assert code == 0, words
    made = load_bundle(tmp_path / "new")
    assert (made.name, made.version) == ("tiny", "1.1.0")
    assert made.card.startswith("# tiny 1.1.0")
    says_nothing_senseless(made.card)
    assert {"audit.json", "explanation.json", "training.json"} <= set(made.files)
    assert "secret" not in (made.folder / "explanation.json").read_text() + made.card
    assert {path.name: sha256_of(path) for path in bundle.iterdir()} == before
    # What the bundle keeps serves the next card.
    code, card = said("card", str(made.folder))
    assert code == 0
    assert "**follows how the film was made**" in card
    (made.folder / "card.md").write_text("# better\n")
    assert any("card.md" in problem for problem in verify_bundle(made.folder))


def test_measurements_of_other_weights_or_kinds_and_broken_files_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = {**audit(), "bundle": {"weights_sha256": "f" * 64}}
    for option, file, sentence in (
        ("--audit", written(tmp_path, "other", other), "other weights"),
        ("--audit", written(tmp_path, "kind", explanation()), "firstread.audit/1"),
        ("--evaluation", str(tmp_path / "nowhere.json"), "cannot be read"),
        ("--audit", written(tmp_path, "list", []), "schema"),  # type: ignore[arg-type]
    ):
        code, words = said("card", str(bundle), option, file)
        assert code == 1 and sentence in words, words
    (tmp_path / "broken.json").write_bytes(b"\xff\xfe{")
    code, words = said("card", str(bundle), "--audit", str(tmp_path / "broken.json"))
    assert code == 1 and "no JSON" in words
    code, words = said("card", str(bundle), "--out", str(tmp_path))
    assert code == 1 and "exists" in words
    code, words = said("card", str(tmp_path / "nowhere"))
    assert code == 1 and "no folder" in words


def test_a_site_calibrates_by_command_and_its_card_says_so(bundle: Path, site: Path, tmp_path: Path) -> None:
    films = ["--labels", str(site / "labels.csv"), "--images", str(site), "--threads", "1"]
    wish = ["--specificity", "mass=0.8", "--films-per-day", "100"]
    code, words = said("calibrate", str(bundle), *films, *wish, "--dry-run", "--out", str(tmp_path / "site"))
    assert code == 0, words
    assert "Nothing was written" in words and not (tmp_path / "site").exists()
    code, words = said(
        "calibrate",
        str(bundle),
        *films,
        *wish,
        *("--out", str(tmp_path / "site"), "--json", str(tmp_path / "c.json"), "--html", str(tmp_path / "c.html")),
    )
    assert code == 0, words
    made = load_bundle(tmp_path / "site")
    assert made.version.startswith("1.0.0+site.")
    assert made.weights_sha256 == load_bundle(bundle).weights_sha256
    assert made.thresholds["Mass"] != 0.5
    assert "## What this site changed" in made.card
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["labels"]["Mass"]["threshold_by"] == "specificity 0.8"
    assert told["table"]["sha256"] == sha256_of(site / "labels.csv")
    page = (tmp_path / "c.html").read_text()
    assert "NaN" not in page and "None" not in page and "data:image/svg+xml" in page
    code, card = said("card", str(made.folder))
    assert code == 0 and "## What this site changed" in card
    says_nothing_senseless(card)
    code, words = said("calibrate", str(bundle), *films, *wish, "--out", str(tmp_path / "site"))
    assert code == 1 and "exists already" in words


def test_calibration_without_films_or_with_senseless_wishes_ends_in_a_sentence(bundle: Path, site: Path) -> None:
    films = ["--labels", str(site / "labels.csv"), "--images", str(site), "--dry-run"]
    for options, sentence in (
        (["--sensitivity", "Fracture=0.9"], "does not assess"),
        (["--alerts-per-day", "20"], "volume"),
        (["--method", "magic"], "unknown"),
    ):
        code, words = said("calibrate", str(bundle), *films, *options)
        assert code == 1 and sentence in words, words
    code, words = said("calibrate", str(bundle), "--labels", str(site / "no.csv"), "--images", str(site))
    assert code == 1 and "no.csv" in words


@pytest.mark.skipif("FIRSTREAD_TEST_DATA" not in os.environ, reason="real films are not at hand")
def test_the_card_of_the_shipped_bundle_s_real_evaluation(tmp_path: Path) -> None:
    from firstread.models.evaluation.as_json import as_json
    from firstread.models.evaluation.measure import evaluate
    from firstread.models.evaluation.run import Films, read_films
    from firstread.models.evaluation.score import score

    data = Path(os.environ["FIRSTREAD_TEST_DATA"]) / "nih"
    wanted = Films(data / "labels.csv", data / "images")
    films = read_films(wanted)[0][::16]
    shipped = load_bundle(reference_bundle())
    found = as_json(evaluate(shipped, score(shipped, films, threads=1), draws=100), wanted.source, datetime.now(UTC))
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(found))
    sources = run.read_sources(shipped, {"evaluation": path})
    card = run.card_of(shipped, sources)
    says_nothing_senseless(card)
    value = found["labels"]["No Finding"]["auroc"]["value"]
    assert f"{value:.2f}" in card
    assert str(data) not in card
