"""Orthanc asks us for storage commitment, and is asked: the whole agent beside a PACS that was not written by us."""

from __future__ import annotations

from pathlib import Path

from tests.system.agent import Agent, wait_for
from tests.system.films import NOTHING, film, new_uid, write
from tests.system.orthanc import orthanc


def test_orthanc_commits_to_our_results_and_we_to_its_films(tmp_path: Path, tiny_bundle: Path) -> None:
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
        finally:
            agent.close()
