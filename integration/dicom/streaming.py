"""DIMSE messages as they come in: a C-STORE's data set goes to a sink, fragment by fragment (PS3.7 6.3, PS3.8 E)."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from firstread.integration.dicom.identity_check import is_uid

if TYPE_CHECKING:
    from pynetdicom.association import Association

    from firstread.integration.dicom.sink import StoreSink

_LAST, _COMMAND = 0x02, 0x01
_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_LARGEST_SENT = 131072
_LARGEST_COMMAND = 64 * 1024
LARGEST_OTHER_DATA_SET = 1024 * 1024
"""What another command than C-STORE brings (a query, a commitment request) stays in memory."""


class BadMessage(ValueError):
    """Fragments that make no DIMSE message; the association is aborted (PS3.8 9.2, Evt19)."""


@dataclass(frozen=True)
class StoreCommand:
    """The command set of a C-STORE-RQ, values as they came (PS3.7 9.3.1.1)."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    priority: int
    has_data_set: bool
    move_originator_ae_title: str
    move_originator_message_id: int | None


class IncomingInstance:
    """A C-STORE that has come in completely, in the place of pynetdicom's C-STORE primitive."""

    msg_type = "C-STORE-RQ"

    def __init__(self, command: StoreCommand, sink: StoreSink) -> None:
        self.command = command
        self.sink = sink


class StreamingDIMSE(DIMSEServiceProvider):  # type: ignore[misc]
    """pynetdicom's DIMSE provider, with C-STORE data sets handed to ``open_sink(command)`` as they come."""

    def __init__(self, assoc: Association, open_sink: Callable[[StoreCommand], StoreSink | None]) -> None:
        super().__init__(assoc)
        self._open_sink = open_sink
        self._command = bytearray()
        self._incoming: IncomingInstance | None = None
        self._other_left: int | None = None
        self._deadline: float | None = None
        self._sending = threading.Lock()

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """As pynetdicom's, one message after the other: reports come and go beside other messages."""
        with self._sending:
            super().send_msg(primitive, context_id)

    def answer_store(self, command: StoreCommand, status: int, comment: str) -> None:
        """Sends the C-STORE-RSP (PS3.7 9.3.1.2) without the data sets that pynetdicom makes of it on the way."""
        values = [
            (0x0002, _padded(command.sop_class_uid) if is_uid(command.sop_class_uid) else b""),
            (0x0100, struct.pack("<H", _C_STORE_RSP)),
            (0x0120, struct.pack("<H", command.message_id)),
            (0x0800, struct.pack("<H", _NO_DATA_SET)),
            (0x0900, struct.pack("<H", status)),
            (0x0902, _padded(comment, b" ")),
            (0x1000, _padded(command.sop_instance_uid) if is_uid(command.sop_instance_uid) else b""),
        ]
        elements = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in values if value)
        encoded = struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements
        largest = max(2, self.maximum_pdu_size - 6)
        with self._sending:
            for start in range(0, len(encoded), largest):
                control = _COMMAND | (_LAST if start + largest >= len(encoded) else 0)
                primitive = P_DATA()
                fragment = bytes((control,)) + encoded[start : start + largest]
                primitive.presentation_data_value_list = [[command.context_id, fragment]]
                self.dul.send_pdu(primitive)

    @property
    def receiving(self) -> IncomingInstance | None:
        """The instance that is coming in, None between instances."""
        return self._incoming

    @property
    def maximum_pdu_size(self) -> int:
        """Bytes of a P-DATA-TF that we send: even, so that every fragment is (PS3.8 E.1), and bounded where the peer's
        is not (0, or nothing said, means no limit: PS3.8 D.1.1)."""
        largest = int(super().maximum_pdu_size or _LARGEST_SENT)
        return min(largest, _LARGEST_SENT) & ~1

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Takes the fragments of one P-DATA indication; what makes no message ends the association."""
        try:
            for context_id, fragment in primitive.presentation_data_value_list:
                self._receive(context_id, fragment)
        except BadMessage as error:
            self.dul.ended_by = self.dul.ended_by or str(error)
            self.dul.event_queue.put("Evt19")

    def abandon(self) -> None:
        """Deletes what is half received: the association has ended."""
        if self._incoming is not None:
            self._incoming.sink.discard()
            self._incoming = None

    def _receive(self, context_id: int, fragment: bytes | memoryview) -> None:
        control = fragment[0]
        content = fragment[1:]
        if control & _COMMAND:
            if self._incoming is not None or self._other_left is not None:
                raise BadMessage("a command began inside a data set")
            if len(self._command) + len(content) > _LARGEST_COMMAND:
                raise BadMessage(f"command set of more than {_LARGEST_COMMAND} bytes")
            self._command += content
            if control & _LAST:
                command, self._command = bytes(self._command), bytearray()
                self._begin(context_id, command)
        elif self._incoming is not None:
            if context_id != self._incoming.command.context_id:
                raise BadMessage("data set in another presentation context than its command")
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise BadMessage(f"a data set took longer than {self.dimse_timeout:g} s")
            self._incoming.sink.write(content)
            if control & _LAST:
                self._deliver()
        elif self._other_left is not None:
            self._other_left -= len(content)
            if self._other_left < 0:
                raise BadMessage(
                    f"data set of more than {LARGEST_OTHER_DATA_SET} bytes with a command that is no C-STORE"
                )
            if control & _LAST:
                self._other_left = None
            self._upstream(context_id, control, content)
        else:
            raise BadMessage("a data set without a command")

    def _begin(self, context_id: int, encoded: bytes) -> None:
        elements = _command_elements(encoded)
        field = _number(elements, 0x0100)
        has_data_set = _number(elements, 0x0800) != _NO_DATA_SET
        if field == _C_STORE_RQ:
            message_id = _number(elements, 0x0110)
            if message_id is None:
                raise BadMessage("C-STORE-RQ without a message id")
            command = StoreCommand(
                context_id=context_id,
                message_id=message_id,
                sop_class_uid=_text(elements, 0x0002),
                sop_instance_uid=_text(elements, 0x1000),
                priority=_number(elements, 0x0700) or 0,
                has_data_set=has_data_set,
                move_originator_ae_title=_text(elements, 0x1030),
                move_originator_message_id=_number(elements, 0x1031),
            )
            sink = self._open_sink(command)
            if sink is not None:
                self._incoming = IncomingInstance(command, sink)
                self._deadline = None if self.dimse_timeout is None else time.monotonic() + self.dimse_timeout
                if not has_data_set:
                    self._deliver()
                return
        if has_data_set:
            self._other_left = LARGEST_OTHER_DATA_SET
        self._upstream(context_id, _COMMAND | _LAST, encoded)

    def _deliver(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self.msg_queue.put((incoming.command.context_id, incoming))

    def _upstream(self, context_id: int, control: int, content: bytes | memoryview) -> None:
        primitive = P_DATA()
        primitive.presentation_data_value_list = [[context_id, bytes((control,)) + bytes(content)]]
        try:
            super().receive_primitive(primitive)
        except Exception as error:  # pynetdicom raises whatever a malformed command set leads it to
            raise BadMessage(f"unreadable command set: {type(error).__name__}: {error}") from error


def _command_elements(encoded: bytes) -> dict[int, bytes]:
    """Elements of group 0000, implicit VR little endian (PS3.7 6.3.1)."""
    elements = {}
    offset = 0
    while offset + 8 <= len(encoded):
        group, element, length = struct.unpack_from("<HHL", encoded, offset)
        offset += 8
        if group != 0 or offset + length > len(encoded):
            raise BadMessage("malformed command set")
        elements[element] = encoded[offset : offset + length]
        offset += length
    return elements


def _padded(text: str, padding: bytes = b"\0") -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _number(elements: dict[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else None


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", "replace").strip("\0 ")
