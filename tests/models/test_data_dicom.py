"""A folder of DICOM films and a label table: found by identifier, completed from the headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.models.data.film import DataError
from firstread.models.data.pixels import grey_of
from firstread.models.data.tables import read_labels
from firstread.models.radiograph import read_radiograph
from tests.models import dicom_files
from tests.models.nih_release import write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three films of two studies, one without ending, and a file that is no DICOM."""
    films = tmp_path / "films"
    films.mkdir()
    for name, sop, study, accession, view in (
        ("one.dcm", "1.2.1", "1.9.1", "A1", "PA"),
        ("two", "1.2.2", "1.9.2", "A2", "AP"),
        ("three.dcm", "1.2.3", "1.9.2", "A2", "LL"),
    ):
        header = dicom_files.data_set(
            dicom_files.film(),
            12,
            SOPInstanceUID=sop,
            StudyInstanceUID=study,
            AccessionNumber=accession,
            PatientID=f"P{study[-1]}",
            PatientSex="F",
            PatientAge="061Y",
            ViewPosition=view,
            Manufacturer="Maker",
        )
        dicom_files.write(films / name, header)
    (films / "readme.dcm").write_text("not a film")
    return films


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        ("SOPInstanceUID", "1.2.1", "1.2.2"),
        ("StudyInstanceUID", "1.9.1", "1.9.2"),
        ("AccessionNumber", "A1", "A2"),
        ("file", "one.dcm", "two"),
        ("image_id", "one", "two"),
    ],
)
def test_films_are_found_by_each_identifier_and_completed_from_their_headers(
    tmp_path: Path, folder: Path, column: str, first: str, second: str
) -> None:
    table = write_csv(tmp_path / "t.csv", f"{column},labels", f"{first},Mass", f"{second},No Finding")
    films = read_labels(table, folder, on_note=lambda _: None)
    whole_study = column in ("StudyInstanceUID", "AccessionNumber")
    assert sorted(film.path.name for film in films if film.path) == sorted(
        ["one.dcm", "two", *(["three.dcm"] if whole_study else [])]
    )
    assert (films[0].patient, films[0].sex, films[0].age, films[0].view) == ("P1", "F", 61, "PA")
    assert films[0].columns["Manufacturer"] == "Maker"
    assert {film.view for film in films} == ({"PA", "AP", "LATERAL"} if whole_study else {"PA", "AP"})


def test_what_the_table_says_of_a_patient_comes_before_the_header(tmp_path: Path, folder: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "file,patient,age,sex,labels", "one.dcm,X,30,M,Mass")
    (film,) = read_labels(table, folder)
    assert (film.patient, film.age, film.sex) == ("X", 30, "M")


def test_a_film_that_is_named_and_missing_is_not_stood_in_for_by_its_study(tmp_path: Path, folder: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "SOPInstanceUID,AccessionNumber,labels", "1.2.1,A1,Mass", "1.2.99,A2,Mass")
    with pytest.raises(DataError, match=r"row 3: no image 'SOPInstanceUID 1.2.99' .*1 files there cannot be read"):
        read_labels(table, folder)


def test_a_dicom_film_is_read_as_the_service_reads_it(tmp_path: Path, folder: Path) -> None:
    table = write_csv(tmp_path / "t.csv", "file,labels", "one.dcm,Mass")
    (film,) = read_labels(table, folder)
    np.testing.assert_array_equal(grey_of(film), read_radiograph(folder / "one.dcm").pixels)
