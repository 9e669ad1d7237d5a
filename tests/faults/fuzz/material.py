"""What hostile input is made of: captures of real associations, films, messages, requests, settings."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random

from pynetdicom import AE

from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.integration.hl7.result import build_oru
from tests.faults.fuzz import mutate
from tests.integration import hl7_examples
from tests.integration.dicom_wire import EXPLICIT, IMPLICIT, Film, element
from tests.peers import require_peer
from tests.system import films

ORDER = (
    b"MSH|^~\\&|RIS|HOSP|FIRSTREAD|HOSP|20260301120000||ORM^O01^ORM_O01|M1|P|2.5.1|||||DE|UNICODE UTF-8\r"
    b"PID|1||P-4711^^^HOSP||DOE^JOHN^^^DR||19500131|M\rPV1|1|E\r"
    b"ORC|NW|PL-1|FI-1||SC||^^^20260301^^S\rTQ1|1||||||20260301120000||S\r"
    b"OBR|1|PL-1|FI-1|RXTHPA^Thorax p.a.^99RIS|||||||||||||||ACC-1||||||CR\rZDS|1.2.840.113619.2.55.3^RIS^APP^DICOM\r"
)
FINAL = ORDER.replace(b"ORM^O01^ORM_O01|M1", b"ORU^R01^ORU_R01|M2").replace(
    b"\rZDS", b"||F\rOBX|1|TX|18748-4^Report^LN||No \\T\\ pneumothorax.\\.br\\End||||||F\rNTE|1||a note\rZDS"
)
ACKNOWLEDGEMENT = (
    b"MSH|^~\\&|RIS||FIRSTREAD||20260301||ACK^R01^ACK|A1|P|2.5.1\rMSA|AA|FR0001\rERR||PID^1^5|101^x^HL70357|W\r"
)
MESSAGES = (
    ORDER,
    FINAL,
    build_oru(
        hl7_examples.RAISED, hl7_examples.STUDY, Hl7Mapping(), control_id="FR0001", message_datetime=hl7_examples.NOW
    ),
    ACKNOWLEDGEMENT,
)

_HEAD = b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
REQUESTS = (
    b"GET /" + _HEAD + b"\r\n",
    b"GET /health" + _HEAD + b"Accept: application/json\r\n\r\n",
    b"GET /metrics" + _HEAD + b"\r\n",
    b"GET /study/1" + _HEAD + b"Cookie: firstread=abc; other=1\r\n\r\n",
    b"GET /rows?ids=1,2,3&at=9" + _HEAD + b"Range: bytes=0-10\r\n\r\n",
    b"GET /film/1/heat/Mass.png" + _HEAD + b'If-None-Match: "x"\r\n\r\n',
    b"GET /static/../../etc/passwd" + _HEAD + b"\r\n",
    b"POST /login" + _HEAD + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n\r\n"
    b"username=a&password=b%00c&",
    b"POST /off" + _HEAD + b"Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: 70\r\n\r\n"
    b'--XX\r\nContent-Disposition: form-data; name="ids"\r\n\r\n1\r\n--XX--\r\n\r\n\r\n',
    b"POST /study/1/off" + _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwhy=x\r\n0\r\n\r\n",
)

SETTINGS = b"""
[dicom]
ae_title = "FIRSTREAD"
allowed_addresses = ["10.0.0.0/8", "::1"]
[[destinations]]
name = "PACS"
type = "dicom"
host = "pacs.example.org"
port = 104
ae_title = "PACS"
[[destinations]]
name = "RIS"
type = "hl7"
host = "ris.example.org"
port = 2575
priority_place = ["OBR-5", "ZFR-1"]
priority_values = {STAT = "1"}
on_ack = {AE = "retry"}
[triage.findings.Pneumothorax]
priority = "STAT"
threshold = 0.5
"""


def pdu_starts(capture: bytes) -> list[int]:
    """Where PDUs begin in one side of an association, as long as their lengths are true."""
    found, at = [], 0
    while at + 6 <= len(capture):
        found.append(at)
        at += 6 + int(struct.unpack_from(">L", capture, at + 2)[0])
    return found or [0]


class Tap:
    """A listener that passes an association on and keeps both sides' bytes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.sent: list[bytes] = []
        self.answered: list[bytes] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Ends it when all that came has gone through."""
        self._listening.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:
                return
            answering = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            for source, target, kept in ((asking, answering, self.sent), (answering, asking, self.answered)):
                thread = threading.Thread(target=self._pass, args=(source, target, kept), daemon=True)
                thread.start()
                self._threads.append(thread)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, kept: list[bytes]) -> None:
        parts = []
        with suppress(OSError):
            while part := source.recv(65536):
                parts.append(part)
                target.sendall(part)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        kept.append(b"".join(parts))


def captures(port: int, folder: Path) -> tuple[list[bytes], list[bytes], bytes]:
    """Both sides of associations of DCMTK (echo, a film) and pynetdicom (echo, two films), and a film as a file."""
    (path,) = films.write(folder, films.film())
    tap = Tap(port)
    address = ["-aec", "FIRSTREAD", "127.0.0.1", str(tap.port)]
    subprocess.run([require_peer("echoscu"), *address], check=True, timeout=30)
    subprocess.run([require_peer("dcmsend"), *address, str(path)], check=True, timeout=60, capture_output=True)
    entity = AE("PYNETDICOM")
    entity.add_requested_context("1.2.840.10008.1.1")
    small = films.film()
    del small.PixelData
    small.add_new("PixelData", "OW", bytes(2000))
    small.file_meta.TransferSyntaxUID = EXPLICIT
    small.Rows, small.Columns, small.BitsAllocated, small.BitsStored, small.HighBit = 40, 50, 8, 8, 7
    entity.add_requested_context(small.SOPClassUID, EXPLICIT)
    association = entity.associate("127.0.0.1", tap.port, ae_title="FIRSTREAD")
    association.send_c_echo()
    association.send_c_store(small)
    association.send_c_store(small)
    association.release()
    tap.close()
    return tap.sent, tap.answered, path.read_bytes()


def hostile_data_set(random: Random, syntax: str) -> bytes:
    """A data set that begins as a film's and goes wrong somewhere; ``$UID$`` stands for its SOP Instance UID."""
    implicit = syntax == IMPLICIT
    film = Film(sop_instance_uid="$UID$", before_pixels=_pixels_described(random, implicit))
    choice = random.randrange(10)
    if choice == 0:
        content = film.data_set(implicit=implicit) + mutate.nested(random.choice((10, 1000, 20_000)))
    elif choice == 1:
        film.private = mutate.nested(random.choice((10, 1000, 20_000)), defined=random.random() < 0.5)
        content = film.data_set(implicit=implicit)
    elif choice in (2, 3):
        film.private = mutate.hostile_elements(random, implicit=implicit)
        content = film.data_set(implicit=implicit)
    elif choice == 4 and not implicit:
        bomb = random.choice((mutate.jpeg_bomb, mutate.jpeg_2000_bomb))(random.choice((64, 12_000, 65_500)))
        item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
        frame = struct.pack("<HHL", 0xFFFE, 0xE000, len(bomb)) + bomb + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        film.pixels = b""
        head = film.data_set()[:-12]
        content = head + element(0x7FE00010, "OB", item + frame, length=0xFFFFFFFF)
    else:
        content = mutate.mutated(random, film.data_set(implicit=implicit))
    if syntax.endswith(".99"):
        if random.random() < 0.05:
            return mutate.deflated_bomb(random.choice((1, 200)))
        packed = zlib.compress(content, 6, wbits=-15)
        return mutate.mutated(random, packed) if random.random() < 0.5 else packed
    return content


def _pixels_described(random: Random, implicit: bool) -> bytes:
    def short(tag: int, value: int) -> bytes:
        return element(tag, "US", struct.pack("<H", value), implicit=implicit)

    kind = random.choice((b"MONOCHROME2 ", b"RGB ", b"PALETTE COLOR ", b"?"))
    rows, columns = random.choice(((64, 64), (0, 64), (65535, 65535), (12000, 12000), (63, 65), (300, 300)))
    allocated = random.choice((8, 16, 16, 1, 12, 32, 0))
    return b"".join(
        (
            short(0x00280002, random.choice((1, 1, 1, 3, 0, 4))),
            element(0x00280004, "CS", kind, implicit=implicit),
            short(0x00280010, rows),
            short(0x00280011, columns),
            short(0x00280100, allocated),
            short(0x00280101, random.choice((allocated, 12, 0, 99))),
            short(0x00280102, random.choice((max(0, allocated - 1), 11, 77))),
            short(0x00280103, random.choice((0, 1, 7))),
        )
    )
