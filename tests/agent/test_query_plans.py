"""What is asked all day is found by index: nothing reads a table of years from end to end, or sorts one.

SQLite is never told statistics of its tables (nothing runs ANALYZE), so its plans depend on the schema alone and a
small database shows those of a full one. benchmarks/queue.py measures the same queries on a million studies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from starlette.testclient import TestClient

from firstread.agent.care import Care
from firstread.agent.listing import study_objects
from firstread.agent.store import deliveries, images, messages, overdue, studies, tables
from firstread.agent.store.engine import Store
from firstread.agent.store.studies import StudyFilter
from firstread.agent.store.worklist import forget_ended
from firstread.agent.web.app import create_app
from firstread.agent.worklist.inbox import Inbox
from firstread.models.prediction import Priority
from tests.agent.test_worklist_inbox import order, report
from tests.agent.web_seed import Morning, busy_morning

LARGE = "study|instance|result|artifact|delivery|event|worklist_entry|worklist_message"
"""Tables that grow with every film. The others hold a row for each role, destination or alarm."""

COUNTS = re.compile(r"GROUP BY (instance|study|worklist_entry)\.state$|GROUP BY delivery\.destination, delivery\.kind")
"""The counts of everything: agent/store/totals.py asks them seldom."""


class Plans:
    """Every statement that a store is asked, with SQLite's plan of it."""

    def __init__(self, store: Store) -> None:
        self.found: list[tuple[str, list[str]]] = []
        event.listen(store.engine, "before_cursor_execute", self.look)

    def look(self, connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        """Called with every statement."""
        if not re.match(r"\s*(SELECT|UPDATE|DELETE)", statement):
            return
        raw = connection.connection.cursor()
        try:
            plan = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters or ()).fetchall()
        finally:
            raw.close()
        self.found.append((" ".join(statement.split()), [str(row[3]) for row in plan]))

    def slow(self) -> list[str]:
        """Statements that read a large table from end to end, or sort what a limit cuts off afterwards."""
        found = []
        for statement, plan in self.found:
            if COUNTS.search(statement):
                continue
            scans = [step for step in plan if re.match(rf"SCAN ({LARGE})\b", step) and not _first_few(statement)]
            sorts = [step for step in plan if "ORDER BY" in step and "LIMIT" in statement and _of_many(plan)]
            found += [f"{step}: {statement}" for step in scans + sorts]
        return found


def _first_few(statement: str) -> bool:
    """Read in the order of the table or of an index until the limit is reached."""
    return "LIMIT" in statement and "ORDER BY" in statement and "WHERE" not in statement


def _of_many(plan: list[str]) -> bool:
    """Rows of a large table, and not of one study or patient alone."""
    one = re.compile(r"\((study_id|study_instance_uid|accession_number|patient_id)=\?\)")
    return any(re.match(rf"(SCAN|SEARCH) ({LARGE})\b", step) for step in plan) and not any(map(one.search, plan))


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory):
    made = Morning.on(tmp_path_factory.mktemp("morning") / "spool")
    busy_morning(made)
    yield made
    made.store.close()


@pytest.fixture
def plans(morning: Morning) -> Iterator[Plans]:
    made = Plans(morning.store)
    yield made
    event.remove(morning.store.engine, "before_cursor_execute", made.look)


def test_a_scan_is_seen(morning: Morning, plans: Plans) -> None:
    with morning.store.read() as connection:
        connection.execute(select(tables.study.c.id).where(tables.study.c.cause == "x")).all()
        connection.execute(select(tables.event).order_by(tables.event.c.actor).limit(3)).all()
    assert [found.split(":")[0] for found in plans.slow()] == ["SCAN study", "USE TEMP B-TREE FOR ORDER BY"]


def test_no_page_reads_a_table_from_end_to_end(morning: Morning, plans: Plans) -> None:
    client = TestClient(create_app(morning.settings, morning.store), base_url="http://127.0.0.1:8080")
    for path in ("/", "/?order=arrival", "/study/1", "/off", "/system", "/metrics", "/ready", "/health"):
        client.get(path)
    assert len(plans.found) > 50 and plans.slow() == []


def test_no_message_of_the_ris_reads_the_list_from_end_to_end(morning: Morning, plans: Plans) -> None:
    inbox = Inbox(morning.store)
    assert b"MSA|AA" in inbox(order("1", accession="A77", placer="PL77"), "127.0.0.1:1")
    assert b"MSA|AA" in inbox(order("2", accession="A26-4001", patient="P100201", placer="PL78"), "127.0.0.1:1")
    assert b"MSA|AA" in inbox(report("3", accession="A77", placer="PL77"), "127.0.0.1:1")
    assert len(plans.found) > 10 and plans.slow() == []


def test_no_transition_of_a_study_reads_a_table_from_end_to_end(morning: Morning, plans: Plans) -> None:
    morning.read("PLAN^QUERY", 3, in_full=True, found={"Mass": 0.8}, accession_number="PLAN")
    morning.fail("pacs", 2, "nobody answers")
    with morning.store.write() as connection:
        now = morning.now
        studies.ready_to_sum_up(connection, quiet_period_s=1, max_open_s=9, limit=5, now=now)
        studies.set_ordered_priority(
            connection, study_instance_uid="2.25.1", accession_number="PLAN", priority=Priority.STAT, now=now
        )
        images.free_leases(connection, dead_prefix="a/b", max_attempts=3, actor="t", now=now)
        images.any_waiting(connection)
        deliveries.free_leases(connection, dead_prefix="a/b", actor="t", now=now)
        for on_hold in (True, False):
            deliveries.any_due(connection, "pacs", on_hold=on_hold, now=now)
            deliveries.claim(connection, "ris", on_hold=on_hold, owner="o", lease_s=9, now=now)
            deliveries.release(connection, "ris", on_hold=on_hold, send=True, actor="t", now=now)
    assert len(plans.found) > 40 and plans.slow() == []


def test_nothing_that_is_looked_after_reads_a_table_from_end_to_end(morning: Morning, plans: Plans) -> None:
    now = morning.now
    with morning.store.write() as connection:
        overdue.any_lease_ended(connection, now)
        overdue.oldest_waiting(connection)
        overdue.waiting(connection, 100)
        overdue.raised_between(connection, now.at - timedelta(hours=1), now.at)
        films = overdue.films_to_purge(connection, now.at, limit=5)
        assert overdue.mark_purged(connection, films, actor="t", now=now) == films and films
        messages.forget_before(connection, now.at - timedelta(days=180))
        forget_ended(connection, now.at - timedelta(days=180))
    care = Care(morning.settings, morning.store)
    care.watch()
    care.upkeep()
    care.retention()
    assert any("ix_instance_with_file" in step for _, plan in plans.found for step in plan)
    assert len(plans.found) > 8 and plans.slow() == []


@pytest.mark.parametrize(
    "wanted",
    [
        StudyFilter(),
        StudyFilter(state="analysed"),
        StudyFilter(accession_number="A26-4001"),
        StudyFilter(patient_id="P100201"),
        StudyFilter(study_instance_uid="2.25.4711001"),
        StudyFilter(station="XR2"),
        StudyFilter(received_from=datetime(2026, 1, 1, tzinfo=UTC), received_until=datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_no_filter_of_the_studies_reads_them_from_end_to_end(
    morning: Morning, plans: Plans, wanted: StudyFilter
) -> None:
    with morning.store.read() as connection:
        study_objects(connection, studies.selected(connection, wanted, 100))
    assert plans.found and plans.slow() == []
