"""A peer that speaks the wire byte by byte (PS3.8), films made by hand, and a receiver with an inbox, for tests."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstread.integration.dicom.receive import Receiver
from firstread.integration.dicom.received import AssociationEvent, ReceivedInstance, ReceiveSettings, Refusal
from firstread.integration.dicom.status import SUCCESS, StoreStatus

CR = "1.2.840.10008.5.1.4.1.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
VERIFICATION = "1.2.840.10008.1.1"

LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def new_uid() -> str:
    """A fresh UID."""
    return f"2.25.{uuid.uuid4().int}"


def element(tag: int, vr: str, value: bytes, *, implicit: bool = False, big: bool = False, length: int = -1) -> bytes:
    """One data element; ``length`` says another length than the value has."""
    order = ">" if big else "<"
    size = len(value) if length < 0 else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    code = vr.encode()
    if implicit:
        return head + struct.pack(f"{order}L", size) + value
    if code in LONG:
        return head + code + b"\0\0" + struct.pack(f"{order}L", size) + value
    return head + code + struct.pack(f"{order}H", size) + value


def uid_value(uid: str) -> bytes:
    """A UID as value, padded to even length."""
    return uid.encode() + b"\0" * (len(uid) % 2)


@dataclass
class Film:
    """A film as bytes: what the command says, what the data set says, and what stands between header and pixels."""

    sop_class_uid: str = CR
    sop_instance_uid: str = field(default_factory=new_uid)
    study_instance_uid: str = field(default_factory=new_uid)
    series_instance_uid: str = field(default_factory=new_uid)
    pixels: bytes = bytes(range(256)) * 32
    before_pixels: bytes = b""
    private: bytes = b""

    def data_set(self, *, implicit: bool = False, big: bool = False) -> bytes:
        """The data set's bytes; an empty UID is left out."""

        def one(tag: int, vr: str, value: bytes) -> bytes:
            return element(tag, vr, value, implicit=implicit, big=big)

        uids = ((0x00080016, self.sop_class_uid), (0x00080018, self.sop_instance_uid))
        parts = [one(tag, "UI", uid_value(uid)) for tag, uid in uids if uid]
        parts.append(one(0x00080060, "CS", b"CR"))
        parts.append(self.private)
        parts.append(one(0x00100010, "PN", b"A^B "))
        uids = ((0x0020000D, self.study_instance_uid), (0x0020000E, self.series_instance_uid))
        parts += [one(tag, "UI", uid_value(uid)) for tag, uid in uids if uid]
        parts.append(self.before_pixels)
        parts.append(one(0x7FE00010, "OW", self.pixels))
        return b"".join(parts)


class Inbox:
    """The owner of a receiver in tests: moves instances to a folder and remembers everything that it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.instances: list[ReceivedInstance] = []
        self.refusals: list[Refusal] = []
        self.events: list[AssociationEvent] = []
        self.lock = threading.Lock()

    def take(self, instance: ReceivedInstance) -> StoreStatus:
        """Takes an instance over."""
        with self.lock:
            place = self.folder / f"{len(self.instances):04d}.dcm"
            os.rename(instance.path, place)
            self.instances.append(replace(instance, path=place))
        return SUCCESS


@contextlib.contextmanager
def receiving(folder: Path, inbox: Inbox | None = None, **settings: object) -> Iterator[tuple[Receiver, Inbox]]:
    """A receiver called FIRSTREAD on a free port of 127.0.0.1."""
    inbox = inbox or Inbox(folder / "inbox")
    chosen = ReceiveSettings("FIRSTREAD", "127.0.0.1", 0, folder / "incoming", disk_reserve_bytes=0)
    receiver = Receiver(replace(chosen, **settings), inbox.take, inbox.refusals.append, inbox.events.append)
    receiver.start()
    try:
        yield receiver, inbox
    finally:
        receiver.stop(5.0)


class RawPeer:
    """A C-STORE SCU that owns every byte. Contexts: (abstract syntax, transfer syntaxes), ids 1, 3, 5 ..."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send_pdu(self, pdu_type: int, content: bytes, *, length: int = -1) -> None:
        """One PDU; ``length`` says another length than it has."""
        size = len(content) if length < 0 else length
        self.socket.sendall(struct.pack(">BBL", pdu_type, 0, size) + content)

    def read_pdu(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; type 0 when the connection was closed."""
        try:
            head = self._read(6)
            return (head[0], self._read(struct.unpack(">L", head[2:])[0])) if head else (0, b"")
        except ConnectionError:
            return 0, b""

    def associate(
        self,
        contexts: list[tuple[str, list[str]]] | None = None,
        *,
        calling: str = "MODALITY",
        called: str = "FIRSTREAD",
        extra: bytes = b"",
    ) -> tuple[int, bytes]:
        """Asks for an association and reads the answer (2 accepted, 3 rejected)."""
        self.send_pdu(
            0x01, associate_request(contexts or [(CR, [EXPLICIT])], calling=calling, called=called, extra=extra)
        )
        return self.read_pdu()

    def accepted(self, answer: bytes) -> dict[int, str]:
        """Accepted context ids and their transfer syntaxes, of an A-ASSOCIATE-AC."""
        found = {}
        offset = 68
        while offset < len(answer):
            kind, length = struct.unpack_from(">BxH", answer, offset)
            if kind == 0x21 and answer[offset + 6] == 0:
                (size,) = struct.unpack_from(">H", answer, offset + 10)
                found[answer[offset + 4]] = answer[offset + 12 : offset + 12 + size].decode().rstrip("\0")
            offset += 4 + length
        return found

    def send_command(self, elements: dict[int, bytes], *, context_id: int = 1) -> None:
        """A command set, in one fragment."""
        body = b"".join(struct.pack("<HHL", 0, key, len(value)) + value for key, value in sorted(elements.items()))
        command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
        self.send_fragment(command, 0x03, context_id=context_id)

    def send_fragment(self, content: bytes, control: int, *, context_id: int = 1) -> None:
        """One fragment in a P-DATA-TF PDU of its own."""
        self.send_pdu(0x04, struct.pack(">LBB", len(content) + 2, context_id, control) + content)

    def send_store(
        self,
        film: Film,
        data_set: bytes | None = None,
        *,
        message_id: int = 1,
        context_id: int = 1,
        fragment: int = 16000,
        command: dict[int, bytes] | None = None,
    ) -> None:
        """A whole C-STORE-RQ; ``command`` replaces elements of its command set (an empty value removes one)."""
        elements = store_command(film, message_id) | (command or {})
        self.send_command({key: value for key, value in elements.items() if value}, context_id=context_id)
        content = film.data_set() if data_set is None else data_set
        for start in range(0, max(1, len(content)), fragment):
            last = start + fragment >= len(content)
            self.send_fragment(content[start : start + fragment], 0x02 if last else 0x00, context_id=context_id)

    def read_response(self) -> tuple[int, str]:
        """Status and Error Comment of the next response; -1 when there was none."""
        kind, content = self.read_pdu()
        if kind != 0x04:
            return -1, f"PDU type {kind}"
        elements = {}
        offset = 6
        while offset < len(content):
            _, key, size = struct.unpack_from("<HHL", content, offset)
            elements[key] = content[offset + 8 : offset + 8 + size]
            offset += 8 + size
        return int.from_bytes(elements[0x0900], "little"), elements.get(0x0902, b"").decode().strip()

    def store(self, film: Film, data_set: bytes | None = None, **options: object) -> tuple[int, str]:
        """Sends a film and reads the answer."""
        self.send_store(film, data_set, **options)
        return self.read_response()

    def release(self) -> int:
        """Releases; 6 is the proper answer."""
        self.send_pdu(0x05, bytes(4))
        return self.read_pdu()[0]

    def _read(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            part = self.socket.recv(size - len(content))
            if not part:
                return b""
            content += part
        return content


def store_command(film: Film, message_id: int = 1) -> dict[int, bytes]:
    """The command set of a C-STORE-RQ without its group length."""
    return {
        0x0002: uid_value(film.sop_class_uid),
        0x0100: b"\x01\x00",
        0x0110: message_id.to_bytes(2, "little"),
        0x0700: b"\x00\x00",
        0x0800: b"\x01\x00",
        0x1000: uid_value(film.sop_instance_uid),
    }


def associate_request(
    contexts: list[tuple[str, list[str]]], *, calling: str = "MODALITY", called: str = "FIRSTREAD", extra: bytes = b""
) -> bytes:
    """The content of an A-ASSOCIATE-RQ (PS3.8 9.3.2); ``extra`` are further user information sub-items."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    parts = [struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))]
    parts.append(item(0x10, b"1.2.840.10008.3.1.1.1"))
    for position, (abstract, syntaxes) in enumerate(contexts):
        inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        parts.append(item(0x20, bytes((2 * position + 1, 0, 0, 0)) + inner))
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4") + extra
    parts.append(item(0x50, user))
    return b"".join(parts)


def data_set_of(path: Path) -> bytes:
    """What follows the meta header of a Part 10 file, found independently of the product's own reader."""
    content = path.read_bytes()
    assert content[128:132] == b"DICM"
    assert content[132:138] == b"\x02\x00\x00\x00UL"
    (length,) = struct.unpack_from("<L", content, 140)
    return content[144 + length :]
