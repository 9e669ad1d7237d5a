"""The database's file and its write-ahead log stay small, whoever reads and however much is deleted."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from firstread.agent import care as care_module
from firstread.agent.care import Care
from firstread.agent.store import events, upkeep, watch
from firstread.agent.store.engine import Store
from firstread.agent.store.tables import event
from tests.agent.builders import fresh_store, moment, settings_at

PIECE = 64 << 10
"""Bytes of one transaction here; the limits stand in proportion."""


@pytest.fixture
def care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upkeep, "LOG_LIMIT", PIECE)
    monkeypatch.setattr(upkeep, "READER_WAIT_MS", 50)
    monkeypatch.setattr(upkeep, "FREE_LIMIT", PIECE)
    monkeypatch.setattr(care_module, "LOG_ALARM", 4 * PIECE)
    settings = settings_at(tmp_path / "spool")
    store = fresh_store(settings.database_url)
    yield Care(settings, store)
    store.close()


def write(store: Store, pieces: int) -> None:
    """So many transactions of a piece."""
    for _ in range(pieces):
        with store.write() as connection:
            events.record(connection, moment(), "test", "test", words="x" * PIECE)


def alarms(store: Store) -> set[str]:
    with store.read() as connection:
        return {one.key for one in watch.alarms(connection)}


def test_a_long_reader_lets_the_log_grow_only_until_it_ends(care: Care) -> None:
    store = care._store
    with store.read() as reader:
        reader.execute(select(event.c.id)).all()
        write(store, 10)
        care.upkeep()
        assert upkeep.log_bytes(store) > 10 * PIECE, "what a reader may still need is not thrown away"
        assert "database/log" in alarms(store)
        assert reader.execute(select(event.c.id)).all() == [], "it reads on, undisturbed"
    care.upkeep()
    assert upkeep.log_bytes(store) < PIECE and "database/log" not in alarms(store)
    with store.read() as connection:
        assert len(connection.execute(select(event.c.id).where(event.c.kind == "test")).all()) == 10


def test_readers_that_overlap_for_ever_do_not_let_the_log_grow_for_ever(
    care: Care, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One begins before the other has ended, all the time: SQLite by itself finds no moment to begin the log anew.
    monkeypatch.setattr(upkeep, "READER_WAIT_MS", 60_000)
    store, longest, over = care._store, 0, threading.Event()
    turns = [threading.Semaphore(1), threading.Semaphore(0)]

    def read(mine: threading.Semaphore, other: threading.Semaphore) -> None:
        while not over.is_set():
            mine.acquire()
            with store.read() as connection:
                connection.execute(select(event.c.id)).all()
                other.release()
                over.wait(0.05)

    readers = [threading.Thread(target=read, args=(turns[number], turns[1 - number])) for number in (0, 1)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(8):
            write(store, 4)
            care.upkeep()
            longest = max(longest, upkeep.log_bytes(store))
    finally:
        over.set()
        for turn in turns:
            turn.release()
        for reader in readers:
            reader.join()
    assert longest < 10 * PIECE, "32 pieces were written"


def test_what_was_deleted_is_given_back_to_the_disk(care: Care) -> None:
    store = care._store
    write(store, 40)
    upkeep.empty_log(store, 0)
    path = Path(str(store.engine.url.database))
    before = path.stat().st_size
    with store.write() as connection:
        connection.execute(event.delete().where(event.c.id > 1))
    care.upkeep()
    upkeep.empty_log(store, 0)
    assert before > 40 * PIECE and path.stat().st_size < 15 * PIECE
    with store.read() as connection:
        assert connection.execute(select(event.c.id)).all() == [(1,)]


def test_a_file_of_an_earlier_release_can_shrink_after_its_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE study_of_old (id INTEGER PRIMARY KEY, words TEXT)")
        old.execute("INSERT INTO study_of_old VALUES (1, 'kept')")
    old.close()
    store = Store(f"sqlite:///{path}")
    upkeep.let_it_shrink(store)
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 2
        assert connection.exec_driver_sql("SELECT words FROM study_of_old").scalar() == "kept"
    store.close()


def test_a_file_too_large_to_be_written_anew_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path / 'large.sqlite3'}")
    with store.write() as connection:
        connection.exec_driver_sql("CREATE TABLE large (id INTEGER PRIMARY KEY)")
    monkeypatch.setattr(upkeep, "VACUUM_BELOW", 0)
    upkeep.let_it_shrink(store)
    assert upkeep.shrink(store, 0) == 0
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() == 0
    store.close()
