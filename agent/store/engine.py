"""The database, opened once per process: read and write transactions that work with several writing processes."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    and_,
    create_engine,
    event,
    func,
    or_,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from firstread.agent.clock import Moment
from firstread.agent.store.errors import StoreBusy as StoreBusy
from firstread.agent.store.errors import StoreError as StoreError

KEYS_AT_ONCE = 500
"""So many ids are named in one query."""

STALE_S = 3600.0
"""A moment of another boot that lies further ahead than this was written by a wrong clock: it counts as passed."""


class Store:
    """One process's way into the database.

    On SQLite every write is BEGIN IMMEDIATE under a file lock: without the lock several writing processes starve
    each other, with it the worst wait stays under half a second. PostgreSQL needs neither.
    """

    def __init__(self, url: str, *, busy_timeout_s: float = 20.0) -> None:
        self.url = url
        self._busy_timeout_s = busy_timeout_s
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._lock_path: Path | None = None
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._looker: sqlite3.Connection | None = None
        if self.is_sqlite:
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("an SQLite database must be a file: set [database] url or [storage] path")
            self._lock_path = Path(parsed.database + ".lock")
            self.engine: Engine = create_engine(url, hide_parameters=True, connect_args={"timeout": busy_timeout_s})
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may change rows; committed and durable when the block ends without an error."""
        if not self.is_sqlite:
            with _plain_errors(), self.engine.begin() as connection:
                yield connection
            return
        with _plain_errors(), self._file_lock(), self.engine.connect() as connection:
            connection = connection.execution_options(firstread_write=True)
            with connection.begin():
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view of the rows."""
        with _plain_errors(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """SQLite's own connection, outside a transaction, while nobody of the agent writes."""
        with _plain_errors(), self._file_lock():
            pooled = self.engine.raw_connection()
            try:
                connection = pooled.driver_connection
                assert isinstance(connection, sqlite3.Connection)
                yield connection
            finally:
                pooled.invalidate()  # it may have been given settings of its own
                pooled.close()

    def version(self) -> int | None:
        """A number that is another one when anybody has committed since; None where none can be had: look then.

        SQLite's data_version, of a connection that never writes: some microseconds instead of a query.
        """
        if not self.is_sqlite:
            return None
        with self._looking:
            try:
                if self._looker is None:
                    database = make_url(self.url).database
                    self._looker = sqlite3.connect(
                        f"file:{quote(str(database))}?mode=rw", uri=True, timeout=0, check_same_thread=False
                    )
                return int(self._looker.execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error:
                return None

    def close(self) -> None:
        """Closes every connection."""
        with self._looking:
            if self._looker is not None:
                self._looker.close()
                self._looker = None
        self.engine.dispose()

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        assert self._lock_path is not None
        deadline = time.monotonic() + self._busy_timeout_s
        if not self._lock.acquire(timeout=self._busy_timeout_s):
            raise StoreBusy("this process has been writing for too long; it will be tried again")
        try:
            descriptor = _take_lock(self._lock_path, max(0.0, deadline - time.monotonic()))
            try:
                yield
            finally:
                os.close(descriptor)
        finally:
            self._lock.release()


def _take_lock(path: Path, timeout_s: float) -> int:
    """A descriptor that holds the lock until it is closed. Raises StoreBusy where its holder is stuck."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the database cannot be locked ({error.strerror}): make {path} writable") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        pass
    waiting = _Waiting(descriptor)
    waiting.start()
    if not waiting.succeeds(timeout_s):
        raise StoreBusy("another process of the agent holds the database and does not go on; it will be tried again")
    return descriptor


class _Waiting(threading.Thread):
    """Waits for the lock in its caller's place: flock is fair and quick, but knows no time limit."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(name="store-lock", daemon=True)
        self._descriptor = descriptor
        self._state = threading.Lock()
        self._taken = threading.Event()
        self._abandoned = False

    def run(self) -> None:
        """Ends with the lock; when nobody waits for it any more, without."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._state:
            if self._abandoned:
                os.close(self._descriptor)
            else:
                self._taken.set()

    def succeeds(self, timeout_s: float) -> bool:
        """True when the lock was taken in time."""
        if self._taken.wait(timeout_s):
            return True
        with self._state:
            self._abandoned = not self._taken.is_set()
            return not self._abandoned


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        text = str(error.orig)
        if "locked" in text or "busy" in text or "deadlock" in text:
            raise StoreBusy(f"the database is held by another process: {text}; it will be tried again") from error
        if "no such table" in text:
            raise StoreError("the database has no tables yet: run `firstread db upgrade`") from error
        raise StoreError(f"the database cannot be used: {text}") from error
    except DBAPIError as error:
        if "does not exist" in str(error.orig) and "relation" in str(error.orig):
            raise StoreError("the database has no tables yet: run `firstread db upgrade`") from error
        if type(error) is DatabaseError:  # none of its kinds: SQLite says so of a file that is damaged
            raise StoreError(
                f"the database cannot be used: {error.orig}; stop the agent, keep the file, "
                "and put the newest copy of it in its place"
            ) from error
        raise


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # the driver must not begin transactions of its own
    cursor = raw.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("firstread_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def rows_of(
    connection: Connection, query: Select[Any], column: Column[Any], keys: Sequence[int | str]
) -> list[Row[Any]]:
    """The query's rows whose ``column`` is one of ``keys``, some hundred keys at once."""
    parts = [keys[start : start + KEYS_AT_ONCE] for start in range(0, len(keys), KEYS_AT_ONCE)]
    return [row for part in parts for row in connection.execute(query.where(column.in_(part)))]


def count_by_study(
    connection: Connection,
    study_id: Column[Any],
    state: Column[Any],
    study_ids: Sequence[int],
    *where: ColumnElement[bool],
) -> dict[int, dict[str, int]]:
    """How many rows of each state these studies have, by study."""
    query = select(study_id, state, func.count().label("rows")).where(*where).group_by(study_id, state).order_by(state)
    found: dict[int, dict[str, int]] = {}
    for row in rows_of(connection, query, study_id, study_ids):
        found.setdefault(row.study_id, {})[row.state] = row.rows
    return found


def moment_values(name: str, moment: Moment | None) -> dict[str, Any]:
    """The three column values of a moment (see tables.moment_columns)."""
    return {
        f"{name}_at": moment and moment.at,
        f"{name}_boot_id": moment and moment.boot_id,
        f"{name}_boot_s": moment and moment.boot_s,
    }


def read_moment(row: Any, name: str) -> Moment:
    """The moment that a row keeps under ``name``."""
    values = row._mapping
    return Moment(values[f"{name}_at"], values[f"{name}_boot_id"], values[f"{name}_boot_s"])


def has_passed(table: Table, name: str, now: Moment) -> ColumnElement[bool]:
    """SQL: the moment kept under ``name`` lies at or before ``now``, whatever was done to the clock."""
    at, boot, seconds = table.c[f"{name}_at"], table.c[f"{name}_boot_id"], table.c[f"{name}_boot_s"]
    return or_(
        and_(boot == now.boot_id, seconds <= now.boot_s),
        and_(boot != now.boot_id, or_(at <= now.at, at > now.plus(STALE_S).at)),
    )
