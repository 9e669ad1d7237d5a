"""Backup beside the running agent, and restore: one consistent database, every file it names, all checked by hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from firstread.agent.config import Settings
from firstread.agent.spool import SpoolUnusable, fsync_folder, prepare
from firstread.integration.dicom.part10 import OWN_HEADER, NotPart10, data_set_offset

MANIFEST = "manifest.json"
DATABASE = "firstread.sqlite3"
KEY_FILES = ("web-session.key",)
LOCK = "agent.lock"
FORMAT = 1

Progress = Callable[[int, int], None]
"""Told how many files of how many are done."""


class BackupError(Exception):
    """A backup or a restore was not done; the message says what to do. Nothing half done is left under its name."""


@dataclass(frozen=True)
class Kept:
    """What a backup holds. ``missing``: files that the database names and that were not there or not as it says."""

    folder: Path
    made_at: datetime
    files: int
    size_bytes: int
    missing: tuple[str, ...]


def back_up(settings: Settings, target: Path, on_progress: Progress | None = None) -> Kept:
    """Writes a backup into the new folder ``target``, while the agent runs.

    The database is copied first, in one consistent state, and then each file that it names: what comes in meanwhile is
    in the next backup. Films that go meanwhile, because their days are over, are named as missing.

    Raises:
        BackupError: ``target`` exists, there is no room, or the database is no SQLite file.
    """
    source = _sqlite_file(settings)
    if target.exists():
        raise BackupError(f"{target} exists: give the name of a new folder")
    partial = target.with_name(f"{target.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True, mode=0o700)
        _copy_database(source, partial / DATABASE)
        named = list(_named(partial / DATABASE))
        manifest = {}
        missing = []
        for number, (name, sha256, film) in enumerate(named, 1):
            digest = _copy(settings.spool / name, partial / name)
            if digest is None or (sha256 and sha256 != (_data_set_digest(partial / name) if film else digest)):
                missing.append(name)
                (partial / name).unlink(missing_ok=True)
            else:
                manifest[name] = digest
            if on_progress is not None:
                on_progress(number, len(named))
        for name in KEY_FILES:
            digest = _copy(settings.spool / name, partial / name)
            if digest is not None:
                manifest[name] = digest
        manifest[DATABASE] = _digest(partial / DATABASE)
        made = datetime.now(UTC)
        size = sum((partial / name).stat().st_size for name in manifest)
        content = {
            "format": FORMAT,
            "made_at": made.isoformat(),
            "size_bytes": size,
            "missing": missing,
            "files": manifest,
        }
        _write(partial / MANIFEST, json.dumps(content, indent=1).encode())
        for folder, _, _ in os.walk(partial):
            fsync_folder(Path(folder))
        partial.rename(target)
        fsync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise BackupError(f"the backup {target} could not be written ({error}): nothing of it is left") from error
    return Kept(target, made, len(manifest), size, tuple(missing))


def check_backup(folder: Path, on_progress: Progress | None = None) -> Kept:
    """Reads a backup again, every file by its hash.

    Raises:
        BackupError: it is no backup, or a file is missing or changed.
    """
    content = _manifest(folder)
    files = content["files"]
    for number, (name, digest) in enumerate(files.items(), 1):
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BackupError(f"{folder / MANIFEST} names {name!r}, which leads out of the backup: do not use it")
        if not path.is_file() or _digest(path) != digest:
            raise BackupError(f"{path} is missing or changed since the backup was made: take another backup")
        if on_progress is not None:
            on_progress(number, len(files))
    return Kept(
        folder,
        datetime.fromisoformat(content["made_at"]),
        len(files),
        int(content["size_bytes"]),
        tuple(content["missing"]),
    )


def restore(settings: Settings, folder: Path, on_progress: Progress | None = None) -> Kept:
    """Puts a backup where ``[storage] path`` says. Every file is checked as it is copied; the spool must be empty.

    What was delivered after the backup was made is sent again, under the same identities, so that receivers keep one.

    Raises:
        BackupError: the spool is not empty, the backup is not whole, or there is no room.
    """
    spool, target = settings.spool, _sqlite_file(settings, must_exist=False)
    if target.exists() or (spool.exists() and any(path.is_file() and path.name != LOCK for path in spool.rglob("*"))):
        raise BackupError(
            f"{spool} is not empty: stop the agent and move the folder away, so that nothing is lost, then restore"
        )
    kept = check_backup(folder)
    files = _manifest(folder)["files"]
    try:
        prepare(spool)
        # The database comes last: until it is there the agent would begin an empty one, and restore refuses that.
        for number, name in enumerate([*sorted(set(files) - {DATABASE}), DATABASE], 1):
            place = target if name == DATABASE else spool / name
            if _copy(folder / name, place) != files[name]:
                raise BackupError(f"{name} could not be copied whole: look at the disks, empty {spool} and try again")
            if on_progress is not None:
                on_progress(number, len(files))
        for below, _, _ in os.walk(spool):
            fsync_folder(Path(below))
    except (OSError, SpoolUnusable) as error:
        raise BackupError(f"{spool} could not be written ({error}): empty it and try again") from error
    return kept


def _sqlite_file(settings: Settings, *, must_exist: bool = True) -> Path:
    url = settings.database_url
    if not url.startswith("sqlite:///"):
        raise BackupError(
            "the database is PostgreSQL: back it up with pg_dump first and copy [storage] path after it, in that order,"
            " so that every film that the dump names is in the copy"
        )
    path = Path(url.removeprefix("sqlite:///"))
    if must_exist and not path.is_file():
        raise BackupError(f"there is no database at {path}: check [storage] path")
    return path


def _copy_database(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    target.chmod(0o600)
    with target.open("rb+") as stream:
        os.fsync(stream.fileno())


def _named(database: Path) -> Iterator[tuple[str, str, bool]]:
    """Path and SHA-256 (empty where none is kept) of each file that the database names, and whether that is the hash of
    a film's data set, without our meta header."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        yield from connection.execute("SELECT path, sha256, 1 FROM instance WHERE path != ''")
        yield from connection.execute("SELECT preview_path, '', 0 FROM instance WHERE preview_path IS NOT NULL")
        yield from connection.execute("SELECT path, sha256, 0 FROM artifact WHERE path IS NOT NULL")


def _data_set_digest(film: Path) -> str:
    """SHA-256 of a film's data set, empty where its header is damaged."""
    with film.open("rb") as stream:
        try:
            stream.seek(data_set_offset(stream.read(OWN_HEADER)))
        except NotPart10:
            return ""
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> str | None:
    """Copies and syncs a file; answers its SHA-256, None when it is not there."""
    digest = hashlib.sha256()
    try:
        stream = source.open("rb")
    except FileNotFoundError:
        return None
    with stream:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not isinstance(content["files"], dict) or DATABASE not in content["files"]:
            raise ValueError("not of this format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(
            f"{folder} is no backup of this release ({error}): give a folder that `backup` made"
        ) from None
    found: dict[str, Any] = content
    return found
