"""Orders, results and reports over HL7 become entries of the reading list, durably and once."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from firstread.agent.store import events, studies
from firstread.agent.store.reading_list import ended_entries, open_entries
from firstread.agent.store.tables import EntryState, entry, event
from firstread.agent.store.worklist import restore_entry
from firstread.agent.worklist.inbox import Inbox
from firstread.integration.hl7.errors import UnreadableMessage
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Priority
from tests.agent.web_seed import Morning


@pytest.fixture
def morning(tmp_path):
    made = Morning.on(tmp_path / "spool")
    yield made
    made.store.close()


def hl7(*segments: str) -> bytes:
    return "".join(segment + "\r" for segment in segments).encode()


def header(kind: str, control: str, sender: str = "RIS") -> str:
    return f"MSH|^~\\&|{sender}|HOSP|FIRSTREAD|HOSP|20261123080000||{kind}|{control}|P|2.5.1|||||||UNICODE UTF-8"


def order(
    control="1", *, accession="A1", priority="S", do="NW", patient="P1", placer="PL1", kind="ORM^O01", sender="RIS"
):
    return hl7(
        header(kind, control, sender),
        f"PID|1||{patient}^^^HOSP||DOE^JOHN||19600101|M",
        "PV1|1|E",
        f"ORC|{do}|{placer}|F{placer}||||||20261123075500",
        f"TQ1|1||||||||{priority}",
        f"OBR|1|{placer}|F{placer}|71046^Chest^C4||||||||||||||{accession}|{accession}",
    )


def report(control="9", *, accession="A1", status="F", patient="P1", placer="PL1"):
    return hl7(
        header("ORU^R01^ORU_R01", control),
        f"PID|1||{patient}^^^HOSP||DOE^JOHN||19600101|M",
        f"OBR|1|{placer}|F{placer}|71046^Chest^C4|||20261123080000|||||||||||{accession}||||20261123090000||RAD|{status}",
        "OBX|1|TX|18748-4^Report^LN||No acute finding.||||||F",
    )


class Box:
    def __init__(self, morning: Morning) -> None:
        self.morning = morning
        self.minutes_ago = 30.0

    def __call__(self, message: bytes) -> bytes:
        return Inbox(self.morning.store, lambda: self.morning.at(self.minutes_ago))(message, "127.0.0.1:1")

    def open(self):
        with self.morning.store.read() as connection:
            return {one.identity.accession_number: one for one in open_entries(connection)}

    def ended(self):
        with self.morning.store.read() as connection:
            return {one.identity.accession_number: one for one in ended_entries(connection, 50)}


@pytest.fixture
def box(morning):
    return Box(morning)


def test_an_order_before_its_film_gives_the_film_its_priority(box, morning) -> None:
    assert b"MSA|AA|1" in box(order())
    assert not box.open()["A1"].readable
    morning.film("DOE^JOHN", 10, accession_number="A1", patient_id="P1")
    listed = box.open()["A1"]
    assert (listed.ordered, listed.readable, len(box.open())) == (Priority.STAT, True, 1)
    assert listed.arrived_at == morning.at(10).at, "nobody waits for a film that was not made yet"


def test_an_order_after_its_film_raises_the_study_and_its_results_too(box, morning) -> None:
    identity, entry_id = morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(order())
    assert box.open()["A1"].id == entry_id
    assert box.open()["A1"].ordered is Priority.STAT
    with morning.store.read() as connection:
        row = studies.find(connection, identity.study_instance_uid)
    assert row.ordered_priority == Priority.STAT


@pytest.mark.parametrize("kind", ["ORM^O01", "OMI^O23^OMI_O23"])
def test_a_later_order_never_lowers_a_priority(box, morning, kind) -> None:
    morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(order("1", kind=kind))
    box(order("2", priority="R", do="XO", kind=kind))
    assert box.open()["A1"].ordered is Priority.STAT


def test_an_order_of_another_patient_under_the_same_accession_raises_but_names_nobody(box, morning) -> None:
    morning.film("ROE^ANNA", 60, accession_number="A1", patient_id="P2", placer_order_number="")
    box(order(patient="P1"))
    listed = box.open()["A1"]
    assert listed.ordered is Priority.STAT
    assert (listed.identity.patient_id, listed.identity.patient_name) == ("P2", "ROE^ANNA")
    assert listed.identity.placer_order_number == ""


def test_the_same_message_again_gets_the_same_answer_and_does_nothing(box, morning) -> None:
    first = box(order())
    with morning.store.read() as connection:
        before = connection.execute(select(func.max(event.c.id))).scalar()
    assert box(order()) == first
    with morning.store.read() as connection:
        assert connection.execute(select(func.max(event.c.id))).scalar() == before
        assert connection.execute(select(func.count()).select_from(entry)).scalar() == 1


def test_a_used_control_id_with_other_content_is_a_new_message(box) -> None:
    box(order("1", accession="A1"))
    box(order("1", accession="A2", placer="PL2"))
    assert set(box.open()) == {"A1", "A2"}


def test_two_senders_may_use_the_same_control_id(box) -> None:
    box(order("1", accession="A1", sender="RIS"))
    box(order("1", accession="A2", placer="PL2", sender="OTHER"))
    assert set(box.open()) == {"A1", "A2"}


def test_a_final_report_takes_the_study_off_and_it_can_be_put_back(box, morning) -> None:
    _, entry_id = morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(report(status="P"))
    assert "A1" in box.open(), "a preliminary report ends nothing"
    box(report("10"))
    assert "A1" not in box.open()
    assert box.ended()["A1"].state is EntryState.REPORTED
    with morning.store.write() as connection:
        assert restore_entry(connection, entry_id, morning.now, "anna")
        assert not restore_entry(connection, entry_id, morning.now, "anna")
    assert box.open()["A1"].arrived_at == morning.at(60).at, "its wait goes on"


def test_a_corrected_report_takes_it_off_as_well(box, morning) -> None:
    morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(report(status="C"))
    assert not box.open()


def test_a_report_on_another_patient_takes_nothing_off(box, morning) -> None:
    morning.film("ROE^ANNA", 60, accession_number="A1", patient_id="P2")
    box(report(patient="P1"))
    assert "A1" in box.open()
    with morning.store.read() as connection:
        assert events.newest(connection, "list not ended", 1)


def test_a_study_of_two_orders_stays_until_both_are_reported(box, morning) -> None:
    morning.film("DOE^JOHN", 60, accession_number="A1", accession_numbers=("A1", "A2"), patient_id="P1")
    box(report("1", accession="A1", placer="PL1"))
    assert "A1" in box.open()
    box(report("2", accession="A2", placer="PL2"))
    assert not box.open()


def test_a_cancelled_order_takes_the_study_off_and_a_new_one_brings_it_back(box, morning) -> None:
    morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(order("1"))
    box(order("2", do="CA"))
    assert box.ended()["A1"].state is EntryState.CANCELLED
    box(order("3", do="NW", priority="R"))
    assert box.open()["A1"].ordered is Priority.STAT


def test_a_film_that_comes_although_its_order_was_cancelled_stands_on_the_list(box, morning) -> None:
    box(order("1"))
    box(order("2", do="CA"))
    morning.film("DOE^JOHN", 10, accession_number="A1", patient_id="P1")
    assert box.open()["A1"].ordered is Priority.STAT


def test_a_film_after_the_final_report_comes_back_unread(box, morning) -> None:
    identity, _ = morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")
    box(report())
    morning.another_film(identity, 5)
    assert box.open()["A1"].arrived_at == morning.at(5).at


def test_our_result_raises_explains_and_stays_raised(box, morning) -> None:
    identity, _ = morning.film("DOE^JOHN", 40, accession_number="A1", patient_id="P1")
    morning.analyse(morning.claim(39), 39, Pneumothorax=0.81)
    morning.sum_up(identity, 38)
    listed = box.open()["A1"]
    assert listed.raised is Priority.STAT
    present = {one.label: one for one in listed.result.findings if one.present}
    assert present["Pneumothorax"].probability == pytest.approx(0.81, abs=1e-4)
    assert present["Pneumothorax"].threshold == pytest.approx(0.60)
    morning.another_film(identity, 20)
    morning.analyse(morning.claim(19), 19)
    morning.sum_up(identity, 18)
    listed = box.open()["A1"]
    assert (listed.result.revision, listed.raised) == (2, Priority.STAT)


def test_an_older_revision_that_comes_late_is_not_shown_in_place_of_the_newer_one(box, morning) -> None:
    identity, _ = morning.film("DOE^JOHN", 40, accession_number="A1", patient_id="P1")
    morning.analyse(morning.claim(39), 39)
    morning.sum_up(identity, 38, told=False)
    morning.another_film(identity, 20)
    morning.analyse(morning.claim(19), 19, Mass=0.8)
    first = _frozen(morning, 1)
    morning.sum_up(identity, 18)
    assert box.open()["A1"].result.revision == 2
    box(first)
    assert box.open()["A1"].result.revision == 2


def _frozen(morning, revision):
    from firstread.agent.store.tables import artifact, result

    with morning.store.read() as connection:
        return bytes(
            connection.execute(
                select(artifact.c.message).join(result).where(result.c.revision == revision)
            ).scalar_one()
        )


def test_a_result_for_a_study_that_was_never_received_here_makes_an_entry(box, morning, tmp_path) -> None:
    other = Morning.on(tmp_path / "other")
    identity, _ = other.film("DOE^JOHN", 40, accession_number="A7")
    other.analyse(other.claim(39), 39, Effusion=0.9)
    other.sum_up(identity, 38)
    box(_frozen(other, 1))
    other.store.close()
    listed = box.open()["A7"]
    assert (listed.readable, listed.study, listed.raised) == (True, None, Priority.URGENT)


def test_a_prior_study_does_not_stand_on_the_list_unless_it_was_ordered(box, morning) -> None:
    box(order("1", accession="A2", placer="PL2", patient="P2", priority="R"))
    morning.read("OLD^FILM", 40, reason=ReasonCode.PRIOR_STUDY, accession_number="A1", patient_id="P1")
    morning.read("OLD^WANTED", 39, reason=ReasonCode.PRIOR_STUDY, accession_number="A2", patient_id="P2")
    assert set(box.open()) == {"A2"}
    assert box.ended()["A1"].state is EntryState.REMOVED


def test_a_report_on_something_unknown_is_accepted_and_makes_no_entry(box) -> None:
    assert b"MSA|AA|9" in box(report(accession="CT77", placer="CT", status="P"))
    assert b"MSA|AA|10" in box(report("10", accession="CT77", placer="CT"))
    assert not box.open()


def test_what_is_neither_order_nor_result_is_refused(box) -> None:
    with pytest.raises(UnreadableMessage) as refused:
        box(hl7(header("ADT^A01", "1"), "PID|1||P1"))
    assert refused.value.code == 200


def test_nothing_is_kept_of_a_message_that_fails_half_way(box, morning, monkeypatch) -> None:
    morning.film("DOE^JOHN", 60, accession_number="A1", patient_id="P1")

    def fail(*_, **__):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("firstread.agent.store.messages.keep_answer", fail)
    with pytest.raises(RuntimeError):
        box(order())
    assert box.open()["A1"].ordered is None, "what is not answered is not half done"
    monkeypatch.undo()
    assert b"MSA|AA" in box(order())
    assert box.open()["A1"].ordered is Priority.STAT
