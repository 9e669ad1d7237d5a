"""The ways to destinations: one frozen object is sent, and what the receiver said of it is read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from firstread.agent.config import Destination, DicomDestination, DicomwebDestination, Hl7Destination, Settings
from firstread.agent.config_wire import dicom_peer, judgements, tls_context, web_service


class Verdict(enum.Enum):
    """What one sending came to."""

    DELIVERED = enum.auto()
    RETRY = enum.auto()
    """An outage or a matter of the moment: again, as long as the site says."""
    REFUSED = enum.auto()
    """The receiver said no: a few tries, then rejected."""
    REJECTED = enum.auto()
    """Never: sending it again helps nobody."""


@dataclass(frozen=True)
class Outcome:
    """``status``: the receiver's own code (``0000``, ``AA``). ``detail``: a sentence, warnings included.

    ``wait_s``: how long the receiver asks to be left alone, with everything that is due there.
    """

    verdict: Verdict
    status: str
    detail: str
    wait_s: float | None = None


class Line(Protocol):
    """A way to one destination, kept open between sendings."""

    def send(self, content: bytes, identity: str) -> Outcome:
        """Sends one frozen object; never raises for what network or receiver do."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class DicomLine:
    """C-STORE to a PACS; the association is kept for the next object."""

    def __init__(self, settings: Settings, destination: DicomDestination) -> None:
        from firstread.integration.dicom.send import Sender

        self._sender = Sender(dicom_peer(settings, destination))

    def send(self, content: bytes, identity: str) -> Outcome:
        """0000 and warnings are delivered; A7xx is of the moment; A9xx and Cxxx are refusals (PS3.4 B.2.3)."""
        from firstread.integration.dicom.status import OutcomeKind

        answer = self._sender.store(content)
        verdict = {
            OutcomeKind.DELIVERED: Verdict.DELIVERED,
            OutcomeKind.RETRY: Verdict.RETRY,
            OutcomeKind.REJECTED: Verdict.REFUSED,
        }[answer.kind]
        words = "; ".join(part for part in (answer.comment, answer.warning) if part)
        return Outcome(verdict, "" if answer.status is None else f"{answer.status:04X}", words)

    def close(self) -> None:
        """Releases the association."""
        self._sender.close()


class DicomwebLine:
    """STOW-RS to a PACS; the connection is kept for the next object."""

    def __init__(self, destination: DicomwebDestination) -> None:
        from firstread.integration.dicomweb.client import DicomwebClient

        self._client = DicomwebClient(web_service(destination))

    def send(self, content: bytes, identity: str) -> Outcome:
        """Delivered is what the response document names as stored; the rest as its reasons say (PS3.18 10.5.3)."""
        from firstread.integration.dicom.status import OutcomeKind
        from firstread.integration.dicomweb.store_client import store

        answer = store(self._client, content)
        verdict = {
            OutcomeKind.DELIVERED: Verdict.DELIVERED,
            OutcomeKind.RETRY: Verdict.RETRY,
            OutcomeKind.REJECTED: Verdict.REFUSED,
        }[answer.kind]
        return Outcome(verdict, answer.status, answer.words, answer.wait_s)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class Hl7Line:
    """A message over MLLP; the connection is kept, one message is in flight."""

    def __init__(self, destination: Hl7Destination) -> None:
        from firstread.integration.hl7.mllp import MllpClient

        self._client = MllpClient(
            destination.host,
            destination.port,
            connect_timeout_s=destination.connect_timeout_s,
            answer_timeout_s=destination.answer_timeout_s,
            tls=tls_context(destination),
            judgements=judgements(destination),
        )

    def send(self, content: bytes, identity: str) -> Outcome:
        """AA and CA are delivered; the rest as ERR-3, MSA-1 and the destination's own rules say."""
        from firstread.integration.hl7.acknowledge import AckKind

        answer = self._client.send(content, identity)
        verdict = {
            AckKind.DELIVERED: Verdict.DELIVERED,
            AckKind.RETRY: Verdict.RETRY,
            AckKind.REJECTED: Verdict.REJECTED,
            AckKind.REJECT_AFTER_TRIES: Verdict.REFUSED,
            AckKind.NOT_OURS: Verdict.RETRY,
        }[answer.kind]
        return Outcome(verdict, "/".join(part for part in (answer.code, answer.err_code) if part), answer.text)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


def open_line(settings: Settings, destination: Destination) -> Line:
    """The way to a destination; nothing is connected before the first sending."""
    if isinstance(destination, DicomDestination):
        return DicomLine(settings, destination)
    if isinstance(destination, DicomwebDestination):
        return DicomwebLine(destination)
    return Hl7Line(destination)
