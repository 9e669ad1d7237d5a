"""The worklist as UPS-RS: what a client may ask of it, in what order, and what it is told when it may not."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from firstread.agent.password import hash_password
from firstread.agent.store import reading_items, work_items
from firstread.agent.store.tables import entry
from firstread.agent.store.work_tables import work_item
from firstread.agent.web.app import create_app
from firstread.integration.dicom.ups import FILTERED_GLOBAL, GLOBAL
from firstread.models.prediction import Priority
from tests.agent.web_seed import Morning

HERE = "http://127.0.0.1:8080"
ITEMS = "/dicom-web/workitems"
JSON_TYPE = "application/dicom+json"
JSON = {"content-type": JSON_TYPE}
MINE, OTHER = "2.25.1001", "2.25.1002"


class House(Morning):
    """A morning with its work items: the seed stores films without intake, which makes the items."""

    def film(self, name, minutes_ago, *, ordered=None, **values):
        identity, entry_id = super().film(name, minutes_ago, ordered=ordered, **values)
        with self.store.write() as connection:
            row = connection.execute(entry.select().where(entry.c.id == entry_id)).one()
            from firstread.agent.store import studies

            study = studies.find(connection, row.study_instance_uid)
            wanted = None if study.ordered_priority is None else Priority(study.ordered_priority)
            reading_items.film_came(connection, study.id, identity, wanted, self.at(minutes_ago))
        return identity, entry_id


@pytest.fixture
def house(tmp_path):
    morning = House.on(tmp_path / "spool")
    yield morning
    morning.store.close()


@pytest.fixture
def client(house):
    with TestClient(create_app(house.settings, house.store), base_url=HERE) as web:
        yield web


def value(item: dict, tag: str, default=None):
    values = item.get(tag, {}).get("Value") or [default]
    return values[0]


def items(client, **query) -> list[dict]:
    answer = client.get(ITEMS, params=query)
    assert answer.status_code in (200, 204, 206), answer.text
    return answer.json() if answer.content else []


def uid_of(client, **query) -> str:
    (one,) = items(client, **query)
    return value(one, "00080018")


def external(**more) -> dict:
    """What a scheduler creates: all that an N-CREATE must bring."""
    return {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["LOW"]},
        "00741204": {"vr": "LO", "Value": ["Second look"]},
        "00741202": {"vr": "LO", "Value": ["Research"]},
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00404005": {"vr": "DT", "Value": ["20260301120000"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "DOE^JANE"}]},
        "00100020": {"vr": "LO", "Value": ["EXT7"]},
        **more,
    }


def create(client, uid: str, **more):
    return client.post(f"{ITEMS}?{uid}", content=json.dumps([external(**more)]), headers=JSON)


def state(client, uid: str, wanted: str, transaction: str | None = MINE):
    body = {"00741000": {"vr": "CS", "Value": [wanted]}}
    if transaction is not None:
        body["00081195"] = {"vr": "UI", "Value": [transaction]}
    return client.put(f"{ITEMS}/{uid}/state", content=json.dumps([body]), headers=JSON)


def code(value: str, meaning: str) -> dict:
    return {
        "00080100": {"vr": "SH", "Value": [value]},
        "00080102": {"vr": "SH", "Value": ["DCM"]},
        "00080104": {"vr": "LO", "Value": [meaning]},
    }


PERFORMED = {
    "00741216": {
        "vr": "SQ",
        "Value": [
            {
                "00404028": {"vr": "SQ", "Value": [code("WS1", "Workstation 1")]},
                "00404019": {"vr": "SQ", "Value": [code("110005", "Interpretation")]},
                "00404050": {"vr": "DT", "Value": ["20260301120500"]},
                "00404051": {"vr": "DT", "Value": ["20260301121000"]},
                "00404033": {"vr": "SQ", "Value": []},
            }
        ],
    }
}


def update(client, uid: str, changes: dict, transaction: str = ""):
    query = f"?transaction-uid={transaction}" if transaction else ""
    return client.post(f"{ITEMS}/{uid}{query}", content=json.dumps([changes]), headers=JSON)


def complete(client, uid: str) -> None:
    assert state(client, uid, "IN PROGRESS").status_code == 200
    assert update(client, uid, PERFORMED, MINE).status_code == 200
    assert state(client, uid, "COMPLETED").status_code == 200


def on_list(house) -> list[str]:
    with house.store.read() as connection:
        return list(connection.execute(entry.select().where(entry.c.state == "open")).scalars())


# What an item says


def test_a_film_makes_one_item_that_says_what_is_to_be_read_and_where_it_lies(house, client) -> None:
    identity, _ = house.film("DOE^JOHN", 5)
    (item,) = items(client)
    assert value(item, "00741000") == "SCHEDULED"
    assert value(item, "00741200") == "MEDIUM", "nothing is known of its order: LOW would lower it"
    assert value(item, "00404041") == "INCOMPLETE"
    assert value(value(item, "00404018"), "00080100") == "110005"
    assert value(item, "00100010") == {"Alphabetic": "DOE^JOHN"}
    assert value(value(item, "0040A370"), "00080050") == identity.accession_number
    films = value(item, "00404021")
    assert value(value(films, "0040E021"), "00080054") == "FIRSTREAD"
    series = f"{HERE}/dicom-web/studies/{identity.study_instance_uid}/series/2.25.7"
    assert value(value(films, "0040E025"), "00081190") == series
    assert [value(one, "00081155") for one in films["00081199"]["Value"]] == ["2.25.99001"]
    assert "00081195" not in item


def test_a_result_raises_its_item_and_names_report_and_heat_map(house, client) -> None:
    house.read("DOE^JOHN", 5, in_full=True, found={"Pneumothorax": 0.81})
    (item,) = items(client)
    assert (value(item, "00741200"), value(item, "00404041")) == ("HIGH", "READY")
    assert "0.81" in value(item, "00400400")
    outputs = value(item, "00741216")["00404033"]["Value"]
    classes = [value(value(one, "00081199"), "00081150") for one in outputs]
    assert classes == ["1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"]
    assert len(item["00404021"]["Value"]) == 3, "the film, and report and heat map for whoever reads it"


def test_a_negative_result_never_lowers_a_stat_order(house, client) -> None:
    house.read("HADDAD^LAYLA", 5, ordered=Priority.STAT)
    (item,) = items(client)
    assert (value(item, "00741200"), value(item, "00404041")) == ("HIGH", "READY")


def test_a_negative_result_leaves_the_priority_where_nothing_is_known(house, client) -> None:
    house.read("SMITH^MARY", 5)
    assert value(items(client)[0], "00741200") == "MEDIUM"


def test_a_later_better_result_leaves_the_item_raised(house, client) -> None:
    identity, _ = house.film("DOE^JOHN", 9)
    house.analyse(house.claim(9), 8, Pneumothorax=0.8)
    house.sum_up(identity, 7)
    with house.store.write() as connection:
        row = connection.execute(work_item.select()).one()
        item = work_items.from_row(row)
        reading_items.study_reopened(connection, item.study_id, house.at(6))
        lower = reading_items.result_came
        from firstread.agent.store import results
        from firstread.agent.store.codec import assessment_from_json

        said = assessment_from_json(results.newest(connection, item.study_id).assessment)
        lower(connection, item.study_id, identity, replace(said, priority=Priority.ROUTINE), house.at(5))
    assert value(items(client)[0], "00741200") == "HIGH"


def test_the_list_stands_stat_before_urgent_before_the_rest_and_what_ended_behind_all(house, client) -> None:
    for name, found in (("PLAIN", {}), ("EFFUSION", {"Effusion": 0.7}), ("PTX", {"Pneumothorax": 0.8}), ("READ", {})):
        house.read(name, 5, found=found)
    complete(client, uid_of(client, PatientName="READ"))
    names = [value(one, "00100010")["Alphabetic"] for one in items(client)]
    assert names == ["PTX", "EFFUSION", "PLAIN", "READ"]
    due = [value(one, "00404011") for one in items(client)][:3]
    assert due == sorted(due), "who sorts by the time until which it must be read keeps the order"


# The life of an item


def test_completed_by_its_owner_the_study_is_read_and_leaves_the_list(house, client) -> None:
    house.read("DOE^JOHN", 5)
    uid = uid_of(client)
    complete(client, uid)
    assert value(client.get(f"{ITEMS}/{uid}").json()[0], "00741000") == "COMPLETED"
    assert on_list(house) == []
    with house.store.read() as connection:
        row = connection.execute(entry.select()).one()
    assert row.state == "reported" and "work item was completed" in row.ended_by
    again = state(client, uid, "COMPLETED")
    assert again.status_code == 200 and "already in the requested state of COMPLETED" in again.headers["warning"]


def test_a_reading_that_is_given_up_goes_to_somebody_else(house, client) -> None:
    house.read("DOE^JOHN", 5, found={"Pneumothorax": 0.8})
    uid = uid_of(client)
    assert state(client, uid, "IN PROGRESS").status_code == 200
    assert state(client, uid, "CANCELED").status_code == 200
    fresh, ended = items(client)
    assert value(ended, "00080018") == uid and value(ended, "00741000") == "CANCELED"
    assert (value(fresh, "00741000"), value(fresh, "00741200")) == ("SCHEDULED", "HIGH")
    assert len(on_list(house)) == 1


def test_a_cancelled_request_takes_the_study_off_the_list(house, client) -> None:
    house.read("DOE^JOHN", 5)
    uid = uid_of(client)
    answer = client.post(f"{ITEMS}/{uid}/cancelrequest")
    assert answer.status_code == 202, answer.text
    assert value(items(client)[0], "00741000") == "CANCELED"
    assert on_list(house) == []
    assert (
        "already in the requested state of CANCELED" in client.post(f"{ITEMS}/{uid}/cancelrequest").headers["warning"]
    )


def test_a_final_report_from_elsewhere_ends_an_item_that_nobody_claimed(house, client) -> None:
    _, entry_id = house.film("DOE^JOHN", 5)
    from firstread.agent.store.tables import EntryState
    from firstread.agent.store.worklist import take_off
    from firstread.agent.store.worklist_match import Match

    with house.store.write() as connection:
        row = connection.execute(entry.select().where(entry.c.id == entry_id)).one()
        take_off(connection, Match(row.study_instance_uid), EntryState.REPORTED, house.at(1), "hl7", "a final report")
    (item,) = items(client)
    assert value(item, "00741000") == "COMPLETED"
    assert value(value(item, "00741216"), "00404051")


def test_a_film_after_the_reading_makes_a_new_item(house, client) -> None:
    identity, _ = house.film("DOE^JOHN", 9)
    complete(client, uid_of(client))
    house.another_film(identity, 0)
    with house.store.write() as connection:
        study_id = connection.execute(work_item.select()).first().study_id
        reading_items.film_came(connection, study_id, identity, None, house.now)
    fresh, ended = items(client)
    assert (value(fresh, "00741000"), value(ended, "00741000")) == ("SCHEDULED", "COMPLETED")
    assert value(fresh, "00080018") != value(ended, "00080018")


def test_taken_off_by_hand_it_is_canceled_and_put_back_it_is_there_again(house, client) -> None:
    from firstread.agent.store import worklist

    _, entry_id = house.film("DOE^JOHN", 5)
    with house.store.write() as connection:
        worklist.remove_entry(connection, entry_id, "double", house.at(1), "anna")
    assert [value(one, "00741000") for one in items(client)] == ["CANCELED"]
    with house.store.write() as connection:
        worklist.restore_entry(connection, entry_id, house.at(0), "anna")
    assert [value(one, "00741000") for one in items(client)] == ["SCHEDULED", "CANCELED"]


# Who may change what


def test_the_first_of_two_claims_wins(house, client) -> None:
    house.film("DOE^JOHN", 5)
    uid = uid_of(client)
    assert state(client, uid, "IN PROGRESS", MINE).status_code == 200
    second = state(client, uid, "IN PROGRESS", OTHER)
    assert second.status_code == 409 and "C302" in second.text
    assert update(client, uid, {"00741204": {"vr": "LO", "Value": ["mine"]}}, OTHER).status_code == 400
    assert state(client, uid, "COMPLETED", OTHER).status_code == 400
    assert state(client, uid, "CANCELED", MINE).status_code == 200


def test_a_state_that_an_unclaimed_item_cannot_take_is_refused(house, client) -> None:
    house.film("DOE^JOHN", 5)
    uid = uid_of(client)
    for wanted, transaction, answer, says in (
        ("IN PROGRESS", None, 400, "missing"),
        ("IN PROGRESS", "not-a-uid", 400, "malformed"),
        ("COMPLETED", None, 400, "missing"),
        ("COMPLETED", MINE, 409, "C310"),
        ("CANCELED", MINE, 409, "C310"),
        ("SCHEDULED", MINE, 409, "C303"),
        ("DONE", MINE, 400, "0106"),
        ("", MINE, 400, "0106"),
    ):
        refused = state(client, uid, wanted, transaction)
        assert refused.status_code == answer and says in refused.text, (wanted, refused.text)
    assert value(client.get(f"{ITEMS}/{uid}").json()[0], "00741000") == "SCHEDULED"


def test_nothing_is_completed_before_it_says_what_was_done(house, client) -> None:
    house.film("DOE^JOHN", 5)
    uid = uid_of(client)
    state(client, uid, "IN PROGRESS")
    told = state(client, uid, "COMPLETED")
    assert told.status_code == 409 and "C304" in told.text
    assert len(on_list(house)) == 1


def test_what_is_claimed_is_changed_with_its_transaction_uid_alone(house, client) -> None:
    house.film("DOE^JOHN", 5)
    uid = uid_of(client)
    label = {"00741204": {"vr": "LO", "Value": ["Mine"]}}
    early = update(client, uid, label, MINE)
    assert early.status_code == 409 and "C310" in early.text
    state(client, uid, "IN PROGRESS")
    told = update(client, uid, label)
    assert told.status_code == 400 and "Transaction UID is missing" in told.headers["warning"]
    assert "incorrect" in update(client, uid, label, OTHER).headers["warning"]
    assert client.post(f"{ITEMS}/{uid}?{MINE}", content=json.dumps(label), headers=JSON).status_code == 200
    shown = client.get(f"{ITEMS}/{uid}").json()[0]
    assert value(shown, "00741204") == "Mine" and "00081195" not in shown
    assert update(client, uid, {"00100020": {"vr": "LO", "Value": ["X"]}}, MINE).status_code == 400
    assert update(client, uid, {"00741000": {"vr": "CS", "Value": ["COMPLETED"]}}, MINE).status_code == 400


def test_no_client_lowers_a_reading_and_is_told_so(house, client) -> None:
    house.read("DOE^JOHN", 5, found={"Pneumothorax": 0.8})
    uid = uid_of(client)
    told = update(client, uid, {"00741200": {"vr": "CS", "Value": ["LOW"]}})
    assert told.status_code == 200 and "updated with modifications" in told.headers["warning"]
    assert value(items(client)[0], "00741200") == "HIGH"


def test_what_has_ended_is_changed_no_more(house, client) -> None:
    assert create(client, "2.25.5").status_code == 201
    complete(client, "2.25.5")
    told = update(client, "2.25.5", {"00741204": {"vr": "LO", "Value": ["x"]}}, MINE)
    assert told.status_code == 400 and "C300" in told.text
    assert state(client, "2.25.5", "CANCELED").status_code == 409
    told = client.post(f"{ITEMS}/2.25.5/cancelrequest")
    assert told.status_code == 409 and "C311" in told.text


# Creating


def test_others_create_items_and_find_them_again(client) -> None:
    answer = create(client, "2.25.77")
    assert answer.status_code == 201 and answer.headers["location"] == f"{HERE}{ITEMS}/2.25.77"
    assert "created with modifications" in answer.headers["warning"], "attributes of type 2 were added empty"
    item = client.get(f"{ITEMS}/2.25.77").json()[0]
    assert value(item, "00741200") == "LOW" and value(item, "00080016") == "1.2.840.10008.5.1.4.34.6.1"
    assert create(client, "2.25.77").status_code == 409
    drawn = client.post(ITEMS, content=json.dumps(external()), headers=JSON)
    assert drawn.status_code == 201 and drawn.headers["location"] != answer.headers["location"]


def told(attributes: dict) -> bytes:
    return json.dumps(attributes).encode()


SENSELESS = (
    (b"{", JSON_TYPE, 400),
    (b"[]", JSON_TYPE, 400),
    (b"[1]", JSON_TYPE, 400),
    (b"[{},{}]", JSON_TYPE, 400),
    (b"[" * 100_000, JSON_TYPE, 400),
    (b'{"zz":1}', JSON_TYPE, 400),
    (b'{"00741000":{"vr":"CS","Value":["IN PROGRESS"]}}', JSON_TYPE, 400),
    (told(external(**{"00741200": {"vr": "CS", "Value": ["STAT"]}})), JSON_TYPE, 400),
    (told(external(**{"00741200": {"vr": "LO", "Value": ["HIGH"]}})), JSON_TYPE, 400),
    (told(external(**{"00741204": {"vr": "LO"}})), JSON_TYPE, 400),
    (told(external(**{"00404005": {"vr": "DT", "Value": ["soon"]}})), JSON_TYPE, 400),
    (told(external(**{"00404005": {"vr": "DT", "Value": ["20261399"]}})), JSON_TYPE, 400),
    (told(external(**{"00081195": {"vr": "UI", "Value": ["1.2"]}})), JSON_TYPE, 400),
    (told(external(**{"0020000D": {"vr": "UI", "Value": ["1/2"]}})), JSON_TYPE, 400),
    (told(external(**{"00100020": {"vr": "LO", "Value": ["\ud800"]}})), JSON_TYPE, 400),
    (told(external(**{"00100020": {"vr": "LO", "Value": ["a\0"]}})), JSON_TYPE, 400),
    (told(external(**{"00741004": {"vr": "DS", "Value": [float("nan")]}})), JSON_TYPE, 400),
    (b"<a/>", "application/dicom+xml", 400),
    (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "application/dicom+xml", 400),
    (b"x", "text/plain", 415),
    (b"x", "", 415),
    (b" " * (1 << 21), JSON_TYPE, 413),
)


def test_a_body_that_makes_no_item_is_refused_with_why(house, client) -> None:
    for body, content_type, answer in SENSELESS:
        refused = client.post(f"{ITEMS}?2.25.9", content=body, headers={"content-type": content_type})
        assert refused.status_code == answer and refused.text.strip(), (body[:200], refused.text)
    with house.store.read() as connection:
        assert connection.execute(work_item.select()).all() == []


def test_a_compressed_body_is_not_unpacked(client) -> None:
    told = client.post(ITEMS, content=b"x", headers={**JSON, "content-encoding": "gzip"})
    assert told.status_code == 415


def test_uids_with_slashes_are_not_found(client) -> None:
    paths = ["a/b", "1.2/3", "1.2%2F3", "1.2/state/more"]
    for path, method in itertools.product(paths, ("GET", "POST", "PUT", "DELETE")):
        told = client.request(method, f"{ITEMS}/{path}", headers=JSON, content=b"{}")
        assert told.status_code in (404, 405) and told.text.strip(), (method, path)


def test_a_uid_that_is_none_is_a_bad_request(client) -> None:
    for uid in ("abc", "1..2", "1.2.", "9" * 65, "1.2%00", "%20"):
        assert client.get(f"{ITEMS}/{uid}").status_code == 400, uid
    assert client.get(f"{ITEMS}/2.25.404").status_code == 404


# Searching


def test_a_search_matches_as_dicom_matches(house, client) -> None:
    for name, found in (("DOE^JOHN", {"Pneumothorax": 0.8}), ("DOBBS^ANNA", {}), ("森^聡", {})):
        house.read(name, 5, found=found)
    create(client, "2.25.8")
    assert len(items(client)) == 4
    assert len(items(client, ScheduledProcedureStepPriority="HIGH")) == 1
    assert len(items(client, PatientName="do*")) == 3
    assert len(items(client, **{"00100010": "DO?^JOHN"})) == 1
    assert len(items(client, PatientName="森*")) == 1
    assert len(items(client, ProcedureStepState="SCHEDULED", WorklistLabel="Research")) == 1
    assert len(items(client, **{"ScheduledWorkitemCodeSequence.CodeValue": "110005"})) == 3
    assert len(items(client, **{"00404018.00080100": "110006"})) == 0
    assert len(items(client, ScheduledProcedureStepStartDateTime="20260301")) == 1
    assert len(items(client, ScheduledProcedureStepStartDateTime="20260401-")) == 3
    assert len(items(client, ScheduledProcedureStepStartDateTime="-20260301")) == 1
    study = value(items(client, PatientName="DOE^JOHN")[0], "0020000D")
    assert len(items(client, StudyInstanceUID=f"{study},1.2.3")) == 1
    assert len(items(client, **{"ReferencedRequestSequence.AccessionNumber": "A26-4001"})) == 1
    assert len(items(client, PatientName="")) == 4
    assert len(items(client, PatientID="[A-Z]*")) == 0, "a bracket is a letter, not a pattern"
    assert len(items(client, includefield="all")) == 4


def test_pages_follow_each_other_and_end(house, client) -> None:
    for number in range(5):
        create(client, f"2.25.{number + 1}")
    first = client.get(ITEMS, params={"limit": 2})
    assert first.status_code == 206 and "more results" in first.headers["warning"]
    pages = [client.get(ITEMS, params={"limit": 2, "offset": at, "PatientName": "DOE*"}) for at in (0, 2, 4)]
    assert [page.status_code for page in pages] == [206, 206, 200]
    found = [value(one, "00080018") for page in pages for one in page.json()]
    assert found == [f"2.25.{number + 1}" for number in range(5)]
    for query in ({}, {"PatientName": "DOE*"}):
        beyond = client.get(ITEMS, params={"offset": 999_999_999, **query})
        assert (beyond.status_code, beyond.content) == (204, b"")


def test_a_query_that_makes_no_sense_is_refused_with_why(client) -> None:
    for query in (
        "NoSuch=1", "99999999=1", "PatientName.PatientID=1", "ScheduledWorkitemCodeSequence=1", "limit=-1", "limit=0",
        "offset=x", "limit=9999999999", "fuzzymatching=maybe", "StudyInstanceUID=1/2", "TransactionUID=1.2",
        "ScheduledProcedureStepStartDateTime=monday", "includefield=Nonsense", "PatientID=%00", "00000002=1", "=1",
    ):  # fmt: skip
        refused = client.get(f"{ITEMS}?{query}")
        assert refused.status_code == 400 and refused.text.strip(), query


def test_fuzzy_matching_is_said_not_to_be_done(house, client) -> None:
    house.film("DOE^JOHN", 5)
    told = client.get(ITEMS, params={"PatientName": "DOE*", "fuzzymatching": "true"})
    assert told.status_code == 200 and "Only literal matching" in told.headers["warning"]


def test_xml_says_the_same_as_json(house, client) -> None:
    house.read("MORI^SATOSHI=森^聡=もり^さとし", 5, in_full=True)
    uid = uid_of(client)
    from firstread.integration.dicomweb.ups_xml import from_xml

    as_xml = client.get(f"{ITEMS}/{uid}", headers={"accept": "application/dicom+xml"})
    as_json = client.get(f"{ITEMS}/{uid}").json()[0]
    plain = {tag: {"vr": one["vr"], "Value": one.get("Value", [])} for tag, one in as_json.items()}
    again = from_xml(as_xml.content)
    assert again.keys() == plain.keys()
    assert again["00100010"] == plain["00100010"] and again["00404005"] == plain["00404005"]
    assert value(again["00404021"]["Value"][0], "0020000D") == value(plain["00404021"]["Value"][0], "0020000D")
    several = client.get(ITEMS, headers={"accept": 'multipart/related; type="application/dicom+xml"'})
    assert several.headers["content-type"].startswith("multipart/related") and b"NativeDicomModel" in several.content
    assert client.get(ITEMS, headers={"accept": "image/png"}).status_code == 406
    sent = client.post(f"{ITEMS}?2.25.31", content=_xml(external()), headers={"content-type": "application/dicom+xml"})
    assert sent.status_code == 201, sent.text
    assert value(client.get(f"{ITEMS}/2.25.31").json()[0], "00100010") == {"Alphabetic": "DOE^JANE"}


def _xml(attributes: dict) -> bytes:
    from firstread.integration.dicomweb.ups_xml import to_xml

    return to_xml(attributes)


# Subscribing


def subscribe(client, resource: str, ae: str = "WS1", **query):
    return client.post(f"{ITEMS}/{resource}/subscribers/{ae}", params=query)


def channel(client, ae: str = "WS1"):
    return client.websocket_connect(f"{HERE.replace('http', 'ws')}/dicom-web/ws/subscribers/{ae}")


def kind(event: dict) -> tuple:
    return value(event, "00001000"), value(event, "00001002"), value(event, "00741000")


def test_a_subscriber_hears_how_things_stand_and_then_each_change(house, client) -> None:
    assert create(client, "2.25.5").status_code == 201
    answer = subscribe(client, "2.25.5")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == "ws://127.0.0.1:8080/dicom-web/ws/subscribers/WS1"
    with channel(client) as heard:
        assert kind(heard.receive_json()) == ("2.25.5", 1, "SCHEDULED")
        state(client, "2.25.5", "IN PROGRESS")
        assert kind(heard.receive_json()) == ("2.25.5", 1, "IN PROGRESS")
        reason = {"00741238": {"vr": "LT", "Value": ["not needed"]}}
        client.post(f"{ITEMS}/2.25.5/cancelrequest", content=json.dumps(reason), headers=JSON)
        asked = heard.receive_json()
        assert value(asked, "00001002") == 2 and value(asked, "00741238") == "not needed"
        progress = {"00741002": {"vr": "SQ", "Value": [{"00741004": {"vr": "DS", "Value": [50]}}]}}
        assert update(client, "2.25.5", progress, MINE).status_code == 200
        assert value(heard.receive_json(), "00001002") == 3
        station = {"00404025": {"vr": "SQ", "Value": [code("WS1", "Workstation 1")]}}
        assert update(client, "2.25.5", station, MINE).status_code == 200
        assert value(heard.receive_json(), "00001002") == 5
        state(client, "2.25.5", "CANCELED")
        assert kind(heard.receive_json()) == ("2.25.5", 1, "CANCELED")


def test_a_subscriber_that_comes_again_hears_what_it_missed(house, client) -> None:
    create(client, "2.25.5")
    subscribe(client, "2.25.5")
    with channel(client) as heard:
        heard.receive_json()
    complete(client, "2.25.5")
    with channel(client) as heard:
        assert kind(heard.receive_json()) == ("2.25.5", 1, "COMPLETED")


def test_a_global_subscriber_hears_of_every_item_that_is_there_and_that_comes(house, client) -> None:
    create(client, "2.25.5")
    assert subscribe(client, GLOBAL).status_code == 201
    with channel(client) as heard:
        assert kind(heard.receive_json())[0] == "2.25.5"
        create(client, "2.25.6")
        assert kind(heard.receive_json()) == ("2.25.6", 1, "SCHEDULED")
        house.read("DOE^JOHN", 5, found={"Pneumothorax": 0.8})
        new, ready = heard.receive_json(), heard.receive_json()
        assert (value(new, "00404041"), value(ready, "00404041")) == ("INCOMPLETE", "READY")
        assert client.post(f"{ITEMS}/{GLOBAL}/subscribers/WS1/suspend").status_code == 200
        create(client, "2.25.7")
        state(client, "2.25.6", "IN PROGRESS")
        assert kind(heard.receive_json()) == ("2.25.6", 1, "IN PROGRESS"), "of what comes it hears no more"
        assert client.delete(f"{ITEMS}/{GLOBAL}/subscribers/WS1").status_code == 200
        state(client, "2.25.6", "CANCELED")
        subscribe(client, "2.25.7")
        assert kind(heard.receive_json()) == ("2.25.7", 1, "SCHEDULED"), "of nothing any more, but what it asks for"
    assert client.delete(f"{ITEMS}/2.25.6/subscribers/WS1").status_code == 404
    assert client.post(f"{ITEMS}/{GLOBAL}/subscribers/WS1/suspend").status_code == 404


def test_a_filtered_subscriber_hears_of_what_matches(house, client) -> None:
    wanted = "WorklistLabel=Reading,ScheduledProcedureStepPriority=HIGH"
    assert subscribe(client, FILTERED_GLOBAL, filter=wanted).status_code == 201
    with channel(client) as heard:
        create(client, "2.25.6")
        house.film("PLAIN", 5)
        house.film("HADDAD^LAYLA", 5, ordered=Priority.STAT)
        urgent = value(heard.receive_json(), "00001000")
    assert urgent == uid_of(client, PatientName="HADDAD*")


def test_a_subscription_that_cannot_be_is_refused(client) -> None:
    create(client, "2.25.5")
    for resource, ae, query, answer in (
        ("2.25.404", "WS1", {}, 404),
        ("2.25.5", "W" * 17, {}, 400),
        ("2.25.5", "W%5CS", {}, 400),
        ("2.25.5", "WS1", {"deletionlock": "perhaps"}, 400),
        (FILTERED_GLOBAL, "WS1", {}, 400),
        (FILTERED_GLOBAL, "WS1", {"filter": "PatientName"}, 400),
        (FILTERED_GLOBAL, "WS1", {"filter": "NoSuch=1"}, 400),
        ("abc", "WS1", {}, 400),
    ):
        refused = subscribe(client, resource, ae, **query)
        assert refused.status_code == answer and refused.text.strip(), (resource, ae, query)
    assert client.post(f"{ITEMS}/2.25.5/subscribers/WS1/suspend").status_code == 400


def test_what_is_locked_is_kept_until_the_lock_is_given_up(house, client) -> None:
    create(client, "2.25.5")
    create(client, "2.25.6")
    subscribe(client, "2.25.5", deletionlock="true")
    subscribe(client, "2.25.6")
    complete(client, "2.25.5")
    complete(client, "2.25.6")
    later = house.now.plus(86400 * 400).at
    with house.store.write() as connection:
        assert work_items.forget_ended(connection, later) == 1
    assert client.get(f"{ITEMS}/2.25.5").status_code == 200
    assert client.get(f"{ITEMS}/2.25.6").status_code == 404
    assert client.delete(f"{ITEMS}/2.25.5/subscribers/WS1").status_code == 200
    with house.store.write() as connection:
        assert work_items.forget_ended(connection, later) == 1


# Who is let in


def test_without_the_login_nothing_of_the_worklist_is_shown(tmp_path) -> None:
    house = House.on(
        tmp_path / "spool", web={"host": "0.0.0.0", "username": "anna", "password_hash": hash_password("secret word")}
    )
    house.film("DOE^JOHN", 5)
    with TestClient(create_app(house.settings, house.store), base_url="http://reading-room.example") as web:
        for method, path in (("GET", ITEMS), ("POST", ITEMS), ("PUT", f"{ITEMS}/2.25.5/state")):
            told = web.request(method, path)
            assert told.status_code == 401 and "DOE" not in told.text
        with (
            pytest.raises(Exception) as refused,
            web.websocket_connect("ws://reading-room.example/dicom-web/ws/subscribers/WS1"),
        ):
            pass
        assert getattr(refused.value, "status_code", 401) == 401
    house.store.close()


def test_another_site_opens_no_channel(house, client) -> None:
    with (
        pytest.raises(Exception) as refused,
        client.websocket_connect(
            "ws://127.0.0.1:8080/dicom-web/ws/subscribers/WS1", headers={"origin": "https://evil.example"}
        ),
    ):
        pass
    assert not isinstance(refused.value, AssertionError)
    assert getattr(refused.value, "status_code", 403) == 403


def test_a_channel_for_no_ae_title_is_closed(client) -> None:
    with pytest.raises(WebSocketDisconnect), channel(client, "W" * 17) as heard:
        heard.receive_json()
