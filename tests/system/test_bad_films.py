"""Bad films through the whole chain: each ends with its reason or its status, and the next film goes on."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import JPEG2000Lossless

from tests.integration.dicom_wire import EXPLICIT, Film, RawPeer, data_set_of, element, new_uid
from tests.stow import DICOM_PARTS, body
from tests.stow import send as stow
from tests.system.agent import Agent, wait_for
from tests.system.films import film, write
from tests.system.pacs import send
from tests.system.ris import Ris, ris, value
from tests.system.ways import WAYS_IN, bring

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CHOSEN_SENDERS = ("SCANNER", "MODALITY")


class Gate:
    """An agent that knows its senders, and the RIS that hears of everything."""

    def __init__(self, agent: Agent, his: Ris, tmp: Path) -> None:
        self.agent, self.his, self.tmp = agent, his, tmp

    def store(self, one: Dataset, content: bytes | None = None, syntax: str = EXPLICIT) -> tuple[int, str]:
        """Sends a data set byte for byte, as no toolkit would; answers with status and comment."""
        command = Film(DX, str(one.SOPInstanceUID), str(one.StudyInstanceUID))
        with RawPeer(("127.0.0.1", self.agent.dicom_port), timeout_s=60) as peer:
            kind, _ = peer.associate([(DX, [syntax])])
            assert kind == 2
            answer = peer.store(command, self.bytes_of(one) if content is None else content)
            peer.release()
        return answer

    def post(self, one: Dataset) -> None:
        """Sends a data set by STOW-RS as it is; it must be taken."""
        path = self.tmp / "whole.dcm"
        dcmwrite(path, one, enforce_file_format=True)
        stow(self.agent.web_port, [path])

    def bytes_of(self, one: Dataset) -> bytes:
        """The data set's bytes as pydicom writes them."""
        path = self.tmp / "whole.dcm"
        dcmwrite(path, one, enforce_file_format=True)
        return data_set_of(path)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Gate]:
    tmp = tmp_path_factory.mktemp("gate")
    with ris() as his:
        agent = Agent(
            tmp / "agent",
            bundle=tiny_bundle,
            dicom={"allowed_calling_ae": list(CHOSEN_SENDERS)},
            destinations=[his.destination],
        )
        try:
            yield Gate(agent.start(), his, tmp)
        finally:
            agent.close()


def without_pixels(one: Dataset) -> None:
    del one.PixelData


def too_few_pixels(one: Dataset) -> None:
    one.PixelData = one.PixelData[:1000]


def no_rows_and_columns(one: Dataset) -> None:
    one.Rows = one.Columns = 0
    one.PixelData = b""


def undecodable(one: Dataset) -> None:
    one.file_meta.TransferSyntaxUID = JPEG2000Lossless
    one.PixelData = encapsulate([b"\xff\x4f\xff\x51 this was a codestream once" * 20])
    one["PixelData"].VR = "OB"


def nonsense_bits(one: Dataset) -> None:
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 64, 77, 3, 1


def huge_claim(one: Dataset) -> None:
    one.Rows = one.Columns = 65535


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (without_pixels, {"NO_PIXEL_DATA"}),
        (too_few_pixels, {"CANNOT_DECODE", "NO_PIXEL_DATA"}),
        (no_rows_and_columns, {"TOO_SMALL", "NO_PIXEL_DATA", "CANNOT_DECODE"}),
        (undecodable, {"CANNOT_DECODE"}),
        (nonsense_bits, {"CANNOT_DECODE"}),
        (huge_claim, {"CANNOT_DECODE"}),
    ],
)
@WAYS_IN
def test_a_film_that_cannot_be_read_is_kept_and_its_reason_goes_out(
    gate: Gate, spoil: Callable[[Dataset], None], reasons: set[str], way: str
) -> None:
    one = film()
    spoil(one)
    if way == "dicomweb":
        gate.post(one)
    else:
        assert gate.store(one, syntax=str(one.file_meta.TransferSyntaxUID)) == (0x0000, "")
    uid = str(one.StudyInstanceUID)
    study = gate.agent.wait_delivered(uid, "ris")
    assert study["state"] == "not_analysed" and study["result"]["reason_code"] in reasons
    assert len(study["result"]["reason"]) > 20
    (message,) = gate.his.about(uid)
    assert study["result"]["reason_code"] in str(message)


@pytest.mark.parametrize(
    "content",
    [b"this is no DICOM at all, whatever it says on the label " * 40, b"", b"\0" * 128 + b"DICM" + b"\0" * 100],
)
def test_what_has_no_identity_is_refused_over_http_too(gate: Gate, content: bytes) -> None:
    before = set(gate.agent.trails())
    url = f"http://127.0.0.1:{gate.agent.web_port}/dicom-web/studies"
    answer = httpx.post(url, content=body(content), headers={"content-type": DICOM_PARTS}, timeout=60)
    assert answer.status_code in (400, 409) and answer.text
    assert "00081199" not in answer.text, "nothing is named as stored"
    assert set(gate.agent.trails()) == before


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"this is no DICOM at all, whatever it says on the label " * 40, 0xC000),
        (b"", 0xC000),
        (element(0x00080016, "UI", DX.encode() + b"\0") + element(0x00080018, "UI", b"1.2\0"), 0xC000),
    ],
)
def test_what_has_no_identity_is_refused_with_a_sentence_and_noted(gate: Gate, content: bytes, status: int) -> None:
    one = film()
    code, comment = gate.store(one, content)
    assert code == status and comment
    refused = gate.agent.events("refused")[0].detail
    assert refused["status"] == f"{status:04X}" and refused["calling_ae_title"] == "MODALITY"
    assert str(one.StudyInstanceUID) not in gate.agent.trails()


@WAYS_IN
def test_a_name_in_three_scripts_reaches_the_ris_as_it_is(gate: Gate, way: str) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    one = film(SpecificCharacterSet="ISO_IR 192", PatientName=name)
    bring(gate.agent, way, write(gate.tmp / "films", one))
    gate.agent.wait_delivered(str(one.StudyInstanceUID), "ris")
    (message,) = gate.his.about(str(one.StudyInstanceUID))
    assert "Yamada^Tarou" in str(message) and "山田^太郎" in str(message)


def test_values_that_break_their_vr_hold_nothing_up(gate: Gate) -> None:
    one = film()
    content = gate.bytes_of(one)
    content = content.replace(b"19900301", b"1990-3-1").replace(b"PH0001", b"PH\t\x01\xff1")
    assert gate.store(one, content) == (0x0000, "")
    study = gate.agent.wait_delivered(str(one.StudyInstanceUID), "ris")
    assert study["state"] == "analysed"
    assert gate.his.about(str(one.StudyInstanceUID))


def test_a_hundred_megabytes_of_private_tags_are_carried_along(gate: Gate) -> None:
    one = film()
    block = one.private_block(0x0011, "FIRSTREAD TEST", create=True)
    block.add_new(0x01, "OB", bytes(100 << 20))
    assert gate.store(one, gate.bytes_of(one)) == (0x0000, "")
    study = gate.agent.wait_delivered(str(one.StudyInstanceUID), "ris")
    assert study["state"] == "analysed"


def test_an_unknown_sender_is_turned_away_and_the_next_one_served(gate: Gate) -> None:
    one = film()
    paths = write(gate.tmp / "films", one)
    said = send(gate.agent.dicom_port, *paths, calling="STRANGER", ok=False)
    assert "Rejected" in said and str(one.StudyInstanceUID) not in gate.agent.trails()
    rejected = wait_for(lambda: gate.agent.events("association rejected"), "the rejection is noted")[0].detail
    assert rejected["calling_ae_title"] == "STRANGER" and rejected["why"]
    wrong_name = send(gate.agent.dicom_port, *paths, called="SOMEBODYELSE", ok=False)
    assert "Rejected" in wrong_name
    send(gate.agent.dicom_port, *paths)
    gate.agent.wait_ended(str(one.StudyInstanceUID))


def test_half_associations_and_half_films_hold_nobody_up(gate: Gate) -> None:
    address = ("127.0.0.1", gate.agent.dicom_port)
    half_film = film()
    with socket.create_connection(address) as half, socket.create_connection(address), RawPeer(address) as peer:
        half.sendall(b"\x01\x00\x00\x00\x01")  # five of the six bytes that begin an A-ASSOCIATE-RQ
        peer.associate([(DX, [EXPLICIT])])
        peer.send_command({0x0002: DX.encode() + b"\0", 0x0100: b"\x01\x00", 0x0110: b"\x01\x00", 0x0800: b"\x01\x00",
                           0x1000: str(half_film.SOPInstanceUID).encode()})  # fmt: skip
        peer.send_fragment(gate.bytes_of(half_film)[:5000], 0x00)
        one = film()
        send(gate.agent.dicom_port, *write(gate.tmp / "films", one))
        gate.agent.wait_ended(str(one.StudyInstanceUID))
    assert str(half_film.StudyInstanceUID) not in gate.agent.trails()


def test_an_unknown_storage_class_is_kept_and_left_alone(gate: Gate) -> None:
    unknown = "1.2.840.10008.5.1.4.1.1.999.1"
    one = Film(unknown, new_uid(), new_uid(), new_uid())
    with RawPeer(("127.0.0.1", gate.agent.dicom_port)) as peer:
        _, answer = peer.associate([(unknown, [EXPLICIT])])
        if 1 not in peer.accepted(answer):
            pytest.skip("not negotiated: nothing to keep")
        assert peer.store(one)[0] == 0x0000
        peer.release()
    study = gate.agent.wait_delivered(one.study_instance_uid, "ris")
    assert study["result"]["reason_code"] == "NO_IMAGE"
    assert value(gate.his.about(one.study_instance_uid)[0], "MSH", 9, 3) == "ORU_R01"


def test_after_all_that_every_role_lives_and_no_film_waits(gate: Gate) -> None:
    one = film()
    send(gate.agent.dicom_port, *write(gate.tmp / "films", one))
    assert gate.agent.wait_delivered(str(one.StudyInstanceUID), "ris")["state"] == "analysed"
    assert gate.agent.health()["problems"] == []
    assert gate.agent.events("role died") == []
    assert {state for study in gate.agent.trails().values() for state in study["images"]} <= {
        "analysed",
        "not_analysed",
    }
    assert "Traceback" not in gate.agent.log.read_text()
