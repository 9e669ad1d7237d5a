"""The spool: where files lie, how they become durable, and that only one agent uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path

from firstread.agent.crashpoints import reached

INCOMING, FILMS, PREVIEWS, RESULTS = "incoming", "films", "previews", "results"


class SpoolInUse(Exception):
    """Another agent runs on this spool."""


class SpoolUnusable(Exception):
    """The folder cannot be written; the message says what to do."""


def prepare(spool: Path) -> None:
    """Makes the folders, for this user alone. Raises SpoolUnusable when that is not possible."""
    try:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        if spool.stat().st_mode & 0o077:  # made by somebody else, who did not think of whose films these are
            spool.chmod(0o700)
        for name in (INCOMING, FILMS, PREVIEWS, RESULTS):
            (spool / name).mkdir(exist_ok=True, mode=0o700)
        probe = spool / f".probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"firstread")
        probe.unlink()
        fsync_folder(spool)
        with contextlib.suppress(OSError):  # what lies above may be closed to us
            fsync_folder(spool.parent)
    except OSError as error:
        raise SpoolUnusable(
            f"the spool {spool} cannot be written ({error.strerror or error}): "
            "give its owner write access, or set another [storage] path"
        ) from error


def take_spool(spool: Path) -> tuple[int, bool]:
    """Locks the spool for this agent. Answers with the lock's file descriptor, and whether the agent before did not
    end gracefully: it takes its process number out of the lock at its end. Raises SpoolInUse."""
    descriptor = os.open(spool / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 64, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise SpoolInUse(
            f"another agent (process {owner or 'unknown'}) uses the spool {spool}: "
            "stop it, or set another [storage] path"
        ) from None
    left_open = os.fstat(descriptor).st_size > 0
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor, left_open


def note_clean_end(descriptor: int) -> None:
    """The agent that holds this lock ended gracefully: the next one has nothing to reconcile."""
    os.ftruncate(descriptor, 0)


def films_there(spool: Path) -> frozenset[str]:
    """Every film file, relative to the spool."""
    return frozenset(
        os.path.join(FILMS, folder.name, name)
        for folder in os.scandir(spool / FILMS)
        if folder.is_dir()
        for name in os.listdir(folder)
    )


def share_spool(spool: Path) -> int:
    """Locks the spool for one role that runs by itself; several may. Raises SpoolInUse beside a supervised agent."""
    descriptor = os.open(spool / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolInUse(
            f"an agent with all roles uses the spool {spool}: stop it before running single roles"
        ) from None
    return descriptor


def new_place(kind: str, suffix: str) -> Path:
    """A fresh path below ``kind``, relative to the spool; never made of received text."""
    name = uuid.uuid4().hex
    return Path(kind, name[:2], name + suffix)


def write_durably(spool: Path, place: Path, content: bytes) -> None:
    """Writes a file so that it survives a power cut: write, fsync, rename, fsync of the folders."""
    target = spool / place
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(target.suffix + ".part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        reached("result-written")
        os.fsync(file.fileno())
    reached("result-synced")
    temporary.rename(target)
    reached("result-renamed")
    fsync_folder(target.parent)
    fsync_folder(target.parent.parent)


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
