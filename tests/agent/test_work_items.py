"""Work items in the store: on both databases, for studies that were there before, and for films whatever they say."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import delete

from firstread.agent import clock
from firstread.agent.store import studies, work_subscriptions, worklist
from firstread.agent.store.work_tables import work_event, work_item
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.ups import GLOBAL, Asker, Status, UpsRefusal, first
from tests.agent.builders import Bench, moment
from tests.agent.test_web_ups import external

ASKER = Asker("test")


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request, tmp_path, monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: moment(0))
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Bench(tmp_path / "spool", url, worklist={"enabled": True})
    yield made
    made.store.close()


def test_of_many_who_claim_at_once_one_gets_it(bench) -> None:
    service = WorkItems(bench.settings, bench.store)
    service.create("2.25.5", external(), ASKER)
    told: list[Status] = []
    ready = threading.Barrier(6)

    def claim(number: int) -> None:
        ready.wait()
        try:
            told.append(service.change_state("2.25.5", "IN PROGRESS", f"2.25.{100 + number}", ASKER))
        except UpsRefusal as refusal:
            told.append(refusal.status)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == [Status.SUCCESS] + [Status.ALREADY_IN_PROGRESS] * 5


def test_a_film_makes_an_item_and_a_second_film_stands_in_it_too(bench) -> None:
    service = WorkItems(bench.settings, bench.store)
    service.subscribe(GLOBAL, "WS1", ASKER, lock=False)
    bench.receive()
    bench.receive(PatientName="PHANTOM^ANNA^B")
    (item,), more = service.search({"00741000": {"vr": "CS", "Value": ["SCHEDULED"]}}, limit=5)
    assert not more
    films = item["00404021"]["Value"][0]["00081199"]["Value"]
    assert [first(one, "00081155") for one in films] == ["1.2.3.1.1", "1.2.3.1.2"]
    assert first(item, "00100010") == "PHANTOM^ANNA^B", "the newest image says whose study it is"
    with bench.store.read() as connection:
        found = work_subscriptions.events_after(connection, 0)
    assert [receivers for _, receivers in found] == [["WS1"]]


def test_a_film_that_breaks_its_vrs_makes_an_item_all_the_same(bench) -> None:
    bench.receive(AccessionNumber="X" * 56, PatientBirthDate="not a date", PatientSex="?", PatientID="P" * 80)
    (item,), _ = WorkItems(bench.settings, bench.store).search({}, limit=5)
    assert first(item, "00100030") is None and first(item, "00100020") is None, "an identifier is never cut"


def test_what_stood_on_the_list_before_gets_its_item(bench) -> None:
    bench.receive()
    bench.receive(study="1.2.4", series="1.2.4.1")
    with bench.store.write() as connection:
        connection.execute(delete(work_item))
        row = studies.find(connection, "1.2.4")
        match = worklist.Match(study_instance_uid=row.study_instance_uid)
        worklist.take_off(connection, match, worklist.EntryState.REPORTED, moment(1), "t", "read")
    from firstread.agent.care import Care

    care = Care(bench.settings, bench.store)
    assert (care.make_missing_items(), care.make_missing_items()) == (1, 0)
    (item,), _ = WorkItems(bench.settings, bench.store).search({}, limit=5)
    assert first(item, "0020000D") == "1.2.3"


def test_events_are_forgotten_and_subscribers_not(bench) -> None:
    service = WorkItems(bench.settings, bench.store, lambda: moment(0))
    service.subscribe(GLOBAL, "WS1", ASKER, lock=True)
    service.create("2.25.5", external(), ASKER)
    with bench.store.write() as connection:
        assert work_subscriptions.forget_events(connection, moment(10).at) == 1
        assert connection.execute(work_event.select()).all() == []
    reports, _ = service.as_it_stands("WS1")
    assert [one.sop_instance_uid for one in reports] == ["2.25.5"]


def test_pages_of_a_long_list_hold_every_item_once(bench) -> None:
    service = WorkItems(bench.settings, bench.store)
    for number in range(450):
        urgent = {"00741200": {"vr": "CS", "Value": [("LOW", "MEDIUM", "HIGH")[number % 3]]}}
        service.create(f"2.25.{number + 1}", external(**urgent), ASKER)
    for keys in ({}, {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE*"}]}}):
        seen: list[str] = []
        more = True
        while more:
            page, more = service.search(keys, limit=100, offset=len(seen))
            seen += [str(first(one, "00080018")) for one in page]
        assert len(seen) == len(set(seen)) == 450
        assert [int(uid.rpartition(".")[2]) % 3 for uid in seen] == [0] * 150 + [2] * 150 + [1] * 150
