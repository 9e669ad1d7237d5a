"""Storage commitment on an association that we accepted: requests in, reports out on it and in (PS3.4 J)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT

from firstread.integration.dicom.commitment import (
    REQUEST_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    BadCommitment,
    CommitmentReport,
    read_report,
    read_request,
    write_report,
)
from firstread.integration.dicom.contexts import STORAGE_COMMITMENT
from firstread.integration.dicom.services import Caller, CommitmentService, ReportDue, ServiceBusy, ServiceRefused
from firstread.integration.dicom.status import StoreStatus

if TYPE_CHECKING:
    from pynetdicom.dimse import DIMSEServiceProvider

log = structlog.get_logger(__name__)

SUCCESS, PROCESSING_FAILURE, NO_SUCH_INSTANCE, NO_SUCH_EVENT = 0x0000, 0x0110, 0x0112, 0x0113
INVALID_ARGUMENT, NO_SUCH_ACTION, NOT_AUTHORISED, RESOURCE_LIMITATION = 0x0115, 0x0123, 0x0124, 0x0213


class Line(Protocol):
    """What is needed of an association."""

    dimse: DIMSEServiceProvider
    _accepted_cx: dict[int, Any]


class CommitmentScp:
    """The service on one association; its methods are called from that association's threads."""

    def __init__(self, line: Line, service: CommitmentService) -> None:
        self._line = line
        self._service = service
        self._lock = threading.Lock()
        self._asked_in: int | None = None
        self._message_id = 0
        self._sent: dict[int, ReportDue] = {}

    def serve_action(self, caller: Caller, message: N_ACTION, context_id: int) -> None:
        """Keeps a request and answers; the report comes later (PS3.4 J.3.2)."""
        status, comment = SUCCESS, ""
        if message.RequestedSOPInstanceUID != WELL_KNOWN_INSTANCE:
            status, comment = NO_SUCH_INSTANCE, f"the instance is {WELL_KNOWN_INSTANCE}"
        elif message.ActionTypeID != REQUEST_COMMITMENT:
            status, comment = NO_SUCH_ACTION, "action type 1 is the only one"
        else:
            try:
                request = read_request(message.ActionInformation, self._syntax(context_id))
                self._service.asked(caller, request)
                self._asked_in = context_id
            except BadCommitment as error:
                status, comment = INVALID_ARGUMENT, str(error)
            except ServiceBusy as error:
                status, comment = RESOURCE_LIMITATION, str(error)
            except ServiceRefused as error:
                status, comment = NOT_AUTHORISED, str(error)
            except Exception:
                log.exception("commitment_request_failed", association=caller.association_id)
                status, comment = PROCESSING_FAILURE, "unexpected error, ask again; see the receiver's log"
        response = N_ACTION()
        response.MessageIDBeingRespondedTo = message.MessageID
        response.AffectedSOPClassUID = STORAGE_COMMITMENT
        response.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
        response.ActionTypeID = message.ActionTypeID
        response.Status = status
        if comment:
            response.ErrorComment = StoreStatus(status, comment).error_comment
        self._line.dimse.send_msg(response, context_id)

    def serve_event(self, caller: Caller, message: N_EVENT_REPORT, context_id: int) -> None:
        """Takes a report about what we asked elsewhere."""
        answer_event(self._line, caller, message, context_id, self._service.told)

    def send_due(self, caller: Caller) -> None:
        """Sends the report of a request that came on this association, when it is ready."""
        if self._asked_in is None or self._sent:
            return
        due = self._service.due(caller)
        if due is None:
            return
        with self._lock:
            self._message_id = self._message_id % 0xFFFF + 1
            self._sent[self._message_id] = due
        self._line.dimse.send_msg(
            event_request(due.report, self._message_id, self._syntax(self._asked_in)), self._asked_in
        )

    def heard(self, message: N_EVENT_REPORT) -> bool:
        """Takes the answer to a report of ours; False when it is none."""
        due = self._sent.pop(message.MessageIDBeingRespondedTo, None)
        if due is None:
            return False
        self._answered(due, None if message.Status is None else int(message.Status))
        return True

    def end(self) -> None:
        """The association has ended: what was not answered is told so."""
        for due in self._sent.values():
            self._answered(due, None)
        self._sent.clear()

    def _answered(self, due: ReportDue, status: int | None) -> None:
        try:
            self._service.answered(due, status)
        except Exception:  # the association goes on, or ends, all the same
            log.exception("commitment_answer_failed")

    def _syntax(self, context_id: int) -> str:
        return str(self._line._accepted_cx[context_id].transfer_syntax[0])


def event_request(report: CommitmentReport, message_id: int, transfer_syntax: str) -> N_EVENT_REPORT:
    """An N-EVENT-REPORT-RQ (PS3.4 J.3.3)."""
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = STORAGE_COMMITMENT
    request.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
    request.EventTypeID = report.event_type
    request.EventInformation = write_report(report, transfer_syntax)
    return request


def answer_event(
    line: Line,
    caller: Caller,
    message: N_EVENT_REPORT,
    context_id: int,
    told: Callable[[Caller, CommitmentReport], None],
) -> None:
    """Hands an N-EVENT-REPORT-RQ over and answers it; Success only when its owner has kept it."""
    status, comment = SUCCESS, ""
    if message.EventTypeID not in (1, 2):
        status, comment = NO_SUCH_EVENT, "event types are 1 and 2"
    else:
        try:
            syntax = str(line._accepted_cx[context_id].transfer_syntax[0])
            told(caller, read_report(message.EventInformation, syntax))
        except BadCommitment as error:
            status, comment = INVALID_ARGUMENT, str(error)
        except ServiceBusy as error:
            status, comment = RESOURCE_LIMITATION, str(error)
        except ServiceRefused as error:
            status, comment = PROCESSING_FAILURE, str(error)
        except Exception:
            log.exception("commitment_report_failed", association=caller.association_id)
            status, comment = PROCESSING_FAILURE, "unexpected error; see the receiver's log"
    response = N_EVENT_REPORT()
    response.MessageIDBeingRespondedTo = message.MessageID
    response.AffectedSOPClassUID = STORAGE_COMMITMENT
    response.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
    response.EventTypeID = message.EventTypeID
    response.Status = status
    if comment:
        response.ErrorComment = StoreStatus(status, comment).error_comment
    line.dimse.send_msg(response, context_id)
