"""Names of outputs become labels; doubtful ones are asked about, foreign ones are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.models.data.film import DataError
from firstread.models.findings import LABELS
from firstread.models.importing.labels import COLLECTIONS, known_as, matched, read_names, read_points


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *((label, label) for label in LABELS),
        ("Pleural Effusion", "Effusion"),
        ("pleural effusion", "Effusion"),
        ("Pleural Thickening", "Pleural_Thickening"),
        ("pleural_thickening", "Pleural_Thickening"),
        ("Infiltrate", "Infiltration"),
        ("Lung Opacity", None),
        ("Fracture", None),
        ("Nodule/Mass", None),
        ("Lung Lesion", None),
        ("Pleural Other", None),
        ("No finding", "No Finding"),
        ("Normal", "No Finding"),
        ("Hiatal hernia", "Hernia"),
        ("", None),
        ("-", None),
    ],
)
def test_labels_are_known_by_the_names_of_published_collections(name: str, label: str | None) -> None:
    assert known_as(name) == label


@pytest.mark.parametrize("name", ["Pneumotorax", "Cardiomegally", "Atelectasys", "Emphysemia"])
def test_a_near_miss_is_asked_about_and_never_dropped(name: str) -> None:
    with pytest.raises(DataError, match="close to"):
        known_as(name)


def test_two_outputs_for_one_label_are_refused() -> None:
    with pytest.raises(DataError, match="'Effusion' and 'Pleural Effusion' both mean 'Effusion'"):
        matched(["Effusion", "Pleural Effusion"])


def test_outputs_of_which_none_is_known_are_refused() -> None:
    with pytest.raises(DataError, match="none of the labels cat, dog"):
        matched(["cat", "dog"])


def test_published_collections_keep_their_order_and_lose_what_is_foreign() -> None:
    chexpert = matched(COLLECTIONS["chexpert"])
    assert chexpert[0] == "No Finding"
    assert chexpert[10] == "Effusion"
    assert [name for name, label in zip(COLLECTIONS["chexpert"], chexpert, strict=True) if label is None] == [
        "Enlarged Cardiomediastinum",
        "Lung Opacity",
        "Lung Lesion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("l.txt", "Mass\nNodule\n\nEdema\n"),
        ("l.txt", "\ufeffMass\r\nNodule\r\n\r\nEdema"),
        ("l.csv", "Mass,Nodule,,Edema"),
        ("l.json", '["Mass", "Nodule", "", "Edema"]'),
        ("l.json", '{"0": "Mass", "1": "Nodule", "2": "", "3": "Edema"}'),
        ("l.json", '{"id2label": {"0": "Mass", "1": "Nodule", "2": "", "3": "Edema"}}'),
        ("l.json", '{"Edema": 3, "Mass": 0, "Nodule": 1, "": 2}'),
    ],
)
def test_a_list_of_labels_is_read_from_any_usual_file(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert read_names(str(tmp_path / file)) == ("Mass", "Nodule", "", "Edema")


def test_a_list_of_labels_may_be_written_out_or_named() -> None:
    assert read_names("Mass, Nodule,,Edema") == ("Mass", "Nodule", "", "Edema")
    assert read_names("CheXpert") == COLLECTIONS["chexpert"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("l.json", "{", "cannot be read"),
        ("l.json", "[1, 2]", "no list of labels"),
        ("l.json", '{"1": "Mass", "2": "Nodule"}', "from 0 on"),
        ("l.txt", "\n\n", "is empty"),
    ],
)
def test_a_file_that_is_no_list_of_labels_is_refused(file: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_names(str(tmp_path / file))
    with pytest.raises(DataError, match="no such file"):
        read_names(str(tmp_path / "missing.txt"))


def test_operating_points_are_read_by_label_under_any_known_name(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"Pleural Effusion": 0.4, "Fracture": 0.2, "Mass": 1}')
    (tmp_path / "t.toml").write_text('[thresholds]\n"Pleural Effusion" = 0.4\nFracture = 0.2\nMass = 1\n')
    for name in ("t.json", "t.toml"):
        assert read_points(tmp_path / name) == {"Effusion": 0.4, "Mass": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"Mass": 0}',
        '{"Mass": 1.5}',
        '{"Mass": "x"}',
        '{"Mass": true}',
        "[]",
        "{}",
        '{"Mass": NaN}',
        '{"Effusion": 0.1, "Pleural Effusion": 0.2}',
    ],
)
def test_operating_points_that_cannot_be_meant_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json"):
        read_points(tmp_path / "t.json")
