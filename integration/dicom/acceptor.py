"""One association that we accepted: admission, the C-STORE service, and how it ended (PS3.4 B, PS3.7 9.1.1)."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pynetdicom.acse import ACSE
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_GET, C_MOVE, N_ACTION, N_EVENT_REPORT
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from firstread.integration.dicom.commitment_scp import CommitmentScp
from firstread.integration.dicom.contexts import (
    STORAGE_COMMITMENT,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    supported_contexts,
)
from firstread.integration.dicom.header import read_header, text_of
from firstread.integration.dicom.identity_check import STUDY
from firstread.integration.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from firstread.integration.dicom.reactor import EventDrivenAssociation
from firstread.integration.dicom.received import (
    AssociationEvent,
    AssociationOutcome,
    ReceivedInstance,
    ReceiveSettings,
    Refusal,
)
from firstread.integration.dicom.services import Caller, Services
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import OutOfResources, StoreFailure, StoreStatus
from firstread.integration.dicom.streaming import IncomingInstance, StoreCommand
from firstread.integration.dicom.taking import instance_of, sink_for
from firstread.integration.dicom.transport import PeerSocket

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from firstread.integration.dicom.admission import Rejection
    from firstread.integration.dicom.query_scp import QueryScp

log = structlog.get_logger(__name__)

_LAST_WORDS_S = 2.0


class Owner(Protocol):
    """What an association asks of its receiver; called from the association's threads."""

    settings: ReceiveSettings
    services: Services
    stopping: bool

    def admit(self, association: AcceptedAssociation) -> Rejection | None: ...

    def store(self, instance: ReceivedInstance) -> StoreStatus: ...

    def refused(self, refusal: Refusal) -> None: ...

    def happened(self, event: AssociationEvent) -> None: ...

    def ending(self, association: AcceptedAssociation) -> None: ...

    def ended(self, association: AcceptedAssociation) -> None: ...


class _Negotiation(ACSE):  # type: ignore[misc]
    """pynetdicom's negotiation after our own admission, with contexts made for the offer."""

    def _negotiate_as_acceptor(self) -> None:
        request = self.requestor.primitive
        association: AcceptedAssociation = self.assoc
        association.calling_ae_title = (request.calling_ae_title or "").strip()
        association.called_ae_title = (request.called_ae_title or "").strip()
        rejection = association.owner.admit(association)
        if rejection is not None:
            self.requestor.ae_title = request.calling_ae_title
            association.report(AssociationOutcome.REJECTED, rejection.why, rejection)
            self.send_reject(rejection.result, rejection.source, rejection.reason)
            association.kill()
            return
        self.acceptor.supported_contexts = supported_contexts(
            request.presentation_context_definition_list, association.offered
        )
        super()._negotiate_as_acceptor()


class AcceptedAssociation(EventDrivenAssociation):
    """An association with a sender. Its two threads are its own; what it keeps, it hands to its owner."""

    def __init__(self, ae: object, owner: Owner, connection: socket.socket, peer: tuple[str, int]) -> None:
        self.owner = owner
        self.peer_address = peer[0]
        self.association_id = uuid.uuid4().hex[:12]
        self.calling_ae_title = ""
        self.called_ae_title = ""
        self.films = 0
        self.refusals = 0
        self._began = time.monotonic()
        self._reported: AssociationOutcome | None = None
        self._commitment = CommitmentScp(self, owner.services.commitment) if owner.services.commitment else None
        self._query: QueryScp | None = None
        super().__init__(ae, "acceptor")
        settings = owner.settings
        self.name = f"association-{self.association_id}"
        self.acse = _Negotiation(self)
        self.set_socket(
            PeerSocket(
                self,
                maximum_length=settings.maximum_pdu_length,
                deadline_s=settings.pdu_deadline_s,
                client_socket=connection,
            )
        )
        self.acceptor.maximum_length = settings.maximum_pdu_length
        self.acceptor.ae_title = settings.ae_title
        self.acceptor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.acceptor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.requestor.address_info = AddressInformation(peer[0], peer[1])

    @property
    def offered(self) -> tuple[str, ...]:
        """SOP classes that are served here beside storage and verification."""
        services = self.owner.services
        offered = list(services.handlers) if services.served(self.calling_ae_title) else []
        if self._commitment is not None:
            offered.append(STORAGE_COMMITMENT)
        service = self.owner.services.query
        if service is not None and service.serves(self.calling_ae_title):
            offered += [STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET]
        return tuple(offered)

    @property
    def caller(self) -> Caller:
        """Who asks on this association."""
        return Caller(self.calling_ae_title, self.called_ae_title, self.peer_address, self.association_id)

    def run_reactor(self) -> None:
        """The association's life, from the connection to its end; never raises."""
        try:
            self._live()
        except Exception:
            log.exception("association_failed", association=self.association_id, peer=self.peer_address)
            self.dul.ended_by = self.dul.ended_by or "unexpected error, see the log"
            with contextlib.suppress(Exception):
                self.abort()
        finally:
            self.kill()
            self.dimse.abandon()
            if self._commitment is not None:
                self._commitment.end()
            self.dul.socket._shutdown_socket()
            self.dul.socket.stream = None
            if self._reported is AssociationOutcome.ACCEPTED:
                released = self.is_released and not self.is_aborted
                outcome = AssociationOutcome.RELEASED if released else AssociationOutcome.ABORTED
                self.report(outcome, "" if released else self.dul.ended_by or "connection lost")
            self.owner.ended(self)

    def kill(self) -> None:
        """Ends both threads; while the peer still reads our last PDU, this counts as open no more."""
        self.owner.ending(self)
        super().kill()

    def _live(self) -> None:
        self.dul.start()
        self._started_dul = True
        deadline = self._began + self.owner.settings.acse_timeout_s
        request = None
        while request is None and self.dul.is_alive() and time.monotonic() < deadline and not self.owner.stopping:
            request = self.dul.receive_pdu(wait=False)
            if request is None:
                self._something.wait(min(1.0, max(0.0, deadline - time.monotonic())))
                self._something.clear()
        request = request or self.dul.receive_pdu(wait=False)
        if not isinstance(request, A_ASSOCIATE):
            self.dul.socket._shutdown_socket()
            log.info(
                "connection_without_association",
                peer=self.peer_address,
                why=self.dul.ended_by or "closed or silent before an association request",
            )
            return
        self.requestor.primitive = request
        self.acse.negotiate_association()
        if self.is_established:
            self.report(AssociationOutcome.ACCEPTED)
            self._run_reactor()

    def report(self, outcome: AssociationOutcome, why: str = "", rejection: Rejection | None = None) -> None:
        """Tells the owner of the beginning or the end of this association."""
        begins = outcome is AssociationOutcome.ACCEPTED
        self._reported = outcome
        self.owner.happened(
            AssociationEvent(
                outcome=outcome,
                association_id=self.association_id,
                calling_ae_title=self.calling_ae_title,
                called_ae_title=self.called_ae_title,
                peer_address=self.peer_address,
                why=why,
                result=rejection.result if rejection else 0,
                source=rejection.source if rejection else 0,
                reason=rejection.reason if rejection else 0,
                films=self.films,
                refused=self.refusals,
                duration_s=0.0 if begins else time.monotonic() - self._began,
            )
        )

    def between_messages(self) -> bool:
        """Sends a commitment report that is ready. When the receiver stops: releases between two instances, never
        inside one."""
        if self._commitment is not None and self.dimse.receiving is None and self.dul.in_data_transfer:
            self._commitment.send_due(self.caller)
        if not self.owner.stopping or self.dimse.receiving is not None or not self.dul.in_data_transfer:
            return False
        self.acse_timeout = _LAST_WORDS_S
        self.acse.negotiate_release()
        return True

    def open_sink(self, command: StoreCommand) -> StoreSink:
        """Where a data set goes; what speaks against it already is said when it has come in (PS3.7 9.3.1.2)."""
        context = self._accepted_cx.get(command.context_id)
        stopping = OutOfResources("receiver is stopping, send again later") if self.owner.stopping else None
        syntax = None if context is None else str(context.transfer_syntax[0])
        return sink_for(command, syntax, self.caller, self.owner.settings, stopping)

    def _serve_request(self, message: Any, context_id: int) -> None:
        if not isinstance(message, IncomingInstance):
            self._serve_other(message, context_id)
        elif context_id not in self._accepted_cx:
            message.sink.discard()
            self.dul.ended_by = f"C-STORE in presentation context {context_id}, which was not accepted"
            self.abort()
        else:
            self._serve_store(message)

    def _serve_other(self, message: Any, context_id: int) -> None:
        """C-ECHO and the services; what is none of ours ends the association, because nobody waits for ever then."""
        context = self._accepted_cx.get(context_id)
        handler = self.owner.services.handlers.get(str(context.abstract_syntax)) if context is not None else None
        if handler is not None and message.is_valid_request:
            handler(self, message, context_id)
            return
        if self._commitment is not None and context_id in self._accepted_cx:
            if isinstance(message, N_ACTION) and message.is_valid_request:
                self._commitment.serve_action(self.caller, message, context_id)
                return
            if isinstance(message, N_EVENT_REPORT) and message.is_valid_request:
                self._commitment.serve_event(self.caller, message, context_id)
                return
            if isinstance(message, N_EVENT_REPORT) and self._commitment.heard(message):
                return
        if (
            isinstance(message, C_FIND | C_MOVE | C_GET)
            and context_id in self._accepted_cx
            and self._serve_query(message, context_id)
        ):
            return
        if not message.is_valid_request or not isinstance(message, C_ECHO):
            self.dul.ended_by = f"{message.msg_type} is no service of this node"
            self.abort()
            return
        super()._serve_request(message, context_id)

    def _serve_query(self, message: Any, context_id: int) -> bool:
        service = self.owner.services.query
        if service is None:
            return False
        if self._query is None:
            from firstread.integration.dicom.query_scp import QueryScp  # few associations ask

            self._query = QueryScp(self, service, self.owner.settings.ae_title)
        return self._query.serve(self.caller, message, context_id)

    def _serve_store(self, incoming: IncomingInstance) -> None:
        command, sink = incoming.command, incoming.sink
        header: Dataset | None = None
        try:
            sink.finish()
            syntax = str(self._accepted_cx[command.context_id].transfer_syntax[0])
            limit = self.owner.settings.max_film_bytes
            header = read_header(sink.path, sink.data_set_offset, syntax, inflate_limit=limit)
            status = self.owner.store(instance_of(command, sink, header, syntax, self.caller))
            if status.succeeded and sink.path.exists():
                # Whoever answered Success has neither moved nor deleted it: its sweep would lose it
                log.error("instance_left_in_incoming", sop_instance=command.sop_instance_uid)
                status = StoreStatus(0xA700, "instance was not taken over; see the receiver's log")
        except StoreFailure as failure:
            status = failure.status
        except Exception:
            log.exception("store_failed", association=self.association_id, sop_instance=command.sop_instance_uid)
            status = StoreStatus(0xA700, "unexpected error, send again; see the receiver's log")
        if status.succeeded:
            sink.close()
            self.films += 1
        else:
            sink.discard()
            self.refusals += 1
            self.owner.refused(
                Refusal(
                    status=status.code,
                    comment=status.comment,
                    calling_ae_title=self.calling_ae_title,
                    peer_address=self.peer_address,
                    association_id=self.association_id,
                    sop_class_uid=command.sop_class_uid,
                    sop_instance_uid=command.sop_instance_uid,
                    study_instance_uid="" if header is None else text_of(header, STUDY),
                )
            )
        self.dimse.answer_store(command, status.code, status.error_comment if status.comment else "")
