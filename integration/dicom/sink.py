"""One instance on its way to disk: fragments in, a Part 10 file out, whatever goes wrong on the way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import uuid
from pathlib import Path

from firstread.integration.dicom.status import CannotUnderstand, NoSpace, OutOfResources, StoreFailure, TooLong

_NAME = re.compile(r"incoming-[0-9a-f]{32}\.part")
_COALESCE = 64 * 1024
_LOOK_AT_SPACE = 16 * 1024 * 1024


class StoreSink:
    """Takes the fragments of one data set. While the peer sends it never raises: it drains on and keeps the failure.

    The file is created with ``meta`` (see :func:`part10.meta_header`) in front; its bytes are those of the fragments.
    Locked (flock) as long as it is open, so that the sweep of another process leaves it alone.
    """

    def __init__(
        self,
        folder: Path,
        meta: bytes,
        *,
        reserve_bytes: int,
        max_bytes: int,
        refusal: StoreFailure | None = None,
    ) -> None:
        """``refusal``: what stands against this instance already; then nothing is written."""
        self.path = folder / f"incoming-{uuid.uuid4().hex}.part"
        self.data_set_offset = len(meta)
        self.size_bytes = 0
        self.failure = refusal
        self._digest = hashlib.sha256()
        self._reserve_bytes = reserve_bytes
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._descriptor = -1
        self._space_looked_at = 0
        if refusal is not None:
            return
        try:
            self._look_at_space()
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(meta)
        except (OSError, StoreFailure) as error:
            self.fail(_as_failure(error))

    @property
    def sha256(self) -> str:
        """Hash of the data set's bytes, hexadecimal."""
        return self._digest.hexdigest()

    def write(self, fragment: bytes | memoryview) -> None:
        """Takes the next fragment; after a failure it is counted and thrown away."""
        self.size_bytes += len(fragment)
        if self.failure is not None:
            return
        try:
            if self.size_bytes > self._max_bytes:
                raise TooLong(f"larger than {self._max_bytes} bytes; raise the receiver's limit")
            if self.size_bytes - self._space_looked_at > _LOOK_AT_SPACE:
                self._look_at_space()
            self._digest.update(fragment)
            if len(fragment) >= _COALESCE and not self._pending:
                self._write(fragment)
                return
            self._pending += fragment
            if len(self._pending) >= _COALESCE:
                self._write_pending()
        except (OSError, StoreFailure) as error:
            self.fail(_as_failure(error))

    def finish(self) -> None:
        """Writes what is left and waits until it is on the disk (fsync). Raises the failure, if there was one."""
        if self.failure is None and self.size_bytes == 0:
            self.fail(CannotUnderstand("no data set came with the command"))
        if self.failure is None:
            try:
                self._write_pending()
                os.fsync(self._descriptor)
            except OSError as error:
                self.fail(_as_failure(error))
        if self.failure is not None:
            raise self.failure

    def fail(self, failure: StoreFailure) -> None:
        """Gives the instance up, for the first reason given: the file goes at once (the disk may be full of it)."""
        self.failure = self.failure or failure
        self.discard()

    def close(self) -> None:
        """Closes the file (and with it the lock); it stays where it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def discard(self) -> None:
        """Closes and deletes the file, if it is still there."""
        self._pending.clear()
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _look_at_space(self) -> None:
        self._space_looked_at = self.size_bytes
        free = free_bytes(self.path.parent)
        if free < self._reserve_bytes:
            raise NoSpace(f"disk: {free >> 20} MiB free, {self._reserve_bytes >> 20} MiB in reserve")

    def _write_pending(self) -> None:
        if self._pending:
            self._write(bytes(self._pending))
            self._pending.clear()

    def _write(self, part: bytes | memoryview) -> None:
        view = memoryview(part)
        while view:
            view = view[os.write(self._descriptor, view) :]


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user can still write to the file system of ``folder``."""
    usage = os.statvfs(folder)
    return usage.f_bavail * usage.f_frsize


def sweep(folder: Path) -> int:
    """Deletes half-received files (names of ours alone) that no living process holds; how many there were."""
    swept = 0
    for path in folder.iterdir():
        if not _NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                swept += 1
            finally:
                os.close(descriptor)
    return swept


def _as_failure(error: OSError | StoreFailure) -> StoreFailure:
    if isinstance(error, StoreFailure):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("disk full: free space on the receiver's spool")
    return OutOfResources(f"cannot write to the spool: {error.strerror or error}")
