"""The page of an evaluation: one file, nothing from elsewhere, hostile text inert, small, and it shows the misses."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firstread.models.bundle import Bundle, load_bundle
from firstread.models.data.film import Film
from firstread.models.evaluation.as_json import Source, as_json
from firstread.models.evaluation.measure import evaluate
from firstread.models.evaluation.page import GALLERY, MISSED_LABELS, MISSES, page
from firstread.models.evaluation.pictures import SHORT, diagnosis_line
from firstread.models.evaluation.readers import as_json as readers_json
from firstread.models.evaluation.readers import compare_readers, find_readers
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS, NO_FINDING
from tests.models.evaluation_films import film_of, films_on_disk, scores_of
from tests.models.tiny import make_tiny_bundle

HOSTILE = "<script>alert(1)</script> $\\frac{$ --> {{ 7*7 }} 病院"


class Tags(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture(scope="module")
def rendered(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of films whose table was written by an enemy."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "labels.csv").write_text("x\n")
    rng = np.random.default_rng(0)
    films: list[Film] = []
    for n, film in enumerate(films_on_disk(folder, 40)):
        said = "Pneumonia" if (n % 2) ^ (n % 7 == 0) else "No Finding"
        columns = {"site": HOSTILE if n % 2 else "<b>plain</b>", "reader_1": said, "reader_<i>2</i>": said}
        films.append(replace(film, key=f'<img src=x onerror="alert({n})">', columns=columns))
    films.append(film_of(99, path=folder / "gone.png"))
    said = np.clip(0.5 + 0.3 * rng.normal(size=41), 0.01, 0.99)
    scores = scores_of(bundle, films, {"Pneumonia": said, NO_FINDING: 1 - said})
    scores = replace(scores, problems=(*[None] * 40, "gone.png, row 101: <u>missing</u>"))
    evaluation = evaluate(bundle, scores, by=["site"], draws=100)
    readings = find_readers(films, ("reader_1", "reader_<i>2</i>"))
    assert readings is not None
    several = readers_json(readings, compare_readers(bundle, scores, readings, 100))
    table = as_json(evaluation, Source(folder / "labels.csv", folder), datetime.now(UTC), several)
    return page(evaluation, table, threads=1)


def test_the_page_asks_nothing_of_anybody(rendered: str) -> None:
    tags = Tags()
    tags.feed(rendered)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(tags.names)
    for tag, name, value in tags.attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert tag == "img" and value.startswith("data:image/"), (tag, name, value[:60])
        assert not name.startswith("on")
    assert "url(" not in rendered and "@import" not in rendered
    assert "default-src 'none'" in rendered


def test_what_a_table_says_is_text_and_never_markup(rendered: str) -> None:
    tags = Tags()
    tags.feed(rendered)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered and "<script" not in rendered
    assert "onerror=&#34;" in rendered and "{{ 7*7 }}" in rendered and "49 病院" not in rendered
    assert "u" not in tags.names and "b" not in tags.names and "&lt;u&gt;missing" in rendered
    for uri in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', rendered):
        assert b"<script" not in base64.b64decode(uri)


def test_the_page_holds_curves_misses_and_gallery_within_bounds(rendered: str) -> None:
    for title in ("ROC curves", "Reliability", "Subgroups", "The worst misses", "Gallery", "Several readers"):
        assert f"<h2>{title}</h2>" in rendered
    assert "other data, other split" in rendered and "not a medical device" in rendered
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', rendered)
    assert GALLERY < len(pictures) <= GALLERY + MISSED_LABELS * MISSES * 2 * 2
    for one in pictures[:5]:
        assert max(Image.open(io.BytesIO(base64.b64decode(one))).size) <= 256
    assert len(rendered) < 2_500_000
    assert "with it, but not called" in rendered and "without it, but called" in rendered
    assert 'alt="evidence for Pneumonia"' in rendered


def test_a_page_without_any_figure_and_without_films_to_show_is_still_a_page(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("x\n")
    scores = scores_of(bundle, [film_of(n, path=tmp_path / "none.png") for n in range(3)], {})
    evaluation = evaluate(bundle, scores, draws=100)
    text = page(evaluation, as_json(evaluation, Source(tmp_path / "labels.csv", tmp_path), datetime.now(UTC)))
    assert "No figure: too few films" in text and "<h2>Gallery</h2>" not in text and "ROC curves" not in text


@pytest.mark.parametrize("without_maps", [True, False])
def test_misses_are_shown_with_or_without_maps(bundle: Bundle, tmp_path: Path, without_maps: bool) -> None:
    (tmp_path / "labels.csv").write_text("x\n")
    films = films_on_disk(tmp_path, 24)
    scores = scores_of(bundle, films, {"Pneumonia": np.linspace(0.1, 0.9, 24)})
    kind: Callable[[Bundle], Bundle] = mapless if without_maps else (lambda same: same)
    evaluation = evaluate(kind(bundle), scores, draws=100)
    text = page(evaluation, as_json(evaluation, Source(tmp_path / "labels.csv", tmp_path), datetime.now(UTC)), 1)
    assert ("evidence for Pneumonia" in text) is not without_maps
    assert ("this bundle has no maps" in text) is without_maps


def mapless(bundle: Bundle) -> Bundle:
    """The same bundle, saying of itself that it has no maps."""
    architecture = replace(bundle.architecture, head="dense", input_size=64)
    return replace(bundle, architecture=architecture)


def test_films_are_captioned_as_the_original_did() -> None:
    said = {"Pneumonia": 0.8, "Mass": 0.1, NO_FINDING: 0.372}
    assert diagnosis_line(film_of(1), said, {NO_FINDING: 0.9, "Pneumonia": 0.9, "Mass": 0.9}) == (
        "Dx: No Finding, PDx: No F: 37 %"
    )
    both = diagnosis_line(film_of(1, "Pneumonia", "Mass"), said, {})
    assert both == "Dx: Mass, Pneumonia, PDx: Mass: 10 %, Pneumon: 80 %"
    assert diagnosis_line(film_of(1, "Hernia"), said, {"Pneumonia": 0.9}) == ("Dx: Hernia, PDx: Hern: not assessed")
    unknown = replace(film_of(1), known=np.zeros(len(LABELS), np.float32))
    assert diagnosis_line(unknown, {"Mass": 0.2}, {}) == "Dx: not stated, PDx: none called"


def test_short_names_are_four_letters_and_never_two_labels_alike() -> None:
    assert len(set(SHORT.values())) == len(LABELS)
    assert SHORT[NO_FINDING] == "No F" and {len(name) for label, name in SHORT.items() if "Pneumo" not in label} == {4}


def test_the_gallery_is_the_same_each_time_and_shows_both_kinds(bundle: Bundle) -> None:
    from firstread.models.evaluation.page import _gallery

    films = [film_of(n, *(["Mass"] if n % 10 == 0 else [])) for n in range(300)]
    scores: Scores = scores_of(bundle, films, {})
    chosen = _gallery(scores)
    assert chosen == _gallery(scores) and len(chosen) == GALLERY == len(set(chosen))
    assert sum(bool(films[i].target[LABELS.index("Mass")]) for i in chosen) == GALLERY // 2
    assert len(_gallery(scores_of(bundle, films[1:10], {}))) == 9
