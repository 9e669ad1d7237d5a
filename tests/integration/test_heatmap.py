"""The heat map: a Secondary Capture that says by itself what it shows, in the same study, over the same field."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from firstread.integration.dicom import identity
from firstread.integration.dicom.report import Encoded, ResultError, build_heat_map, heatmap
from firstread.models.findings import NO_FINDING
from firstread.models.prediction import Box
from tests.integration.report_cases import (
    DX,
    FILM,
    NOON,
    SETTINGS,
    STUDY,
    dciodvfy,
    film,
    finding,
    parsed,
    positive,
    uids,
)
from tests.peers import real_films

GREY = np.full((1000, 800), 90, np.uint8)
"""The well-made film of 2000 x 1600 pixels, shrunk to half."""


def spot(row: float, column: float, shape: tuple[int, int] = (16, 16)) -> npt.NDArray[np.float32]:
    """Evidence around one place, given as fractions of height and width."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    distance = ((rows + 0.5) / shape[0] - row) ** 2 + ((columns + 0.5) / shape[1] - column) ** 2
    return np.exp(-distance / 0.01).astype(np.float32)


def made(
    preview: npt.NDArray[np.uint8] = GREY,
    saliency: npt.NDArray[np.float32] | None = None,
    *,
    source: Path | Dataset | None = None,
    box: Box | None = None,
    label: str = "Pneumothorax",
    **changes: object,
) -> Encoded:
    assessment = positive(**changes)
    return build_heat_map(
        assessment,
        label,
        film() if source is None else source,
        preview,
        spot(0.25, 0.25) if saliency is None else saliency,
        box,
        uids(assessment, identity.HEATMAP),
        SETTINGS,
        NOON,
    )


def picture(encoded: Encoded) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[np.uint8] = parsed(encoded).pixel_array
    return array


def test_it_is_a_native_colour_secondary_capture_in_the_films_study() -> None:
    encoded = made()
    instance = parsed(encoded)
    assert instance.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert instance.SOPClassUID == encoded.sop_class_uid == "1.2.840.10008.5.1.4.1.1.7"
    assert (instance.PhotometricInterpretation, instance.SamplesPerPixel, instance.BitsAllocated) == ("RGB", 3, 8)
    assert instance.StudyInstanceUID == STUDY
    assert instance.SeriesInstanceUID == identity.series_uid(SETTINGS.device_uid, STUDY, "heatmap")
    assert (instance.PatientName, instance.PatientID) == ("Doe^Jane", "P1")
    assert instance.ConversionType == "WSD"
    assert list(instance.ImageType[:2]) == ["DERIVED", "SECONDARY"]


def test_it_names_its_source_and_how_it_was_made() -> None:
    instance = parsed(made())
    (reference,) = instance.SourceImageSequence
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID) == (FILM, DX)
    assert "Pneumothorax" in instance.DerivationDescription
    assert "AI - NOT FOR DIAGNOSIS" in instance.DerivationDescription
    assert "0.81" in instance.ImageComments


@pytest.mark.parametrize("shape", [(1000, 800), (1024, 1024), (700, 1024), (4000, 3000), (40, 30), (1, 1)])
def test_the_longest_side_is_at_most_1024(shape: tuple[int, int]) -> None:
    array = picture(made(np.full(shape, 90, np.uint8)))
    assert max(array.shape[:2]) <= 1024


def bands(array: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """First row of the film and first row below it: the film here is grey 90 at its right edge, the bands black."""
    rows = np.flatnonzero((array[:, -1] == 90).all(axis=1))
    return int(rows[0]), int(rows[-1]) + 1


def test_the_film_is_unchanged_where_there_is_no_evidence_and_coloured_where_there_is() -> None:
    array = picture(made())
    top, bottom = bands(array)
    height, width = bottom - top, array.shape[1]
    hot = array[top + round(0.25 * height), round(0.25 * width)].astype(int)
    assert hot[0] > hot[2] + 50
    assert (array[top + round(0.75 * height) : bottom] == 90).all()


def test_evidence_lies_where_the_saliency_has_it() -> None:
    for row, column in ((0.2, 0.3), (0.8, 0.3), (0.5, 0.9)):
        array = picture(made(saliency=spot(row, column)))
        top, bottom = bands(array)
        redness = array[top:bottom, :, 0].astype(int) - array[top:bottom, :, 2]
        place = np.unravel_index(redness.argmax(), redness.shape)
        assert place[0] / (bottom - top) == pytest.approx(row, abs=0.08)
        assert place[1] / array.shape[1] == pytest.approx(column, abs=0.08)


def test_the_box_is_drawn_in_the_previews_pixels() -> None:
    array = picture(made(saliency=np.zeros((4, 4), np.float32), box=Box(200.0, 300.0, 600.0, 700.0)))
    top, bottom = bands(array)
    scale = (bottom - top) / 1000
    white = np.argwhere((array[top:bottom] == 255).all(axis=2))
    rows, columns = white[:, 0] / scale, white[:, 1] / scale
    assert (rows.min(), rows.max()) == (pytest.approx(300, abs=4), pytest.approx(700, abs=4))
    assert (columns.min(), columns.max()) == (pytest.approx(200, abs=4), pytest.approx(600, abs=4))


def test_words_are_burned_in_beside_the_film_and_differ_by_finding_and_probability() -> None:
    array = picture(made())
    top, bottom = bands(array)
    above, below = array[:top], array[bottom:]
    assert (above == 255).all(axis=2).sum() > 400
    assert (below > 150).any(axis=2).sum() > 400
    effusion = picture(made(label="Effusion"))
    assert (effusion[:top] != above).any()
    assert (effusion[bottom:] == below).all()


def burned_in(monkeypatch: pytest.MonkeyPatch, **changes: object) -> str:
    """All that is written into the picture."""
    said: list[str] = []
    draw = heatmap.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        heatmap.ImageDraw.ImageDraw,
        "text",
        lambda self, place, text, *rest, **more: (said.append(text), draw(self, place, text, *rest, **more))[1],
    )
    made(**changes)  # type: ignore[arg-type]
    return " | ".join(said)


def test_the_words_are_finding_probability_operating_point_and_warning_and_no_patient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert burned_in(monkeypatch) == "Pneumothorax  0.81   operating point 0.60 | AI - NOT FOR DIAGNOSIS"
    assert parsed(made()).BurnedInAnnotation == "NO"


def test_an_experimental_finding_says_so_in_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    said = burned_in(monkeypatch, findings=(finding("Hernia", 0.7, experimental=True),), label="Hernia")
    assert said.startswith("Hiatal hernia  0.70  experimental")


def test_a_film_with_burned_in_annotation_gives_a_heat_map_that_admits_it() -> None:
    assert parsed(made(source=film(BurnedInAnnotation="YES"))).BurnedInAnnotation == "YES"


def test_a_distance_on_the_heat_map_is_that_on_the_film() -> None:
    instance = parsed(made())
    top, bottom = bands(instance.pixel_array)
    assert float(instance.PixelSpacing[0]) * (bottom - top) == pytest.approx(2000 * 0.2, rel=0.002)
    assert float(instance.PixelSpacing[1]) * instance.Columns == pytest.approx(1600 * 0.2, rel=0.002)


def test_a_film_that_was_turned_upright_keeps_its_distances() -> None:
    lying = film(Rows=1600, Columns=2000, PixelSpacing=["0.3", "0.2"])
    instance = parsed(made(source=lying))
    top, bottom = bands(instance.pixel_array)
    assert float(instance.PixelSpacing[0]) * (bottom - top) == pytest.approx(2000 * 0.2, rel=0.002)
    assert float(instance.PixelSpacing[1]) * instance.Columns == pytest.approx(1600 * 0.3, rel=0.002)


@pytest.mark.parametrize("spacing", [None, "", ["0", "0"], ["0.2"]])
def test_a_film_without_usable_spacing_gives_none(spacing: object) -> None:
    assert "PixelSpacing" not in parsed(made(source=film(PixelSpacing=spacing)))


def test_the_same_heat_map_is_the_same_bytes() -> None:
    assert made().part10 == made().part10


def test_a_preview_that_is_no_picture_is_refused_with_what_is_wanted() -> None:
    with pytest.raises(ResultError, match="uint8"):
        made(GREY.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ResultError, match="saliency"):
        made(saliency=np.zeros((0, 4), np.float32))


def test_a_finding_that_was_not_assessed_has_no_heat_map() -> None:
    with pytest.raises(ResultError, match="not assessed"):
        made(findings=(finding("Mass", None),), label="Mass")
    with pytest.raises(ResultError, match="no finding"):
        made(label="Fracture")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    values=st.lists(st.floats(width=32), min_size=4, max_size=4),
    edges=st.none() | st.lists(st.floats(), min_size=4, max_size=4),
)
def test_no_saliency_and_no_box_stops_a_heat_map(
    tmp_path: Path, height: int, width: int, values: list[float], edges: list[float] | None
) -> None:
    encoded = made(
        np.zeros((height, width), np.uint8),
        np.array(values, np.float32).reshape(2, 2),
        box=None if edges is None else Box(*edges),
    )
    assert picture(encoded).shape[1] == width


@pytest.mark.parametrize(
    "source", [film(), film(PixelSpacing=None, PatientOrientation=None, AccessionNumber="x" * 16), Dataset()]
)
def test_dciodvfy_has_no_error(source: Dataset, tmp_path: Path) -> None:
    errors, warnings = dciodvfy(made(source=source), tmp_path)
    assert errors == []
    assert [line for line in warnings if "DICOMDIR" not in line] == []


@pytest.mark.parametrize("name", ["RG1_J2KI", "966_fixed", "rsna_cr_jpeg_baseline", "chrJapMulti"])
def test_the_heat_map_of_a_real_film_passes_dciodvfy(name: str, tmp_path: Path) -> None:
    path = real_films() / "dicom" / f"{name}.dcm"
    header = pydicom.dcmread(path, stop_before_pixels=True)
    encoded = made(np.zeros((header.Rows // 4, header.Columns // 4), np.uint8), source=path)
    errors, _ = dciodvfy(encoded, tmp_path)
    assert errors == []
    instance = parsed(encoded)
    assert instance.SourceImageSequence[0].ReferencedSOPInstanceUID == header.SOPInstanceUID


def test_the_moment_is_local_to_the_film() -> None:
    instance = parsed(made())
    assert (instance.ContentDate, instance.ContentTime) == (f"{NOON:%Y%m%d}", f"{NOON:%H%M%S}")
    assert datetime.strptime(instance.DateOfSecondaryCapture, "%Y%m%d").date() == NOON.date()


def test_no_finding_may_be_shown_too_but_is_not_called_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    said = burned_in(monkeypatch, findings=(finding(NO_FINDING, 0.9),), label=NO_FINDING)
    assert said.startswith("None of the assessed findings")
