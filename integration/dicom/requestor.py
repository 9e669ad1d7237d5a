"""An association that we ask for, with the reason in words when there is none (PS3.8 7.1)."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext, build_role
from pynetdicom.transport import AddressInformation

from firstread.integration.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from firstread.integration.dicom.reactor import EventDrivenAssociation
from firstread.integration.dicom.transport import PeerSocket

MOST_CONTEXTS = 128
_MAXIMUM_PDU_LENGTH = 131072
_GOODBYE_S = 5.0


@dataclass(frozen=True)
class DicomPeer:
    """A DICOM node that we send to, and how patient we are with it."""

    name: str
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "FIRSTREAD"
    connect_timeout_s: float = 10.0
    acse_timeout_s: float = 30.0
    """For the answer to an association or release request."""
    dimse_timeout_s: float = 60.0
    """For the answer to a message, from the moment it was sent completely or last moved."""
    send_timeout_s: float = 60.0
    """For the peer to take one PDU off us."""
    idle_release_s: float = 20.0
    """An association that is not used for so long is released."""
    tls: ssl.SSLContext | None = None


class NoAssociation(Exception):
    """There is no association with a peer; the message says why and what to look at."""


class NoContextAccepted(NoAssociation):
    """The peer accepted the association, and none of its presentation contexts."""


Context = tuple[str, str]
"""Abstract syntax and the one transfer syntax it is proposed with: the peer says for each whether it takes it."""


class RequestedAssociation(EventDrivenAssociation):
    """An association with a receiver; released by itself when it was not used for a while."""

    def __init__(
        self,
        peer: DicomPeer,
        contexts: list[Context],
        *,
        as_scp: Sequence[str] = (),
        on_request: Callable[[RequestedAssociation, Any, int], None] | None = None,
    ) -> None:
        """Asks for the association. Raises :class:`NoAssociation`.

        ``as_scp``: SOP classes that we serve on it (PS3.7 D.3.3.4). ``on_request`` gets what the peer asks of us, with
        the id of its presentation context; without it such a peer is aborted.
        """
        self.peer = peer
        self._on_request = on_request
        entity = ApplicationEntity(peer.calling_ae_title)
        entity.acse_timeout = peer.acse_timeout_s
        entity.connection_timeout = peer.connect_timeout_s
        entity.dimse_timeout = peer.dimse_timeout_s
        entity.network_timeout = None
        super().__init__(entity, "requestor")
        self.name = f"association-to-{peer.name}"
        self.last_used = time.monotonic()
        self.in_use = False
        address = self._resolve()
        local = AddressInformation("" if address.is_ipv4 else "::", 0)
        connection = PeerSocket(self, maximum_length=_MAXIMUM_PDU_LENGTH, deadline_s=peer.send_timeout_s, address=local)
        if peer.tls is not None:
            connection.tls_args = (peer.tls, peer.host)
        self.set_socket(connection)
        self.acceptor.ae_title = peer.ae_title
        self.acceptor.address_info = address
        self.requestor.address_info = local
        self.requestor.ae_title = peer.calling_ae_title
        self.requestor.maximum_length = _MAXIMUM_PDU_LENGTH
        self.requestor.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.requestor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.requestor.requested_contexts = _numbered(contexts[:MOST_CONTEXTS])
        for sop_class in as_scp:
            self.requestor.add_negotiation_item(build_role(sop_class, scu_role=False, scp_role=True))
        self.request()
        if not self.is_established:
            failure = self._why_not()
            self._hang_up()
            raise failure
        self.start()

    def accepted(self, abstract_syntax: str, transfer_syntax: str) -> int | None:
        """The id of the presentation context for both, None when the peer does not take them together."""
        for context_id, context in self._accepted_cx.items():
            if context.abstract_syntax == abstract_syntax and context.transfer_syntax[0] == transfer_syntax:
                return int(context_id)
        return None

    def ask(self, request: Any, context_id: int) -> Any | None:
        """Sends a request and waits for its response; None when the association ended or nothing came in time.

        The time runs from the last PDU that went out: a large film over a slow line is no silence.
        """
        self.in_use = True
        self._reactor_checkpoint.clear()
        self.wake()
        while not self._is_paused and self.is_alive():
            time.sleep(0.0005)
        try:
            if not self.is_established:
                return None
            self.dimse.send_msg(request, context_id)
            moved, waiting = time.monotonic(), self.dul.to_provider_queue.qsize()
            while time.monotonic() - moved < self.peer.dimse_timeout_s:
                try:
                    _, response = self.dimse.msg_queue.get(timeout=0.5)
                except queue.Empty:
                    if not self.dul.is_alive():
                        return None
                    if (left := self.dul.to_provider_queue.qsize()) != waiting:
                        moved, waiting = time.monotonic(), left
                    continue
                if response is None or response.MessageIDBeingRespondedTo == request.MessageID:
                    return response
            return None
        finally:
            self.last_used = time.monotonic()
            self.in_use = False
            self._reactor_checkpoint.set()

    def _serve_request(self, message: Any, context_id: int) -> None:
        """What the peer asks of us. pynetdicom calls this for an N-EVENT-REPORT in a thread of its own."""
        if self._on_request is None or not message.is_valid_request or context_id not in self._accepted_cx:
            self.dul.ended_by = f"{message.msg_type} is no service of this node"
            self.abort()
            return
        self.last_used = time.monotonic()
        self._on_request(self, message, context_id)

    def between_messages(self) -> bool:
        """Releases after idle time."""
        if self.in_use or not self.dul.in_data_transfer or time.monotonic() - self.last_used < self.peer.idle_release_s:
            return False
        self.acse.negotiate_release()
        return True

    def end(self, *, broken: bool = False) -> None:
        """Releases; aborts where that is not possible any more, or where the peer owes us an answer (``broken``)."""
        with contextlib.suppress(Exception):
            if self.is_established and self.dul.in_data_transfer and not broken:
                self.acse_timeout = min(self.peer.acse_timeout_s, _GOODBYE_S)
                self.release()
        if not self.is_released:
            with contextlib.suppress(Exception):
                self.abort()
        self._hang_up()

    def _hang_up(self) -> None:
        """Ends both threads and the connection, which pynetdicom leaves open where an answer made no sense."""
        self.kill()
        self.dul.socket._shutdown_socket()

    @property
    def why_ended(self) -> str:
        """Why there is no answer, in words; empty while the association stands."""
        if self.dul.ended_by:
            return self.dul.ended_by
        if self.acse.is_aborted("a-abort"):
            return "the peer aborted the association"
        if self.acse.is_aborted() or not self.dul.in_data_transfer:
            return "the connection was lost or ended by the peer"
        return ""

    def _resolve(self) -> AddressInformation:
        try:
            return AddressInformation(self.peer.host, self.peer.port)
        except socket.gaierror as error:
            raise NoAssociation(f"host {self.peer.host!r} has no address: check the destination's host") from error

    def _why_not(self) -> NoAssociation:
        peer = self.peer
        where = f"{peer.ae_title} at {peer.host}:{peer.port}"
        failure = self.dul.socket.failure
        if isinstance(failure, ssl.SSLError):
            return NoAssociation(f"no TLS with {where}: {failure.reason or failure}; check certificates on both sides")
        if failure is not None:
            said = failure.strerror or str(failure) or type(failure).__name__
            return NoAssociation(f"no connection to {where}: {said}; check host, port and firewall")
        answer = self.acceptor.primitive
        if self.is_rejected and isinstance(answer, A_ASSOCIATE):
            hint = {
                (1, 7): f"; the peer is not called {peer.ae_title!r}, correct the destination's ae_title",
                (1, 3): f"; register our AE title {peer.calling_ae_title!r} at the peer",
            }.get((answer.result_source, answer.diagnostic), "")
            return NoAssociation(f"association rejected by {where}: {answer.reason_str}{hint}")
        if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
            return NoContextAccepted(f"{where} accepted no presentation context")
        why = self.dul.ended_by or "it closed the connection or did not answer in time"
        return NoAssociation(f"no association with {where}: {why}")


def _numbered(contexts: list[Context]) -> list[PresentationContext]:
    numbered = []
    for position, (abstract_syntax, transfer_syntax) in enumerate(contexts):
        context = PresentationContext()
        context.context_id = 2 * position + 1
        context.abstract_syntax = abstract_syntax
        context.transfer_syntax = [transfer_syntax]
        numbered.append(context)
    return numbered
