"""Keeps an SQLite file and its write-ahead log small over years. PostgreSQL does so by itself (autovacuum)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import structlog

from firstread.agent.store.engine import Store

log = structlog.get_logger()

LOG_LIMIT = 64 << 20
"""Bytes; a longer write-ahead log is copied into the database and emptied. In ordinary work it stays below 10 MB."""

READER_WAIT_MS = 2000
"""Writers wait for so long at most while a reader keeps the log from being emptied; then it is tried again later."""

FREE_LIMIT = 64 << 20
"""Bytes of free pages that a file may hold: they are used again by what comes next."""

PAGES_AT_ONCE = 2000
VACUUM_BELOW = 2 << 30
"""Bytes; a larger file that cannot shrink yet is left so, since writing it anew would hold up the start."""


def log_bytes(store: Store) -> int:
    """How long the write-ahead log is; 0 where there is none."""
    try:
        return Path(f"{store.engine.url.database}-wal").stat().st_size if store.is_sqlite else 0
    except FileNotFoundError:
        return 0


def empty_log(store: Store, limit: int | None = None) -> int:
    """Copies a log longer than ``limit`` (LOG_LIMIT) into the database and empties it; answers its length afterwards.

    SQLite does so by itself, but never while somebody reads: where readers overlap, and after a long one, the log would
    grow. A reader that does not end keeps it; then nothing is changed.
    """
    if log_bytes(store) <= (LOG_LIMIT if limit is None else limit):
        return log_bytes(store)
    with store.alone() as connection:
        connection.execute(f"PRAGMA busy_timeout = {READER_WAIT_MS}")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        log.warning("somebody reads the database for long; its log grows until then", size_bytes=log_bytes(store))
    return log_bytes(store)


def shrink(store: Store, limit: int | None = None) -> int:
    """Gives free pages beyond ``limit`` bytes (FREE_LIMIT) back to the disk, some at once; answers how many bytes."""
    if not store.is_sqlite:
        return 0
    given = 0
    while True:
        with store.alone() as connection:
            size = int(_pragma(connection, "page_size"))
            free = int(_pragma(connection, "freelist_count")) * size
            if not _pragma(connection, "auto_vacuum") or free <= (FREE_LIMIT if limit is None else limit):
                return given
            # Only a script is stepped to its end: execute() would give back one page.
            connection.executescript(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")
            left = int(_pragma(connection, "freelist_count")) * size
        if left >= free:
            return given
        given += free - left


def let_it_shrink(store: Store) -> None:
    """Writes a file anew, once, so that ``shrink`` can make it smaller. Nobody else may have it open.

    A file that is too large for that, or a disk that is too full, leaves it as it is: free pages are then used again,
    but not given back.
    """
    if not store.is_sqlite:
        return
    try:
        with store.alone() as connection:
            size = int(_pragma(connection, "page_count")) * int(_pragma(connection, "page_size"))
            if _pragma(connection, "auto_vacuum") or size > VACUUM_BELOW:
                return
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        log.warning("the database could not be written anew; it works as before", error=str(error))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
