"""Audit messages as the standard's schema wants them, and their way as syslog over file, TCP and TLS."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firstread.integration.audit.message import (
    DESTINATION,
    SOURCE,
    AuditEvent,
    EventKind,
    EventType,
    Outcome,
    Participant,
    StudyObject,
    write_message,
)
from firstread.integration.audit.syslog import AuditFile, AuditStream, AuditUnreachable, syslog_record
from tests.integration.audit_schema import checked

NOW = datetime(2026, 3, 1, 12, 0, 0, 5000, tzinfo=UTC)
NODES = (
    Participant("PACS", True, SOURCE, "10.0.0.7", "AETITLES=PACS"),
    Participant("FIRSTREAD", False, DESTINATION, "reader.example"),
)


@pytest.mark.parametrize("kind", EventKind)
@pytest.mark.parametrize("type_", [None, EventType.LOGIN])
def test_every_kind_of_event_is_valid(kind: EventKind, type_: EventType | None) -> None:
    study = StudyObject("1.2.3", {"1.2.840.10008.5.1.4.1.1.1.1": 2}, "P1", "A1")
    event = AuditEvent(kind, NOW, NODES, type_, Outcome.MINOR_FAILURE, "why", [study], {"Alert Description": "x"})
    tree = checked(write_message(event, "FIRSTREAD@host", "Hospital"))
    assert tree.find("EventIdentification/EventID").get("csd-code") == kind.value[0]
    assert tree.find("EventIdentification").get("EventActionCode") == kind.value[2]


def test_a_transfer_says_who_what_and_how_many() -> None:
    study = StudyObject("1.2.3", {"1.2.840.10008.5.1.4.1.1.1.1": 2}, "P1", "A1")
    tree = checked(write_message(AuditEvent(EventKind.INSTANCES_TRANSFERRED_IN, NOW, NODES, studies=[study]), "F"))
    one, two = tree.findall("ActiveParticipant")
    assert (one.get("UserIsRequestor"), one.find("RoleIDCode").get("csd-code")) == ("true", "110153")
    assert (one.get("NetworkAccessPointTypeCode"), two.get("NetworkAccessPointTypeCode")) == ("2", "1")
    shown, patient = tree.findall("ParticipantObjectIdentification")
    assert shown.get("ParticipantObjectID") == "1.2.3"
    assert shown.find("ParticipantObjectDescription/SOPClass").get("NumberOfInstances") == "2"
    assert shown.find("ParticipantObjectDescription/Accession").get("Number") == "A1"
    assert patient.get("ParticipantObjectID") == "P1" and patient.get("ParticipantObjectTypeCodeRole") == "1"


def test_received_text_neither_breaks_the_xml_nor_adds_to_it() -> None:
    evil = "\x00\x1b<script>&\"'\ud800\u202e]]>"
    study = StudyObject("1.2.3", {"1.2": 1}, evil, evil)
    event = AuditEvent(EventKind.SECURITY_ALERT, NOW, [Participant(evil, True, None, evil)], studies=[study],
                       details={"Alert Description": evil}, outcome_text=evil)  # fmt: skip
    message = write_message(event, evil, evil)
    tree = checked(message)
    assert b"<script>" not in message and tree.find(".//script") is None
    detail = tree.find(".//ParticipantObjectDetail").get("value")
    assert base64.b64decode(detail).startswith(b"\x00\x1b<script>")


def test_a_patient_without_identifier_is_unknown_and_the_message_valid() -> None:
    event = AuditEvent(EventKind.INSTANCES_ACCESSED, NOW, NODES, studies=[StudyObject("1.2.3", {})])
    assert (
        checked(write_message(event, "F")).findall(".//ParticipantObjectIdentification")[1].get("ParticipantObjectID")
    )


def record() -> bytes:
    return syslog_record(b"<AuditMessage/>", NOW, host="reader 1\n", application="firstread", process=7)


def test_a_record_has_the_head_that_rfc_5424_and_dicom_ask_for() -> None:
    head, _, text = record().partition(b" - \xef\xbb\xbf")
    priority, stamp, host, application, process, kind = head.decode().split(" ")
    assert (priority, host, application, process, kind) == ("<85>1", "reader_1_", "firstread", "7", "DICOM+RFC3881")
    assert datetime.fromisoformat(stamp) == NOW and text == b"<AuditMessage/>"


def test_a_file_gets_one_line_for_each_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b"before\n")
    file = AuditFile(path)
    file.send(record().replace(b"/>", b">\n</AuditMessage>"))
    file.send(record())
    assert len(path.read_bytes().splitlines()) == 3 and path.read_bytes().startswith(b"before\n<85>1 ")
    with pytest.raises(AuditUnreachable, match="cannot be written"):
        AuditFile(tmp_path / "none" / "audit.log").send(record())


class Collector:
    """An audit repository: reads counted records, closes after ``most`` of a connection."""

    def __init__(self, tls: ssl.SSLContext | None = None, most: int = 1000) -> None:
        self.records: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._tls, self._most = tls, most
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
                self.connections += 1
                with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as stream:
                    file = stream.makefile("rb")
                    for _ in range(self._most):
                        count = b""
                        while (one := file.read(1)) not in (b" ", b""):
                            count += one
                        if not count:
                            break
                        self.records.append(file.read(int(count)))
                    file.close()
            except OSError:
                if self._listener.fileno() < 0:
                    return

    def close(self) -> None:
        self._listener.close()


def test_records_go_over_one_tcp_connection_counted() -> None:
    collector = Collector()
    stream = AuditStream("127.0.0.1", collector.port)
    for number in range(5):
        stream.send(record() + str(number).encode())
    stream.settle()
    stream.close()
    wait(lambda: len(collector.records) == 5)
    assert [one[-1:] for one in collector.records] == [b"0", b"1", b"2", b"3", b"4"] and collector.connections == 1
    collector.close()


def test_a_repository_that_closes_is_noticed_and_asked_again_until_it_has_everything() -> None:
    collector = Collector(most=1)
    stream = AuditStream("127.0.0.1", collector.port)
    missing = {str(number).encode() for number in range(3)}
    for _ in range(20):
        if not missing:
            break
        try:
            for number in sorted(missing):
                stream.send(record() + number)
            stream.settle()
        except AuditUnreachable:
            missing -= {one[-1:] for one in collector.records}
    assert {one[-1:] for one in collector.records} == {b"0", b"1", b"2"}
    collector.close()


def test_nobody_there_is_said_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(AuditUnreachable, match=f"127.0.0.1:{port}"):
        AuditStream("127.0.0.1", port, timeout_s=2).send(record())


def wait(seen) -> None:
    import time

    deadline = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)
