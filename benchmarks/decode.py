"""From the file to the model's input, by transfer syntax: a chest film of 3000 x 2500 pixels, 12 bits.

    python -m benchmarks.decode [--short] [--rounds N] [--json FILE]

- ours: header, decoding at the resolution that is needed, grey scale, orientation, the square for the model;
- ours at full size: the same, but decoded whole and shrunk afterwards;
- ours, all of it: what the analyser's worker does for a film, so also eligibility, the gate and the preview on disk;
- pydicom: ``dcmread``, ``pixel_array``, its modality and VOI transforms, Pillow's resize of the float picture.

CPU milliseconds in one process; least / median / most. JPEG 2000 is written lossless, and lossy at 12:1.

Checked first: on phantoms in JPEG 2000, lossless and lossy, the reference model's probabilities after decoding at
reduced resolution differ by less than 0.005 from those after decoding whole, and pydicom's square shows the same film
(correlation above 0.9: its square is stretched, ours is not).

Last line, ``ratio``: pydicom's time divided by ours, of the transfer syntax for which that is worst.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.harness import Measured, arguments, program, report, require, rounds
from firstread.agent.film import PREVIEW_SIDE, FilmOrder, read_film
from firstread.models import preprocess
from firstread.models.bundle import Bundle, load_bundle, reference_bundle
from firstread.models.engine import open_engine
from firstread.models.phantoms.film import PhantomPatient, to_dicom
from firstread.models.phantoms.habits import HABITS
from firstread.models.phantoms.training_set import training_spec
from firstread.models.radiograph import read_radiograph

SIZE = (3000, 2500)
FILMS = 4
LARGEST_LOSS = 0.005
LEAST_LIKENESS = 0.9
NOT_BY_PYDICOM = ("JPEG extended",)
"""None of pydicom's decoders takes 12 bits there."""
SYNTAXES = ("native", "RLE", "JPEG lossless", "JPEG extended", "JPEG-LS", "JPEG 2000 lossless", "JPEG 2000 lossy")

Square = npt.NDArray[np.float32]


def drawn(index: int) -> Dataset:
    """A phantom of full size; every maker's habits in turn."""
    spec = training_spec(index, 5, SIZE)
    makers = list(HABITS)
    return to_dicom(
        spec,
        maker=makers[index % len(makers)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        bits=12,
        patient=PhantomPatient(f"PH{index}", f"PHANTOM^{index}"),
    )


def write(folder: Path, film: Dataset, syntax: str) -> Path:
    """The film in a transfer syntax. Raises PeerMissing where its encoder is not there."""
    path = folder / f"{film.SOPInstanceUID}-{syntax.replace(' ', '-')}.dcm"
    native = folder / f"{film.SOPInstanceUID}-native.dcm"
    if not native.exists():
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.save_as(native, enforce_file_format=True)
    if syntax == "native":
        return native
    by_dcmtk = {"JPEG lossless": "+e1", "JPEG extended": "+ee"}
    if syntax in by_dcmtk:
        subprocess.run([program("dcmcjpeg", "dcmtk"), by_dcmtk[syntax], str(native), str(path)], check=True)
        return path
    encoded = pydicom.dcmread(native)
    uid, options = {
        "RLE": (RLELossless, {}),
        "JPEG-LS": (JPEGLSLossless, {}),
        "JPEG 2000 lossless": (JPEG2000Lossless, {}),
        "JPEG 2000 lossy": (JPEG2000, {"j2k_cr": [12]}),
    }[syntax]
    encoded.compress(uid, generate_instance_uid=False, **options)
    encoded.save_as(path, enforce_file_format=True)
    return path


def ours(path: Path, bundle: Bundle, longest_side: int | None = PREVIEW_SIDE) -> Square:
    """The model's input as the analyser makes it, without gate and preview."""
    film = read_radiograph(path, longest_side=longest_side)
    return preprocess.prepare(film.pixels, bundle.preprocessing)


def by_pydicom(path: Path, side: int) -> Square:
    """The model's input as pydicom's guide makes one."""
    film = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(film.pixel_array, film), film).astype(np.float32)
    values = (values - values.min()) / max(float(np.ptp(values)), 1.0)
    if film.PhotometricInterpretation == "MONOCHROME1":
        values = 1.0 - values
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR))


def twin(path: Path) -> Path:
    """The same film decoded whole and written native."""
    whole = pydicom.dcmread(path)
    if whole.file_meta.TransferSyntaxUID.is_compressed:
        whole.decompress(generate_instance_uid=False)
    target = path.with_suffix(".twin.dcm")
    whole.save_as(target, enforce_file_format=True)
    return target


def check(paths: Mapping[str, Path], bundle: Bundle, films: list[Path]) -> tuple[float, float]:
    """Raises WrongResult for a square that is not what is claimed.

    Answers with the largest loss by decoding at reduced resolution, and with it when each film is cropped by itself.
    """
    engine = open_engine(bundle, device="cpu")
    same_crop, own_crop = [], []
    for path in films:
        reduced = read_radiograph(path, longest_side=PREVIEW_SIDE).pixels
        whole = read_radiograph(twin(path), longest_side=PREVIEW_SIDE).pixels
        place = preprocess.place(whole, bundle.preprocessing)
        squares = [
            preprocess.prepare(whole, bundle.preprocessing, place),
            preprocess.prepare(reduced, bundle.preprocessing, place),
            preprocess.prepare(reduced, bundle.preprocessing),
        ]
        found = engine.run(np.stack(squares)).probabilities
        same_crop.append(float(np.abs(found[1] - found[0]).max()))
        own_crop.append(float(np.abs(found[2] - found[0]).max()))
    require(max(same_crop) < LARGEST_LOSS, f"decoding at reduced resolution moves the output by {max(same_crop):.4f}")
    for syntax, path in paths.items():
        if syntax in NOT_BY_PYDICOM:
            continue
        alike = float(np.corrcoef(ours(path, bundle).ravel(), by_pydicom(path, bundle.input_size).ravel())[0, 1])
        require(alike > LEAST_LIKENESS, f"{syntax}: pydicom's square is another film (correlation {alike:.3f})")
    return max(same_crop), max(own_crop)


def timed(work: Callable[[], object]) -> Callable[[], Mapping[str, float]]:
    """CPU and wall milliseconds of one call."""

    def play() -> Mapping[str, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return {"CPU ms": (time.process_time() - cpu) * 1000, "ms": (time.perf_counter() - wall) * 1000}

    return play


def main() -> None:
    """Writes the films, checks, measures, prints."""
    asked = arguments(__doc__).parse_args()
    warnings.simplefilter("ignore")
    count = asked.rounds or (3 if asked.short else 15)
    folder = Path(tempfile.mkdtemp(prefix="firstread-decode-"))
    try:
        bundle = load_bundle(reference_bundle())
        films = [drawn(index) for index in range(FILMS)]
        paths = {syntax: write(folder, films[0], syntax) for syntax in SYNTAXES}
        reducible = [write(folder, film, f"JPEG 2000 {how}") for film in films for how in ("lossless", "lossy")]
        loss, cropped = check(paths, bundle, reducible)
        print(f"largest loss by reduced decoding: {loss:.4f}; when each film is cropped by itself: {cropped:.4f}")
        rows = []
        for syntax, path in paths.items():
            order = FilmOrder(str(path), str(folder / "preview.pgm"), bundle.preprocessing, 0.0)
            require(read_film(order).square is not None, f"{syntax}: the analyser would not read the film")
            rows += [
                Measured(syntax, "ours", timed(partial(ours, path, bundle))),
                Measured(syntax, "ours at full size", timed(partial(ours, path, bundle, None))),
                Measured(syntax, "ours, all of it", timed(partial(read_film, order))),
            ]
            if syntax not in NOT_BY_PYDICOM:
                rows.append(Measured(syntax, "pydicom", timed(partial(by_pydicom, path, bundle.input_size))))
        rounds(rows, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def ratio() -> float:
        medians = {(row.case, row.contender): row.median("CPU ms") for row in rows}
        return min(
            medians[syntax, "pydicom"] / medians[syntax, "ours"] for syntax in SYNTAXES if syntax not in NOT_BY_PYDICOM
        )

    report(rows, ratio, packages=("pydicom", "numpy", "pillow", "pylibjpeg-openjpeg"), file=asked.json)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
