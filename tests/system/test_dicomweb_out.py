"""Results over HTTP: Orthanc takes them by STOW-RS, and gets the same objects that a PACS gets by C-STORE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripted_http import ScriptedHttp, answer, raw
from tests.system.agent import Agent, wait_for
from tests.system.films import PNEUMOTHORAX, film, write
from tests.system.orthanc import Orthanc, orthanc
from tests.system.pacs import StoreScp, send, storescp

RETRY = {"first_s": 0.3, "max_s": 1.0}


class Site:
    """An agent with a PACS by DIMSE, Orthanc by DICOMweb, and a gateway in front of nothing."""

    def __init__(self, tmp: Path, agent: Agent, pacs: StoreScp, web: Orthanc, moody: ScriptedHttp) -> None:
        self.tmp, self.agent, self.pacs, self.web, self.moody = tmp, agent, pacs, web, moody


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Site]:
    tmp = tmp_path_factory.mktemp("dicomweb-out")
    agent = Agent(tmp / "agent", bundle=tiny_bundle)
    with (
        storescp(tmp / "pacs") as pacs,
        orthanc(tmp / "orthanc", agent.dicom_port, dicomweb={}) as web,
        ScriptedHttp() as moody,
    ):
        agent.change(
            destinations=[
                pacs.destination,
                {"name": "web", "type": "dicomweb", "url": web.dicomweb_url, "retry": RETRY},
                {"name": "moody", "type": "dicomweb", "url": moody.url, "sends": ["sr"], "retry": RETRY},
            ]
        )
        try:
            yield Site(tmp, agent.start(), pacs, web, moody)
        finally:
            agent.close()


def study_arrives(site: Site) -> str:
    one = film(PNEUMOTHORAX)
    send(site.agent.dicom_port, *write(site.tmp / "films", one))
    return str(one.StudyInstanceUID)


def test_an_outage_is_waited_out_and_every_try_carries_the_same_bytes(site: Site) -> None:
    half = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 900\r\n\r\n{", hang_up=True)
    site.moody.plays += [answer(503, Retry_After="1"), half, answer(401)]
    site.moody.otherwise = answer(200, "{}", "application/dicom+json")
    uid = study_arrives(site)
    site.agent.wait_delivered(uid, "pacs", "web")
    wait_for(
        lambda: [one["state"] for one in site.agent.deliveries(uid, "moody")] == ["rejected"],
        "what is never named as stored is rejected after a few tries",
    )
    assert len(site.moody.asked) == 6, "three outages, three refusals"
    assert len({one.body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0] for one in site.moody.asked}) == 1
    (delivery,) = site.agent.deliveries(uid, "moody")
    assert "does not count as stored" in delivery["detail"]


def test_orthanc_gets_the_same_report_and_heat_map_over_http_as_a_pacs_by_c_store(site: Site) -> None:
    uid = study_arrives(site)
    site.agent.wait_delivered(uid, "pacs", "web")
    sent = {str(one.SOPInstanceUID): str(one.Modality) for one in site.pacs.objects(uid)}
    query = {"Level": "Study", "Query": {"StudyInstanceUID": uid}}
    (study,) = site.web.client.post("/tools/find", json=query).json()
    held = {str(one["SOPInstanceUID"]): one["Modality"] for of in site.web.series(study).values() for one in of}
    assert held == sent and sorted(held.values()) == ["OT", "SR"]
    assert {(one["state"], one["status"]) for one in site.agent.deliveries(uid, "web")} == {("delivered", "200")}


def test_config_check_asks_orthanc_whether_it_would_store(site: Site) -> None:
    said = site.agent.run("config", "check", code=None).stdout
    assert f"answers at {site.web.dicomweb_url} and lets us store" in " ".join(said.split())
