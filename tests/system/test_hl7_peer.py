"""Two other HL7 libraries over real sockets: python-hl7 and hl7apy as receivers, python-hl7 as sender."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import hl7
import pytest
from hl7.client import MLLPClient as PythonHl7Client
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.mllp import AbstractHandler
from hl7apy.mllp import MLLPServer as Hl7apyServer
from hl7apy.parser import parse_message

from firstread.integration.hl7.acknowledge import AckKind, acknowledge, read_acknowledgement
from firstread.integration.hl7.mllp import MllpClient, MllpServer, probe
from firstread.integration.hl7.order import Order, message_code, parse_order, parse_result
from firstread.models.prediction import Priority
from tests.integration.hl7_examples import NOT_ANALYSED, QUIET, RAISED, STUDY, order, oru
from tests.peers import require_peer

JAPANESE = replace(STUDY, patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう", accession_number="A|1&2^3~4\\5")


class PythonHl7Receiver:
    """A RIS made of python-hl7's own MLLP server: takes messages, answers with its own create_ack."""

    def __init__(self, ack_code: str = "AA") -> None:
        self.received: list[hl7.Message] = []
        self.connections = 0
        self._ack_code = ack_code
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(start_hl7_server(self._serve, "127.0.0.1", 0, encoding="utf-8"))
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                message = await reader.readmessage()
                self.received.append(message)
                writer.writemessage(message.create_ack(ack_code=self._ack_code))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _cancel(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


@contextmanager
def python_hl7(ack_code: str = "AA") -> Iterator[PythonHl7Receiver]:
    peer = PythonHl7Receiver(ack_code)
    try:
        yield peer
    finally:
        peer.close()


def test_python_hl7_receives_our_results_over_one_connection_and_its_answer_counts() -> None:
    with python_hl7() as ris, MllpClient("127.0.0.1", ris.port) as sender:
        for number, assessment in enumerate((RAISED, QUIET, NOT_ANALYSED)):
            message = oru(assessment, study=JAPANESE, control_id=f"FR{number}")
            assert sender.send(message, f"FR{number}").delivered
        assert ris.connections == 1
    raised = ris.received[0]
    assert raised.extract_field("OBR", 1, 18, 1, 1) == "A|1&2^3~4\\5"
    assert raised.extract_field("PID", 1, 5, 2, 1) == "山田"
    assert raised.extract_field("TQ1", 1, 9, 1, 1) == "S"
    pneumothorax = next(obx for obx in raised.segments("OBX") if str(obx[3]).startswith("36118008^"))
    assert [str(pneumothorax[field]) for field in (2, 5, 6, 7, 8, 11)] == ["NM", "0.8123", "1^^UCUM", "<0.60", "H", "R"]
    for silent in ris.received[1:]:
        with pytest.raises(KeyError):
            silent.segment("TQ1")


@pytest.mark.parametrize(("code", "kind"), [("AE", AckKind.REJECT_AFTER_TRIES), ("AR", AckKind.RETRY)])
def test_python_hl7_s_refusals_are_understood(code: str, kind: AckKind) -> None:
    with python_hl7(code) as ris, MllpClient("127.0.0.1", ris.port) as sender:
        assert sender.send(oru(), "FR0001").kind is kind


class Hl7apyHandler(AbstractHandler):
    """Parses what it gets at STRICT and answers; hl7apy's server closes the connection after each message."""

    def reply(self) -> str:
        message = parse_message(self.incoming_message, validation_level=VALIDATION_LEVEL.STRICT)
        message.validate()
        control_id = message.msh.msh_10.value
        return f"\x0bMSH|^~\\&|RIS||FIRSTREAD||20260102||ACK^R01^ACK|A1|P|2.5.1\rMSA|AA|{control_id}\r\x1c\r"


def test_hl7apy_s_server_validates_our_results_at_strict_and_takes_them() -> None:
    server = Hl7apyServer("127.0.0.1", 0, {"ORU^R01^ORU_R01": (Hl7apyHandler,)}, timeout=10)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with MllpClient("127.0.0.1", server.server_address[1]) as sender:
            for number, assessment in enumerate((RAISED, QUIET, NOT_ANALYSED)):
                message = oru(assessment, control_id=f"FR{number}")
                assert sender.send(message, f"FR{number}").delivered
    finally:
        server.shutdown()
        server.server_close()


def test_python_hl7_sends_us_orders_and_reports_and_reads_our_answers() -> None:
    taken: list[object] = []

    def handle(message: bytes, peer: str) -> bytes:
        taken.append(parse_order(message) if message_code(message) in ("ORM", "OMI", "OMG") else parse_result(message))
        return acknowledge(message)

    stat = hl7.parse(order("TQ1|1||||||||S^STAT^HL70485", "OBR|1|PL-1|FI-1|X", "ZDS|1.2.840.7").decode())
    with MllpServer("127.0.0.1", 0, handle) as server, PythonHl7Client(*server.address) as ris:
        reply = hl7.parse(ris.send_message(stat).strip(b"\x0b\x1c\r"))
        assert (str(reply["MSA"][0][1]), str(reply["MSA"][0][2])) == ("AA", "CTL-1")
        reply = hl7.parse(ris.send_message(order(header="ORM^O01", orc="ORC||PL-1")).strip(b"\x0b\x1c\r"))
        assert str(reply["MSA"][0][1]) == "AE"
        assert str(reply["ERR"][0][3][0][0]) == "101"
        reply = hl7.parse(ris.send_message(order(header="ADT^A08")).strip(b"\x0b\x1c\r"))
        assert str(reply["MSA"][0][1]) == "AR"
        assert read_acknowledgement(ris.send_message(oru()).strip(b"\x0b\x1c"), "FR0001").delivered
    told = taken[0]
    assert isinstance(told, Order)
    assert told.ordered_priority is Priority.STAT
    assert told.study_instance_uid == "1.2.840.7"
    assert told.patient.patient_name == "Müller^Änne^Maria^Dr^MD"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1."""
    key, crt = folder / "key.pem", folder / "crt.pem"
    request = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ris -keyout {key} -out {crt}".split()
    command = [require_peer("openssl"), *request, "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return key, crt


def test_results_travel_encrypted_and_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    key, crt = certificate(tmp_path)
    receiving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    receiving.load_cert_chain(crt, key)
    trusting = ssl.create_default_context(cafile=str(crt))
    with MllpServer("127.0.0.1", 0, lambda message, peer: acknowledge(message), tls=receiving) as server:
        with MllpClient(*server.address, tls=trusting) as sender:
            assert [sender.send(oru(), "FR0001").delivered for _ in range(3)] == [True] * 3
            assert sender.connected
        assert probe(*server.address, tls=trusting).reachable
        with MllpClient(*server.address, tls=ssl.create_default_context()) as stranger:
            outcome = stranger.send(oru(), "FR0001")
        assert outcome.kind is AckKind.RETRY
        assert "TLS" in outcome.text
        with MllpClient(*server.address, answer_timeout_s=1.0) as plain:
            assert plain.send(oru(), "FR0001").kind is AckKind.RETRY
