"""One program at a time in a folder or a study: two of them would take each other's files for their own."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firstread.models.data.film import DataError


@contextmanager
def alone(path: Path, what: str, instead: str) -> Iterator[None]:
    """Hold the lock file at ``path``; it is let go by the system when the process ends, however it ends.

    Raises:
        DataError: another process holds it: ``what`` is in use, ``instead`` says what to do.
    """
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{what}: wait for it, or {instead}") from error
        yield
