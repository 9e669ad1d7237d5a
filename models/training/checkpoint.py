"""What a stopped training goes on from: one file per stage, replaced whole after every epoch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from firstread.models.data.film import DataError


def save_checkpoint(saved: Mapping[str, Any], path: Path) -> None:
    """Replace a checkpoint whole: a full disk or a kill leaves the one before.

    Raises:
        DataError: it could not be written.
    """
    write_whole(path, lambda stream: torch.save(dict(saved), stream))


def load_checkpoint(path: Path, recipe: str, stage: str) -> dict[str, Any] | None:
    """A checkpoint, or None when there is none yet.

    Raises:
        DataError: it is of another recipe or broken.
    """
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        same = saved["recipe"] == recipe and saved["stage"] == stage
    except Exception as error:  # a torn or hostile file makes torch raise nearly anything
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{path} is no checkpoint of this training ({reason}): remove it to begin the stage anew"
        ) from error
    if not same:
        raise DataError(f"{path} is the checkpoint of another recipe: give another --out or remove it")
    return dict(saved)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its place, force it to disk and rename it: there is either the old one or the new one.

    Raises:
        DataError: it could not be written; what stood there still stands.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        partial.unlink(missing_ok=True)
        kept = "the one before is kept" if path.exists() else "nothing was left behind"
        reason = error.strerror or str(error) if isinstance(error, OSError) else "the disk did not take all of it"
        raise DataError(
            f"{path} could not be written ({reason}): make room and run the same command again; {kept}"
        ) from error
