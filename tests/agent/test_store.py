"""The database under several writing processes, and what a moment means after the clock or the machine changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from firstread.agent import clock
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.tables import event
from tests.agent.builders import fresh_store, moment

WRITER = """
import sys, time, json
from firstread.agent import clock
from firstread.agent.store import events
from firstread.agent.store.engine import Store
store, worst = Store(sys.argv[1]), 0.0
for number in range(int(sys.argv[2])):
    began = time.monotonic()
    with store.write() as connection:
        events.record(connection, clock.now(), "written", "test", number=number)
    worst = max(worst, time.monotonic() - began)
print(json.dumps(worst))
"""
PROCESSES, WRITES = 4, 50


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'firstread.sqlite3'}"


def test_several_processes_write_at_once_and_none_is_turned_away(url: str) -> None:
    store = fresh_store(url)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(WRITES)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(PROCESSES)
    ]
    worst = []
    for one in writers:
        said, wrong = one.communicate(timeout=120)
        assert one.returncode == 0, wrong
        worst.append(json.loads(said))
    with store.read() as connection:
        kinds = connection.execute(event.select()).all()
    assert len(kinds) == PROCESSES * WRITES
    assert max(worst) < 10, "nobody starves"
    store.close()


def test_a_write_that_fails_leaves_nothing(url: str) -> None:
    store = fresh_store(url)

    def write_half() -> None:
        with store.write() as connection:
            connection.execute(event.insert().values(at=clock.now().at, kind="half", actor="t", detail={}))
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        write_half()
    with store.read() as connection:
        assert connection.execute(event.select()).all() == []
    store.close()


def test_sqlite_is_durable_and_readers_do_not_wait_for_writers(tmp_path: Path) -> None:
    store = fresh_store(f"sqlite:///{tmp_path / 'firstread.sqlite3'}")
    with store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with store.write() as writing:
        writing.execute(event.insert().values(at=clock.now().at, kind="open", actor="t", detail={}))
        with store.read() as reading:
            assert reading.execute(event.select()).all() == []
    store.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_no_other_process_could_see_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="must be a file"):
        Store(url)


def test_moments_count_by_boot_time_within_a_boot_and_by_wall_time_across() -> None:
    began = moment(0)
    assert moment(10, wall=-3600).since(began) == 10, "the clock was set back an hour"
    assert moment(10, boot="boot-2", wall=60).since(began) == 60, "the machine was started again"
    assert began.plus(5).since(began) == 5 and began.plus(-5).since(began) == -5


def test_now_tells_one_instant_by_both_clocks() -> None:
    first, second = clock.now(), clock.now()
    assert first.at.tzinfo is not None and second.boot_s >= first.boot_s and first.boot_id == second.boot_id
