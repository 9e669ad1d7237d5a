"""The table of spellings: how words match, and how a site adds its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from firstread.models.eligibility import EligibilityTableError, judge, load_table
from firstread.models.findings import ReasonCode
from firstread.models.wording import plain


def header(said: str) -> Dataset:
    made = Dataset()
    made.Modality, made.SeriesDescription = "DX", said
    return made


@pytest.mark.parametrize(
    ("said", "plainly"),
    [
        ("Rx-TÓRAX_PA", "rx torax pa"),
        ("  Röntgen.Thorax ", "rontgen thorax"),
        ("Fuß", "fuss"),
        ("Płuca", "pluca"),
        ("ＣＨＥＳＴ", "chest"),
        ("胸部/正面", "胸部 正面"),
        ("", ""),
        ("***", ""),
        ("Göğüs", "gogus"),
        ("Çene", "cene"),
    ],
)
def test_capitals_accents_and_punctuation_do_not_count(said: str, plainly: str) -> None:
    assert plain(said) == plainly


def test_words_match_as_whole_words_and_stars_as_any_letters() -> None:
    table = load_table({"words": {"chest": ["zq*", "*zx", "a*b c"]}})
    assert table.word("chest", "my ZQuiet one") == "zquiet"
    assert table.word("chest", "fooZX") == "foozx"
    assert table.word("chest", "axxb  c") == "axxb c"
    assert table.word("chest", "lungfish") is None
    assert table.word("chest", "plunge") is None
    assert table.word("chest", "CHEST2") == "chest"


def test_the_longest_phrase_is_set_aside_first() -> None:
    assert "thora" not in load_table().without("other_part", "Thoracic spine AP")


def test_a_site_adds_its_own_spelling_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[words]\nother_part = ["raum 4"]\nchest = ["bettlunge"]\n', encoding="utf-8")
    table = load_table(tmp_path / "site.toml")
    reason = judge(header("Raum 4"), table)
    assert reason is not None
    assert reason.code is ReasonCode.NOT_A_CHEST
    assert judge(header("Raum 4"), load_table()) is None
    assert judge(header("Raum 4 Bettlunge"), table) is None


def test_a_site_takes_one_of_our_spellings_away() -> None:
    assert judge(header("Zebra")) is not None
    assert judge(header("Zebra"), load_table({"words": {"other_part": ["-zebra"]}})) is None


def test_a_site_adds_a_view_position_of_its_own() -> None:
    film = header("Chest")
    film.ViewPosition = "SIDE-1"
    reason = judge(film, load_table({"codes": {"lateral_views": ["side 1"]}}))
    assert reason is not None
    assert reason.code is ReasonCode.LATERAL_VIEW


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"words": {"chests": []}}, "did you mean chest"),
        ({"word": {}}, r"use \[words\] and \[codes\]"),
        ({"words": ["x"]}, r"use \[words\] and \[codes\]"),
        ({"words": {"chest": "thorax"}}, "must be a list of texts"),
        ({"words": {"chest": [1]}}, "must be a list of texts"),
        ({"words": {"chest": ["-nowhere"]}}, "no entry 'nowhere' to take away"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_to_do(extra: dict[str, object], message: str) -> None:
    with pytest.raises(EligibilityTableError, match=message):
        load_table(extra)


def test_a_table_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(EligibilityTableError, match=r"gone\.toml: cannot be read"):
        load_table(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("[words\n")
    with pytest.raises(EligibilityTableError, match=r"bad\.toml: not TOML"):
        load_table(tmp_path / "bad.toml")


def test_words_are_no_patterns_so_that_no_entry_can_hang_the_matching() -> None:
    table = load_table({"words": {"chest": ["(a+)+$", "[", "*", "  "]}})
    assert table.word("chest", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!") is None
