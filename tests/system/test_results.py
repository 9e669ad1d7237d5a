"""What leaves the agent: revisions, retries, refusals, holds, dead destinations, each before a real receiver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from tests.peers import free_port
from tests.system import ris as ris_module
from tests.system.agent import Agent, wait_for
from tests.system.films import NOTHING, PNEUMOTHORAX, film, new_uid, write
from tests.system.pacs import ScriptedPacs, StoreScp, destination, storescp
from tests.system.ris import Ris, answer_another, hang_up, refuse, ris, value
from tests.system.ways import WAYS_IN, WAYS_OUT, Receiver, StowPacs, bring, stow_pacs


class Ward:
    """One agent with every kind of receiver: a PACS by DIMSE and one by DICOMweb, a RIS, one on hold, one that is
    dead, one that refuses."""

    def __init__(
        self, tmp: Path, agent: Agent, pacs: StoreScp, web: StowPacs, his: Ris, held: Ris, moody: ScriptedPacs
    ) -> None:
        self.tmp, self.agent, self.his, self.held, self.moody = tmp, agent, his, held, moody
        self.archives: dict[str, Receiver] = {"pacs": pacs, "web": web}

    def film_arrives(self, number: int = NOTHING, study: str = "", way: str = "dimse", **attributes: str) -> str:
        """A film is sent, by C-STORE or by STOW-RS; answers with its study."""
        one = film(number, study, **attributes)
        self.bring(way, one)
        return str(one.StudyInstanceUID)

    def bring(self, way: str, *films: Dataset) -> None:
        """Films come ``dimse`` or ``dicomweb``."""
        bring(self.agent, way, write(self.tmp / "films", *films))


DEAD_PORT = free_port()


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Ward]:
    tmp = tmp_path_factory.mktemp("ward")
    moody = ScriptedPacs()
    with storescp(tmp / "pacs") as pacs, stow_pacs(tmp / "web") as web, ris() as his, ris() as held:
        agent = Agent(
            tmp / "agent",
            bundle=tiny_bundle,
            destinations=[
                pacs.destination,
                web.destination,
                his.destination,
                ris_module.destination(held.port, "held", hold=True),
                ris_module.destination(DEAD_PORT, "dead"),
                destination(moody.port, "moody", sends=["sr"]),
            ],
        )
        try:
            yield Ward(tmp, agent.start(), pacs, web, his, held, moody)
        finally:
            agent.close()
            moody.close()


@WAYS_IN
@WAYS_OUT
def test_a_worrisome_film_gives_a_report_a_heat_map_and_a_message(ward: Ward, way: str, to: str) -> None:
    uid = ward.film_arrives(PNEUMOTHORAX, way=way)
    ward.agent.wait_delivered(uid, to, "ris")
    report, heat_map = ward.archives[to].objects(uid)
    assert (report.Modality, heat_map.Modality) == ("SR", "OT")
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    referenced = {
        one.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    (image,) = ward.agent.study(uid)["image_list"]
    assert image["sop_instance_uid"] in referenced and evidence.StudyInstanceUID == uid
    (message,) = ward.his.about(uid)
    assert value(message, "MSH", 9) == "ORU" and value(message, "OBR", 18) == report.AccessionNumber


@WAYS_IN
@WAYS_OUT
def test_a_late_image_makes_a_revision_that_supersedes_the_first(ward: Ward, way: str, to: str) -> None:
    uid = ward.film_arrives(NOTHING, way=way)
    ward.agent.wait_delivered(uid, to, "ris")
    ward.film_arrives(PNEUMOTHORAX, uid, way=way)
    study = ward.agent.wait_delivered(uid, to, "ris", revision=2)
    assert study["revision"] == 2 and [one["cause"] for one in study["revisions"]] == ["first images", "a late image"]
    first, second, *heat_maps = ward.archives[to].objects(uid)
    assert [one.Modality for one in heat_maps] == ["OT", "OT"]
    (predecessor,) = second.PredecessorDocumentsSequence
    (series,) = predecessor.ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first and first.SOPInstanceUID != second.SOPInstanceUID
    messages = ward.his.about(uid)
    assert len({value(one, "MSH", 10) for one in messages}) == 2


@WAYS_IN
@WAYS_OUT
def test_an_identical_resend_changes_nothing(ward: Ward, way: str, to: str) -> None:
    one = film()
    ward.bring(way, one)
    uid = str(one.StudyInstanceUID)
    ward.agent.wait_delivered(uid, to, "ris", "moody")
    objects, messages = ward.archives[to].receptions(), len(ward.his.received)
    ward.bring(way, one)
    after = ward.film_arrives(way=way)
    ward.agent.wait_delivered(after, to, "ris")
    study = ward.agent.study(uid)
    assert study["revision"] == 1 and study["images"] == {"analysed": 1}
    # The other study's:
    assert (ward.archives[to].receptions(), len(ward.his.received)) == (objects + 2, messages + 1)


def test_a_dead_destination_delays_no_other_and_gets_everything_when_it_lives_again(ward: Ward) -> None:
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "pacs", "ris", "moody")
    wait_for(lambda: ward.agent.deliveries(uid, "dead")[0]["attempts"] >= 2, "the dead one is tried again")
    (waiting,) = ward.agent.deliveries(uid, "dead")
    assert waiting["state"] in ("pending", "sending") and "nothing listens" in waiting["detail"]
    wait_for(lambda: "destination/dead" in ward.agent.alarms(), "somebody is told of the dead destination")
    peer = Ris(port=DEAD_PORT)
    try:
        ward.agent.wait_delivered(uid, "dead")
        assert [value(one, "MSH", 10) for one in peer.about(uid)] == [waiting["identity"]]
        wait_for(lambda: "destination/dead" not in ward.agent.alarms(), "its alarm is cleared")
    finally:
        peer.close()


def test_a_destination_on_hold_gets_nothing_until_it_is_released(ward: Ward) -> None:
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "ris")
    assert [one["state"] for one in ward.agent.deliveries(uid, "held")] == ["pending"]
    assert ward.held.received == []
    said = ward.agent.run("deliveries", "release", "held").stdout
    assert "released" in said
    ward.agent.wait_delivered(uid, "held")
    kept_back = ward.film_arrives()
    ward.agent.wait_delivered(kept_back, "ris")
    sent = len(ward.held.received)
    assert "1 deliveries to held dropped" in ward.agent.run("deliveries", "release", "held", "--drop").stdout
    (dropped,) = ward.agent.deliveries(kept_back, "held")
    assert dropped["state"] == "cancelled" and len(ward.held.received) == sent


def test_a_pacs_that_is_out_of_resources_is_asked_again_until_it_takes_the_report(ward: Ward) -> None:
    ward.moody.answers[:] = [0xA700, 0xA700]
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "moody")
    (delivery,) = ward.agent.deliveries(uid, "moody")
    answers = [status for sop, status in ward.moody.received if sop == delivery["identity"]]
    assert answers == [0xA700, 0xA700, 0x0000]
    assert (delivery["attempts"], delivery["status"]) == (3, "0000")


def test_a_warning_of_the_pacs_is_delivered_and_kept(ward: Ward) -> None:
    ward.moody.answers[:] = [0xB000]
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "moody")
    (delivery,) = ward.agent.deliveries(uid, "moody")
    assert (delivery["attempts"], delivery["status"]) == (1, "B000") and delivery["detail"]


def test_a_report_that_the_pacs_refuses_three_times_is_rejected_with_an_alarm_and_goes_out_by_hand(ward: Ward) -> None:
    ward.moody.answers[:] = [0xC000] * 3
    uid = ward.film_arrives()

    def rejected() -> bool:
        return [one["state"] for one in ward.agent.deliveries(uid, "moody")] == ["rejected"]

    wait_for(rejected, "the report is rejected")
    (delivery,) = ward.agent.deliveries(uid, "moody")
    alarm = ward.agent.alarms()[f"delivery/{delivery['id']}"]
    assert f"firstread deliveries retry {delivery['id']}" in alarm.remedy and "C000" in alarm.text
    listed = ward.agent.json("deliveries", "list", "--state", "rejected", "--destination", "moody")
    assert [one["id"] for one in listed] == [delivery["id"]]
    ward.agent.run("deliveries", "retry", str(delivery["id"]))
    ward.agent.wait_delivered(uid, "moody")
    assert f"delivery/{delivery['id']}" not in ward.agent.alarms()
    assert "left as it is" in ward.agent.run("deliveries", "retry", str(delivery["id"]), code=1).stderr


def test_a_message_whose_answer_was_lost_comes_again_under_the_same_control_id(ward: Ward) -> None:
    ward.his.script[:] = [hang_up]
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "ris")
    first, second = ward.his.about(uid)
    assert value(first, "MSH", 10) == value(second, "MSH", 10) and str(first) == str(second)


def test_an_answer_to_another_message_is_not_taken_for_ours(ward: Ward) -> None:
    ward.his.script[:] = [answer_another]
    uid = ward.film_arrives()
    ward.agent.wait_delivered(uid, "ris")
    (delivery,) = ward.agent.deliveries(uid, "ris")
    assert delivery["attempts"] == 2 and len(ward.his.about(uid)) == 2
    retried = [event for event in ward.agent.study(uid)["trail"] if event["what"] == "delivery retried"]
    assert any("another message, not ours" in event["detail"]["why"] for event in retried)


def test_a_ris_that_says_application_error_three_times_is_believed(ward: Ward) -> None:
    ward.his.script[:] = [refuse] * 3
    uid = ward.film_arrives()
    wait_for(lambda: ward.agent.deliveries(uid, "ris")[:1] != [] and ward.agent.deliveries(uid, "ris")[0]["state"]
             == "rejected", "the message is rejected")  # fmt: skip
    (delivery,) = ward.agent.deliveries(uid, "ris")
    assert delivery["status"] == "AE" and len(ward.his.about(uid)) == 3
    ward.agent.wait_delivered(uid, "pacs")


@WAYS_IN
@WAYS_OUT
def test_a_corrected_patient_goes_out_again_under_the_new_identity(ward: Ward, way: str, to: str) -> None:
    one = film(PatientID="WRONG1", PatientName="WRONG^NAME")
    ward.bring(way, one)
    uid = str(one.StudyInstanceUID)
    ward.agent.wait_delivered(uid, to, "ris")
    one.PatientID, one.PatientName = "RIGHT1", "RIGHT^NAME"
    ward.bring(way, one)
    ward.agent.wait_delivered(uid, to, "ris", revision=2)
    assert [value(message, "PID", 3) for message in ward.his.about(uid)] == ["WRONG1", "RIGHT1"]
    reports = [one for one in ward.archives[to].objects(uid) if one.Modality == "SR"]
    assert [str(one.PatientID) for one in reports] == ["WRONG1", "RIGHT1"]
    alarm = ward.agent.alarms()[f"identity/{uid}"]
    assert "WRONG1" in alarm.text and "RIGHT1" in alarm.text


@WAYS_IN
@WAYS_OUT
def test_two_patients_under_one_study_are_not_analysed(ward: Ward, way: str, to: str) -> None:
    uid = new_uid()
    ward.bring(
        way,
        film(NOTHING, uid, PatientID="P1"),
        film(PNEUMOTHORAX, uid, PatientID="P2", PatientName="OTHER^ONE"),
    )
    wait_for(
        lambda: (ward.agent.study(uid).get("result") or {}).get("reason_code") == "CONFLICT_PATIENT", "the conflict"
    )
    revision = ward.agent.study(uid)["revision"]
    ward.agent.wait_delivered(uid, to, "ris", revision=revision)
    newest = [one for one in ward.archives[to].objects(uid) if one.Modality == "SR"][-1]
    assert "CONFLICT_PATIENT" in str(newest)
