"""Phantoms in every maker's habit and syntax come back as they were drawn, and are judged as what they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import UID, JPEGBaseline8Bit

from firstread.models.eligibility import judge
from firstread.models.findings import ReasonCode
from firstread.models.gate import inspect
from firstread.models.phantoms import Phantom, draw, random_spec
from firstread.models.phantoms.encoding import TRANSFER_SYNTAXES
from firstread.models.phantoms.film import to_dicom
from firstread.models.phantoms.habits import HABITS
from firstread.models.radiograph import Radiograph, read_header, read_radiograph

EXPECTED = {
    "PA": (None,),
    "AP": (None,),
    "LATERAL": (ReasonCode.LATERAL_VIEW,),
    # One maker says nothing at all of a hand: that is the gate's to see.
    "HAND": (ReasonCode.NOT_A_CHEST, None),
}


@cache
def phantom(view: str) -> Phantom:
    return draw(random_spec(np.random.default_rng(3), view=view, size=(320, 300)))


def likeness(radiograph: Radiograph, drawn: Phantom) -> float:
    return float(np.corrcoef(radiograph.pixels.ravel(), drawn.image.ravel())[0, 1])


@pytest.mark.parametrize("view", EXPECTED)
@pytest.mark.parametrize("maker", HABITS)
def test_every_makers_film_is_read_as_it_was_drawn_and_judged_as_what_it_is(
    maker: str, view: str, tmp_path: Path
) -> None:
    path = tmp_path / "film.dcm"
    to_dicom(phantom(view), maker=maker).save_as(path, enforce_file_format=True)
    by_header = judge(read_header(path))
    radiograph = read_radiograph(path)
    assert (by_header.code if by_header else None) in EXPECTED[view]
    assert (inspect(radiograph.pixels).reason is None) == (view in ("PA", "AP"))
    assert likeness(radiograph, phantom(view)) > 0.99


@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda syntax: UID(syntax).keyword)
def test_every_syntax_and_polarity_shows_the_same_film(syntax: str, polarity: str, tmp_path: Path) -> None:
    for bits in (8,) if syntax == JPEGBaseline8Bit else (10, 12, 16):
        path = tmp_path / f"{bits}.dcm"
        film = to_dicom(phantom("PA"), polarity=polarity, transfer_syntax_uid=syntax, bits=bits)
        film.save_as(path, enforce_file_format=True)
        assert likeness(read_radiograph(path), phantom("PA")) > 0.99
