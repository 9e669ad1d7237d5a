"""A worker that polls looks when there may be something new, and never misses what came while it looked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstread.agent import clock
from firstread.agent.store import events
from firstread.agent.store import lookout as lookout_module
from firstread.agent.store.engine import Store
from firstread.agent.store.lookout import Lookout
from tests.agent.builders import fresh_store

LONG_S = 3600.0
ELSEWHERE = """
import sys
from firstread.agent import clock
from firstread.agent.store import events
from firstread.agent.store.engine import Store
store = Store(sys.argv[1])
with store.write() as connection:
    events.record(connection, clock.now(), "written", "elsewhere")
store.close()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = fresh_store(f"sqlite:///{tmp_path / 'a name? with #signs%20'}.sqlite3")
    yield made
    made.close()


def write(store: Store) -> None:
    with store.write() as connection:
        events.record(connection, clock.now(), "written", "here")


def looked_in_vain(one: Lookout) -> Lookout:
    assert one.worthwhile()
    one.found_nothing()
    return one


def test_a_look_that_found_nothing_is_not_repeated(store: Store) -> None:
    one = looked_in_vain(Lookout(store, LONG_S))
    assert not one.worthwhile() and not one.worthwhile()


def test_whatever_is_committed_makes_a_look_worthwhile(store: Store) -> None:
    one = looked_in_vain(Lookout(store, LONG_S))
    write(store)
    looked_in_vain(one)
    assert not one.worthwhile()
    subprocess.run([sys.executable, "-c", ELSEWHERE, store.url], check=True, timeout=60, cwd=Path(__file__).parents[2])
    assert one.worthwhile(), "another process has written"


def test_what_is_committed_during_the_look_is_not_missed(store: Store) -> None:
    one = Lookout(store, LONG_S)
    assert one.worthwhile()
    write(store)  # after the query, before its answer was thought about
    one.found_nothing()
    assert one.worthwhile()


def test_a_look_that_found_something_is_followed_by_another(store: Store) -> None:
    one = Lookout(store, LONG_S)
    assert one.worthwhile() and one.worthwhile()


def test_what_time_alone_makes_due_is_looked_for(store: Store) -> None:
    assert looked_in_vain(Lookout(store, 0.0)).worthwhile()


def test_two_lookouts_of_one_store_do_not_see_for_each_other(store: Store) -> None:
    first, second = looked_in_vain(Lookout(store, LONG_S)), looked_in_vain(Lookout(store, LONG_S))
    write(store)
    looked_in_vain(first)
    assert second.worthwhile()


def test_a_database_that_cannot_be_asked_is_looked_at(store: Store, tmp_path: Path) -> None:
    one = looked_in_vain(Lookout(store, LONG_S))
    store.close()
    for path in tmp_path.iterdir():
        path.unlink()
    assert store.version() is None, "a database that is gone is not made anew"
    assert not list(tmp_path.iterdir())
    one._empty_since = float("-inf")
    assert one.worthwhile()


def test_a_database_that_tells_nothing_is_looked_at_now_and_then(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fresh_store(postgres_url)
    assert store.version() is None
    one = looked_in_vain(Lookout(store, LONG_S))
    monkeypatch.setattr(lookout_module, "UNTOLD_S", LONG_S)
    assert not one.worthwhile()
    monkeypatch.setattr(lookout_module, "UNTOLD_S", 0.0)
    assert one.worthwhile()
    store.close()
