"""Label tables: NIH's in each edition and layout, anybody's CSV, and sentences for what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.models.data.film import DataError, Film
from firstread.models.data.tables import read_labels, read_table
from firstread.models.findings import LABELS, NO_FINDING
from tests.models.nih_release import FILMS, picture, write_csv, write_films, write_image, write_table
from tests.peers import real_films


def says(film: Film, label: str) -> float | None:
    """1, 0, or None for unknown."""
    at = LABELS.index(label)
    return float(film.target[at]) if film.known[at] else None


def labels_of(film: Film) -> str:
    return "|".join(label for label in sorted(LABELS) if says(film, label))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three films: a.png, b.png and, in a folder below, c.jpg."""
    for number, name in enumerate(("a.png", "b.png", "below/c.jpg")):
        write_image(tmp_path / "films" / name, picture(number))
    return tmp_path / "films"


@pytest.mark.parametrize("layout", ["flat", "kaggle", "mixed"])
@pytest.mark.parametrize(("name", "old"), [("Data_Entry_2017.csv", True), ("Data_Entry_2017_v2020.csv.gz", False)])
def test_nihs_release_is_read_in_either_edition_and_any_layout(
    tmp_path: Path, layout: str, name: str, old: bool
) -> None:
    films = read_labels(write_table(tmp_path / name, old=old), write_films(tmp_path, layout=layout))
    assert [film.key for film in films] == list(FILMS)
    assert [labels_of(film) for film in films] == ["|".join(sorted(said.split("|"))) for said in FILMS.values()]
    assert all(film.known.all() for film in films)
    assert [film.patient for film in films] == ["nih-1", "nih-1", "nih-2", "nih-3", "nih-3", "nih-4"]
    assert [(film.age, film.sex, film.view, film.row) for film in films[:2]] == [(40, "M", "PA", 2), (41, "M", "AP", 3)]
    assert films[0].columns["OriginalImage[Width"] == "2048"


def test_real_films_are_read_from_their_own_table_and_from_the_whole_release() -> None:
    folder = real_films() / "nih"
    own = read_labels(folder / "labels.csv", folder / "images")
    assert (len(own), len({film.patient for film in own})) == (808, 611)
    assert set(own[0].nuisances) == {"source_png_bytes", "source_noise", "source_mean_grey"}
    notes: list[str] = []
    whole = read_labels(folder / "Data_Entry_2017_v2020.csv.gz", folder / "images", on_note=notes.append)
    assert {film.key: labels_of(film) for film in whole} == {film.key: labels_of(film) for film in own}
    assert "111312 of 112120 rows have no image" in notes[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_in_any_encoding_and_delimiter_says_the_same(
    tmp_path: Path, images: Path, encoding: str, mark: str
) -> None:
    rows = [
        ["Image", "Patient", "Labels", "Ward"],
        ["a.png", "p1", '"Mass|Nodule"', "Süd"],
        ["b.png", "p2", "Mass", "Öst"],
    ]
    table = write_csv(tmp_path / "t.csv", *(mark.join(row) for row in rows), encoding=encoding)
    notes: list[str] = []
    films = read_labels(table, images, on_note=notes.append)
    assert [labels_of(film) for film in films] == ["Mass|Nodule", "Mass"]
    assert [film.columns["Ward"] for film in films] == ["Süd", "Öst"]
    assert any("not UTF-8, read as cp1252" in note for note in notes) == (encoding == "cp1252")


def test_in_a_column_of_labels_silence_is_not_nothing_found(tmp_path: Path, images: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        "path,patient,labels",
        "a.png,1,Mass; pleural effusion",
        "b.png,2,no finding",
        "below/c.jpg,3,",
    )
    ill, well, silent = read_labels(table, images, on_note=lambda _: None)
    assert labels_of(ill) == "Effusion|Mass"
    assert (says(ill, NO_FINDING), says(ill, "Hernia")) == (0, None)
    assert (says(well, NO_FINDING), says(well, "Mass"), says(well, "Hernia")) == (1, 0, 0)
    assert not silent.known.any()


def test_a_column_per_label_tells_no_from_unknown(tmp_path: Path, images: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        "Path,Patient,No Finding,Pleural Effusion,Pneumonia,Mass,Fracture",
        "a.png,1,,1.0,-1.0,0.0,1",
        "b.png,2,1,,u,0,",
        "c.jpg,3,,,,,",
    )
    first, second, third = read_labels(table, images, on_note=lambda _: None)
    assert [says(first, label) for label in ("Effusion", "Pneumonia", "Mass", NO_FINDING)] == [1, None, 0, 0]
    assert [says(second, label) for label in ("Effusion", "Pneumonia", "Mass", NO_FINDING)] == [0, None, 0, 1]
    assert says(first, "Hernia") is None
    assert not third.known.any()
    assert first.columns["Fracture"] == "1"


def test_without_a_patient_column_names_tell_or_every_film_is_its_own_patient(tmp_path: Path, images: Path) -> None:
    notes: list[str] = []
    plain = write_csv(tmp_path / "t.csv", "path,labels", "a.png,Mass", "b.png,No Finding")
    assert len({film.patient for film in read_labels(plain, images, on_note=notes.append)}) == 2
    assert "each counts as a patient of its own" in notes[0]
    write_films(tmp_path / "nih")
    named = write_csv(tmp_path / "n.csv", "path,labels", *(f"{name},Mass" for name in FILMS))
    patients = [film.patient for film in read_labels(named, tmp_path / "nih", on_note=notes.append)]
    assert patients == ["nih-1", "nih-1", "nih-2", "nih-3", "nih-3", "nih-4"]


def test_age_sex_and_view_are_understood_as_people_write_them(tmp_path: Path, images: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        "path,patient,labels,age,sex,Frontal/Lateral,AP/PA",
        "a.png,1,Mass,006M,female,Frontal,AP",
        "b.png,2,No Finding,412Y,Unknown,Lateral,",
    )
    notes: list[str] = []
    first, second = read_labels(table, images, on_note=notes.append)
    assert (first.age, first.sex, first.view) == (0.5, "F", "AP")
    assert (second.age, second.sex, second.view) == (None, "", "LATERAL")
    assert any("row 3: '412Y' is no age" in note for note in notes)
    assert any("b.png is a lateral film" in note for note in notes)


HEADER = "path,patient,labels"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (("name,findings", "a.png,Mass"), "no column names the films"),
        (("path,patient", "a.png,1"), "no column says what the films show"),
        ((HEADER, "a.png,1,Masss"), "row 2: 'Masss' is none of the 15 labels"),
        ((HEADER, "a.png,1,Mass", "b.png,2,Mass|mass"), "row 3: Mass stands twice"),
        ((HEADER, "a.png,1,Mass", "a.png,1,Mass"), "row 3: a.png stands in row 2 too"),
        ((HEADER, "a.png,1,Mass|No Finding"), "row 2: No Finding stands beside Mass"),
        ((HEADER, "a.png,1,Mass", "z.png,1,Mass"), "row 3: no image 'z.png' lies below"),
        ((HEADER, "a.png,,Mass"), "row 2: names no patient"),
        ((HEADER, "a.png,1"), "row 2: has 2 cells where the header has 3"),
        (("path,patient,Mass,mass", "a.png,1,1,1"), "'Mass' and 'mass' both stand for Mass"),
        (("path,path,Mass", "a.png,1,1"), "column 'path' stands twice"),
        (("path,patient,Mass", "a.png,1,0.7"), "row 2: '0.7' in column 'Mass' is neither 1, 0, -1"),
        ((HEADER,), "has a header and no rows"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_row(
    tmp_path: Path, images: Path, lines: tuple[str, ...], sentence: str
) -> None:
    table = write_csv(tmp_path / "t.csv", *lines)
    with pytest.raises(DataError) as error:
        read_labels(table, images)
    assert str(table) in str(error.value)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04spreadsheet", "save the sheet as CSV"),
        (b"\x1f\x8b\x08cut", "cannot be read"),
        (b"path,labels\na.png,\0\0\0\n", "binary"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_sentence(
    tmp_path: Path, images: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_labels(tmp_path / "t.csv", images)


def test_read_leniently_a_table_gives_what_is_good_and_all_that_is_wrong(tmp_path: Path, images: Path) -> None:
    table = write_csv(tmp_path / "t.csv", HEADER, "a.png,1,Mass|Fracture", "b.png,2,Mass|No Finding", "gone.png,3,Mass")
    read = read_table(table, images, strict=False)
    assert {(problem.kind, problem.row) for problem in read.problems} == {
        ("unknown label", 2),
        ("contradictory row", 3),
        ("missing image", 4),
    }
    assert [film.key for film in read.films] == ["a.png", "b.png"]
    assert not read.films[1].known.any()
    ignoring = read_table(table, images, strict=False, ignore=["fracture"])
    assert {problem.kind for problem in ignoring.problems} == {"contradictory row", "missing image"}


def test_one_name_for_two_films_is_refused_and_the_same_release_unpacked_twice_is_not(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", HEADER, "a.png,1,Mass")
    for folder in ("one", "two"):
        write_image(tmp_path / "films" / folder / "a.png", picture(1))
    assert len(read_labels(table, tmp_path / "films")) == 1
    write_image(tmp_path / "films" / "two" / "a.png", picture(2, 160))
    with pytest.raises(DataError, match=r"row 2: 'a.png' is both .*one/a.png and .*two/a.png"):
        read_labels(table, tmp_path / "films")


def test_nihs_boxes_are_scaled_from_1024_pixels_and_infiltrate_is_infiltration(tmp_path: Path) -> None:
    table, root = write_table(tmp_path / "Data_Entry_2017.csv"), write_films(tmp_path, side=96)
    boxes = write_csv(
        tmp_path / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000003_001.png,Infiltrate,512,256,256,128,,,",
        "00000003_001.png,Infiltrate,0,0,64,64,,,",
        "00099999_000.png,Mass,1,1,2,2,,,",
    )
    notes: list[str] = []
    films = {film.key: film for film in read_labels(table, root, boxes=boxes, on_note=notes.append)}
    film = films["00000003_001.png"]
    box = film.boxes["Infiltration"]
    np.testing.assert_allclose((box.left, box.top, box.right, box.bottom), (48, 24, 72, 36))
    assert len(film.more_boxes["Infiltration"]) == 1
    assert any("1 of 3 boxes belong to films that are not among those read" in note for note in notes)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("00000003_001.png,Abscess,1,1,2,2,,,", "row 2: 'Abscess' is none of the 15 labels"),
        ("00000003_001.png,Mass,1,one,2,2,,,", "row 2: 1, one, 2, 2 is no box"),
        ("00000003_001.png,Mass,1025,1,2,2,,,", "row 2: the box lies outside 00000003_001.png"),
    ],
)
def test_a_box_that_cannot_be_is_refused_with_its_row(tmp_path: Path, row: str, sentence: str) -> None:
    table, root = write_table(tmp_path / "Data_Entry_2017.csv"), write_films(tmp_path)
    boxes = write_csv(tmp_path / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", row)
    with pytest.raises(DataError) as error:
        read_labels(table, root, boxes=boxes)
    assert sentence in str(error.value)
