"""Query and retrieve as SCU, study root: C-FIND, and C-GET or C-MOVE of whole studies (PS3.4 C.4)."""

from __future__ import annotations

import io
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode

from firstread.integration.dicom.contexts import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from firstread.integration.dicom.header import read_header
from firstread.integration.dicom.received import ReceivedInstance, ReceiveSettings
from firstread.integration.dicom.requestor import (
    Context,
    DicomPeer,
    NoAssociation,
    NoContextAccepted,
    RequestedAssociation,
)
from firstread.integration.dicom.retrieve_contexts import STORED
from firstread.integration.dicom.services import Caller
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import DoesNotMatch, OutOfResources, StoreFailure, StoreStatus, meaning_of
from firstread.integration.dicom.streaming import IncomingInstance, StoreCommand
from firstread.integration.dicom.taking import instance_of, sink_for

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_PENDING = (0xFF00, 0xFF01)
_OF_THE_MOMENT = (0xA700, 0xA701, 0x0110, 0x0213, 0xFE00)
"""Out of resources, processing failure, resource limitation, cancelled: later it may succeed."""
MOST_MATCHES = 20_000


class RetrieveFailed(Exception):
    """It was refused or went wrong; the message says how. ``later``: unchanged it may succeed another time."""

    def __init__(self, why: str, *, later: bool) -> None:
        super().__init__(why)
        self.later = later


@dataclass(frozen=True)
class Retrieved:
    """How a retrieval ended. ``stored``: objects that came and were kept (with C-MOVE: that the peer says it sent)."""

    stored: int
    failures: tuple[str, ...]


class ArchiveScu:
    """One archive, asked on one association at a time, which ends with each call.

    ``store`` takes what comes by C-GET, as a receiver's owner takes it; it may raise StoreFailure.
    """

    def __init__(self, peer: DicomPeer, receive: ReceiveSettings, total_s: float) -> None:
        self.peer = peer
        self._receive = receive
        self._total_s = total_s

    def find(self, level: str, keys: Mapping[str, str]) -> list[Dataset]:
        """C-FIND (PS3.4 C.4.1). Raises RetrieveFailed."""
        with _open(self.peer, STUDY_ROOT_FIND) as line:
            request = C_FIND()
            found = []
            for response, identifier in line.asked(request, {"QueryRetrieveLevel": level, **keys}, self._total_s):
                if response.Status in _PENDING and identifier is not None:
                    found.append(identifier)
                    if len(found) > MOST_MATCHES:
                        raise RetrieveFailed(f"more than {MOST_MATCHES} matches: ask for less", later=False)
                elif response.Status not in _PENDING:
                    _require_success(response)
            return found

    def get(self, study: str, store: Callable[[ReceivedInstance], StoreStatus]) -> Retrieved:
        """C-GET of a study (PS3.4 C.4.3): what comes goes to ``store`` as it is encoded. Raises RetrieveFailed."""
        with _open(self.peer, STUDY_ROOT_GET, _Taking(self._receive, study, store)) as line:
            last = line.retrieved(C_GET(), study, self._total_s)
            taking = line.taking
            assert taking is not None
            failures = (*taking.refused, *_unsent(last, len(taking.refused)))
            return Retrieved(taking.stored, failures)

    def move(self, study: str, destination_ae_title: str) -> Retrieved:
        """C-MOVE of a study to an AE title (PS3.4 C.4.2). Raises RetrieveFailed."""
        with _open(self.peer, STUDY_ROOT_MOVE) as line:
            request = C_MOVE()
            request.MoveDestination = destination_ae_title
            last = line.retrieved(request, study, self._total_s)
            sent = (last.NumberOfCompletedSuboperations or 0) + (last.NumberOfWarningSuboperations or 0)
            return Retrieved(sent, _unsent(last, 0))


class _Taking:
    """What comes in on a C-GET's association. It takes one study alone."""

    def __init__(self, receive: ReceiveSettings, study: str, store: Callable[[ReceivedInstance], StoreStatus]) -> None:
        self.receive = receive
        self.stored = 0
        self.refused: list[str] = []
        self._study = study
        self._store = store

    def take(self, incoming: IncomingInstance, transfer_syntax_uid: str, caller: Caller) -> StoreStatus:
        """Stores an instance; the status is the answer to it."""
        command, sink = incoming.command, incoming.sink
        try:
            sink.finish()
            limit = self.receive.max_film_bytes
            header = read_header(sink.path, sink.data_set_offset, transfer_syntax_uid, inflate_limit=limit)
            instance = instance_of(command, sink, header, transfer_syntax_uid, caller)
            if instance.study_instance_uid != self._study:
                raise DoesNotMatch("Study Instance UID differs from the one that was asked for")
            status = self._store(instance)
            if not status.succeeded or sink.path.exists():
                raise OutOfResources("instance was not taken over; see the log")
        except StoreFailure as failure:
            sink.discard()
            self.refused.append(f"{command.sop_instance_uid[:64] or 'an instance'}: {failure.status.comment}")
            return failure.status
        sink.close()
        self.stored += 1
        return status


class _Line(RequestedAssociation):
    """An association for one request, on which instances may come in before its last response."""

    def __init__(self, peer: DicomPeer, sop_class: str, taking: _Taking | None) -> None:
        """Raises NoAssociation."""
        self.taking = taking
        self._sop_class = sop_class
        self._caller = Caller(peer.ae_title, peer.calling_ae_title, peer.host, uuid.uuid4().hex[:12])
        contexts: list[Context] = [(sop_class, _EXPLICIT), (sop_class, _IMPLICIT)]
        stored = STORED if taking is not None else ()
        super().__init__(peer, contexts + list(stored), as_scp=tuple(dict.fromkeys(one for one, _ in stored)))

    def open_sink(self, command: StoreCommand) -> StoreSink | None:
        """Where a C-GET's instance goes; on another association nothing may come."""
        if self.taking is None:
            return None
        return sink_for(command, self._syntax_of(command.context_id), self._caller, self.taking.receive)

    def retrieved(self, request: Any, study: str, total_s: float) -> Any:
        """The last response to a C-GET or C-MOVE. Raises RetrieveFailed where nothing was sent at all."""
        last = None
        keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
        for response, _ in self.asked(request, keys, total_s):
            last = response
        if last is None or (last.Status not in (0x0000, 0xA702) and last.Status != 0xB000):
            _require_success(last)
        return last

    def asked(self, request: Any, keys: Mapping[str, str], total_s: float) -> Iterator[tuple[Any, Dataset | None]]:
        """Each response with its identifier, the last one included; takes in what comes between. Raises
        RetrieveFailed when the peer falls silent or ends the association."""
        context_id, syntax = self._context()
        request.MessageID = 1
        request.AffectedSOPClassUID = self._sop_class
        request.Priority = 2  # low: whoever reads there goes first
        request.Identifier = io.BytesIO(_encoded(keys, syntax))
        self._take_over()
        self.dimse.send_msg(request, context_id)
        ends_at = time.monotonic() + total_s
        while True:
            came_in, message = self._next(ends_at)
            if isinstance(message, IncomingInstance):
                self._store(message)
            elif type(message) is not type(request) or message.MessageIDBeingRespondedTo != 1:
                raise RetrieveFailed(f"{self.peer.ae_title} sent what is no answer", later=False)
            else:
                status = message.Status
                if status is None:
                    raise RetrieveFailed(f"{self.peer.ae_title} answered without a status", later=False)
                yield message, _identifier(message, syntax) if came_in == context_id else None
                if status not in _PENDING:
                    return

    def _take_over(self) -> None:
        """The association's own thread rests: messages are taken from here."""
        self.in_use = True
        self._reactor_checkpoint.clear()
        self.wake()
        while not self._is_paused and self.is_alive():
            time.sleep(0.0005)

    def _next(self, ends_at: float) -> tuple[int, Any]:
        quiet_at = time.monotonic() + self.peer.dimse_timeout_s
        while True:
            try:
                context_id, message = self.dimse.msg_queue.get(timeout=0.2)
            except queue.Empty:
                receiving = self.dimse.receiving
                now = time.monotonic()
                if not self.dul.is_alive() or self.why_ended:
                    raise RetrieveFailed(
                        f"{self.peer.ae_title}: {self.why_ended or 'it hung up'}", later=True
                    ) from None
                if now > ends_at or (now > quiet_at and receiving is None):
                    raise RetrieveFailed(f"{self.peer.ae_title} did not answer in time", later=True) from None
                continue
            if message is None:
                raise RetrieveFailed(f"{self.peer.ae_title}: {self.why_ended or 'it hung up'}", later=True)
            self.dul.wake()  # it may have stopped reading
            return context_id, message

    def _store(self, incoming: IncomingInstance) -> None:
        command = incoming.command
        syntax = self._syntax_of(command.context_id)
        if self.taking is None or syntax is None:
            incoming.sink.discard()
            raise RetrieveFailed(f"{self.peer.ae_title} sent an object in no context of ours", later=False)
        status = self.taking.take(incoming, syntax, self._caller)
        self.dimse.answer_store(command, status.code, status.error_comment if status.comment else "")

    def _context(self) -> tuple[int, str]:
        for syntax in (_EXPLICIT, _IMPLICIT):
            context_id = self.accepted(self._sop_class, syntax)
            if context_id is not None:
                return context_id, syntax
        raise NoContextAccepted(
            f"{self.peer.ae_title} does not offer {_NAMES[self._sop_class]}: enable it there for us"
        )

    def _syntax_of(self, context_id: int) -> str | None:
        context = self._accepted_cx.get(context_id)
        return (
            None if context is None or context.abstract_syntax == self._sop_class else str(context.transfer_syntax[0])
        )


_NAMES = {STUDY_ROOT_FIND: "C-FIND", STUDY_ROOT_GET: "C-GET", STUDY_ROOT_MOVE: "C-MOVE"}


class _open:  # noqa: N801
    """A line while the block runs; what goes wrong with the association is RetrieveFailed."""

    def __init__(self, peer: DicomPeer, sop_class: str, taking: _Taking | None = None) -> None:
        self._asked = (peer, sop_class, taking)
        self._line: _Line | None = None

    def __enter__(self) -> _Line:
        try:
            self._line = _Line(*self._asked)
        except NoContextAccepted as error:
            name = _NAMES[self._asked[1]]
            raise RetrieveFailed(f"{error}: enable {name} there for our AE title", later=False) from error
        except NoAssociation as error:
            raise RetrieveFailed(str(error), later=True) from error
        return self._line

    def __exit__(self, kind: Any, error: BaseException | None, _trace: Any) -> None:
        line = self._line
        if line is not None:
            line.end(broken=error is not None)
            line.dimse.abandon()
        if isinstance(error, NoAssociation):
            raise RetrieveFailed(str(error), later=False) from error


def _require_success(response: Any) -> None:
    status = None if response is None else int(response.Status)
    if status == 0:
        return
    said = "it gave no answer" if status is None else f"{status:04X} {meaning_of(status)}"
    comment = f": {response.ErrorComment}" if response is not None and response.ErrorComment else ""
    raise RetrieveFailed(f"the archive answered {said}{comment}", later=status is None or status in _OF_THE_MOMENT)


def _unsent(last: Any, refused: int) -> tuple[str, ...]:
    """What the peer says failed, beside what we refused ourselves."""
    failed = max(0, int(last.NumberOfFailedSuboperations or 0) - refused)
    comment = f": {last.ErrorComment}" if last.ErrorComment else ""
    if not failed and last.Status == 0xA702 and not refused:
        return (f"the archive could send nothing (A702){comment}",)
    return (f"{failed} objects could not be sent by the archive{comment}",) if failed else ()


def _identifier(message: Any, syntax: str) -> Dataset | None:
    encoded = getattr(message, "Identifier", None)
    if encoded is None or not encoded.getvalue():
        return None
    try:
        identifier = decode(encoded, syntax == _IMPLICIT, True)
        for element in identifier:  # values are read here, where what they break is caught
            _ = element.value
    except Exception as error:  # whatever a peer's bytes lead pydicom to
        raise RetrieveFailed(f"an unreadable match: {type(error).__name__}", later=False) from error
    return identifier


def _encoded(keys: Mapping[str, str], syntax: str) -> bytes:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    encoded: bytes | None = encode(identifier, syntax == _IMPLICIT, True)
    if encoded is None:
        raise RetrieveFailed("the question cannot be written", later=False)
    return encoded
