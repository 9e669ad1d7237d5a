"""The whole agent as a worklist: a scanner sends, a workstation hears of it over DICOM and reads over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import UnifiedProcedureStepWatch

from firstread.agent.store.tables import entry
from firstread.integration.dicom.ups import GLOBAL
from tests.agent.test_web_ups import ITEMS, JSON, MINE, PERFORMED, value
from tests.peers import free_port
from tests.system.agent import MakeAgent, wait_for
from tests.system.films import PNEUMOTHORAX, film, write
from tests.system.pacs import StoreScp, send
from tests.system.test_ups_dimse import Workstation


def test_a_study_goes_from_the_scanner_to_the_reader_and_off_the_list(
    tmp_path: Path, make_agent: MakeAgent, pacs: StoreScp
) -> None:
    port = free_port()
    agent = make_agent(
        worklist={"enabled": True},
        destinations=[pacs.destination],
        subscribers=[{"ae_title": "READING_1", "host": "127.0.0.1", "port": port}],
    ).start()
    workstation = Workstation(port)
    try:
        entity = AE("READING_1")
        entity.add_requested_context(UnifiedProcedureStepWatch)
        association = entity.associate("127.0.0.1", agent.dicom_port, ae_title="FIRSTREAD")
        wish = Dataset()
        wish.ReceivingAE, wish.DeletionLock = "READING_1", "FALSE"
        status, _ = association.send_n_action(wish, 3, UnifiedProcedureStepWatch, GLOBAL)
        assert status.Status == 0x0000
        association.release()
        one = film(PNEUMOTHORAX)
        send(agent.dicom_port, *write(tmp_path / "films", one))
        uid, kind, state = workstation.next()
        assert (kind, state) == (1, "SCHEDULED")
        with httpx.Client(base_url=f"http://127.0.0.1:{agent.web_port}", timeout=60) as web:

            def ready() -> dict | None:
                item = web.get(f"{ITEMS}/{uid}").json()[0]
                return item if value(item, "00404041") == "READY" else None

            item = wait_for(ready, "the result in the work item")
            assert value(item, "0020000D") == str(one.StudyInstanceUID)
            agent.wait_delivered(str(one.StudyInstanceUID), "pacs")
            sent = {str(each.SOPInstanceUID) for each in pacs.objects(str(one.StudyInstanceUID))}
            outputs = value(item, "00741216")["00404033"]["Value"]
            named = {value(each, "00081155") for output in outputs for each in output["00081199"]["Value"]}
            assert named and named == sent, "what the item names is what the PACS got"
            body = {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}, "00081195": {"vr": "UI", "Value": [MINE]}}
            claimed = web.put(f"{ITEMS}/{uid}/state", content=json.dumps(body), headers=JSON)
            assert claimed.status_code == 200, claimed.text
            assert web.post(f"{ITEMS}/{uid}?{MINE}", content=json.dumps(PERFORMED), headers=JSON).status_code == 200
            body["00741000"] = {"vr": "CS", "Value": ["COMPLETED"]}
            assert web.put(f"{ITEMS}/{uid}/state", content=json.dumps(body), headers=JSON).status_code == 200
            states = [workstation.next()[2] for _ in range(3)]
            assert states == ["SCHEDULED", "IN PROGRESS", "COMPLETED"], "ready to be read, claimed, read"
        assert agent.stop() == 0
        agent.start()
        # On a machine that is busy beyond the stop's patience this comes after the restart, but always first.
        assert workstation.status() == ("GOING DOWN",)
        assert workstation.status() == ("RESTARTED", "WARM START", "WARM START")
        with agent.store() as store, store.read() as connection:
            (row,) = connection.execute(entry.select()).all()
        assert (row.state, row.study_instance_uid) == ("reported", str(one.StudyInstanceUID))
    finally:
        workstation.stop()
