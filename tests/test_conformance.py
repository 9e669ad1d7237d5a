"""The conformance statement's tables are those of the code, and every table has its place on the page."""

from __future__ import annotations

import re
from pathlib import Path

from pydicom.uid import UID

from firstread.agent.conformance import TABLES, filled
from firstread.integration.dicom.contexts import STORAGE_COMMITMENT, STUDY_ROOT_GET, TRANSFER_SYNTAXES

PAGE = Path(__file__).parents[1] / "docs" / "dicom-conformance.md"


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_code() -> None:
    assert page() == filled(page()), "run: python -m firstread.agent.conformance docs/dicom-conformance.md"


def test_every_table_stands_on_the_page_once() -> None:
    assert sorted(re.findall(r"<!-- table: ([a-z-]+) -->", page())) == sorted(TABLES)


def test_a_table_that_the_code_no_longer_has_is_noticed() -> None:
    stale = page().replace(f"`{STORAGE_COMMITMENT}`", "`1.2.3`", 1)
    assert stale != page() and filled(stale) == page()


def test_what_is_served_is_on_the_page() -> None:
    text = page()
    for uid in (STORAGE_COMMITMENT, STUDY_ROOT_GET, *TRANSFER_SYNTAXES, "1.2.840.10008.5.1.4.1.1.1.1"):
        assert f"`{uid}`" in text, UID(uid).name
