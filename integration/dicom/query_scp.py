"""C-FIND, C-MOVE and C-GET on an association that we accepted, with cancel and counts (PS3.4 C.4)."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE

from firstread.integration.dicom.contexts import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from firstread.integration.dicom.query import (
    QueryFailure,
    QueryService,
    Retrievable,
    read_identifier,
    require_uids,
    write_failed,
    write_match,
)
from firstread.integration.dicom.requestor import MOST_CONTEXTS, Context, NoAssociation, RequestedAssociation
from firstread.integration.dicom.services import Caller
from firstread.integration.dicom.status import StoreStatus
from firstread.integration.dicom.streaming import IncomingInstance
from firstread.integration.dicom.suboperations import EXPLICIT, IMPLICIT, UNSENDABLE, Counts, store_request

if TYPE_CHECKING:
    from firstread.integration.dicom.reactor import EventDrivenAssociation

log = structlog.get_logger(__name__)

SUCCESS, PENDING, PENDING_KEYS_UNKNOWN, CANCELLED = 0x0000, 0xFF00, 0xFF01, 0xFE00
DESTINATION_UNKNOWN, UNABLE_TO_SEND, UNABLE_TO_PROCESS = 0xA801, 0xA702, 0xC000
_BREATH = 16
"""So many matches are sent before a cancel is looked for."""


class QueryScp:
    """The service on one association; its methods are called from that association's thread."""

    def __init__(self, line: EventDrivenAssociation, service: QueryService, ae_title: str) -> None:
        self._line = line
        self._service = service
        self._ae_title = ae_title
        self._message_id = 0

    def serve(self, caller: Caller, message: Any, context_id: int) -> bool:
        """Serves a request to its final response; False when it is none of ours."""
        kinds = {C_FIND: (STUDY_ROOT_FIND, self._find), C_MOVE: (STUDY_ROOT_MOVE, self._move)}
        kinds[C_GET] = (STUDY_ROOT_GET, self._get)
        sop_class, serve = kinds.get(type(message), ("", None))
        if serve is None or not message.is_valid_request or self._context(context_id).abstract_syntax != sop_class:
            return False
        # A cancel that came too late for an earlier request must not end this one: peers use message ids again.
        self._line.dimse.cancel_req.clear()
        try:
            serve(caller, message, context_id)
        except QueryFailure as failure:
            self._end(message, context_id, failure.code, str(failure))
        except Exception:
            log.exception("query_failed", association=caller.association_id, request=message.msg_type)
            self._end(message, context_id, UNABLE_TO_PROCESS, "unexpected error; see the receiver's log")
        return True

    def _find(self, caller: Caller, message: C_FIND, context_id: int) -> None:
        syntax = self._syntax(context_id)
        request = read_identifier(message.Identifier, syntax)
        unknown = [one for one in request.wanted if not self._service.knows(one, request.level)]
        status = PENDING_KEYS_UNKNOWN if unknown else PENDING
        for number, values in enumerate(self._service.find(caller, request), 1):
            response = self._response(message, C_FIND, status)
            response.Identifier = write_match(request, values, self._ae_title, syntax)
            self._line.dimse.send_msg(response, context_id)
            if number % _BREATH == 0 and not self._line.dul.breathe():
                return
            if self._cancelled(message):
                self._end(message, context_id, CANCELLED)
                return
        self._end(message, context_id, SUCCESS)

    def _move(self, caller: Caller, message: C_MOVE, context_id: int) -> None:
        request = read_identifier(message.Identifier, self._syntax(context_id))
        require_uids(request)
        destination = (message.MoveDestination or "").strip()
        peer = self._service.peer(destination)
        if peer is None:
            comment = f"{destination}: name it in [[peers]]"
            self._end(message, context_id, DESTINATION_UNKNOWN, comment, Counts(0))
            return
        items = self._service.retrieve(caller, request, destination)
        counts = Counts(len(items))
        if not items:
            self._end(message, context_id, SUCCESS, counts=counts)
            return
        try:
            line = RequestedAssociation(peer, _contexts(items))
        except NoAssociation as error:
            for item in items:
                counts.note(item.sop_instance_uid, None, str(error))
            self._end(message, context_id, UNABLE_TO_SEND, str(error), counts)
            return
        try:
            cancelled = self._suboperations(message, context_id, items, counts, _Moved(self, line, caller, message))
        finally:
            line.end()
        self._end(message, context_id, counts.final_status(cancelled=cancelled), counts.why, counts)

    def _get(self, caller: Caller, message: C_GET, context_id: int) -> None:
        request = read_identifier(message.Identifier, self._syntax(context_id))
        require_uids(request)
        items = self._service.retrieve(caller, request, caller.calling_ae_title)
        counts = Counts(len(items))
        cancelled = self._suboperations(message, context_id, items, counts, _Got(self))
        self._end(message, context_id, counts.final_status(cancelled=cancelled), counts.why, counts)

    def _suboperations(
        self, message: Any, context_id: int, items: list[Retrievable], counts: Counts, way: _Moved | _Got
    ) -> bool:
        """Sends one object after the other, with a pending response after each; True when it was cancelled."""
        for item in items:
            if self._cancelled(message):
                return True
            try:
                with store_request(item, way.accepted, self._service.decompress) as (request, store_context):
                    self._message_id = self._message_id % 0xFFFF + 1
                    request.MessageID = self._message_id
                    status, why = way.send(request, store_context)
            except UNSENDABLE as error:
                status, why = None, str(error) if not isinstance(error, OSError) else "its file is gone"
            counts.note(item.sop_instance_uid, status, why)
            if not self._line.dul.in_data_transfer:
                return True
            if counts.remaining:
                pending = self._response(message, type(message), PENDING)
                _count(pending, counts, remaining=True)
                self._line.dimse.send_msg(pending, context_id)
        return False

    def _cancelled(self, message: Any) -> bool:
        return message.MessageID in self._line.dimse.cancel_req or not self._line.dul.in_data_transfer

    def _response(self, message: Any, kind: type, status: int, comment: str = "") -> Any:
        response = kind()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = message.AffectedSOPClassUID
        response.Status = status
        if comment and status not in (SUCCESS, PENDING, CANCELLED):
            response.ErrorComment = StoreStatus(status, comment).error_comment
        return response

    def _end(self, message: Any, context_id: int, status: int, comment: str = "", counts: Counts | None = None) -> None:
        response = self._response(message, type(message), status, comment)
        if counts is not None:
            _count(response, counts, remaining=status == CANCELLED)
            if counts.failed_uids and status != SUCCESS:
                response.Identifier = write_failed(counts.failed_uids, self._syntax(context_id))
        self._line.dimse.send_msg(response, context_id)

    def _context(self, context_id: int) -> Any:
        return self._line._accepted_cx[context_id]

    def _syntax(self, context_id: int) -> str:
        return str(self._context(context_id).transfer_syntax[0])


class _Moved:
    """C-STORE on an association of our own to the destination of a C-MOVE, naming who asked (PS3.7 9.3.1.1)."""

    def __init__(self, scp: QueryScp, line: RequestedAssociation, caller: Caller, message: C_MOVE) -> None:
        self._line = line
        self._originator, self._originator_message = caller.calling_ae_title, message.MessageID
        self.accepted = line.accepted

    def send(self, request: Any, context_id: int) -> tuple[int | None, str]:
        request.MoveOriginatorApplicationEntityTitle = self._originator
        request.MoveOriginatorMessageID = self._originator_message
        response = self._line.ask(request, context_id)
        if response is None or response.Status is None:
            return None, self._line.why_ended or f"{self._line.peer.ae_title} did not answer in time"
        return int(response.Status), ""


class _Got:
    """C-STORE on the association that the C-GET came on."""

    def __init__(self, scp: QueryScp) -> None:
        self._line = scp._line

    def accepted(self, sop_class_uid: str, transfer_syntax: str) -> int | None:
        for context_id, context in self._line._accepted_cx.items():
            same = context.abstract_syntax == sop_class_uid and context.transfer_syntax[0] == transfer_syntax
            if same and context.as_scu:
                return int(context_id)
        return None

    def send(self, request: Any, context_id: int) -> tuple[int | None, str]:
        line = self._line
        line.dimse.send_msg(request, context_id)
        patience = line.dimse_timeout or 60.0
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                _, response = line.dimse.msg_queue.get(timeout=0.5)
            except queue.Empty:
                if not line.dul.is_alive() or not line.dul.in_data_transfer:
                    return None, "the association ended"
                continue
            if isinstance(response, IncomingInstance):
                response.sink.discard()
                return None, "a C-STORE came in the middle of a C-GET"
            if response is None:
                return None, "the association ended"
            if response.MessageIDBeingRespondedTo == request.MessageID:
                return (None, "answered without a status") if response.Status is None else (int(response.Status), "")
        return None, f"no answer within {patience:g} s"


def _contexts(items: list[Retrievable]) -> list[Context]:
    """As stored first, so that those are there where there is no room for all."""
    stored = dict.fromkeys((item.sop_class_uid, item.transfer_syntax_uid) for item in items)
    native = dict.fromkeys((item.sop_class_uid, one) for item in items for one in (EXPLICIT, IMPLICIT))
    return list({**stored, **native})[:MOST_CONTEXTS]


def _count(response: Any, counts: Counts, *, remaining: bool) -> None:
    if remaining:
        response.NumberOfRemainingSuboperations = counts.remaining
    response.NumberOfCompletedSuboperations = counts.completed
    response.NumberOfFailedSuboperations = counts.failed
    response.NumberOfWarningSuboperations = counts.warning
