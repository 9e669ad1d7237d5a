"""Storage commitment on associations that we ask for: our requests, and reports to who asked us (PS3.4 J)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT

from firstread.integration.dicom.commitment import (
    REQUEST_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    CommitmentReport,
    CommitmentRequest,
    write_request,
)
from firstread.integration.dicom.commitment_scp import answer_event, event_request
from firstread.integration.dicom.contexts import STORAGE_COMMITMENT
from firstread.integration.dicom.requestor import (
    Context,
    DicomPeer,
    NoAssociation,
    NoContextAccepted,
    RequestedAssociation,
)
from firstread.integration.dicom.services import Caller
from firstread.integration.dicom.status import meaning_of

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_CONTEXTS: list[Context] = [(STORAGE_COMMITMENT, _EXPLICIT), (STORAGE_COMMITMENT, _IMPLICIT)]


@dataclass(frozen=True)
class Answer:
    """What a peer said to a request or a report: its status (None: nothing), and a sentence for people."""

    status: int | None
    detail: str

    @property
    def ok(self) -> bool:
        """True when the peer has taken it: Success or a warning."""
        return self.status is not None and (self.status == 0 or 0xB000 <= self.status <= 0xBFFF)


class CommitmentScu:
    """Asks one peer for commitment, and hears its reports while the association that asked still stands.

    ``on_report`` gets a report in a thread of the association; it may raise as ``CommitmentService.told``. A report
    that comes later comes to our receiver, on an association of the peer's own.
    """

    def __init__(self, peer: DicomPeer, on_report: Callable[[Caller, CommitmentReport], None]) -> None:
        self.peer = peer
        self._told = on_report
        self._lock = threading.Lock()
        self._association: RequestedAssociation | None = None
        self._message_id = 0

    def ask(self, request: CommitmentRequest) -> Answer:
        """Sends an N-ACTION (PS3.4 J.3.2); never raises for what the peer does."""
        with self._lock:
            answer = self._ask(request)
            if answer.status is None:
                self._drop(broken=True)
            return answer

    def close(self) -> None:
        """Ends the association."""
        with self._lock:
            self._drop()

    def _ask(self, request: CommitmentRequest) -> Answer:
        try:
            if self._association is None or not self._association.is_established:
                self._drop()
                self._association = RequestedAssociation(self.peer, _CONTEXTS, on_request=self._serve)
            association = self._association
            context_id, syntax = _context(association)
        except NoAssociation as error:
            return _no_association(self.peer, error)
        self._message_id = self._message_id % 0xFFFF + 1
        message = N_ACTION()
        message.MessageID = self._message_id
        message.RequestedSOPClassUID = STORAGE_COMMITMENT
        message.RequestedSOPInstanceUID = WELL_KNOWN_INSTANCE
        message.ActionTypeID = REQUEST_COMMITMENT
        message.ActionInformation = write_request(request, syntax)
        return _answer(association, association.ask(message, context_id), N_ACTION)

    def _serve(self, association: RequestedAssociation, message: Any, context_id: int) -> None:
        if not isinstance(message, N_EVENT_REPORT):
            association.dul.ended_by = f"{message.msg_type} is no service of this node"
            association.abort()
            return
        peer = self.peer
        answer_event(
            association, Caller(peer.ae_title, peer.calling_ae_title, peer.host, ""), message, context_id, self._told
        )

    def _drop(self, *, broken: bool = False) -> None:
        if self._association is not None:
            self._association.end(broken=broken)
            self._association = None


def send_report(peer: DicomPeer, report: CommitmentReport) -> Answer:
    """Reports to who asked us, on an association of its own, in the role of SCP (PS3.4 J.3.3); never raises for what
    the peer does."""
    try:
        association = RequestedAssociation(peer, _CONTEXTS, as_scp=(STORAGE_COMMITMENT,))
    except NoAssociation as error:
        return _no_association(peer, error)
    answer = Answer(None, "")
    try:
        context_id, syntax = _context(association)
        response = association.ask(event_request(report, 1, syntax), context_id)
        answer = _answer(association, response, N_EVENT_REPORT)
    except NoAssociation as error:
        answer = Answer(None, str(error))
    finally:
        association.end(broken=answer.status is None)
    return answer


def _context(association: RequestedAssociation) -> tuple[int, str]:
    for syntax in (_EXPLICIT, _IMPLICIT):
        context_id = association.accepted(STORAGE_COMMITMENT, syntax)
        if context_id is not None:
            return context_id, syntax
    raise NoContextAccepted(f"{association.peer.ae_title} does not take storage commitment")


def _answer(association: RequestedAssociation, response: Any, kind: type[N_ACTION] | type[N_EVENT_REPORT]) -> Answer:
    peer = association.peer
    if not isinstance(response, kind) or response.Status is None:
        return Answer(None, f"{peer.ae_title}: {association.why_ended or f'no answer in {peer.dimse_timeout_s:g} s'}")
    status = int(response.Status)
    comment = f": {response.ErrorComment}" if response.ErrorComment else ""
    return Answer(status, f"{status:04X} {meaning_of(status)}{comment}")


def _no_association(peer: DicomPeer, error: NoAssociation) -> Answer:
    if isinstance(error, NoContextAccepted):
        return Answer(None, f"{peer.ae_title} does not take storage commitment: enable it there, or set commit = false")
    return Answer(None, str(error))
