"""From a stored film to the model's input, by transfer syntax: ours, pydicom's defaults, and full size first.

    python -m benchmarks.decode [--short] [--json FILE]

A phantom film of 3000 x 2460 pixels, 12 bits (8 in JPEG baseline, 16 in one native case), on one core:

- firstread: the agent's own way: header, pixels shrunk to 1024 before they are float, greys, the square.
- pydicom: ``dcmread``, ``pixel_array``, ``apply_windowing``, one plain resize to 1024 by Pillow, the same square.
- full size first: our reader at full size, then the same plain resize: what reduced decoding saves.

The squares are compared before a figure is printed (mean difference at most 0.02 of the grey scale), and so is what the
reference model says of them: ``loss`` is the largest change of a probability by reduced decoding over several phantoms,
and must stay under 0.005. ``ratio``: pydicom's CPU milliseconds to ours, the worst syntax. JPEG extended needs dcmcjpeg
(package dcmtk).
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.harness import Measured, PeerMissing, arguments, program, report, require, rounds
from firstread.agent.film import PREVIEW_SIDE
from firstread.models import preprocess
from firstread.models.bundle import Bundle, load_bundle, reference_bundle
from firstread.models.engine import Engine
from firstread.models.phantoms.cohort import demo_cohort
from firstread.models.preprocess import Preprocessing
from firstread.models.radiograph import read_radiograph
from tests.models.dicom_files import data_set, write

LONGEST_SIDE = 3000
MOST_APART = 0.02
MOST_LOSS = 0.005
GOAL_NATIVE_MS = 40.0
GOAL_JPEG_2000 = 2.0
PHANTOMS = (0, 3, 9, 21, 22, 23)
"""Places in the demo's morning: chest films, normal and not."""

UNABLE = {
    (
        "JPEG extended",
        "pydicom",
    ): "12 bits: only by pylibjpeg-libjpeg, whose licence (GPL) keeps it out of most products"
}
"""What a peer cannot read with what stands beside it here; left out of the ratio, and the table says so."""

Square = npt.NDArray[np.float32]
SYNTAXES = {
    "native, 12 bits": (ExplicitVRLittleEndian, 12),
    "native, 16 bits": (ExplicitVRLittleEndian, 16),
    "RLE": (RLELossless, 12),
    "JPEG baseline": (JPEGBaseline8Bit, 8),
    "JPEG extended": ("extended", 12),
    "JPEG lossless": (JPEGLosslessSV1, 12),
    "JPEG-LS": (JPEGLSLossless, 12),
    "JPEG 2000 lossless": (JPEG2000Lossless, 12),
    "JPEG 2000 lossy": (JPEG2000, 12),
}


def phantom(number: int, bits: int) -> Dataset:
    """A phantom chest film at full size with that many bits, native."""
    drawn = demo_cohort(now=datetime(2026, 3, 1, 12, 0), longest_side=LONGEST_SIDE)[number].dataset()
    pixels = drawn.pixel_array.astype(np.float64)
    if drawn.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    scaled = np.rint((pixels - pixels.min()) / np.ptp(pixels) * ((1 << bits) - 1))
    return data_set(scaled.astype(np.uint8 if bits <= 8 else np.uint16), bits)


def written(path: Path, film: Dataset, syntax: str) -> Path:
    """The film as a file in a transfer syntax. Raises PeerMissing."""
    if syntax != "extended":
        return write(path, film, syntax)
    encoder = program("dcmcjpeg", "dcmtk")
    native = write(path.with_suffix(".native"), film)
    subprocess.run([encoder, "+ee", str(native), str(path)], check=True)
    native.unlink()
    return path


def square_of(pixels: Square, wanted: Preprocessing) -> Square:
    """The model's input from an upright film in [0, 1]."""
    return preprocess.prepare(pixels, wanted, preprocess.place(pixels, wanted))


def ours(path: Path, wanted: Preprocessing) -> Square:
    """The agent's way."""
    return square_of(read_radiograph(path, PREVIEW_SIDE).pixels, wanted)


def full_size(path: Path, wanted: Preprocessing) -> Square:
    """Our reader without reduced decoding and early shrinking."""
    return square_of(plainly_resized(read_radiograph(path).pixels), wanted)


def by_pydicom(path: Path, wanted: Preprocessing) -> Square:
    """What pydicom's documentation shows."""
    film = pydicom.dcmread(path)
    shown = apply_windowing(film.pixel_array, film)
    return square_of(plainly_resized(np.clip(shown / ((1 << film.BitsStored) - 1), 0, 1)), wanted)


def plainly_resized(pixels: npt.NDArray[np.floating]) -> Square:
    """Pillow's antialiased resize to the preview's side."""
    scale = PREVIEW_SIDE / max(pixels.shape)
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(Image.fromarray(pixels.astype(np.float32)).resize(size, Image.Resampling.BILINEAR), np.float32)


WAYS: dict[str, Callable[[Path, Preprocessing], Square]] = {
    "firstread": ours,
    "pydicom": by_pydicom,
    "full size first": full_size,
}


def timed(way: Callable[[Path, Preprocessing], Square], path: Path, wanted: Preprocessing) -> Mapping[str, float]:
    """One film, read from the page cache."""
    wall, cpu = time.perf_counter(), time.process_time()
    way(path, wanted)
    return {"CPU ms": (time.process_time() - cpu) * 1000, "ms": (time.perf_counter() - wall) * 1000}


def refuse(message: str) -> Mapping[str, float]:
    """A case that cannot be played."""
    raise PeerMissing(message)


def compared(case: str, path: Path, wanted: Preprocessing) -> None:
    """Raises WrongResult unless all ways give the same square, but for rounding and filters."""
    expected = ours(path, wanted)
    for who, way in WAYS.items():
        if (case, who) in UNABLE:
            continue
        apart = float(np.abs(way(path, wanted) - expected).mean())
        require(apart <= MOST_APART, f"{case}: {who} is {apart:.3f} from ours")
    require(float(expected.std()) > 0.1, f"{case}: the square is all but empty")


def largest_loss(bundle: Bundle, folder: Path, count: int) -> float:
    """The largest change of a probability because a film was decoded at reduced resolution. Raises WrongResult."""
    from firstread.models.engine_onnx import OnnxEngine

    engine: Engine = OnnxEngine(bundle, None, 1)
    worst = 0.0
    for number in PHANTOMS[:count]:
        for case in ("JPEG baseline", "JPEG 2000 lossless", "JPEG 2000 lossy"):
            syntax, bits = SYNTAXES[case]
            path = written(folder / f"{number}.dcm", phantom(number, bits), syntax)
            squares = np.stack([ours(path, bundle.preprocessing), full_size(path, bundle.preprocessing)])
            reduced, whole = engine.run(squares, [None, None]).probabilities
            require(float(whole.max()) > 0.01, "the model says nothing of the phantom")
            worst = max(worst, float(np.abs(reduced - whole).max()))
    require(worst < MOST_LOSS, f"reduced decoding changes a probability by {worst:.4f}")
    return worst


def main() -> None:
    """Runs it."""
    asked = arguments(__doc__).parse_args()
    bundle = load_bundle(reference_bundle())
    wanted = bundle.preprocessing
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, (syntax, bits) in SYNTAXES.items():
            try:
                path = written(folder / f"{case}.dcm", phantom(21, bits), syntax)
            except PeerMissing as error:
                rows += [Measured(case, who, partial(refuse, str(error))) for who in WAYS]
                continue
            compared(case, path, wanted)
            for who, way in WAYS.items():
                unable = UNABLE.get((case, who))
                rows.append(
                    Measured(case, who, partial(refuse, unable) if unable else partial(timed, way, path, wanted))
                )
        loss = largest_loss(bundle, folder, 2 if asked.short else len(PHANTOMS))
        rounds(rows, asked.rounds or (5 if asked.short else 15))
    cpu = {(row.case, row.contender): row for row in rows}

    def ratio() -> float:
        found = {
            case: cpu[case, "pydicom"].median("CPU ms") / cpu[case, "firstread"].median("CPU ms")
            for case in SYNTAXES
            if (case, "pydicom") not in UNABLE
        }
        native = cpu["native, 12 bits", "firstread"].median("CPU ms")
        jpeg_2000 = min(found["JPEG 2000 lossless"], found["JPEG 2000 lossy"])
        print(f"loss by reduced decoding: {loss:.4f} of a probability at most, limit {MOST_LOSS}")
        print(f"native, 12 bits: {native:.1f} ms of CPU, goal {GOAL_NATIVE_MS:.0f} ms")
        print(f"JPEG 2000: {jpeg_2000:.1f} x pydicom's default, goal {GOAL_JPEG_2000:.0f} x")
        return min(found.values())

    report(rows, ratio, packages=("pydicom", "pillow", "python-gdcm", "pylibjpeg-openjpeg", "numpy"), file=asked.json)


if __name__ == "__main__":
    main()
