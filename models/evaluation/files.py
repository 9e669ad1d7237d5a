"""Result files: written whole or not at all, and refused before the work rather than after it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from firstread.models.data.film import DataError


def must_be_writable(path: Path | None) -> None:
    """Refuse a place where no file can be put; its folder is made when it is missing. None is fine.

    Raises:
        DataError: it is a folder, or its folder cannot be written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): choose another place") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"{path} cannot be written (no permission in its folder): choose another place")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: the folder cannot be written to, or the disk is full.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}-", suffix=".partial", delete=False, encoding="utf-8", newline=""
        ) as stream:
            partial = Path(stream.name)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        if partial is not None:
            partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written ({error.strerror or error}): choose another place") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """JSON, readable, UTF-8; see :func:`write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
