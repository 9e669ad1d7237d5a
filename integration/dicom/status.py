"""C-STORE statuses: what we answer as receiver, and what a receiver's answer means to us (PS3.4 B.2.3, PS3.7 C)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ERROR_COMMENT_LENGTH = 64
"""Longest Error Comment (0000,0902): VR LO (PS3.7 E.1)."""


@dataclass(frozen=True)
class StoreStatus:
    """The status of a C-STORE response, with an Error Comment of at most 64 characters (longer ones are cut)."""

    code: int
    comment: str = ""

    @property
    def succeeded(self) -> bool:
        """True for 0000 and the warnings: the instance is kept, the sender may forget it."""
        return self.code == 0x0000 or 0xB000 <= self.code <= 0xBFFF

    @property
    def error_comment(self) -> str:
        """The comment as it may stand on the wire: printable ASCII without backslash, at most 64 characters."""
        text = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in self.comment)
        return text if len(text) <= ERROR_COMMENT_LENGTH else text[: ERROR_COMMENT_LENGTH - 3].rstrip() + "..."

    def __str__(self) -> str:
        return f"{self.code:04X} {self.comment}".rstrip()


SUCCESS = StoreStatus(0x0000)


class StoreFailure(Exception):
    """An instance that is not kept: raise it to answer its ``code`` with the message as Error Comment."""

    code = 0xC000

    @property
    def status(self) -> StoreStatus:
        """The status to answer."""
        return StoreStatus(self.code, str(self))


class OutOfResources(StoreFailure):
    """A700: nothing wrong with the instance, the sender may try again later."""

    code = 0xA700


class NoSpace(OutOfResources):
    """A700 for want of disk space."""


class TooLong(OutOfResources):
    """A700 for an instance that is longer than the receiver's limit."""


class DoesNotMatch(StoreFailure):
    """A900: the data set is of another SOP class than the command says."""

    code = 0xA900


class CannotUnderstand(StoreFailure):
    """C000: the data set cannot be read, or says who it is in no usable way."""

    code = 0xC000


class OutcomeKind(enum.Enum):
    """What a receiver's answer means for a delivery."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"


def outcome_of(code: int) -> OutcomeKind:
    """What a C-STORE response status means to us as sender.

    0000 and Bxxx (coercion, elements discarded) are stored, as are the general warnings 0001, 0107 and 0116
    (PS3.7 C). A7xx and 0122 to 0213 that speak of the moment are tried again; A9xx, Cxxx and what speaks of the object
    is rejected.
    """
    if code in (0x0000, 0x0001, 0x0107, 0x0116) or 0xB000 <= code <= 0xBFFF:
        return OutcomeKind.DELIVERED
    if 0xA700 <= code <= 0xA7FF or code in (0xFE00, 0x0110, 0x0210, 0x0213):
        return OutcomeKind.RETRY
    return OutcomeKind.REJECTED


STATUS_MEANINGS: dict[int, str] = {
    0x0000: "success",
    0x0001: "request status warning",
    0x0105: "no such attribute",
    0x0106: "invalid attribute value",
    0x0107: "attribute list error",
    0x0110: "processing failure",
    0x0111: "duplicate SOP instance",
    0x0116: "attribute value out of range",
    0x0112: "no such SOP instance",
    0x0113: "no such event type",
    0x0115: "invalid argument value",
    0x0117: "invalid object instance",
    0x0119: "class-instance conflict",
    0x0122: "SOP class not supported",
    0x0123: "no such action type",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "coercion of data elements",
    0xB006: "elements discarded",
    0xB007: "data set does not match SOP class, stored nevertheless",
    0xFE00: "cancelled",
}


def meaning_of(code: int) -> str:
    """A status in words: ``out of resources``."""
    if code in STATUS_MEANINGS:
        return STATUS_MEANINGS[code]
    if 0xA700 <= code <= 0xA7FF:
        return "out of resources"
    if 0xA900 <= code <= 0xA9FF:
        return "data set does not match SOP class"
    if 0xB000 <= code <= 0xBFFF:
        return "stored with a warning"
    if 0xC000 <= code <= 0xCFFF:
        return "cannot understand"
    return "failure"
