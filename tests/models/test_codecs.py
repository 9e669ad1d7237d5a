"""Every transfer syntax for which a decoder exists gives back the values that were stored."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from firstread.models import codecs
from firstread.models.codecs import Codec, CodecError
from firstread.models.findings import ReasonCode
from firstread.models.radiograph import UnreadableRadiograph, read_radiograph
from tests.models.dicom_files import (
    data_set,
    film,
    frame_of,
    htj2k_film,
    htj2k_frame,
    write,
    write_encapsulated,
)
from tests.peers import require_peer

LOSSLESS = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
]


def stored_values(path: Path, bits: int) -> np.ndarray:
    """What was stored, from a film whose window spans exactly its bits."""
    return np.rint(read_radiograph(path).pixels.astype(np.float64) * (1 << bits)).astype(np.int64)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_a_lossless_syntax_gives_back_every_value(syntax: str, bits: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(bits), bits), syntax)
    np.testing.assert_array_equal(stored_values(path, bits), film(bits))


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda syntax: UID(syntax).keyword)
def test_high_throughput_jpeg_2000_gives_back_every_value(syntax: str, tmp_path: Path) -> None:
    path = write_encapsulated(tmp_path / "film.dcm", data_set(htj2k_film(), 12), syntax, [htj2k_frame()])
    np.testing.assert_array_equal(stored_values(path, 12), htj2k_film())


@pytest.mark.parametrize(
    ("syntax", "bits", "most"),
    [(JPEGBaseline8Bit, 8, 12), (JPEGLSNearLossless, 8, 2), (JPEGLSNearLossless, 12, 2), (JPEG2000, 12, 200)],
)
def test_a_lossy_syntax_comes_close_to_every_value(syntax: str, bits: int, most: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(bits), bits), syntax)
    assert np.abs(stored_values(path, bits) - film(bits)).max() <= most


def test_twelve_bit_jpeg_extended_is_decoded_as_dcmtk_decodes_it(tmp_path: Path) -> None:
    native = write(tmp_path / "native.dcm", data_set(film(12), 12))
    encoded, decoded = tmp_path / "extended.dcm", tmp_path / "decoded.dcm"
    subprocess.run([require_peer("dcmcjpeg"), "+ee", native, encoded], check=True)
    subprocess.run([require_peer("dcmdjpeg"), encoded, decoded], check=True)
    assert codecs.sniff(frame_of(encoded)).codec is Codec.JPEG_EXTENDED
    np.testing.assert_array_equal(stored_values(encoded, 12), stored_values(decoded, 12))
    assert np.abs(stored_values(encoded, 12) - film(12)).max() < 200
    assert JPEGExtended12Bit in encoded.read_bytes().decode("latin-1")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_signed_values_keep_their_sign(syntax: str, tmp_path: Path) -> None:
    signed = film(12).astype(np.int16) - 2048
    header = data_set(signed, 12, WindowCenter=0.0, WindowWidth=4096.0)
    path = write(tmp_path / "film.dcm", header, syntax)
    np.testing.assert_array_equal(stored_values(path, 12) - 2048, signed)


def test_a_codestream_of_many_fragments_is_put_together(tmp_path: Path) -> None:
    whole = frame_of(write(tmp_path / "one.dcm", data_set(film(12), 12), JPEG2000Lossless))
    header = data_set(film(12), 12)
    from pydicom.encaps import encapsulate

    header.PixelData = encapsulate([whole], fragments_per_frame=5)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = JPEG2000Lossless
    header.save_as(tmp_path / "five.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(stored_values(tmp_path / "five.dcm", 12), film(12))


def test_the_decoder_follows_the_bytes_where_the_transfer_syntax_lies(tmp_path: Path) -> None:
    frame = frame_of(write(tmp_path / "lossless.dcm", data_set(film(12), 12), JPEGLosslessSV1))
    path = write_encapsulated(tmp_path / "lie.dcm", data_set(film(12), 12), JPEG2000Lossless, [frame])
    np.testing.assert_array_equal(stored_values(path, 12), film(12))
    assert "JPEG Lossless" in read_radiograph(path).notes[0]


def test_a_decoder_that_can_halve_the_image_agrees_with_a_full_decode(tmp_path: Path) -> None:
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(12), 12), JPEG2000Lossless))
    stream = codecs.sniff(frame)
    assert stream is not None
    full, halved = codecs.decode(frame, stream), codecs.decode(frame, stream, 80)
    assert halved.shape == (80, 72)
    means = full.reshape(80, 2, 72, 2).mean(axis=(1, 3))
    assert np.abs(halved - means).mean() < 0.03 * 4096


@pytest.mark.parametrize("wanted", [80, 40], ids=["halved", "quartered"])
def test_a_reduced_film_lies_where_its_averages_lie(wanted: int, tmp_path: Path) -> None:
    slope = np.add.outer(np.arange(160) * 16, np.arange(144) * 8).astype(np.uint16)
    frame = frame_of(write(tmp_path / "slope.dcm", data_set(slope, 12), JPEG2000Lossless))
    stream = codecs.sniff(frame)
    assert stream is not None
    reduced = codecs.decode(frame, stream, wanted).astype(float)
    factor = 160 // wanted
    means = slope.reshape(wanted, factor, 144 // factor, factor).mean(axis=(1, 3))
    # Half a sample beside itself would be 12 to 36 grey levels.
    assert np.abs(reduced - means)[2:-2, 2:-2].max() <= 2


def test_jpeg_is_decoded_whole(tmp_path: Path) -> None:
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(8), 8), JPEGBaseline8Bit))
    stream = codecs.sniff(frame)
    assert stream is not None
    assert codecs.decode(frame, stream, 80).shape == (160, 144)


def test_halving_never_goes_below_the_wanted_side(tmp_path: Path) -> None:
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(12), 12), JPEG2000Lossless))
    stream = codecs.sniff(frame)
    assert stream is not None
    assert codecs.decode(frame, stream, 81).shape == (160, 144)


def test_signed_jpeg_2000_is_shrunk_about_zero(tmp_path: Path) -> None:
    signed = film(12).astype(np.int16) - 2048
    frame = frame_of(write(tmp_path / "film.dcm", data_set(signed, 12), JPEG2000Lossless))
    stream = codecs.sniff(frame)
    assert stream is not None
    assert stream.signed
    assert abs(float(codecs.decode(frame, stream, 80).mean()) - float(signed.mean())) < 20


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_a_codestream_that_is_cut_short_is_refused_and_not_filled_with_grey(syntax: str, tmp_path: Path) -> None:
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(12), 12), syntax))
    half = frame[: len(frame) // 2 // 2 * 2]
    path = write_encapsulated(tmp_path / "half.dcm", data_set(film(12), 12), syntax, [half])
    with pytest.raises(UnreadableRadiograph) as refused:
        read_radiograph(path)
    assert refused.value.reason.code is ReasonCode.CANNOT_DECODE
    assert any(name in refused.value.reason.detail for name in ("JPEG", "RLE"))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(("rows", "columns"), [(320, 144), (160, 4000), (128, 128)])
def test_a_codestream_of_another_size_than_the_header_says_is_refused_with_both(
    syntax: str, rows: int, columns: int, tmp_path: Path
) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(bits), bits), syntax))
    header = data_set(film(bits), bits, Rows=rows, Columns=columns)
    with pytest.raises(UnreadableRadiograph, match=f"{columns} x {rows} pixels, the compressed image 144 x 160"):
        read_radiograph(write_encapsulated(tmp_path / "lie.dcm", header, syntax, [frame]))


@pytest.mark.parametrize("length", [4, 9, 14])
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_that_ends_within_its_header_is_refused(syntax: str, length: int, tmp_path: Path) -> None:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    frame = frame_of(write(tmp_path / "film.dcm", data_set(film(bits), bits), syntax))[:length]
    with pytest.raises(CodecError, match="ends within its header"):
        codecs.sniff(frame)


@pytest.mark.parametrize("frame", [b"", b"\xff", b"\0" * 80, b"GIF89a" + b"\0" * 80])
def test_bytes_that_are_no_codestream_are_not_taken_for_one(frame: bytes) -> None:
    assert codecs.sniff(frame) is None


def test_rle_segments_that_do_not_fill_the_image_are_refused() -> None:
    frame = np.array([2, 64, 66] + [0] * 13, "<u4").tobytes() + b"\x00\x05\x00\x05"
    with pytest.raises(CodecError, match="holds 1 bytes instead of 20736"):
        codecs.decode_rle(frame, 144, 144, 1, 2)


def test_rle_with_offsets_out_of_order_is_refused() -> None:
    frame = np.array([2, 900, 66] + [0] * 13, "<u4").tobytes() + b"\x00\x05\x00\x05"
    with pytest.raises(CodecError, match="out of order"):
        codecs.decode_rle(frame, 144, 144, 1, 2)


def test_lossy_jpeg_of_sixteen_bits_is_refused_because_its_decoder_makes_nonsense_of_it(tmp_path: Path) -> None:
    frame = bytearray(frame_of(write(tmp_path / "film.dcm", data_set(film(8), 8), JPEGBaseline8Bit)))
    frame[frame.index(b"\xff\xc0") + 4] = 16
    with pytest.raises(CodecError, match="16 bits"):
        codecs.sniff(bytes(frame))
