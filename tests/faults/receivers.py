"""A PACS and a RIS, byte by byte, that misbehave on request and remember what they hold and what they said."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.uid import UID

OK = "ok"


@dataclass(frozen=True)
class Held:
    """One object or message that a receiver took, and its answer to it (empty when none was given)."""

    at: float
    identity: str
    """SOP Instance UID or MSH-10."""
    study: str
    kind: str
    """``SR``, ``OT`` ... or ``oru``."""
    revision: int
    content: bytes
    answer: str

    @property
    def sha256(self) -> str:
        """Hash of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


class Receiver:
    """A TCP server with one thread a connection. ``script``: how it treats the next objects; then all goes well.

    ``down`` closes the port. What is in ``held`` was taken for good, whatever the sender was told.
    """

    def __init__(self, patience_s: float) -> None:
        self.script: deque[str] = deque()
        self.held: list[Held] = []
        self.patience_s = patience_s
        """How long its sender waits: "late" answers come after it."""
        self._listening: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = 0
        self.up()

    def up(self) -> None:
        """Listens, on the same port as ever."""
        if self._listening is not None:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(16)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def down(self) -> None:
        """Nobody answers at the port, and what was open is cut."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def next_way(self) -> str:
        """How the next object is treated."""
        with self._lock:
            return self.script.popleft() if self.script else OK

    def keep(self, one: Held) -> None:
        """Takes an object."""
        with self._lock:
            self.held.append(one)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(60)
            self.talk(connection)
        except (OSError, EOFError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def talk(self, connection: socket.socket) -> None:
        """One connection until its end."""
        raise NotImplementedError


def _say(connection: socket.socket, answer: bytes, way: str) -> None:
    """Trickled answers come byte by byte."""
    if way != "trickle":
        connection.sendall(answer)
        return
    for position in range(len(answer)):
        connection.sendall(answer[position : position + 1])
        time.sleep(0.005)


class Pacs(Receiver):
    """A Storage SCP. Ways: ok, die, half-way, late, other-message, trickle, reject, or a status such as A700."""

    WAYS = ("die", "half-way", "late", "other-message", "trickle", "A700", "C000", "B000", "reject")

    def talk(self, connection: socket.socket) -> None:
        """Association, C-STOREs, release (PS3.8 9.3)."""
        kind, request = _read_pdu(connection)
        if kind != 0x01:
            return
        with self._lock:
            rejected = bool(self.script) and self.script[0] == "reject"
            if rejected:
                self.script.popleft()
        if rejected:
            connection.sendall(struct.pack(">BBLBBBB", 0x03, 0, 4, 0, 2, 3, 1))
            return
        syntaxes, accept = _accept_all(request)
        connection.sendall(struct.pack(">BBL", 0x02, 0, len(accept)) + accept)
        command, content, way, context = b"", bytearray(), "", 0
        while True:
            kind, body = _read_pdu(connection)
            if kind == 0x05:
                connection.sendall(struct.pack(">BBLL", 0x06, 0, 4, 0))
                return
            if kind != 0x04:
                return
            for context, control, fragment in _fragments(body):
                if control & 1:
                    command += fragment
                    way = way or self.next_way()
                    continue
                content += fragment
                if way == "half-way":
                    return
                if control & 2 and not self._take(connection, context, command, bytes(content), syntaxes, way):
                    return
                if control & 2:
                    command, content, way = b"", bytearray(), ""

    def _take(
        self,
        connection: socket.socket,
        context: int,
        command: bytes,
        content: bytes,
        syntaxes: dict[int, str],
        way: str,
    ) -> bool:
        elements = _elements(command)
        status = int(way, 16) if re.fullmatch(r"[0-9A-F]{4}", way) else 0
        held = _as_held(content, syntaxes[context], "" if way == "die" else f"{status:04X}")
        if status < 0xA000 or 0xB000 <= status < 0xC000:
            self.keep(held)
        if way == "die":
            return False
        if way == "late":
            time.sleep(self.patience_s + 1.0)
        message = int.from_bytes(elements[0x0110], "little") + (7 if way == "other-message" else 0)
        answer = {
            0x0002: elements[0x0002],
            0x0100: b"\x01\x80",
            0x0120: message.to_bytes(2, "little"),
            0x0800: b"\x01\x01",
            0x0900: status.to_bytes(2, "little"),
            0x1000: elements[0x1000],
        }
        encoded = b"".join(struct.pack("<HHL", 0, key, len(value)) + value for key, value in answer.items())
        encoded = struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded
        pdv = struct.pack(">LBB", len(encoded) + 2, context, 0x03) + encoded
        _say(connection, struct.pack(">BBL", 0x04, 0, len(pdv)) + pdv, way)
        return True


class Ris(Receiver):
    """An MLLP server. Ways: ok, die, half-way, late, other-message, trickle, AE."""

    WAYS = ("die", "half-way", "late", "other-message", "trickle", "AE")

    def talk(self, connection: socket.socket) -> None:
        """Messages and acknowledgements, framed by VT and FS CR."""
        buffer = b""
        while True:
            part = connection.recv(65536)
            if not part:
                return
            buffer += part
            if self.script and self.script[0] == "half-way":
                self.next_way()
                return
            while b"\x1c\r" in buffer:
                frame, buffer = buffer.split(b"\x1c\r", 1)
                if not self._take(connection, frame.lstrip(b"\x0b")):
                    return

    def _take(self, connection: socket.socket, content: bytes) -> bool:
        way = self.next_way()
        lines = [line.split("|") for line in content.decode("utf-8").split("\r")]
        control = lines[0][9]
        code = way if way == "AE" else "AA"
        if code == "AA":
            self.keep(_message_as_held(content, control, "" if way == "die" else code))
        if way == "die":
            return False
        if way == "late":
            time.sleep(self.patience_s + 1.0)
        about = "SOMEBODY.ELSE" if way == "other-message" else control
        answer = f"MSH|^~\\&|RIS||FIRSTREAD||20260301||ACK^R01^ACK|{time.time_ns()}|P|2.5.1\rMSA|{code}|{about}\r"
        _say(connection, b"\x0b" + answer.encode() + b"\x1c\r", way)
        return True


def priority_of(message: bytes) -> int:
    """0 to 2 as TQ1-9 of an ORU says: routine (no priority), ASAP, STAT."""
    found = re.search(rb"\rTQ1\|1\|{8}([^|\r]*)", message)
    return {"S": 2, "A": 1}.get(found.group(1).decode().split("^")[0], 0) if found else 0


def _message_as_held(content: bytes, control: str, answer: str) -> Held:
    text = content.decode("utf-8")
    study, revision = _observed(text, "113014"), _observed(text, "REVISION")
    return Held(time.monotonic(), control, study, "oru", int(revision or 0), content, answer)


def _observed(text: str, code: str) -> str:
    found = re.search(rf"\rOBX\|[0-9]+\|[A-Z]+\|{code}\^[^|]*\|[^|]*\|([^|\r]*)", text)
    return found.group(1) if found else ""


def _as_held(content: bytes, syntax: str, answer: str) -> Held:
    dataset = _parse(content, syntax)
    return Held(
        at=time.monotonic(),
        identity=str(dataset.SOPInstanceUID),
        study=str(dataset.StudyInstanceUID),
        kind=str(dataset.Modality),
        revision=int(dataset.InstanceNumber),
        content=content,
        answer=answer,
    )


def _parse(content: bytes, syntax: str) -> Dataset:
    from pydicom.filereader import read_dataset

    uid = UID(syntax)
    return read_dataset(
        BytesIO(content), uid.is_implicit_VR, uid.is_little_endian, stop_when=lambda tag, *_: tag > 0x00400000
    )


def _accept_all(request: bytes) -> tuple[dict[int, str], bytes]:
    """Every context with its first transfer syntax: by id, and the content of an A-ASSOCIATE-AC."""
    syntaxes: dict[int, str] = {}
    items = [struct.pack(">BBH", 0x10, 0, 21) + b"1.2.840.10008.3.1.1.1"]
    offset = 68
    while offset < len(request):
        kind, length = struct.unpack_from(">BxH", request, offset)
        if kind == 0x20:
            context, inner = request[offset + 4], offset + 8
            while inner < offset + 4 + length:
                sub, size = struct.unpack_from(">BxH", request, inner)
                if sub == 0x40 and context not in syntaxes:
                    syntaxes[context] = request[inner + 4 : inner + 4 + size].decode().rstrip("\0")
                inner += 4 + size
            name = syntaxes[context].encode()
            sub_item = struct.pack(">BBH", 0x40, 0, len(name)) + name
            items.append(struct.pack(">BBHBBBB", 0x21, 0, 4 + len(sub_item), context, 0, 0, 0) + sub_item)
        offset += 4 + length
    user = struct.pack(">BBHL", 0x51, 0, 4, 65536) + struct.pack(">BBH", 0x52, 0, 7) + b"1.2.3.4"
    items.append(struct.pack(">BBH", 0x50, 0, len(user)) + user)
    return syntaxes, request[:68] + b"".join(items)


def _fragments(body: bytes) -> list[tuple[int, int, bytes]]:
    found, offset = [], 0
    while offset < len(body):
        (length,) = struct.unpack_from(">L", body, offset)
        found.append((body[offset + 4], body[offset + 5], body[offset + 6 : offset + 4 + length]))
        offset += 4 + length
    return found


def _elements(command: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset < len(command):
        _, key, size = struct.unpack_from("<HHL", command, offset)
        found[key] = command[offset + 8 : offset + 8 + size]
        offset += 8 + size
    return found


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 6)
    return head[0], _exactly(connection, struct.unpack(">L", head[2:])[0])


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
