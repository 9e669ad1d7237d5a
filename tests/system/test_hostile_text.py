"""Text of strangers through the whole agent: it is shown as text, never obeyed, and patients stay out of the log."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom.config
import pytest

from firstread.integration.hl7.framing import frame
from tests.integration.dicom_wire import Film, RawPeer
from tests.system.agent import Agent, wait_for
from tests.system.films import film, write
from tests.system.pacs import send
from tests.system.ris import Ris, ris

PATIENT = "QUERZIL"
"""Stands in every value that could name a patient, and nowhere else."""

NAME = f"{PATIENT}<script>alert(1)</script>^$(touch {PATIENT});`id`"
OF_THE_FILM = {
    "PatientName": NAME,
    "PatientID": f"../../../{PATIENT}",
    "PatientBirthDate": f"{PATIENT}1",
    "StudyDescription": f"<img src=x onerror=alert(2)>{PATIENT}",
    "InstitutionName": "{{ 7 * 7 }}" + PATIENT,
    "AccessionNumber": '"><b>ACC&1',
    "WindowCenter": "7654321",
}

HEADER = b"MSH|^~\\&|<b>RIS|HOSP|FIRSTREAD||20260301120000||%s|H%d|P|2.5.1||||||UNICODE UTF-8\r"
ORDERED = (
    b"PID|1||9\\X1B\\[31m" + PATIENT.encode() + b"||<svg onload=alert(3)>\\X0A\\" + PATIENT.encode() + b"||" + b"\r"
    b"ORC|NW|PL9\\X1B\\[2J\rOBR|1|PL9||RX^<script>alert(4)</script>^L||||||||||||||AC9\\X07\\\r"
)
NONSENSE = (b"PID|" + PATIENT.encode() + b"\r", b"\x1b[2J\nPID\n" + PATIENT.encode(), b"MSH|" + PATIENT.encode())


@dataclass
class Ward:
    """An agent that strangers have written to, and what it shows."""

    agent: Agent
    his: Ris
    study: str

    def get(self, path: str) -> str:
        """A page."""
        answer = httpx.get(f"http://127.0.0.1:{self.agent.web_port}{path}", timeout=30)
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text

    @property
    def pages(self) -> dict[str, str]:
        """Every page that shows what strangers wrote."""
        first = self.get("/")
        entries = re.findall(r'id="s(\d+)"', first)
        paths = ["/off", "/system", f"/rows?ids={','.join(entries)}"]
        paths += [path for one in entries for path in (f"/study/{one}", f"/study/{one}/panel")]
        return {"/": first, **{path: self.get(path) for path in paths}}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Ward]:
    tmp = tmp_path_factory.mktemp("ward")
    with ris() as his, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)
        agent = Agent(tmp / "agent", bundle=tiny_bundle, worklist={"enabled": True}, destinations=[his.destination])
        try:
            agent.start()
            agent.wait_all_roles()
            dataset, broken = film(**OF_THE_FILM), film(**{**OF_THE_FILM, "PixelData": b"few", "Rows": 9999})
            paths = write(tmp / "films", dataset, broken)
            paths[1].write_bytes(paths[1].read_bytes().replace(b"7654321", PATIENT.encode()))  # no number at all
            send(agent.dicom_port, *paths)
            _speak_nonsense(agent)
            for uid in (dataset.StudyInstanceUID, broken.StudyInstanceUID):
                agent.wait_delivered(str(uid), "ris", "worklist")
            yield Ward(agent, his, str(dataset.StudyInstanceUID))
        finally:
            agent.close()


def _speak_nonsense(agent: Agent) -> None:
    address = ("127.0.0.1", agent.dicom_port)
    with RawPeer(address) as peer:
        peer.associate(calling="EVIL\x1b[2J\n{}")
        status, _ = peer.store(Film(sop_instance_uid=f"../../{PATIENT}"))
        assert status != 0
    with RawPeer(address) as peer:
        peer.associate(calling=PATIENT[:7], called="\n{<script>}")
    messages = [HEADER % (b"ORM^O01^ORM_O01", 1) + ORDERED, HEADER % (PATIENT.encode(), 2), *NONSENSE]
    for message in messages:
        with RawPeer(("127.0.0.1", agent.mllp_port)) as line:
            line.socket.sendall(frame(message))
            assert line.socket.recv(65536)
    wait_for(lambda: len(agent.json("worklist", "list")) >= 1, "the order is on the list")
    base = f"http://127.0.0.1:{agent.web_port}"
    assert httpx.get(f"{base}/static/..%2f..%2f..%2fetc/passwd", timeout=30).status_code == 404
    assert httpx.get(f"{base}/{PATIENT}%0a%1b[2J", timeout=30).status_code in (403, 404)
    httpx.post(f"{base}/login", data={"user": PATIENT, "password": PATIENT}, timeout=30)


def test_pages_show_text_of_others_as_text(ward: Ward) -> None:
    pages = ward.pages
    assert sum(html.escape("<script>alert(1)</script>") in page for page in pages.values()) >= 3, "it is shown"
    for path, page in pages.items():
        assert set(re.findall(r"<script[^>]*>", page)) <= set(
            re.findall(r'<script src="/static/[^"]*" defer>', page)
        ), path
        for tag in re.findall(r"<[a-z][^>]*>", page):
            assert not re.search(r"\son\w+\s*=", re.sub(r'"[^"]*"', '""', tag)), (path, tag)
        assert "49QUERZIL" not in page, "no template is made of what others write"


def test_no_address_names_a_patient(ward: Ward) -> None:
    for path, page in ward.pages.items():
        addresses = re.findall(r'\b(?:href|src|action|data-[a-z]+)="([^"]*)"', page)
        assert path.startswith("/rows") or addresses
        assert not [one for one in addresses if PATIENT in one or "ACC" in one or "&gt;" in one], path


def test_log_health_and_metrics_name_no_patient(ward: Ward) -> None:
    for line in ward.agent.log.read_text().splitlines():
        assert PATIENT not in line, line
    assert PATIENT not in ward.get("/metrics")
    assert PATIENT not in json.dumps([{**ward.agent.health(), "alarms": []}])


def test_nobody_writes_a_log_line_but_the_agent(ward: Ward) -> None:
    lines = ward.agent.log.read_text().splitlines()
    assert all({"event", "role", "level", "timestamp"} <= set(json.loads(line)) for line in lines)
    assert all(line.isprintable() for line in lines)


def test_paths_are_never_made_of_received_text(ward: Ward) -> None:
    folder = ward.agent.folder
    names = [str(path.relative_to(folder)) for path in folder.parent.rglob("*") if path.is_relative_to(folder)]
    assert not [name for name in names if PATIENT in name or "ACC" in name]
    assert not list(folder.parent.rglob(f"*{PATIENT}*")), "nothing that they wrote was run or created"
    kept = [path for part in ("films", "previews", "results") for path in (ward.agent.spool / part).rglob("*.*")]
    assert len(kept) >= 3
    for path in kept:
        place = str(path.relative_to(ward.agent.spool))
        assert re.fullmatch(r"[a-z]+/[0-9a-f]{2}/[0-9a-f]{32}\.[a-z]{3}", place), place


@pytest.mark.parametrize(
    "command",
    [["studies"], ["study", "UID"], ["worklist", "list"], ["alarms", "list"], ["deliveries", "list"],
     ["oru", "UID"], ["studies", "--json"], ["worklist", "list", "--json"]],
    ids=" ".join,
)  # fmt: skip
def test_a_terminal_is_steered_by_nobody(ward: Ward, command: list[str]) -> None:
    shown = ward.agent.run(*(ward.study if word == "UID" else word for word in command)).stdout
    assert shown.replace("\n", "").isprintable()
    if command[0] in ("study", "oru") or command == ["worklist", "list"]:
        assert PATIENT in shown
