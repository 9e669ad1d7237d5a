"""Phantoms as DICOM objects: valid, decodable, and read back as the image that was drawn."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1

from firstread.models.eligibility import judge
from firstread.models.findings import ReasonCode
from firstread.models.phantoms import Phantom, PhantomError, PhantomSpec, draw, random_spec
from firstread.models.phantoms.__main__ import COLUMNS, main
from firstread.models.phantoms.encoding import TRANSFER_SYNTAXES
from firstread.models.phantoms.film import BITS, POLARITIES, PhantomPatient, to_dicom
from firstread.models.phantoms.habits import DX, HABITS
from firstread.models.radiograph import read_header, read_radiograph
from tests.peers import require_peer

_STRETCHED = {"dogwood", "hazel", "fir"}
"""Makers that give no window: a reader stretches their greys as it sees fit."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return draw(random_spec(np.random.default_rng(4), ("Mass",), (211, 196), view="PA"))


def _saved(dataset: pydicom.Dataset, folder: Path) -> Path:
    path = folder / "film.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("transfer_syntax_uid", [uid for uid in TRANSFER_SYNTAXES if uid != JPEGBaseline8Bit])
def test_every_lossless_syntax_gives_back_every_bit(
    transfer_syntax_uid: str, bits: int, phantom: Phantom, tmp_path: Path
) -> None:
    native = to_dicom(phantom, transfer_syntax_uid=str(ExplicitVRLittleEndian), bits=bits)
    film = to_dicom(phantom, transfer_syntax_uid=transfer_syntax_uid, bits=bits)
    read = pydicom.dcmread(_saved(film, tmp_path))
    assert read.file_meta.TransferSyntaxUID == transfer_syntax_uid
    assert read.BitsStored == bits
    assert np.array_equal(read.pixel_array, native.pixel_array)
    assert read.pixel_array.max() > 2 ** (bits - 1)


def test_jpeg_baseline_loses_little_and_says_so(phantom: Phantom, tmp_path: Path) -> None:
    native = to_dicom(phantom, transfer_syntax_uid=str(ExplicitVRLittleEndian), bits=8)
    read = pydicom.dcmread(_saved(to_dicom(phantom, transfer_syntax_uid=str(JPEGBaseline8Bit)), tmp_path))
    assert read.LossyImageCompression == "01"
    assert np.abs(read.pixel_array.astype(int) - native.pixel_array).mean() < 3


@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("maker", HABITS)
def test_a_film_of_any_maker_and_polarity_is_read_back_as_it_was_drawn(
    maker: str, polarity: str, phantom: Phantom, tmp_path: Path
) -> None:
    path = _saved(to_dicom(phantom, maker=maker, polarity=polarity), tmp_path)
    seen = read_radiograph(path).pixels
    assert seen.shape == phantom.image.shape
    assert np.corrcoef(seen.ravel(), phantom.image.ravel())[0, 1] > 0.98
    if maker not in _STRETCHED:
        assert np.abs(seen - phantom.image).max() < 0.03


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL", "HAND"])
@pytest.mark.parametrize("maker", HABITS)
def test_a_phantom_is_judged_by_what_it_shows_not_by_being_a_phantom(maker: str, view: str, tmp_path: Path) -> None:
    spec = PhantomSpec(seed=2, view=view, size=(300, 280))
    reason = judge(read_header(_saved(to_dicom(spec, maker=maker), tmp_path)))
    if view in ("PA", "AP"):
        assert reason is None
    elif view == "LATERAL":
        assert reason is not None
        assert reason.code == ReasonCode.LATERAL_VIEW
    elif maker != "hazel":  # "main" is a hand in French and the most important in English: left to the model's gate
        assert reason is not None
        assert reason.code == ReasonCode.NOT_A_CHEST


@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL", "HAND"])
@pytest.mark.parametrize("maker", HABITS)
def test_every_film_is_valid(maker: str, view: str, polarity: str, tmp_path: Path) -> None:
    dciodvfy = require_peer("dciodvfy")
    syntax = HABITS[maker].transfer_syntax_uid
    if syntax == DeflatedExplicitVRLittleEndian:  # dciodvfy does not inflate
        syntax = ExplicitVRLittleEndian
    film = to_dicom(
        PhantomSpec(seed=3, view=view, size=(64, 60), collimation=(0.1, 0.1, 0.1, 0.1)),
        maker=maker,
        polarity=polarity,
        transfer_syntax_uid=str(syntax),
        bits=HABITS[maker].bits,
    )
    done = subprocess.run([dciodvfy, str(_saved(film, tmp_path))], capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode("latin-1")
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
    assert ("DXImageForPresentation" in said) == (film.SOPClassUID == DX)


@pytest.mark.parametrize(
    ("maker", "name"),
    [("dogwood", "PHANTOM^JÖRG"), ("elm", "PHANTOM^TARO=架空^太郎=かくう^たろう"), ("gorse", "PHANTOM^ŁUKASZ")],
)
def test_names_survive_in_the_makers_character_set(maker: str, name: str, tmp_path: Path) -> None:
    film = to_dicom(PhantomSpec(seed=1, size=(64, 64)), maker=maker, patient=PhantomPatient("PH0007", name))
    assert pydicom.dcmread(_saved(film, tmp_path)).PatientName == name


def test_uids_follow_from_the_spec_and_differ_between_films() -> None:
    spec = PhantomSpec(seed=1, size=(64, 64))
    first, again, other = to_dicom(spec), to_dicom(spec), to_dicom(PhantomSpec(seed=2, size=(64, 64)))
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert len({first.SOPInstanceUID, first.SeriesInstanceUID, first.StudyInstanceUID, other.SOPInstanceUID}) == 4
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in (first.SOPInstanceUID, first.StudyInstanceUID))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"maker": "acme"}, "choose among alder"),
        ({"bits": 9}, "bits one of"),
        ({"polarity": "RGB"}, "polarity is one of"),
        ({"transfer_syntax_uid": "1.2.840.10008.1.2.4.100"}, "no encoder"),
        ({"transfer_syntax_uid": str(JPEGBaseline8Bit), "bits": 12}, "set bits=8"),
        ({"transfer_syntax_uid": str(JPEGLosslessSV1), "bits": 8}, "change size or bits"),
    ],
)
def test_a_film_that_cannot_be_written_says_what_to_change(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(PhantomError, match=says):
        to_dicom(PhantomSpec(seed=1, size=(65, 63)), **wrong)  # type: ignore[arg-type]


def test_the_command_writes_films_and_a_table_like_nihs(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--count", "3", "--seed", "5", "--longest-side", "96"])
    with (tmp_path / "labels.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3
    for row in rows:
        film = pydicom.dcmread(tmp_path / row["Image Index"])
        assert film.PatientID == row["Patient ID"]
        assert film.PatientSex == row["Patient Gender"]
