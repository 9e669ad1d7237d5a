"""Storage commitment on the wire: requests and reports as values, and how they are written (PS3.4 J.3, PS3.7 10.1)."""

from __future__ import annotations

import enum
import io
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1
"""Action Type ID (PS3.4 J.3.2)."""
ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 J.3.3)."""

_IMPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


class FailureReason(enum.IntEnum):
    """Failure Reason (0008,1197) of an instance that is not committed (PS3.4 J.3.3.1, PS3.3 C.14)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131
    RESOURCE_LIMITATION = 0x0213


def reason_words(code: int) -> str:
    """A failure reason in words: ``0112 no such object instance``."""
    known = {int(one): one.name.lower().replace("_", " ") for one in FailureReason}
    return f"{code:04X} {known.get(code, 'of its own')}"


class BadCommitment(ValueError):
    """A data set that makes no commitment request or report; the message says what is missing."""


@dataclass(frozen=True, order=True)
class Reference:
    """One instance, named by class and UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """Somebody asks whether these instances are kept (N-ACTION)."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class CommitmentReport:
    """What became of a request (N-EVENT-REPORT): each instance is in one of both."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...] = ()
    """With the failure reason of each."""

    @property
    def event_type(self) -> int:
        """Event Type ID."""
        return FAILURES_EXIST if self.failed else ALL_COMMITTED


def write_request(request: CommitmentRequest, transfer_syntax: str) -> io.BytesIO:
    """The Action Information of a request (PS3.4 Table J.3-1)."""
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = [_item(one) for one in request.references]
    return _encoded(information, transfer_syntax)


def write_report(report: CommitmentReport, transfer_syntax: str) -> io.BytesIO:
    """The Event Information of a report (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = report.transaction_uid
    if report.committed:
        information.ReferencedSOPSequence = [_item(one) for one in report.committed]
    if report.failed:
        failed = []
        for one, reason in report.failed:
            item = _item(one)
            item.FailureReason = int(reason)
            failed.append(item)
        information.FailedSOPSequence = failed
    return _encoded(information, transfer_syntax)


def read_request(encoded: io.BytesIO | None, transfer_syntax: str) -> CommitmentRequest:
    """The request of an Action Information. Raises :class:`BadCommitment`."""
    information = _decoded(encoded, transfer_syntax)
    references = _references(information.get("ReferencedSOPSequence"))
    if not references:
        raise BadCommitment("Referenced SOP Sequence (0008,1199) is missing or empty")
    return CommitmentRequest(_transaction(information), references)


def read_report(encoded: io.BytesIO | None, transfer_syntax: str) -> CommitmentReport:
    """The report of an Event Information. Raises :class:`BadCommitment`."""
    information = _decoded(encoded, transfer_syntax)
    failed = information.get("FailedSOPSequence") or ()
    reasons = [int(item.get("FailureReason") or FailureReason.PROCESSING_FAILURE) for item in failed]
    return CommitmentReport(
        _transaction(information),
        _references(information.get("ReferencedSOPSequence")),
        tuple(zip(_references(failed), reasons, strict=True)),
    )


def _item(one: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    return item


def _references(items: Iterable[Dataset] | None) -> tuple[Reference, ...]:
    found = []
    for item in items or ():
        sop_class, instance = item.get("ReferencedSOPClassUID"), item.get("ReferencedSOPInstanceUID")
        if not sop_class or not instance:
            raise BadCommitment("an item names no SOP class (0008,1150) or no SOP instance (0008,1155)")
        found.append(Reference(str(sop_class), str(instance)))
    return tuple(found)


def _transaction(information: Dataset) -> str:
    uid = str(information.get("TransactionUID") or "")
    if not 0 < len(uid) <= 64:
        raise BadCommitment("Transaction UID (0008,1195) is missing or malformed")
    return uid


def _decoded(encoded: io.BytesIO | None, transfer_syntax: str) -> Dataset:
    if encoded is None:
        raise BadCommitment("no data set came with the command")
    try:
        information = decode(encoded, transfer_syntax == _IMPLICIT, transfer_syntax != _BIG)
        list(information.iterall())  # pydicom reads values when they are asked for
    except Exception as error:  # whatever hostile bytes lead pydicom to
        raise BadCommitment(f"unreadable data set: {type(error).__name__}") from error
    return information


def _encoded(information: Dataset, transfer_syntax: str) -> io.BytesIO:
    encoded = encode(information, transfer_syntax == _IMPLICIT, transfer_syntax != _BIG)
    if encoded is None:
        raise BadCommitment("pydicom cannot write it")
    return io.BytesIO(encoded)
