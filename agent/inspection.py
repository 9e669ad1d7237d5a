"""Spool against database, both ways: files that rows name, and files that no row names."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, select

from firstread.agent import clock
from firstread.agent.config import Settings
from firstread.agent.spool import FILMS, PREVIEWS, RESULTS, fsync_folder
from firstread.agent.store import events, watch
from firstread.agent.store.deliveries import UNFINISHED
from firstread.agent.store.engine import Store, rows_of
from firstread.agent.store.overdue import PURGED
from firstread.agent.store.tables import ImageState, artifact, delivery, instance, result, study
from firstread.integration.dicom.part10 import OWN_HEADER, NotPart10, data_set_offset

log = structlog.get_logger()

UNLISTED = "unlisted"
"""Folder in the spool for files that no row names: kept, since nobody can be sure of them, and out of the way."""

SETTLED_S = 3600.0
"""A younger file may belong to a transaction that is not committed yet."""

ACTOR = "verify"
AT_ONCE = 500


@dataclass(frozen=True)
class Fault:
    """One file that is not as its row says. ``matters``: something still depends on it."""

    kind: str
    """``film`` or ``result``."""
    path: str
    problem: str
    study_instance_uid: str
    received_at: datetime
    matters: bool
    remedy: str


@dataclass(frozen=True)
class Inspection:
    """What was found. ``unlisted``: files that no row names, relative to the spool."""

    films: int
    results: int
    faults: tuple[Fault, ...]
    unlisted: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """True when every file is there as its row says, and none is beside them."""
        return not self.faults and not self.unlisted


def inspect(
    settings: Settings,
    store: Store,
    *,
    hashes: bool = True,
    settled_s: float = SETTLED_S,
    there: Iterable[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Inspection:
    """Reads every listed file again and compares size and, with ``hashes``, SHA-256; then looks for unlisted ones:
    those that are older than ``settled_s``, or ``there`` (relative to the spool) where the caller knows them.

    Reads in small transactions, beside a running agent. A film whose days are over has no file and is no fault.
    """
    spool = settings.spool
    # Files first: what is stored while we look is listed by the time its name is looked up.
    there = list(_files(spool, settled_s) if there is None else there)
    faults: list[Fault] = []
    listed: set[str] = set()
    done = films = results = 0
    for row in _films(store):
        films += 1
        listed.update(path for path in (row.path, row.preview_path) if path)
        problem = _problem(spool / row.path, row.size_bytes, row.sha256, hashes, film=True)
        if problem and _still_named(store, instance, row.id, row.path):
            faults.append(_film_fault(row, problem))
        done += 1
        if on_progress is not None:
            on_progress(done)
    for row in _results(store):
        results += 1
        listed.add(row.path)
        problem = _problem(spool / row.path, row.size_bytes, row.sha256, hashes)
        if problem:
            faults.append(_result_fault(store, row, problem))
        done += 1
        if on_progress is not None:
            on_progress(done)
    unlisted = [name for name in there if name not in listed and (spool / name).exists()]
    # Between the two looks a film may have been recorded: the database has the last word.
    with store.read() as connection:
        known = _named(connection, unlisted)
    unlisted = [name for name in unlisted if name not in known]
    return Inspection(films, results, tuple(faults), tuple(sorted(unlisted)))


def after_unclean_end(settings: Settings, store: Store, there: frozenset[str]) -> None:
    """What a kill between rename and commit leaves. ``there``: the films that lay in the spool before any role of this
    agent lived, so that none of them is still on its way into the database."""
    found = inspect(settings, store, hashes=False, there=there)
    moved = set_aside(settings, store, found.unlisted)
    report_faults(store, found)
    log.info("spool compared with the database after an unclean end", films=found.films, set_aside=moved)


def set_aside(settings: Settings, store: Store, unlisted: tuple[str, ...]) -> int:
    """Moves unlisted files into ``unlisted/``; answers how many. Their senders were never told Success for them."""
    moved = 0
    folder = settings.spool / UNLISTED
    for name in unlisted:
        source = settings.spool / name
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            source.rename(folder / name.replace("/", "-"))
        except FileNotFoundError:
            continue
        moved += 1
    if moved:
        fsync_folder(folder)
        with store.write() as connection:
            events.record(connection, clock.now(), "unlisted files set aside", ACTOR, count=moved)
        log.warning("files that no row names were set aside", count=moved, folder=str(folder))
    return moved


def report_faults(store: Store, found: Inspection) -> None:
    """Raises an alarm for what is lost, and clears it when all is there again."""
    lost = [fault for fault in found.faults if fault.matters]
    now = clock.now()
    with store.write() as connection:
        if not lost:
            watch.clear_alarm(connection, "spool/lost", actor=ACTOR, now=now)
            return
        first = min(lost, key=lambda fault: fault.received_at)
        watch.raise_alarm(
            connection,
            "spool/lost",
            severity="critical",
            text=(
                f"{len(lost)} files that are still needed are missing or changed on the disk, the oldest of study "
                f"{first.study_instance_uid}, received {first.received_at:%Y-%m-%d %H:%M} UTC"
            ),
            remedy="`firstread verify` names each; send these studies from the PACS again, and have the disk looked at",
            actor=ACTOR,
            now=now,
        )


def _files(spool: Path, settled_s: float) -> Iterator[str]:
    """Files of films, previews and results that are older than ``settled_s``, relative to the spool."""
    before = time.time() - settled_s
    for kind in (FILMS, PREVIEWS, RESULTS):
        for folder, _, names in os.walk(spool / kind):
            for name in names:
                path = Path(folder, name)
                try:
                    if path.stat().st_mtime < before:
                        yield str(path.relative_to(spool))
                except FileNotFoundError:
                    continue


def _films(store: Store) -> Iterator[Any]:
    last = 0
    while True:
        with store.read() as connection:
            rows = connection.execute(
                select(
                    instance.c.id, instance.c.path, instance.c.preview_path, instance.c.size_bytes, instance.c.sha256,
                    instance.c.received_at, instance.c.current, instance.c.state, study.c.study_instance_uid,
                )
                .outerjoin(study, study.c.id == instance.c.study_id)
                .where(instance.c.id > last, instance.c.path != PURGED)
                .order_by(instance.c.id)
                .limit(AT_ONCE)
            ).all()  # fmt: skip
        if not rows:
            return
        yield from rows
        last = rows[-1].id


def _results(store: Store) -> Iterator[Any]:
    last = 0
    while True:
        with store.read() as connection:
            rows = connection.execute(
                select(
                    artifact.c.id, artifact.c.path, artifact.c.size_bytes, artifact.c.sha256, artifact.c.kind,
                    result.c.created_at, study.c.study_instance_uid,
                )
                .join(result, result.c.id == artifact.c.result_id)
                .join(study, study.c.id == result.c.study_id)
                .where(artifact.c.id > last, artifact.c.path.is_not(None))
                .order_by(artifact.c.id)
                .limit(AT_ONCE)
            ).all()  # fmt: skip
        if not rows:
            return
        yield from rows
        last = rows[-1].id


def problem_of_film(path: Path, size: int, sha256: str) -> str:
    """What is wrong with a film's file, every byte read, empty when nothing is; size and hash are its data set's."""
    return _problem(path, size, sha256, True, film=True)


def _problem(path: Path, size: int, sha256: str, hashes: bool, *, film: bool = False) -> str:
    """What is wrong with a file, empty when nothing is. A film's row speaks of its data set, without our header."""
    try:
        with path.open("rb") as stream:
            offset = data_set_offset(stream.read(OWN_HEADER)) if film else 0
            found = os.fstat(stream.fileno()).st_size - offset
            if found != size:
                return f"has {found} bytes instead of {size}"
            stream.seek(offset)
            if hashes and hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                return "was changed (SHA-256 differs)"
    except FileNotFoundError:
        return "is missing"
    except NotPart10:
        return "was changed (its header is damaged)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _film_fault(row: Any, problem: str) -> Fault:
    waits = bool(row.current) and row.state in (ImageState.WAITING, ImageState.ANALYSING)
    return Fault(
        kind="film",
        path=row.path,
        problem=problem,
        study_instance_uid=row.study_instance_uid or "",
        received_at=row.received_at,
        matters=bool(row.current),
        remedy="it was never analysed: send it from the PACS again, at once"
        if waits
        else "send the study from the PACS again if it is to be analysed once more; its result stands",
    )


def _result_fault(store: Store, row: Any, problem: str) -> Fault:
    with store.read() as connection:
        pending = connection.execute(
            select(delivery.c.id).where(delivery.c.artifact_id == row.id, delivery.c.state.in_(UNFINISHED))
        ).first()
    return Fault(
        kind="result",
        path=row.path,
        problem=problem,
        study_instance_uid=row.study_instance_uid,
        received_at=row.created_at,
        matters=pending is not None,
        remedy="`firstread replay` of the study makes it anew" if pending else "it was delivered; nothing waits for it",
    )


def _still_named(store: Store, table: Any, key: int, path: str) -> bool:
    with store.read() as connection:
        return bool(connection.execute(select(table.c.path).where(table.c.id == key)).scalar() == path)


def _named(connection: Connection, names: Sequence[str]) -> set[str]:
    """Which of the names a row names; hundreds at once, since each question reads whole tables."""
    columns = (instance.c.path, instance.c.preview_path, artifact.c.path)
    return {row[0] for column in columns for row in rows_of(connection, select(column), column, names)}
