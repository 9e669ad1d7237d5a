"""The worklist over DIMSE: UPS Push, Pull, Watch and Query as SCP (PS3.4 CC.2), each request handed to a service."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND, N_ACTION, N_CREATE, N_GET, N_SET
from pynetdicom.dsutils import decode, encode

from firstread.integration.dicom.ups import (
    FILTERED_GLOBAL,
    PULL,
    PUSH,
    QUERY,
    WATCH,
    Action,
    Asker,
    Json,
    Status,
    UpsRefusal,
)
from firstread.integration.dicom.ups_rules import is_uid, read_json, write_json

if TYPE_CHECKING:
    from firstread.integration.dicom.acceptor import AcceptedAssociation

log = structlog.get_logger(__name__)

_PENDING, _CANCELLED, _UNABLE = 0xFF00, 0xFE00, 0xC000
_UNRECOGNIZED_OPERATION, _NO_SUCH_ACTION, _PROCESSING_FAILURE = 0x0211, 0x0123, 0x0110
_PAGE = 100
_COMMENT_LENGTH = 64

_SERVICES: Mapping[str, frozenset[object]] = MappingProxyType(
    {
        PUSH: frozenset({N_CREATE, N_GET, Action.REQUEST_CANCEL}),
        PULL: frozenset({C_FIND, N_GET, N_SET, Action.CHANGE_STATE}),
        WATCH: frozenset(
            {C_FIND, N_GET, Action.REQUEST_CANCEL, Action.SUBSCRIBE, Action.UNSUBSCRIBE, Action.SUSPEND_GLOBAL}
        ),
        QUERY: frozenset({C_FIND}),
    }
)
"""What may be asked in which SOP class (PS3.4 CC.2). Events go out on associations that we ask for."""

SERVED = tuple(_SERVICES)


class UpsService(Protocol):
    """What answers. Everything raises :class:`UpsRefusal`; attributes are DICOM JSON."""

    def create(self, sop_instance_uid: str, attributes: Json, asker: Asker) -> tuple[str, Status]: ...

    def retrieve(self, sop_instance_uid: str) -> Json: ...

    def update(self, sop_instance_uid: str, changes: Json, transaction_uid: str, asker: Asker) -> Status: ...

    def change_state(self, sop_instance_uid: str, state: str, transaction_uid: str, asker: Asker) -> Status: ...

    def request_cancel(self, sop_instance_uid: str, information: Json, asker: Asker) -> Status: ...

    def search(self, keys: Json, *, limit: int, offset: int = 0) -> tuple[list[Json], bool]: ...

    def subscribe(
        self, resource: str, ae_title: str, asker: Asker, *, lock: bool, keys: Json | None = None
    ) -> None: ...

    def unsubscribe(self, resource: str, ae_title: str) -> bool: ...

    def suspend(self, resource: str, ae_title: str) -> bool: ...


class UpsScp:
    """Serves the requests of any association. ``receivers``: AE titles that event reports can be sent to."""

    def __init__(self, service: UpsService, receivers: frozenset[str]) -> None:
        self._service = service
        self._receivers = receivers

    def __call__(self, association: AcceptedAssociation, message: Any, context_id: int) -> None:
        """Answers one request; whatever goes wrong has its status."""
        context = association._accepted_cx[context_id]
        syntax = context.transfer_syntax[0]
        asker = Asker(f"ups {association.calling_ae_title}"[:128], association.calling_ae_title)
        call = _Call(association, message, context_id, syntax.is_implicit_VR, syntax.is_little_endian, asker)
        try:
            kind = Action(message.ActionTypeID) if isinstance(message, N_ACTION) else type(message)
        except ValueError:
            call.answer(_NO_SUCH_ACTION, f"there is no action {message.ActionTypeID}")
            return
        if kind not in _SERVICES[str(context.abstract_syntax)]:
            status = _NO_SUCH_ACTION if isinstance(message, N_ACTION) else _UNRECOGNIZED_OPERATION
            call.answer(status, "not in this SOP class: see PS3.4 CC.2")
            return
        try:
            self._serve(call, kind)
        except UpsRefusal as refusal:
            find = isinstance(message, C_FIND)
            call.answer(_UNABLE if find else int(refusal.status), refusal.why)
        except Exception:
            log.exception("ups_request_failed", association=association.association_id)
            call.answer(_UNABLE if isinstance(message, C_FIND) else _PROCESSING_FAILURE, "see the receiver's log")

    def _serve(self, call: _Call, kind: object) -> None:
        message, asker = call.message, call.asker
        if kind is C_FIND:
            self._find(call)
            return
        if kind is N_CREATE:
            uid = str(message.AffectedSOPInstanceUID or "")
            uid, status = self._service.create(uid, call.read(message.AttributeList), asker)
            call.answer(status, instance=uid)
            return
        uid = str(message.RequestedSOPInstanceUID or "")
        if not is_uid(uid):
            raise UpsRefusal(Status.UNKNOWN_INSTANCE, "Requested SOP Instance UID is malformed")
        if kind is N_GET:
            kept = read_json(self._service.retrieve(uid))
            wanted = message.AttributeIdentifierList or []
            call.answer(Status.SUCCESS, reply=_chosen(kept, [wanted] if isinstance(wanted, int) else list(wanted)))
        elif kind is N_SET:
            call.answer(self._service.update(uid, call.read(message.ModificationList), "", asker))
        else:
            call.answer(self._act(uid, Action(message.ActionTypeID), call.read(message.ActionInformation), asker))

    def _act(self, uid: str, action: Action, information: Json, asker: Asker) -> Status:
        told = read_json(information)
        if action is Action.CHANGE_STATE:
            state, transaction_uid = (str(told.get(name) or "") for name in ("ProcedureStepState", "TransactionUID"))
            return self._service.change_state(uid, state, transaction_uid, asker)
        if action is Action.REQUEST_CANCEL:
            return self._service.request_cancel(uid, information, asker)
        ae_title = str(told.get("ReceivingAE") or "").strip()
        if not ae_title:
            raise UpsRefusal(Status.MISSING_ATTRIBUTE, "Receiving AE (0074,1234) is missing")
        if action is Action.UNSUBSCRIBE:
            self._service.unsubscribe(uid, ae_title)
        elif action is Action.SUSPEND_GLOBAL:
            self._service.suspend(uid, ae_title)
        else:
            if ae_title not in self._receivers:
                raise UpsRefusal(Status.UNKNOWN_RECEIVER, f"{ae_title} is no [[subscribers]] of the settings")
            lock = str(told.get("DeletionLock") or "FALSE").upper()
            if lock not in ("TRUE", "FALSE"):
                raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, "Deletion Lock is TRUE or FALSE")
            own = {"00741234", "00741230", "00080005"}
            keys = {tag: value for tag, value in information.items() if tag not in own}
            self._service.subscribe(
                uid, ae_title, asker, lock=lock == "TRUE", keys=keys if uid == FILTERED_GLOBAL else None
            )
        return Status.SUCCESS

    def _find(self, call: _Call) -> None:
        keys = call.read(call.message.Identifier)
        for tag in ("00080005", "00081195", "00080201"):  # how it is written, and what nobody is told
            keys.pop(tag, None)
        offset, more = 0, True
        while more:
            found, more = self._service.search(keys, limit=_PAGE, offset=offset)
            offset += len(found)
            for attributes in found:
                if call.message.MessageID in call.association.dimse.cancel_req:
                    call.association.dimse.cancel_req.pop(call.message.MessageID)
                    call.answer(_CANCELLED)
                    return
                whole = read_json({tag: value for tag, value in attributes.items() if tag in keys})
                whole.SpecificCharacterSet = "ISO_IR 192"
                for tag in keys.keys() - attributes.keys():
                    whole.add_new(int(tag, 16), keys[tag]["vr"], None)
                call.answer(_PENDING, reply=whole)
        call.answer(Status.SUCCESS)


class _Call:
    """One request under way: its data set read, its answers written."""

    def __init__(
        self,
        association: AcceptedAssociation,
        message: Any,
        context_id: int,
        implicit: bool,
        little: bool,
        asker: Asker,
    ) -> None:
        self.association = association
        self.message = message
        self.asker = asker
        self._context_id = context_id
        self._implicit, self._little = implicit, little

    def read(self, stream: BytesIO | None) -> Json:
        """The request's data set as DICOM JSON; empty when there is none. Raises UpsRefusal."""
        if stream is None:
            return {}
        try:
            stream.seek(0)
            dataset = decode(stream, self._implicit, self._little)
            for element in dataset.iterall():
                _ = element.value
        except Exception as error:  # pydicom raises whatever malformed bytes lead it to
            raise UpsRefusal(Status.INVALID_ATTRIBUTE_VALUE, f"unreadable data set: {type(error).__name__}") from error
        return write_json(dataset)

    def answer(self, status: int, why: str = "", *, instance: str = "", reply: Dataset | None = None) -> None:
        """Sends one response."""
        request = self.message
        response = type(request)()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = getattr(request, "AffectedSOPClassUID", None) or getattr(
            request, "RequestedSOPClassUID", None
        )
        response.Status = int(status)
        if why:
            response.ErrorComment = why.encode("ascii", "replace").decode()[:_COMMENT_LENGTH]
        if not isinstance(request, C_FIND):
            known = instance or getattr(request, "AffectedSOPInstanceUID", None)
            response.AffectedSOPInstanceUID = known or getattr(request, "RequestedSOPInstanceUID", None)
        if isinstance(request, N_ACTION):
            response.ActionTypeID = request.ActionTypeID
        if reply is not None:
            written = encode(reply, self._implicit, self._little)
            if written is None:
                raise ValueError("an item cannot be encoded")
            if isinstance(request, C_FIND):
                response.Identifier = BytesIO(written)
            else:
                response.AttributeList = BytesIO(written)
        self.association.dimse.send_msg(response, self._context_id)


def _chosen(kept: Dataset, tags: list[int]) -> Dataset:
    """The attributes that were asked for; all of them where none was named."""
    if not tags:
        return kept
    chosen = Dataset()
    chosen.SpecificCharacterSet = "ISO_IR 192"
    for tag in tags:
        if tag in kept:
            chosen[tag] = kept[tag]
    return chosen
