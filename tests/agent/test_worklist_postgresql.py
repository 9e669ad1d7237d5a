"""The reading list and the page's queries do the same on PostgreSQL."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from firstread.agent.store.reading_list import ended_entries, in_full, open_entries
from firstread.agent.store.tables import EntryState
from firstread.agent.store.worklist import forget_ended
from firstread.agent.web.app import create_app
from firstread.models.prediction import Priority
from tests.agent.test_worklist_inbox import Box, order, report
from tests.agent.web_seed import Morning


@pytest.fixture
def morning(tmp_path, postgres_url):
    made = Morning.on(tmp_path / "spool", database={"url": postgres_url})
    yield made
    made.store.close()


def test_orders_films_results_and_reports_meet_on_postgresql(morning) -> None:
    box = Box(morning)
    box(order("1", accession="A1", patient="P1"))
    box(order("2", accession="A2", patient="P2", placer="PL2", priority="R"))
    first = morning.read("DOE^JOHN", 20, accession_number="A1", patient_id="P1", found={"Mass": 0.9}, in_full=True)
    second = morning.read("森^聡", 15, accession_number="A2", accession_numbers=("A2", "A3"), patient_id="P2")
    assert (box.open()["A1"].ordered, box.open()["A1"].raised) == (Priority.STAT, Priority.STAT)
    box.minutes_ago = 5
    box(report("3", accession="A3", patient="P2", placer=""))
    assert "A2" in box.open(), "its other order is not reported yet"
    box(report("4", accession="A2", patient="P2", placer="PL2"))
    assert set(box.open()) == {"A1"}
    with morning.store.read() as connection:
        assert [one.state for one in ended_entries(connection, 5)] == [EntryState.REPORTED]
        kinds = {one.kind for one in in_full(connection, first).trail}
        assert {"list order", "list order met its film", "list result", "received"} - {"received"} <= kinds
        known = {one.id: one for one in open_entries(connection)}
        assert open_entries(connection, known)[0] is known[first]
    client = TestClient(create_app(morning.settings, morning.store), base_url="http://127.0.0.1:8080")
    for path in ("/", f"/study/{first}", f"/study/{second}", "/off", "/system", "/metrics"):
        assert client.get(path).status_code == 200, path
    with morning.store.write() as connection:
        assert forget_ended(connection, morning.now.plus(60).at) == 1
