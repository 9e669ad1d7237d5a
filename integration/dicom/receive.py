"""The Storage SCP: listens, admits, streams films to disk and asks its owner before it says Success (PS3.4 B)."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

import structlog
from pynetdicom.ae import ApplicationEntity

from firstread.integration.dicom.acceptor import AcceptedAssociation
from firstread.integration.dicom.admission import Rejection, Rules, decide
from firstread.integration.dicom.received import (
    AssociationEvent,
    AssociationOutcome,
    ReceivedInstance,
    ReceiveSettings,
    Refusal,
)
from firstread.integration.dicom.services import Services
from firstread.integration.dicom.sink import sweep
from firstread.integration.dicom.status import (
    SUCCESS,
    CannotUnderstand,
    DoesNotMatch,
    OutOfResources,
    StoreFailure,
    StoreStatus,
)

__all__ = [
    "SUCCESS",
    "AssociationEvent",
    "AssociationOutcome",
    "CannotListen",
    "CannotUnderstand",
    "DoesNotMatch",
    "OutOfResources",
    "PortInUse",
    "ReceiveSettings",
    "ReceivedInstance",
    "Receiver",
    "Refusal",
    "StoreFailure",
    "StoreStatus",
]

log = structlog.get_logger(__name__)

_BACKLOG = 128
_BEING_REJECTED = 32
"""Connections over the limit that may wait for their A-ASSOCIATE-RJ; further ones are closed unheard."""


class CannotListen(OSError):
    """The address cannot be listened on: the message says which and why."""


class PortInUse(CannotListen):
    """Somebody else listens there already."""


class Receiver:
    """A Storage and Verification SCP on one address.

    ``on_instance`` gets each instance once it lies complete and synced in the incoming folder; it must move it to its
    place (or delete an unwanted one), make that durable and return :data:`SUCCESS`; only then is it acknowledged. It
    may raise :class:`OutOfResources` (A700), :class:`DoesNotMatch` (A900) or :class:`CannotUnderstand` (C000);
    anything else that it raises is logged and answered A700, so that the sender tries again. It is called from one
    thread per association. ``on_refused`` and ``on_association`` are told what happened; what they raise is logged.

    ``services``: what is served beside storage and verification. ``listening_socket``: one that is bound already
    (inherited by several processes), else it is made at ``start``.
    """

    def __init__(
        self,
        settings: ReceiveSettings,
        on_instance: Callable[[ReceivedInstance], StoreStatus],
        on_refused: Callable[[Refusal], None] = lambda _: None,
        on_association: Callable[[AssociationEvent], None] = lambda _: None,
        listening_socket: socket.socket | None = None,
        services: Services | None = None,
    ) -> None:
        self.settings = settings
        self.services = services or Services()
        self.stopping = False
        self._on_instance = on_instance
        self._on_refused = on_refused
        self._on_association = on_association
        self._listening = listening_socket
        self._address: tuple[str, int] | None = None
        self._rules = Rules(
            ae_title=settings.ae_title,
            check_called_ae=settings.check_called_ae,
            allowed_calling_ae=settings.allowed_calling_ae,
            allowed_addresses=settings.allowed_addresses,
            maximum_associations=settings.maximum_associations,
            maximum_per_calling_ae=settings.maximum_per_calling_ae,
        )
        self._closed_because: str | None = None
        self._lock = threading.Lock()
        self._connections: set[AcceptedAssociation] = set()
        self._admitted: set[AcceptedAssociation] = set()
        self._wakeup_out, self._wakeup_in = socket.socketpair()
        self._thread: threading.Thread | None = None
        self._entity = ApplicationEntity(settings.ae_title)
        self._entity.acse_timeout = settings.acse_timeout_s
        self._entity.dimse_timeout = settings.dimse_timeout_s
        self._entity.network_timeout = settings.network_idle_timeout_s
        self._entity.maximum_associations = 1 << 20  # counted here, pynetdicom counts the threads of the process

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that are (or were) listened on; raises ``RuntimeError`` before :meth:`start`."""
        if self._address is None:
            raise RuntimeError("the receiver is not started")
        return self._address

    @property
    def active_associations(self) -> int:
        """How many associations are open."""
        with self._lock:
            return len(self._admitted)

    def start(self) -> None:
        """Listens, sweeps what an earlier process left half received, and accepts associations; does not block.

        Raises :class:`PortInUse` or :class:`CannotListen`, and ``OSError`` for an incoming folder that cannot be made.
        """
        if self._listening is None:
            self._listening = _listen(self.settings.host, self.settings.port)
        self._listening.setblocking(False)
        host, port = self._listening.getsockname()[:2]
        self._address = (str(host), int(port))
        self.settings.spool.mkdir(parents=True, exist_ok=True)
        swept = sweep(self.settings.spool)
        if swept:
            log.info("half_received_swept", files=swept)
        self._thread = threading.Thread(target=self._accept, name="dicom-receiver", daemon=True)
        self._thread.start()

    def refuse_new(self, reason: str | None) -> None:
        """Rejects new associations (transient, temporary congestion) for this reason; None accepts them again."""
        self._closed_because = reason

    def stop(self, grace_s: float = 10.0) -> None:
        """Accepts nothing new, lets instances under way end (``grace_s`` at most), releases and closes."""
        self.stopping = True
        with contextlib.suppress(OSError):
            self._wakeup_out.send(b"\0")
        if self._thread is not None:
            self._thread.join()
        if self._listening is not None:
            self._listening.close()
        deadline = time.monotonic() + grace_s
        while self._open():
            for association in self._open():
                association.wake()
            if time.monotonic() >= deadline:
                break
            time.sleep(0.02)
        for association in self._open():
            association.dul._note("receiver stopped")
            association.abort(block=False)
        for association in self._open():
            association.kill()
        for association in self._open():
            association.join(timeout=1.0)

    # What an association asks (acceptor.Owner)

    def admit(self, association: AcceptedAssociation) -> Rejection | None:
        """Decides on an association request and counts what is admitted."""
        with self._lock:
            calling = association.calling_ae_title
            rejection = decide(
                self._rules,
                calling_ae_title=calling,
                called_ae_title=association.called_ae_title,
                address=association.peer_address,
                active=len(self._admitted),
                active_of_calling_ae=sum(1 for other in self._admitted if other.calling_ae_title == calling),
                closed_because="receiver is stopping" if self.stopping else self._closed_because,
            )
            if rejection is None:
                self._admitted.add(association)
            return rejection

    def store(self, instance: ReceivedInstance) -> StoreStatus:
        """Hands an instance to the owner."""
        return self._on_instance(instance)

    def refused(self, refusal: Refusal) -> None:
        """Tells the owner of a refusal."""
        try:
            self._on_refused(refusal)
        except Exception:
            log.exception("on_refused_failed")

    def happened(self, event: AssociationEvent) -> None:
        """Tells the owner of an association's beginning or end."""
        try:
            self._on_association(event)
        except Exception:
            log.exception("on_association_failed")

    def ending(self, association: AcceptedAssociation) -> None:
        """Counts an association no more: it serves nothing, whatever its connection still does."""
        with self._lock:
            self._admitted.discard(association)

    def ended(self, association: AcceptedAssociation) -> None:
        """Forgets an association."""
        with self._lock:
            self._connections.discard(association)
            self._admitted.discard(association)

    # Listening

    def _open(self) -> list[AcceptedAssociation]:
        with self._lock:
            return list(self._connections)

    def _accept(self) -> None:
        listening = self._listening
        if listening is None:
            return
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        poll.register(self._wakeup_in, select.POLLIN)
        while not self.stopping:
            poll.poll()
            if self.stopping:
                return
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, ConnectionError):
                continue
            except OSError as error:
                log.error("accept_failed", error=str(error))
                time.sleep(0.1)
                continue
            self._greet(connection, (str(peer[0]), int(peer[1])))

    def _greet(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        limit = self.settings.maximum_associations
        with self._lock:
            crowded = bool(limit) and len(self._connections) >= limit + _BEING_REJECTED
        if crowded:
            log.warning("connection_closed_unheard", peer=peer[0], why="too many connections")
            connection.close()
        elif self.settings.tls is None:
            self._begin(connection, peer)
        else:
            # a peer that dawdles over its handshake must not hold up the others
            threading.Thread(target=self._secure, args=(connection, peer), daemon=True).start()

    def _secure(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        context = self.settings.tls
        if context is None:
            return
        connection.settimeout(self.settings.acse_timeout_s)
        try:
            secured = context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError) as error:
            log.warning("tls_handshake_failed", peer=peer[0], error=str(error))
            connection.close()
            return
        self._begin(secured, peer)

    def _begin(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        try:
            association = AcceptedAssociation(self._entity, self, connection, peer)
            with self._lock:
                self._connections.add(association)
            association.start()
        except Exception:
            log.exception("association_not_started", peer=peer[0])
            connection.close()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; without SO_REUSEPORT, which hides that somebody listens already."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise CannotListen(f"cannot listen on {host!r}: {error.strerror}; set [dicom] host to an address") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use: stop what listens there (another agent?) or set another [dicom] port"
            ) from error
        hint = "; ports below 1024 need a privilege, DICOM's other port is 11112" if error.errno == errno.EACCES else ""
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from error
    return listening
