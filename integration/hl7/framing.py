"""MLLP's frame: 0B, the message, 1C 0D, cut out of whatever chunks TCP delivers (HL7 MLLP Release 1)."""

from __future__ import annotations

import re

from firstread.integration.hl7.errors import Hl7Error

START = b"\x0b"
END = b"\x1c\x0d"
LAST_BYTE_S = 0.25
"""How long to wait for the CR behind 1C from senders that leave it out."""


class FramingError(Hl7Error):
    """The bytes are not MLLP; the connection cannot be trusted any further. ``start``: how the message began."""

    def __init__(self, sentence: str, start: bytes = b"") -> None:
        self.sentence = sentence
        self.start = start
        super().__init__(sentence)


def frame(message: bytes) -> bytes:
    """A message in its frame."""
    return START + message + END


_ENDED = re.compile(rb"\x1c[\r\n\x0b]")
"""How a message may end: by 1C 0D, and by 1C with LF or with the next message's 0B, as some devices have it."""


class FrameDecoder:
    """Takes chunks, gives whole messages; keeps what is not whole yet.

    ``max_message_bytes`` bounds one message, ``max_garbage_bytes`` what may stand between messages (CR and LF do not
    count).
    A 0B inside a message begins it anew: its sender broke off and started again, and the half was never acknowledged.
    """

    def __init__(self, max_message_bytes: int, max_garbage_bytes: int = 1024) -> None:
        self._max_message_bytes = max_message_bytes
        self._max_garbage_bytes = max_garbage_bytes
        self._buffer = bytearray()
        self._inside = False
        self._searched = 0
        self.garbage_bytes = 0

    @property
    def half_a_message(self) -> bool:
        """True when a message has begun and not ended."""
        return self._inside

    @property
    def lacks_last_byte(self) -> bool:
        """True when all but the CR behind 1C is there; some senders never send it, so wait ``LAST_BYTE_S`` at most."""
        return self._inside and self._buffer.endswith(b"\x1c")

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that ``chunk`` completes. Raises ``FramingError`` past a bound."""
        self._buffer += chunk
        messages: list[bytes] = []
        while self._skip_to_start() and self._take(messages):
            pass
        return messages

    def end_without_cr(self) -> list[bytes]:
        """The message of which only the last CR is missing, none where more is."""
        return self.feed(b"\r") if self.lacks_last_byte else []

    def _skip_to_start(self) -> bool:
        """Go to the next 0B, counting what lies before it."""
        if self._inside:
            return True
        start = self._buffer.find(START)
        skipped = bytes(self._buffer if start < 0 else self._buffer[:start])
        del self._buffer[: len(skipped) + (start >= 0)]
        self.garbage_bytes += len(skipped.translate(None, b"\r\n"))
        if self.garbage_bytes > self._max_garbage_bytes:
            raise FramingError("the sender does not speak MLLP: begin each message with the byte 0B")
        self._inside = start >= 0
        self._searched = 0
        return self._inside

    def _take(self, messages: list[bytes]) -> bool:
        """Move one whole message out of the buffer, if there is one."""
        ended = _ENDED.search(self._buffer, max(0, self._searched - 1))
        end = ended.start() if ended else len(self._buffer)
        begun_again = self._buffer.rfind(START, self._searched, end)
        if begun_again >= 0:
            del self._buffer[: begun_again + 1]
            end -= begun_again + 1
        if end > self._max_message_bytes:
            sentence = f"the message is longer than {self._max_message_bytes} bytes: send a shorter one"
            raise FramingError(sentence, bytes(self._buffer[:4096]))
        if not ended:
            self._searched = len(self._buffer)
            return False
        messages.append(bytes(self._buffer[:end]))
        next_begins = self._buffer[end + 1 : end + 2] == START
        del self._buffer[: end + (1 if next_begins else 2)]
        self._inside = False
        return True
