"""The files below a folder, found by one walk, and looked up by path, by name or by name without ending."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from firstread.models.data.film import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".ima", ".tif", ".tiff", ".bmp", ".jp2"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})


class Ambiguous(Exception):
    """Several different files go by the name that was looked up; the message names two of them."""


def looks_like_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its ending, or by the mark in its head."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


@dataclass(frozen=True)
class Folder:
    """The files below ``root``: in NIH's flat layout, in Kaggle's (``images_001/images``), or any other."""

    root: Path
    files: tuple[Path, ...]
    _by_name: dict[str, list[Path]] = field(repr=False)
    _by_stem: dict[str, list[Path]] = field(repr=False)

    def find(self, name: str, beside: Path | None = None) -> Path | None:
        """The file that a table's cell means, None when there is none.

        Tried in this order: the path as it is (below the folder, beside the table, absolute), a file below the folder
        whose path ends so, one of the same name, one of that name with an ending (``1.2.3`` for ``1.2.3.dcm``).

        Raises:
            Ambiguous: several files that differ in size go by the name.
        """
        said = name.strip().replace("\\", "/")
        if not said or "\0" in said:
            return None
        if "/" not in said and (found := self._by_name.get(said.lower())):
            return _the_one([path for path in found if path.parent == self.root] or found, name)
        for start in (self.root, beside):
            if start is not None and ("/" in said or start is beside) and _is_file(start / said):
                return start / said
        base = PurePosixPath(said).name.lower()
        found = self._by_name.get(base) or self._by_stem.get(base) or []
        tail = f"/{said.lower().lstrip('/')}"
        for candidates in ([path for path in found if f"/{path.as_posix().lower()}".endswith(tail)], found):
            if candidates:
                return _the_one(candidates, name)
        return None

    def dicom_files(self) -> Iterator[Path]:
        """Those that are DICOM by their ending or their head, in order of path."""
        for path in self.files:
            if path.suffix.lower() in DICOM_SUFFIXES or (
                path.suffix.lower() not in IMAGE_SUFFIXES | {".csv", ".txt", ".gz", ".json"} and looks_like_dicom(path)
            ):
                yield path


def walk(root: Path) -> Folder:
    """Walk a folder once, following links (each folder once, so that a link in a circle ends).

    Raises:
        DataError: no such folder, or no file below it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder: give the one that holds the images")
    files: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # ._name is what macOS leaves beside every file on foreign disks: never a film.
        below[:] = sorted(name for name in below if name not in ("__MACOSX", ".git"))
        files += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    if not files:
        raise DataError(f"{root}: there is no file below this folder: give the one that holds the images")
    by_name: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        by_name.setdefault(path.name.lower(), []).append(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            by_stem.setdefault(path.stem.lower(), []).append(path)
    return Folder(root, tuple(files), by_name, by_stem)


def _the_one(candidates: list[Path], name: str) -> Path:
    first = candidates[0]
    for other in candidates[1:]:
        # The same release unpacked twice is harmless; two films of one name are not.
        if other.stat().st_size != first.stat().st_size:
            raise Ambiguous(f"{name!r} is both {first} and {other}: give their paths in the table, or remove one")
    return first


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
