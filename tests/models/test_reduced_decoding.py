"""What shrinking inside the decoder must cost: next to nothing of the model's answer, and little memory."""

from __future__ import annotations

import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from firstread.agent.film import PREVIEW_SIDE
from firstread.models import preprocess
from firstread.models.bundle import load_bundle, reference_bundle
from firstread.models.engine_onnx import OnnxEngine
from firstread.models.phantoms.cohort import demo_cohort
from firstread.models.radiograph import read_radiograph
from tests.models.dicom_files import data_set, write

MOST_LOSS = 0.005
MOST_BYTES_A_PIXEL = 7.5
"""File, values and what a codec copies; float64 alone would be 8."""
PNEUMOTHORAX = 21


def full_sized_film(bits: int) -> np.ndarray:
    drawn = demo_cohort(now=datetime(2026, 3, 1, 12, 0), longest_side=2600)[PNEUMOTHORAX].dataset()
    pixels = drawn.pixel_array.astype(np.float32)
    if drawn.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    scaled = (pixels - pixels.min()) / np.ptp(pixels) * ((1 << bits) - 1)
    return np.rint(scaled).astype(np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000])
def test_reduced_decoding_leaves_every_probability_within_five_thousandths(syntax: str, tmp_path: Path) -> None:
    bundle = load_bundle(reference_bundle())
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    path = write(tmp_path / "film.dcm", data_set(full_sized_film(bits), bits), syntax)
    reduced, full = read_radiograph(path, PREVIEW_SIDE).pixels, read_radiograph(path).pixels
    size = reduced.shape[::-1]
    plain = np.asarray(Image.fromarray(full).resize(size, Image.Resampling.BILINEAR), np.float32)
    assert not np.array_equal(reduced, plain)
    squares = [
        preprocess.prepare(one, bundle.preprocessing, preprocess.place(one, bundle.preprocessing))
        for one in (reduced, plain)
    ]
    said, expected = OnnxEngine(bundle, None, 1).run(np.stack(squares), [None, None]).probabilities
    assert expected.max() > 0.1
    assert np.abs(said - expected).max() < MOST_LOSS


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless])
def test_a_film_is_never_whole_in_memory_as_float64(syntax: str, tmp_path: Path) -> None:
    pixels = full_sized_film(12)
    path = write(tmp_path / "film.dcm", data_set(pixels, 12), syntax)
    read_radiograph(path, PREVIEW_SIDE)
    tracemalloc.start()
    try:
        read_radiograph(path, PREVIEW_SIDE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES_A_PIXEL * pixels.size
