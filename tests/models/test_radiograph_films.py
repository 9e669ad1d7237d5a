"""Real films: upright, bone bright, quick; and whatever is no chest film is refused with its reason."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from firstread.models.eligibility import judge
from firstread.models.findings import ReasonCode
from firstread.models.gate import inspect
from firstread.models.orientation import Orientation
from firstread.models.radiograph import Radiograph, UnreadableRadiograph, read_header, read_radiograph
from tests.models.dicom_files import data_set, write
from tests.peers import real_films

CHESTS = ["966_fixed", "RG1_J2KI", "rsna_cr_jpeg_baseline"]


def dicom(name: str) -> Path:
    return real_films() / "dicom" / f"{name}.dcm"


def region(radiograph: Radiograph, top: float, bottom: float, left: float, right: float) -> float:
    """Mean grey of a part of the film, given in shares of its height and width."""
    rows, columns = radiograph.pixels.shape
    part = radiograph.pixels[int(top * rows) : int(bottom * rows), int(left * columns) : int(right * columns)]
    return float(part.mean())


@pytest.mark.parametrize("name", CHESTS)
def test_lungs_of_a_real_film_are_darker_than_what_lies_between_and_below_them(name: str) -> None:
    radiograph = read_radiograph(dicom(name), 512)
    right_lung = region(radiograph, 0.25, 0.5, 0.12, 0.38)
    assert right_lung < region(radiograph, 0.25, 0.5, 0.45, 0.6) - 0.1
    assert right_lung < region(radiograph, 0.85, 0.97, 0.3, 0.7) - 0.1


@pytest.mark.parametrize("name", CHESTS)
def test_real_chest_films_pass_rules_and_gate(name: str) -> None:
    assert judge(read_header(dicom(name))) is None
    assert inspect(read_radiograph(dicom(name), 1024).pixels).reason is None


def test_a_film_that_says_twice_that_it_is_inverted_is_inverted_once() -> None:
    header = read_header(dicom("966_fixed"))
    assert (header.PhotometricInterpretation, header.PresentationLUTShape) == ("MONOCHROME1", "INVERSE")
    radiograph = read_radiograph(dicom("966_fixed"))
    assert region(radiograph, 0.5, 0.9, 0.0, 0.02) < 0.15, "air beside the patient is black"
    assert radiograph.notes == ()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RG2_JPLL", ReasonCode.NOT_A_CHEST),
        ("RG3_J2KR", ReasonCode.NOT_A_CHEST),
        ("dx_veterinary", ReasonCode.ANIMAL),
        ("chrJapMulti", ReasonCode.TOO_SMALL),
    ],
)
def test_what_is_no_chest_film_is_refused_by_its_header(name: str, code: ReasonCode) -> None:
    reason = judge(read_header(dicom(name)))
    assert reason is not None
    assert reason.code is code
    assert reason.detail


@pytest.mark.parametrize("name", ["RG2_JPLL", "RG3_J2KR", "dx_veterinary"])
def test_what_is_no_chest_film_would_not_pass_the_gate_without_its_tags(name: str) -> None:
    reason = inspect(read_radiograph(dicom(name), 1024).pixels).reason
    assert reason is not None
    assert reason.code in (ReasonCode.NOT_A_CHEST, ReasonCode.OUTSIDE_EXPERIENCE)


def test_a_thumbnail_is_too_small_for_its_pixels_too() -> None:
    with pytest.raises(UnreadableRadiograph) as refused:
        read_radiograph(dicom("chrJapMulti"))
    assert refused.value.reason.code is ReasonCode.TOO_SMALL


def test_a_film_stored_from_the_right_is_mirrored() -> None:
    assert list(read_header(dicom("RG3_J2KR")).PatientOrientation) == ["R", "F"]
    assert read_radiograph(dicom("RG3_J2KR"), 512).orientation == Orientation(1760, 1760, 512, 512, mirrored=True)


@pytest.mark.parametrize("name", [*CHESTS, "RG2_JPLL", "RG3_J2KR"])
def test_a_film_shrunk_while_decoding_looks_like_one_shrunk_afterwards(name: str) -> None:
    shrunk, full = read_radiograph(dicom(name), 256).pixels, read_radiograph(dicom(name)).pixels
    rows, columns = shrunk.shape
    lines = np.linspace(0, full.shape[0], rows + 1).astype(int)[:-1]
    across = np.linspace(0, full.shape[1], columns + 1).astype(int)[:-1]
    means = np.add.reduceat(np.add.reduceat(full, lines, 0), across, 1)
    counts = np.outer(np.diff(np.append(lines, full.shape[0])), np.diff(np.append(across, full.shape[1])))
    assert np.abs(shrunk - means / counts).mean() < 0.01


def test_a_large_native_film_is_read_and_shrunk_within_a_tenth_of_a_second(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pixels = np.repeat(np.repeat(rng.integers(0, 4096, (375, 250)), 8, 0), 10, 1).astype(np.uint16)
    path = write(tmp_path / "large.dcm", data_set(pixels, 12))
    read_radiograph(path, 1024)
    times = []
    for _ in range(5):
        began = time.process_time()
        assert read_radiograph(path, 1024).pixels.shape == (1024, 853)
        times.append(time.process_time() - began)
    assert min(times) < 0.1
