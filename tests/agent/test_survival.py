"""What survives trouble with disk and database: nothing is deleted, blamed or left out for what was not its fault."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from firstread.agent import clock, deliver
from firstread.agent.objects import ResultObjects
from firstread.agent.service import Supervisor
from firstread.agent.store import events, images, studies
from firstread.agent.store.engine import Store, StoreBusy, StoreError
from firstread.agent.store.tables import DeliveryState, delivery, result, study
from firstread.agent.studies import SummingUp
from firstread.integration.dicom.status import OutOfResources
from tests.agent.builders import GSPS, Bench, moment
from tests.agent.test_deliver import Script, result_for, worker


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "spool")
    yield made
    made.store.close()


def test_a_resent_film_whose_first_file_is_gone_is_kept_and_looked_at_again(bench: Bench) -> None:
    first = bench.receive(study="1.2.9", sop="1.2.9.1.1")
    now = moment(1.0)
    (claimed,) = bench.claim(now)
    (bench.settings.spool / claimed.path).unlink()
    with bench.store.write() as connection:
        images.fail_attempt(connection, claimed, "no file", max_attempts=1, actor="test", now=now)
    again = bench.arrive(study="1.2.9", sop="1.2.9.1.1")
    assert again.sha256 == first.sha256
    bench.intake.take(again)
    (claimed_again,) = bench.claim(now)
    assert claimed_again.path != claimed.path
    assert (bench.settings.spool / claimed_again.path).exists()
    with bench.store.read() as connection:
        row = studies.find(connection, "1.2.9")
        assert row is not None
        trail = [one.kind for one in events.of_study(connection, row.id)]
    assert "missing file replaced" in trail


def test_a_film_whose_commit_failed_after_all_is_not_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    @contextmanager
    def committed_and_yet_failing(store: Store) -> Iterator[Connection]:
        with write(store) as connection:
            yield connection
        raise StoreError("disk I/O error")

    monkeypatch.setattr(Store, "write", committed_and_yet_failing)
    with pytest.raises(OutOfResources):
        bench.receive(study="1.2.9", sop="1.2.9.1.1")
    monkeypatch.undo()
    (claimed,) = bench.claim(moment(1.0))
    assert (bench.settings.spool / claimed.path).exists()
    bench.receive(study="1.2.9", sop="1.2.9.1.1")


def test_a_film_that_failed_before_waits_until_it_can_be_alone(bench: Bench) -> None:
    for number in range(3):
        bench.receive(study=f"1.2.{number}", sop=f"1.2.{number}.1")
    claimed = bench.claim(moment(1.0))
    assert len(claimed) == 3
    with bench.store.write() as connection:
        images.free_leases(connection, dead_prefix="test/analyse/1", max_attempts=3, actor="test", now=moment(2.0))

    def claim(busy: bool) -> list[str]:
        with bench.store.write() as connection:
            found = images.claim(connection, owner="t", lease_s=60, limit=10, now=moment(3.0), busy=busy)
        return [one.sop_instance_uid for one in found]

    assert claim(busy=True) == []
    assert claim(busy=False) == ["1.2.0.1"]
    assert claim(busy=True) == []
    assert claim(busy=False) == ["1.2.1.1"]


def failing_writes(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next writes fail as on a full disk."""
    write, left = Store.write, [times]

    @contextmanager
    def full(store: Store) -> Iterator[Connection]:
        if left[0]:
            left[0] -= 1
            raise StoreError("database or disk is full")
        with write(store) as connection:
            yield connection

    monkeypatch.setattr(Store, "write", full)


def test_an_answer_that_cannot_be_recorded_at_once_is_not_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "now", lambda: moment(0.0))
    monkeypatch.setattr(deliver, "RECORD_AGAIN_S", 0.01)
    result_for(bench, "1.2.9", 1)
    line = Script()
    sender = worker(bench, line, monkeypatch)
    send = line.send

    def send_and_fill_the_disk(content: bytes, identity: str) -> deliver.Outcome:
        failing_writes(monkeypatch, 3)
        return send(content, identity)

    monkeypatch.setattr(line, "send", send_and_fill_the_disk)
    assert sender.send_next()
    with bench.store.read() as connection:
        (row,) = connection.execute(select(delivery)).all()
    assert (row.state, row.attempts, line.sent) == (DeliveryState.DELIVERED, 1, ["1.2.9/1"])


def test_a_result_does_not_go_out_without_its_report_because_the_database_was_busy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive(study="1.2.9", sop="1.2.9.1", sop_class=GSPS)
    objects = ResultObjects(bench.settings, bench.store, bench.site_uid)
    summing_up = SummingUp(bench.settings, bench.store, objects)
    report = objects.report

    def busy(*_: object) -> None:
        raise StoreBusy("the database is held by another process")

    monkeypatch.setattr(objects, "report", busy)
    later = clock.now().plus(100.0)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert summing_up.run_once() == 0
    with bench.store.read() as connection:
        assert connection.execute(select(result)).all() == []
    monkeypatch.setattr(objects, "report", report)
    assert summing_up.run_once() == 1
    with bench.store.read() as connection:
        assert {one.kind for one in connection.execute(select(delivery))} == {"sr", "oru"}


def test_a_study_that_failed_for_a_full_disk_lets_others_pass_and_is_tried_again_soon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        bench.receive(study=f"1.2.{number}", sop=f"1.2.{number}.1", sop_class=GSPS)
    summing_up = SummingUp(bench.settings, bench.store, ResultObjects(bench.settings, bench.store, bench.site_uid))
    later = clock.now().plus(100.0)
    monkeypatch.setattr(clock, "now", lambda: later)
    failing_writes(monkeypatch, 2)
    assert summing_up.run_once() == 1
    much_later = later.plus(4.0)
    monkeypatch.setattr(clock, "now", lambda: much_later)
    assert summing_up.run_once() == 1
    with bench.store.read() as connection:
        assert {row.state for row in connection.execute(select(study))} == {"not_analysed"}


def test_a_process_that_stops_while_it_writes_does_not_hang_the_others(bench: Bench) -> None:
    store = Store(bench.store.url, busy_timeout_s=0.3)
    stuck = os.open(f"{store.engine.url.database}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(stuck, fcntl.LOCK_EX)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreBusy), store.write():
            raise AssertionError("the lock is held by somebody else")
    assert time.monotonic() - began < 5.0
    os.close(stuck)
    with store.write() as connection:
        assert connection.execute(select(study)).all() == []
    store.close()


def test_many_writers_at_once_all_come_to_write(bench: Bench) -> None:
    stores = [Store(bench.store.url, busy_timeout_s=20.0) for _ in range(6)]

    def write(store: Store, number: int) -> None:
        for turn in range(15):
            with store.write() as connection:
                events.record(connection, moment(0.0), "test", f"writer {number}", turn=turn)

    with ThreadPoolExecutor(len(stores)) as pool:
        for done in [pool.submit(write, store, number) for number, store in enumerate(stores)]:
            done.result(60)
    with bench.store.read() as connection:
        assert len(events.newest(connection, "test", 1000)) == 90
    for store in stores:
        store.close()


def test_a_lock_that_cannot_be_opened_is_an_error_of_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("firstread.agent.store.engine.os.open", read_only)
    with pytest.raises(StoreError, match=r"make .* writable"), bench.store.write():
        raise AssertionError("nothing can be written")


def test_what_a_dead_role_held_is_freed_as_soon_as_the_database_takes_it(bench: Bench) -> None:
    class Book:
        def __init__(self) -> None:
            self.failures = 2
            self.settled: list[str] = []

        def died(self, name: str, process: int, exit_code: int) -> None:
            if self.failures:
                self.failures -= 1
                raise StoreBusy("held")
            self.settled.append(name)

    supervisor, book = Supervisor(bench.settings, None), Book()
    supervisor._dead += [("analyse", 1, -9), ("deliver", 2, -9)]
    for now in (0.0, 0.5, 1.1, 1.5):
        supervisor._settle(book, now)  # type: ignore[arg-type]
        assert book.settled == []
    supervisor._settle(book, 2.2)  # type: ignore[arg-type]
    assert book.settled == ["analyse", "deliver"]
