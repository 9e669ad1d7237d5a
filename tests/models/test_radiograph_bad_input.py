"""Whatever is wrong with a file: one UnreadableRadiograph with its reason, nothing else, and no memory taken first."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from firstread.models import codecs, header, radiograph
from firstread.models.findings import ReasonCode
from firstread.models.radiograph import UnreadableRadiograph, read_header, read_radiograph
from tests.models.dicom_files import data_set, film, write, write_encapsulated


def refusal(path: Path) -> tuple[ReasonCode, str]:
    with pytest.raises(UnreadableRadiograph) as refused:
        read_radiograph(path)
    return refused.value.reason.code, refused.value.reason.detail


def bad(tmp_path: Path, **tags: Any) -> tuple[ReasonCode, str]:
    return refusal(write(tmp_path / "bad.dcm", data_set(film(), 12, **tags)))


@pytest.mark.parametrize(
    "content", [b"", b"x", b"%PDF-1.4 " * 100, b"\0" * 4000, b"\0" * 128 + b"DICM", bytes(range(256)) * 9]
)
def test_a_file_that_is_not_dicom_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.dcm"
    path.write_bytes(content)
    code, _ = refusal(path)
    assert code in (ReasonCode.CANNOT_DECODE, ReasonCode.NO_PIXEL_DATA)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.dcm") == (
        ReasonCode.CANNOT_DECODE,
        "the file cannot be read: No such file or directory",
    )


def test_a_file_without_preamble_and_meta_header_is_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "film.dcm", data_set(film(), 12)).read_bytes()
    start = whole.index(b"\x08\x00\x16\x00UI")
    (tmp_path / "bare.dcm").write_bytes(whole[start:])
    np.testing.assert_array_equal(read_radiograph(tmp_path / "bare.dcm").pixels, film() / np.float32(4096))


def test_pixels_that_are_too_short_are_refused_with_both_lengths(tmp_path: Path) -> None:
    assert bad(tmp_path, PixelData=film().tobytes()[:-1000]) == (
        ReasonCode.CANNOT_DECODE,
        "45080 bytes of pixel data instead of 46080",
    )


def test_filling_behind_the_pixels_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12, PixelData=film().tobytes() + b"\0" * 500))
    assert read_radiograph(path).notes == ("500 bytes behind the pixels left out",)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, RLELossless]
)
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused_wherever_it_ends(kept: float, syntax: str, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12), syntax)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    code, detail = refusal(path)
    assert code in (ReasonCode.CANNOT_DECODE, ReasonCode.NO_PIXEL_DATA)
    assert detail


def test_a_file_that_ends_within_its_pixels_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12), JPEG2000Lossless)
    path.write_bytes(path.read_bytes()[:-4000])
    assert refusal(path) == (ReasonCode.CANNOT_DECODE, "the file is cut short within its Pixel Data")


@pytest.mark.parametrize("keyword", ["PixelData", "Rows", "Columns"])
def test_missing_pixels_or_sizes_are_no_pixel_data(keyword: str, tmp_path: Path) -> None:
    assert bad(tmp_path, **{keyword: None})[0] is ReasonCode.NO_PIXEL_DATA


def test_empty_pixel_data_is_no_pixel_data(tmp_path: Path) -> None:
    assert bad(tmp_path, PixelData=b"") == (ReasonCode.NO_PIXEL_DATA, "the Pixel Data is empty")


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (0, 144), (160, 0), (1, 60000), (127, 2000), (32, 32)])
def test_an_image_without_size_is_too_small(rows: int, columns: int, tmp_path: Path) -> None:
    code, detail = bad(tmp_path, Rows=rows, Columns=columns)
    assert code in (ReasonCode.TOO_SMALL, ReasonCode.CANNOT_DECODE)
    assert f"{columns} x {rows}" in detail


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless])
def test_an_absurd_size_is_refused_before_anything_is_allocated(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12), syntax)
    lie = pydicom.dcmread(path)
    lie.Rows = lie.Columns = 65535
    lie.save_as(path)
    monkeypatch.setattr(radiograph, "read_data_set", lambda *_, **__: pytest.fail("the pixels were read"))
    assert refusal(path) == (ReasonCode.CANNOT_DECODE, "65535 x 65535 pixels: no film is that large")


@pytest.mark.parametrize("allocated", [0, 1, 12, 32, 64, 65535])
def test_bits_allocated_that_no_film_has_are_refused(allocated: int, tmp_path: Path) -> None:
    code, detail = bad(tmp_path, BitsAllocated=allocated)
    assert code is ReasonCode.CANNOT_DECODE
    assert "bits allocated" in detail


@pytest.mark.parametrize(("stored", "high"), [(0, 0), (17, 16), (12, 3), (12, 40), (65535, 65535)])
def test_nonsense_in_bits_stored_and_high_bit_is_stepped_over(stored: int, high: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12, BitsStored=stored, HighBit=high))
    assert read_radiograph(path).pixels.shape == (160, 144)


def test_bits_stored_of_a_missing_header_are_those_allocated(tmp_path: Path) -> None:
    header_without = data_set(film(16), 16, BitsStored=None, HighBit=None, PixelRepresentation=None)
    path = write(tmp_path / "film.dcm", header_without)
    np.testing.assert_allclose(read_radiograph(path).pixels, film(16) / 65536, atol=1e-6)


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", "RGB", "YBR_ICT", "nonsense"])
def test_a_photometric_interpretation_that_does_not_fit_is_refused_by_name(photometric: str, tmp_path: Path) -> None:
    code, detail = bad(tmp_path, PhotometricInterpretation=photometric)
    assert code is ReasonCode.CANNOT_DECODE
    assert photometric.upper() in detail


def test_a_missing_photometric_interpretation_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12, PhotometricInterpretation=None))
    assert "Photometric Interpretation is missing" in read_radiograph(path).notes[0]


def test_several_frames_are_refused(tmp_path: Path) -> None:
    assert bad(tmp_path, NumberOfFrames=3) == (ReasonCode.SEVERAL_FRAMES, "3 frames in one object")


@pytest.mark.parametrize(
    "tags", [{"PresentationIntentType": "FOR PROCESSING"}, {"SOPClassUID": DigitalXRayImageStorageForProcessing}]
)
def test_for_processing_images_are_refused(tags: dict[str, str], tmp_path: Path) -> None:
    assert bad(tmp_path, **tags)[0] is ReasonCode.FOR_PROCESSING


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    code, detail = bad(tmp_path, PixelData=None, FloatPixelData=b"\0" * 64)
    assert (code, detail) == (ReasonCode.CANNOT_DECODE, "floating point pixels are not read")


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("frame", [b"\0" * 64, b"not an image at all " * 20, b"\xff\xd8\xff\xd9" * 40])
def test_a_frame_that_is_no_image_is_refused(syntax: str, frame: bytes, tmp_path: Path) -> None:
    path = write_encapsulated(tmp_path / "bad.dcm", data_set(film(8), 8), syntax, [frame])
    code, detail = refusal(path)
    assert code is ReasonCode.CANNOT_DECODE
    assert detail


def test_the_reason_names_the_codec_and_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("marker\nout of place")

    monkeypatch.setitem(codecs._DECODERS, codecs.Codec.JPEG_2000, (fails,))
    path = write(tmp_path / "film.dcm", data_set(film(), 12), JPEG2000Lossless)
    assert refusal(path) == (ReasonCode.CANNOT_DECODE, "JPEG 2000: marker out of place")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), AttributeError("encode"), KeyError(7)])
def test_no_other_exception_leaves(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(radiograph, "shrink", fails)
    assert bad(tmp_path)[0] is ReasonCode.CANNOT_DECODE


def test_a_deflated_bomb_is_stopped_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12), DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    meta = content[: 132 + 12 + int.from_bytes(content[140:144], "little")]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(meta + engine.compress(b"\0" * 50_000_000) + engine.flush())
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(header, "LARGEST_DATA_SET", 1 << 20)
    assert refusal(path) == (ReasonCode.CANNOT_DECODE, "deflated data set larger than 1 MiB")


def test_a_private_tag_of_100_mb_stays_in_the_file(tmp_path: Path) -> None:
    film_with_ballast = data_set(film(), 12)
    film_with_ballast.add_new(0x00090010, "LO", "BALLAST")
    film_with_ballast.add_new(0x00091001, "OB", b"\0" * 100_000_000)
    path = write(tmp_path / "film.dcm", film_with_ballast)
    del film_with_ballast
    code = (
        "import resource, sys; from firstread.models.radiograph import read_header, read_radiograph\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_header(sys.argv[1]).Rows == 160; assert read_radiograph(sys.argv[1]).pixels.shape == (160, 144)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 30_000


def test_values_that_break_their_vr_do_not_hinder_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12, StudyDate="19990101", PatientAge="045Y", KVP="125"))
    content = path.read_bytes().replace(b"19990101", b"yesterd!").replace(b"045Y", b"\xff\xfe\xfd!")
    path.write_bytes(content)
    assert read_header(path).Rows == 160
    assert read_radiograph(path).pixels.shape == (160, 144)


def test_every_test_file_of_pydicom_is_read_or_refused_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radiograph, "SMALLEST_SIDE", 1)
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    outcomes = []
    for path in sorted(folder.glob("*.dcm")):
        try:
            pixels = read_radiograph(path, 64).pixels
        except UnreadableRadiograph as refused:
            outcomes.append(refused.reason.code)
            continue
        assert 0 <= pixels.min() <= pixels.max() <= 1, path.name
        outcomes.append(None)
    assert len(outcomes) > 60
    assert outcomes.count(None) > 20
