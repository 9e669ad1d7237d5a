"""Orthanc asks for storage commitment and is asked, queries us and fetches: the agent beside somebody else's PACS."""

from __future__ import annotations

from pathlib import Path

from tests.system.agent import Agent, wait_for
from tests.system.films import NOTHING, film, new_uid, write
from tests.system.orthanc import AE_TITLE, orthanc


def test_orthanc_commits_to_our_results_we_to_its_films_and_it_gets_back_what_it_lost(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    agent = Agent(tmp_path / "agent", bundle=tiny_bundle)
    with orthanc(tmp_path / "orthanc", agent.dicom_port) as pacs:
        agent.change(destinations=[{**pacs.destination, "commit": True}])
        try:
            agent.start()
            uid = new_uid()
            (path,) = write(tmp_path / "films", film(NOTHING, uid))
            study = pacs.upload(path)
            (instance,) = pacs.get(f"/studies/{study}/instances")
            pacs.send_study(study)

            # our results: Orthanc stored them, and reports on an association of its own
            trail = agent.wait_delivered(uid, "orthanc")
            events = [event["what"] for event in trail["trail"]]
            assert events.count("delivery stored") == 2 and events.count("delivery committed") == 2
            assert [one["detail"] for one in trail["delivery_list"]] == ["committed"] * 2

            # its films: one that we hold, one that we never saw
            ours = {"SOPClassUID": film().SOPClassUID, "SOPInstanceUID": instance["MainDicomTags"]["SOPInstanceUID"]}
            for asked, status in ((ours, "Success"), ({**ours, "SOPInstanceUID": new_uid()}, "Failure")):
                answer = pacs.client.post(
                    "/modalities/firstread/storage-commitment", json={"DicomInstances": [dict(asked)]}
                )
                place = answer.raise_for_status().json()["Path"]
                report = wait_for(
                    lambda place=place: (found := pacs.get(place))["Status"] != "Pending" and found, "we reported"
                )
                assert report["Status"] == status, report
                if status == "Failure":
                    assert report["Failures"][0]["FailureReason"] == 0x0112

            # Orthanc loses the study, finds it here, and has it sent back: the film and both results
            pacs.client.delete(f"/studies/{study}").raise_for_status()
            assert pacs.get("/studies") == []
            query = {"Level": "Study", "Query": {"StudyInstanceUID": uid, "ModalitiesInStudy": "", "PatientID": ""}}
            place = pacs.client.post("/modalities/firstread/query", json=query).raise_for_status().json()["Path"]
            assert len(pacs.get(f"{place}/answers")) == 1
            found = pacs.get(f"{place}/answers/0/content?simplify")
            assert found["PatientID"] == "PH0001" and set(found["ModalitiesInStudy"].split("\\")) == {"DX", "OT", "SR"}
            pacs.client.post(f"{place}/retrieve", json={"TargetAet": AE_TITLE, "Synchronous": True}).raise_for_status()
            (again,) = pacs.get("/studies")
            assert {name: len(held) for name, held in pacs.series(again).items()} == {"DX": 1, "SR": 1, "OT": 1}
        finally:
            agent.close()
