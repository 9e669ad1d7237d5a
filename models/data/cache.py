"""Decoded squares kept on disk: written whole or not at all, mapped into memory, each known by its file as it was.

A folder holds shards: ``films-<side>-<decoder>-<hash>.npy`` (uint8 [n, R, R]) and beside each a ``.keys`` file with one
line per square, written last: a shard without it was never finished. A square's key is a hash of its file's path, size
and time of change, so a film that changed is no longer found and is decoded again. The folder may be deleted at any
time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firstread.models.data.film import DataError

SHARD_BYTES = 256 << 20
"""What a kill may cost, and what one map holds: a whole release at 224 px is 22 of them."""

_DECODERS = (
    "data/decode.py",
    "data/cache.py",
    "radiograph.py",
    "greyscale.py",
    "shrink.py",
    "orientation.py",
    "codecs.py",
)


@functools.cache
def decoder_version() -> str:
    """A short hash of the code that makes squares of files: other code, other squares."""
    room = Path(__file__).resolve().parent.parent
    return hashlib.sha256(b"".join((room / name).read_bytes() for name in _DECODERS)).hexdigest()[:12]


def key_of(path: Path) -> str:
    """The key of a film's file as it is now.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    said = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True)
class Place:
    """Where a square lies."""

    shard: Path
    row: int


class Cache:
    """The squares of one side in one folder. Several processes may read and write it at once."""

    def __init__(self, folder: Path, side: int) -> None:
        """Open or begin a cache.

        Raises:
            DataError: the folder cannot be made or written.
        """
        self.folder, self.side = folder.absolute(), side
        self._stem = f"films-{side}-{decoder_version()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise DataError(
                f"{folder}: cannot be used as a cache ({error.strerror or error}): name another folder"
            ) from error

    def places(self) -> Mapping[str, Place]:
        """Every square at hand by its key; shards that are cut short are passed over."""
        found: dict[str, Place] = {}
        for listing in sorted(self.folder.glob(f"{self._stem}-*.keys")):
            shard = listing.with_suffix(".npy")
            with contextlib.suppress(OSError, ValueError):
                keys = listing.read_text(encoding="ascii").split("\n")[:-1]
                pixels = np.load(shard, mmap_mode="r", allow_pickle=False)
                if pixels.shape == (len(keys), self.side, self.side) and pixels.dtype == np.uint8:
                    found.update({key: Place(shard, row) for row, key in enumerate(keys) if key != "-"})
        return found

    def write(self, keys: list[str], squares: Iterable[npt.NDArray[np.uint8] | None]) -> None:
        """One more shard: a square per key, None for one that could not be made. All of it is kept, or nothing.

        Raises:
            DataError: the disk is full or refuses.
        """
        name = f"{self._stem}-{hashlib.sha256(''.join(keys).encode()).hexdigest()[:16]}"
        kept: list[str] = []
        try:
            with self._whole(self.folder / f"{name}.npy") as partial, partial.open("wb") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(keys), self.side, self.side)}
                np.lib.format.write_array_header_1_0(stream, header)
                # Plain writes: on a full disk a memory map is a signal that kills the process, a write is an error.
                for key, square in zip(keys, squares, strict=True):
                    kept.append("-" if square is None else key)
                    blank = np.zeros((self.side, self.side), np.uint8)
                    stream.write((blank if square is None else np.ascontiguousarray(square)).tobytes())
                stream.flush()
                os.fsync(stream.fileno())
            with self._whole(self.folder / f"{name}.keys") as partial, partial.open("w", encoding="ascii") as listing:
                listing.writelines(f"{key}\n" for key in kept)
                listing.flush()
                os.fsync(listing.fileno())
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise DataError(
                f"{self.folder}: decoded films cannot be kept there ({reason}): make room or name another folder; what "
                "was kept before stays good"
            ) from error

    @contextlib.contextmanager
    def _whole(self, target: Path) -> Iterator[Path]:
        """A name to write to; renamed to ``target`` when all went well, removed when not."""
        partial = self.folder / f".{target.name}.{socket.gethostname()}.{os.getpid()}.partial"
        try:
            yield partial
            os.replace(partial, target)
            handle = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def _sweep(self) -> None:
        """Remove what a killed process of this machine left half-written."""
        for partial in self.folder.glob(f".films-*.{socket.gethostname()}.*.partial"):
            process = partial.name.split(".")[-2]
            if process.isdigit() and not _alive(int(process)):
                partial.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
