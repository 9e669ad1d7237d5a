"""Orders and final reports over MLLP: what was ordered is kept, and what was reported leaves the list."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7.client import MLLPClient

from tests.system.agent import Agent, wait_for
from tests.system.films import film, new_uid, write
from tests.system.ris import Ris, ris, value
from tests.system.ways import WAYS_IN, bring


class Desk:
    """A RIS beside an agent with the built-in list: it orders, it reports, and it gets the results."""

    def __init__(self, agent: Agent, his: Ris, tmp: Path) -> None:
        self.agent, self.his, self.tmp = agent, his, tmp
        self._count = 0

    def tell(self, kind: str, *segments: str) -> str:
        """Sends a message with python-hl7 and answers with MSA-1."""
        self._count += 1
        patient = "PID|1||PH0001||PHANTOM^ANNA||19900301|F"
        header = f"MSH|^~\\&|RIS|HOSP|FIRSTREAD||20260301120000||{kind}|C{self._count}|P|2.5.1||||||UNICODE UTF-8"
        message = hl7.parse("\r".join((header, patient, *segments)) + "\r")
        with MLLPClient("127.0.0.1", self.agent.mllp_port) as client:
            answer = hl7.parse(client.send_message(message).strip(b"\x0b\x1c\r"))
        assert str(answer["MSA"][0][2]) == f"C{self._count}"
        return str(answer["MSA"][0][1])

    def order(self, accession: str, priority: str, control: str = "NW", study: str = "") -> str:
        """ORM^O01."""
        return self.tell(
            "ORM^O01^ORM_O01",
            f"ORC|{control}|PL{accession}",
            f"TQ1|1||||||||{priority}^^HL70485",
            f"OBR|1|PL{accession}||CHEST^Chest X-ray^L||||||||||||||{accession}",
            *((f"ZDS|{study}^FIRSTREAD^Application^DICOM",) if study else ()),
        )

    def report(self, accession: str, status: str) -> str:
        """ORU^R01 with the radiologist's report: P preliminary, F final."""
        return self.tell(
            "ORU^R01^ORU_R01",
            f"ORC|RE|PL{accession}",
            f"OBR|1|PL{accession}||CHEST^Chest X-ray^L||||||||||||||{accession}|||||||{status}",
            f"OBX|1|TX|18782-3^Study observation^LN||No acute disease.||||||{status}",
        )

    def film_arrives(self, accession: str, study: str = "", way: str = "dimse") -> str:
        """A film is sent, by C-STORE or by STOW-RS; answers with its study."""
        one = film(study=study, AccessionNumber=accession)
        bring(self.agent, way, write(self.tmp / "films", one))
        return str(one.StudyInstanceUID)

    def listed(self, accession: str) -> dict[str, Any]:
        """Its row of the list; empty when it is not there."""
        rows = self.agent.json("worklist", "list")
        return next((row for row in rows if row["accession_number"] == accession), {})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Desk]:
    tmp = tmp_path_factory.mktemp("desk")
    with ris() as his:
        agent = Agent(tmp / "agent", bundle=tiny_bundle, worklist={"enabled": True}, destinations=[his.destination])
        try:
            agent.start()
            agent.wait_all_roles()
            yield Desk(agent, his, tmp)
        finally:
            agent.close()


@WAYS_IN
def test_a_stat_order_that_comes_before_the_films_stays_stat_whatever_the_result(desk: Desk, way: str) -> None:
    accession = f"STAT1-{way}"
    assert desk.order(accession, "S") == "AA"
    uid = desk.film_arrives(accession, way=way)
    study = desk.agent.wait_delivered(uid, "ris", "worklist")
    assert study["result"]["priority"] == "STAT" and study["ordered_priority"] == "STAT"
    (message,) = desk.his.about(uid)
    assert value(message, "TQ1", 9) == "S"
    assert desk.listed(accession)["priority"] == "STAT"


@WAYS_IN
def test_a_stat_order_that_comes_after_the_result_raises_the_list_and_every_later_revision(
    desk: Desk, way: str
) -> None:
    accession = f"STAT2-{way}"
    uid = desk.film_arrives(accession, way=way)
    assert desk.agent.wait_delivered(uid, "ris", "worklist")["result"]["priority"] != "STAT"
    assert desk.order(accession, "S") == "AA"
    assert desk.listed(accession)["priority"] == "STAT"
    desk.film_arrives(accession, uid, way=way)
    study = desk.agent.wait_ended(uid, revision=2)
    assert study["result"]["priority"] == "STAT"
    assert desk.listed(accession)["priority"] == "STAT"


def test_a_routine_order_lowers_nothing(desk: Desk) -> None:
    assert desk.order("KEEP1", "S") == "AA"
    assert desk.order("KEEP1", "R", control="XO") == "AA"
    uid = desk.film_arrives("KEEP1")
    assert desk.agent.wait_delivered(uid, "ris", "worklist")["result"]["priority"] == "STAT"
    assert desk.listed("KEEP1")["priority"] == "STAT"


@WAYS_IN
def test_an_order_finds_its_study_by_uid_where_the_film_has_no_accession_number(desk: Desk, way: str) -> None:
    uid = new_uid()
    assert desk.order(f"ZDS1-{way}", "S", study=uid) == "AA"
    desk.film_arrives("", uid, way=way)
    assert desk.agent.wait_delivered(uid, "ris", "worklist")["result"]["priority"] == "STAT"


@WAYS_IN
def test_a_final_report_takes_the_study_off_and_a_preliminary_one_does_not(desk: Desk, way: str) -> None:
    accession = f"DONE1-{way}"
    uid = desk.film_arrives(accession, way=way)
    desk.agent.wait_delivered(uid, "worklist")
    assert desk.report(accession, "P") == "AA"
    row = desk.listed(accession)
    assert row
    assert desk.report(accession, "F") == "AA"
    assert desk.listed(accession) == {}
    desk.agent.run("worklist", "restore", str(row["entry"]))
    assert desk.listed(accession)


def test_a_cancelled_order_takes_the_study_off(desk: Desk) -> None:
    assert desk.order("CANC1", "R") == "AA"
    desk.agent.wait_delivered(desk.film_arrives("CANC1"), "worklist")
    assert desk.listed("CANC1")
    assert desk.order("CANC1", "R", control="CA") == "AA"
    assert desk.listed("CANC1") == {}


@WAYS_IN
def test_our_own_result_never_takes_a_study_off(desk: Desk, way: str) -> None:
    accession = f"OWN1-{way}"
    uid = desk.film_arrives(accession, way=way)
    desk.agent.wait_delivered(uid, "ris", "worklist")
    wait_for(lambda: desk.listed(accession), "the study stands on the list")
    assert desk.listed(accession)["study_instance_uid"] == uid


def test_garbage_on_the_list_s_port_is_answered_or_hung_up_on_and_orders_go_on(desk: Desk) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x0bnot HL7 at all\x1c\r",
        b"\x0bMSH|" + b"x" * 100_000,
        b"\x0b\x1c\r",
    ):
        with socket.create_connection(("127.0.0.1", desk.agent.mllp_port), timeout=10) as rude:
            rude.sendall(garbage)
    assert desk.order("AFTER1", "S") == "AA"
    desk.agent.wait_delivered(desk.film_arrives("AFTER1"), "worklist")
    assert desk.listed("AFTER1")["priority"] == "STAT"
