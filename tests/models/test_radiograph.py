"""A film is shown as its header says: LUTs, windows, polarity, padding, bits, colours, shrinking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from firstread.models.findings import ReasonCode
from firstread.models.radiograph import Radiograph, UnreadableRadiograph, read_radiograph
from tests.models.dicom_files import COLUMNS, ROWS, Pixels, data_set, film, write

NATIVE = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def ramp() -> Pixels:
    """Every value from 0 to 4095, several times over, in a film of 256 x 160."""
    return np.resize(np.arange(4096, dtype=np.uint16), (256, 160))


def shown(
    tmp_path: Path, pixels: Pixels, bits: int = 12, syntax: str = ExplicitVRLittleEndian, **tags: Any
) -> Radiograph:
    return read_radiograph(write(tmp_path / "film.dcm", data_set(pixels, bits, **tags), syntax))


def lut(first: int, outputs: np.ndarray, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(outputs) % 65536, first, bits])
    item.add_new(0x00283006, "OW", outputs.astype("<u2").tobytes())
    return item


def test_pixels_are_float32_between_zero_and_one_and_the_stored_size_is_told(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, film())
    assert radiograph.pixels.dtype == np.float32
    assert radiograph.pixels.flags.c_contiguous
    assert (radiograph.pixels.min(), radiograph.pixels.max()) == (0.0, pytest.approx(4095 / 4096))
    assert (radiograph.stored_rows, radiograph.stored_columns) == (ROWS, COLUMNS)
    assert radiograph.notes == ()


def test_a_linear_window_follows_the_standards_own_formula(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, ramp(), WindowCenter=2048.0, WindowWidth=2000.0, VOILUTFunction=None)
    expected = np.clip((ramp() - (2048 - 0.5)) / (2000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(radiograph.pixels, expected, atol=1e-5)


def test_a_linear_exact_window_follows_the_standards_own_formula(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, ramp(), WindowCenter=2048.0, WindowWidth=2000.0)
    np.testing.assert_allclose(radiograph.pixels, np.clip((ramp() - 2048.0) / 2000 + 0.5, 0, 1), atol=1e-5)


def test_a_sigmoid_window_follows_the_standards_own_formula(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, ramp(), WindowCenter=2048.0, WindowWidth=1000.0, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(radiograph.pixels, 1 / (1 + np.exp(-4 * (ramp() - 2048.0) / 1000)), atol=1e-5)


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    several = shown(tmp_path, ramp(), WindowCenter=[2048.0, 500.0], WindowWidth=[4096.0, 100.0])
    np.testing.assert_array_equal(several.pixels, shown(tmp_path, ramp()).pixels)


def test_without_a_window_percentiles_are_stretched_and_outliers_do_not_count(tmp_path: Path) -> None:
    dull = (ramp() // 8 + 1000).astype(np.uint16)
    dull[0, 0], dull[0, 1] = 0, 4095
    radiograph = shown(tmp_path, dull, WindowCenter=None, WindowWidth=None, VOILUTFunction=None)
    np.testing.assert_allclose(np.percentile(radiograph.pixels, [1, 50, 99]), [0.005, 0.5, 0.995], atol=0.01)


@pytest.mark.parametrize(
    ("centre", "width"), [(2048.0, 0.0), (2048.0, -5.0), (2048.0, 1.0), (60000.0, 200.0), (-900.0, 90.0), (2e6, 4e6)]
)
def test_a_window_that_makes_no_sense_gives_way_to_percentiles_with_a_note(
    centre: float, width: float, tmp_path: Path
) -> None:
    radiograph = shown(tmp_path, film(), WindowCenter=centre, WindowWidth=width, VOILUTFunction=None)
    assert radiograph.pixels.std() > 0.15
    assert "percentiles" in radiograph.notes[0]


@pytest.mark.parametrize("window", [2048.0, None])
def test_a_blank_film_is_not_stretched_until_its_noise_looks_like_something(
    window: float | None, tmp_path: Path
) -> None:
    blank = (1000 + np.random.default_rng(1).integers(0, 3, (256, 160))).astype(np.uint16)
    assert np.ptp(shown(tmp_path, blank, WindowCenter=window).pixels) < 0.01


@pytest.mark.parametrize("syntax", NATIVE)
def test_rescale_comes_before_the_window(syntax: str, tmp_path: Path) -> None:
    tags = {"RescaleSlope": 2.0, "RescaleIntercept": -1000.0, "WindowCenter": 3096.0, "WindowWidth": 8192.0}
    radiograph = shown(tmp_path, film(), syntax=syntax, **tags)
    np.testing.assert_allclose(radiograph.pixels, film() / 4096.0, atol=1e-6)


def test_a_rescale_slope_of_zero_is_left_out_with_a_note(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, film(), RescaleSlope=0.0, RescaleIntercept=0.0)
    np.testing.assert_array_equal(radiograph.pixels, film() / np.float32(4096))
    assert "rescale slope" in radiograph.notes[0]


@pytest.mark.parametrize("syntax", NATIVE)
def test_a_modality_lut_comes_before_the_voi_lut(syntax: str, tmp_path: Path) -> None:
    halved = lut(0, np.arange(4096) // 2, 16)
    squared = lut(0, np.arange(2048) ** 2 // 1024, 12)
    radiograph = shown(tmp_path, film(), syntax=syntax, ModalityLUTSequence=[halved], VOILUTSequence=[squared])
    np.testing.assert_allclose(radiograph.pixels, ((film() // 2).astype(int) ** 2 // 1024) / 4095, atol=1e-5)


def test_a_voi_lut_for_signed_values_begins_below_zero(tmp_path: Path) -> None:
    signed = film().astype(np.int16) - 2048
    radiograph = shown(tmp_path, signed, VOILUTSequence=[lut(-2048, np.arange(4096), 12)])
    np.testing.assert_allclose(radiograph.pixels, film() / 4095, atol=1e-5)


def test_a_voi_lut_that_uses_far_fewer_bits_than_it_says_is_not_shown_in_the_dark(tmp_path: Path) -> None:
    radiograph = shown(tmp_path, film(), VOILUTSequence=[lut(0, np.arange(4096), 16)])
    np.testing.assert_allclose(radiograph.pixels, film() / 4095, atol=1e-5)


def test_a_broken_voi_lut_gives_way_to_the_window_with_a_note(tmp_path: Path) -> None:
    broken = lut(0, np.arange(4096), 12)
    broken.LUTData = b"\0\1"
    radiograph = shown(tmp_path, film(), VOILUTSequence=[broken])
    np.testing.assert_array_equal(radiograph.pixels, film() / np.float32(4096))
    assert "VOI LUT" in radiograph.notes[0]


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_monochrome1_and_inverse_invert_once_together_or_alone(
    photometric: str, shape: str | None, inverted: bool, tmp_path: Path
) -> None:
    radiograph = shown(tmp_path, film(), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    upright = film() / np.float32(4096)
    np.testing.assert_allclose(radiograph.pixels, 1 - upright if inverted else upright, atol=1e-6)
    contradiction = (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))
    assert bool(radiograph.notes) == contradiction


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_move_the_percentiles(photometric: str, syntax: str, tmp_path: Path) -> None:
    padded = np.clip(film(), 1000, 3000)
    padded[:40] = 4000
    tags = {"PixelPaddingValue": 4000, "PhotometricInterpretation": photometric, "WindowCenter": None}
    radiograph = shown(tmp_path, padded, syntax=syntax, **tags)
    assert (radiograph.pixels[:40] == 0).all()
    assert np.ptp(radiograph.pixels[40:]) > 0.99


def test_a_range_of_padding_values_is_masked_whichever_end_comes_first(tmp_path: Path) -> None:
    padded = np.clip(film(), 1000, 3000)
    padded[:40] = 3900 + np.arange(40)[:, None]
    radiograph = shown(tmp_path, padded, PixelPaddingValue=4000, PixelPaddingRangeLimit=3900)
    assert (radiograph.pixels[:40] == 0).all()
    assert (radiograph.pixels[41:] > 0.2).all()


def test_padding_does_not_bleed_into_the_film_when_it_is_shrunk(tmp_path: Path) -> None:
    padded = np.full((256, 256), 1000, np.uint16)
    padded[:, :101] = 4095
    path = write(tmp_path / "film.dcm", data_set(padded, 12, PixelPaddingValue=4095))
    pixels = read_radiograph(path, 60).pixels
    np.testing.assert_allclose(np.unique(pixels.round(4)), [0, 1000 / 4096], atol=1e-3)


def test_bits_above_the_stored_ones_are_not_the_film(tmp_path: Path) -> None:
    overlaid = film(10).astype(np.uint16) << 2
    overlaid |= np.uint16(0xF003)
    header = data_set(overlaid, 12, BitsStored=10, HighBit=11, WindowCenter=512.0, WindowWidth=1024.0)
    radiograph = read_radiograph(write(tmp_path / "film.dcm", header))
    np.testing.assert_array_equal(radiograph.pixels * 1024, film(10))


def test_signed_values_of_fewer_bits_are_extended_from_their_own_sign_bit(tmp_path: Path) -> None:
    signed = film(12).astype(np.int16) - 2048
    unextended = (signed & 0x0FFF).astype(np.int16)
    radiograph = shown(tmp_path, unextended, WindowCenter=0.0, WindowWidth=4096.0)
    np.testing.assert_array_equal(radiograph.pixels * 4096 - 2048, signed)


def test_an_overlay_plane_is_not_burnt_in(tmp_path: Path) -> None:
    header = data_set(film(), 12)
    header.add_new(0x60000010, "US", ROWS)
    header.add_new(0x60000011, "US", COLUMNS)
    header.add_new(0x60000040, "CS", "G")
    header.add_new(0x60003000, "OW", b"\xff" * (ROWS * COLUMNS // 8))
    radiograph = read_radiograph(write(tmp_path / "film.dcm", header))
    np.testing.assert_array_equal(radiograph.pixels, film() / np.float32(4096))


@pytest.mark.parametrize("planar", [0, 1])
def test_a_grey_picture_in_three_colours_is_read_as_its_luminance(planar: int, tmp_path: Path) -> None:
    grey = np.repeat(film(8)[:, :, None], 3, axis=2)
    header = data_set(grey, 8, PlanarConfiguration=planar)
    if planar:
        header.PixelData = np.moveaxis(grey, 2, 0).tobytes()
    radiograph = read_radiograph(write(tmp_path / "film.dcm", header))
    np.testing.assert_allclose(radiograph.pixels * 256, film(8), atol=1)


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_luminance_and_chroma_are_told_from_red_green_blue_whatever_the_label_says(label: str, tmp_path: Path) -> None:
    picture = np.stack([film(8), np.full_like(film(8), 128), np.full_like(film(8), 128)], axis=2)
    radiograph = shown(tmp_path, picture, 8, PhotometricInterpretation=label)
    np.testing.assert_array_equal(radiograph.pixels * 256, film(8))


def test_subsampled_chroma_is_left_out(tmp_path: Path) -> None:
    pairs = film(8).reshape(-1, 2)
    packed = np.concatenate([pairs, np.full_like(pairs, 128)], axis=1)
    header = data_set(np.repeat(film(8)[:, :, None], 3, axis=2), 8, PhotometricInterpretation="YBR_FULL_422")
    header.PixelData = packed.tobytes()
    radiograph = read_radiograph(write(tmp_path / "film.dcm", header))
    np.testing.assert_array_equal(radiograph.pixels * 256, film(8))


def test_a_palette_of_greys_is_looked_up(tmp_path: Path) -> None:
    greys = (np.arange(256) * 257).astype("<u2")
    tags: dict[str, Any] = {
        "PhotometricInterpretation": "PALETTE COLOR",
        "WindowCenter": 32768.0,
        "WindowWidth": 65536.0,
    }
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = greys[::-1].tobytes()
    radiograph = shown(tmp_path, film(8), 8, **tags)
    np.testing.assert_allclose(radiograph.pixels, (255 - film(8)) / 255, atol=0.01)


def test_a_heat_map_in_colour_is_no_radiograph(tmp_path: Path) -> None:
    picture = np.repeat(film(8)[:, :, None], 3, axis=2)
    picture[60:100, 30:80] = (250, 40, 20)
    with pytest.raises(UnreadableRadiograph) as refused:
        shown(tmp_path, picture, 8)
    assert refused.value.reason.code is ReasonCode.NOT_A_RADIOGRAPH
    assert "colour" in refused.value.reason.detail


def test_a_small_coloured_mark_does_not_make_a_film_a_picture(tmp_path: Path) -> None:
    picture = np.repeat(film(8)[:, :, None], 3, axis=2)
    picture[4:12, 4:12] = (250, 40, 20)
    assert shown(tmp_path, picture, 8).pixels.shape == (ROWS, COLUMNS)


@pytest.mark.parametrize("longest_side", [159, 100, 80, 64, 33])
def test_a_shrunk_film_keeps_its_proportions_and_its_mean(longest_side: int, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12))
    small, full = read_radiograph(path, longest_side), read_radiograph(path)
    assert small.pixels.shape == (longest_side, round(longest_side * COLUMNS / ROWS))
    assert small.pixels.mean() == pytest.approx(full.pixels.mean(), abs=0.01)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_a_film_is_never_made_larger(syntax: str, tmp_path: Path) -> None:
    path = write(tmp_path / "film.dcm", data_set(film(), 12), syntax)
    assert read_radiograph(path, 1024).pixels.shape == (ROWS, COLUMNS)


def test_shrinking_looks_the_same_whatever_decoder_did_it(tmp_path: Path) -> None:
    native = read_radiograph(write(tmp_path / "native.dcm", data_set(film(), 12)), 40)
    halved = read_radiograph(write(tmp_path / "jpeg.dcm", data_set(film(), 12), JPEG2000Lossless), 40)
    assert native.pixels.shape == halved.pixels.shape
    assert (
        np.corrcoef(native.pixels.ravel(), halved.pixels.ravel())[0, 1] > 0.95
    )  # wavelets sample at the corner of a block, not at its middle
    assert native.pixels.mean() == pytest.approx(halved.pixels.mean(), abs=0.01)
