"""What can go wrong on the HL7 side, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

ERROR_TEXTS: dict[str, str] = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}
"""HL7 table 0357, message error condition codes."""


class Hl7Error(Exception):
    """Anything that stops a message of ours or of theirs."""


@dataclass(frozen=True)
class ErrorLocation:
    """Where in a message an error stands (ERL, HL7 v2.5.1 2.A.28): counted from one, zero means "not said"."""

    segment: str = ""
    sequence: int = 1
    field: int = 0
    component: int = 0

    def __str__(self) -> str:
        """``OBX[3]-5.1``"""
        text = self.segment + (f"[{self.sequence}]" if self.sequence > 1 else "")
        text += f"-{self.field}" if self.field else ""
        return text + (f".{self.component}" if self.component else "")


class UnreadableMessage(Hl7Error):
    """A message that cannot be taken; ``code`` is of table 0357, the sentence never quotes patient data.

    100-103 are about its content (answered AE), 200-203 about its kind (answered AR).
    """

    def __init__(self, code: int, location: ErrorLocation, sentence: str) -> None:
        self.code = code
        self.location = location
        self.sentence = sentence
        super().__init__(f"{location}: {sentence}" if location.segment else sentence)

    @property
    def unsupported(self) -> bool:
        """True when the kind of message is not taken here (200-203), whatever it says."""
        return 200 <= self.code <= 203


class UnbuildableMessage(Hl7Error):
    """A mapping or control id that no message can be written with; the sentence names the setting."""


class MllpAddressError(Hl7Error):
    """The MLLP server cannot listen where it was told to."""
