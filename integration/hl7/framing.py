"""MLLP's frame: 0B, the message, 1C 0D, cut out of whatever chunks TCP delivers (HL7 MLLP Release 1)."""

from __future__ import annotations

from firstread.integration.hl7.errors import Hl7Error

START = b"\x0b"
END = b"\x1c\x0d"


class FramingError(Hl7Error):
    """The bytes are not MLLP; the connection cannot be trusted any further. ``start``: how the message began."""

    def __init__(self, sentence: str, start: bytes = b"") -> None:
        self.sentence = sentence
        self.start = start
        super().__init__(sentence)


def frame(message: bytes) -> bytes:
    """A message in its frame."""
    return START + message + END


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

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that ``chunk`` completes. Raises ``FramingError`` past a bound."""
        self._buffer += chunk
        messages: list[bytes] = []
        while self._step(messages):
            pass
        return messages

    def _step(self, messages: list[bytes]) -> bool:
        if not self._inside:
            start = self._buffer.find(START)
            skipped = bytes(self._buffer if start < 0 else self._buffer[:start])
            del self._buffer[: len(skipped) if start < 0 else start + 1]
            self.garbage_bytes += len(skipped.translate(None, b"\r\n"))
            if self.garbage_bytes > self._max_garbage_bytes:
                raise FramingError("the sender does not speak MLLP: begin each message with the byte 0B")
            self._inside = start >= 0
            self._searched = 0
            return self._inside
        end = self._buffer.find(END, max(0, self._searched - 1))
        begun_again = self._buffer.rfind(START, self._searched, end if end >= 0 else len(self._buffer))
        if begun_again >= 0:
            end -= begun_again + 1 if end >= 0 else 0
            del self._buffer[: begun_again + 1]
        if (end if end >= 0 else len(self._buffer)) > self._max_message_bytes:
            sentence = f"the message is longer than {self._max_message_bytes} bytes: send a shorter one"
            raise FramingError(sentence, bytes(self._buffer[:4096]))
        if end < 0:
            self._searched = len(self._buffer)
            return False
        messages.append(bytes(self._buffer[:end]))
        del self._buffer[: end + len(END)]
        self._inside = False
        return True
