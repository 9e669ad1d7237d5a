"""NIH's release in miniature: tables of either edition, images in any layout, lists and boxes, drawn as asked."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

NEW = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
OLD = NEW + ","
"""NIH's first edition ends every line with a comma, and writes ages as 058Y."""

FILMS: Mapping[str, str] = {
    "00000001_000.png": "Cardiomegaly",
    "00000001_001.png": "Cardiomegaly|Emphysema",
    "00000002_000.png": "No Finding",
    "00000003_000.png": "Hernia",
    "00000003_001.png": "Infiltration|Pleural_Thickening",
    "00000004_000.png": "No Finding",
}


def picture(seed: int, side: int = 96) -> npt.NDArray[np.uint8]:
    """A film's stand-in that no other seed resembles."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.random((8, 8)), np.ones((side // 8, side // 8)))
    return np.asarray(coarse * 200 + rng.random((side, side)) * 30 + 12, np.uint8)


def write_image(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], **options: int) -> Path:
    """Write pixels as what the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_table(path: Path, films: Mapping[str, str] = FILMS, *, old: bool = False) -> Path:
    """NIH's table of these films; gzipped where the name ends so."""
    lines = [OLD if old else NEW]
    for number, (name, labels) in enumerate(films.items()):
        age, end = (f"{40 + number:03d}Y", ",") if old else (str(40 + number), "")
        sex, view = "FM"[int(name[:8]) % 2], ("PA", "AP")[number % 2]
        row = f"{name},{labels},{int(name[9:12])},{int(name[:8])},{age},{sex},{view},2048,2500,0.168,0.168"
        lines.append(row + end)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_films(root: Path, names: Sequence[str] = tuple(FILMS), *, layout: str = "flat", side: int = 96) -> Path:
    """The images, ``flat`` as NIH unpacks, as ``kaggle`` lays them out, or ``mixed``."""
    for number, name in enumerate(names):
        nested = layout == "kaggle" or (layout == "mixed" and number % 2)
        folder = root / f"images_{number % 3 + 1:03d}" / "images" if nested else root / "images"
        write_image(folder / name, picture(number, side))
    return root


def write_csv(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """A table of these lines."""
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path
