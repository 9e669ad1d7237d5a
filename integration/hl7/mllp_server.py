"""The MLLP server: reads any chunking, bounds everything, and answers every message that it could make out."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable

import structlog

from firstread.integration.hl7.acknowledge import acknowledge
from firstread.integration.hl7.errors import ErrorLocation, MllpAddressError, UnreadableMessage
from firstread.integration.hl7.framing import LAST_BYTE_S, FrameDecoder, FramingError, frame

log = structlog.get_logger(__name__)

Handler = Callable[[bytes, str], bytes]
"""Takes a message (without its frame) and the peer's address, gives the acknowledgement (without its frame).

``UnreadableMessage`` from it becomes AE, or AR where the kind of message is not taken, with ERR; any other error
becomes AE 207, "try again later", and the connection stays open.
"""


class MllpServer:
    """Listens on one address, a thread for each connection.

    ``port`` 0 takes a free one; ``address`` says which. ``receive_timeout_s``: a message must be whole that long after
    its first byte, however it trickles. ``idle_timeout_s``: silence between messages that closes a connection.
    More than ``max_connections`` at once are closed as they come. Raises ``MllpAddressError`` from ``start``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        max_message_bytes: int = 8 << 20,
        receive_timeout_s: float = 30.0,
        idle_timeout_s: float = 3600.0,
        max_connections: int = 64,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._handler = handler
        self._max_message_bytes = max_message_bytes
        self._receive_timeout_s = receive_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_connections = max_connections
        self._tls = tls
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._busy: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> MllpServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        if self._listener is None:
            return self._host, self._port
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Listen, and serve from a thread of its own. Raises ``MllpAddressError`` with what to do."""
        self._stopping.clear()
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            raise MllpAddressError(_bind_sentence(self._host, self._port, error)) from error
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), name="mllp-accept", daemon=True)
        self._acceptor.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, let messages that are being handled be answered, close the rest."""
        self._stopping.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            idle = [connection for connection in self._connections if connection not in self._busy]
            threads = list(self._connections.values())
        for connection in idle:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + grace_s
        for thread in [*threads, *([self._acceptor] if self._acceptor else [])]:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left = list(self._connections)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, address = listener.accept()
            except OSError as error:
                if self._stopping.is_set() or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                log.warning("mllp.accept_failed", error=str(error))
                time.sleep(0.1)
                continue
            peer = f"{address[0]}:{address[1]}"
            with self._lock:
                full = len(self._connections) >= self._max_connections
                if not full:
                    thread = threading.Thread(
                        target=self._serve, args=(connection, peer), name=f"mllp-{peer}", daemon=True
                    )
                    self._connections[connection] = thread
            if full:
                log.warning("mllp.too_many_connections", peer=peer, limit=self._max_connections)
                connection.close()
                continue
            thread.start()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        stream = connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection.settimeout(self._receive_timeout_s)
                stream = self._tls.wrap_socket(connection, server_side=True)
            self._converse(stream, connection, peer)
        except TimeoutError:
            log.info("mllp.timed_out", peer=peer)
        except OSError as error:
            log.info("mllp.connection_broke", peer=peer, error=str(error))
        except Exception:
            log.exception("mllp.connection_failed", peer=peer)
        finally:
            with self._lock:
                self._connections.pop(connection, None)
                self._busy.discard(connection)
            with contextlib.suppress(OSError):
                stream.close()

    def _converse(self, stream: socket.socket, connection: socket.socket, peer: str) -> None:
        decoder = FrameDecoder(self._max_message_bytes)
        deadline = time.monotonic() + self._idle_timeout_s
        while not self._stopping.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            was_inside = decoder.half_a_message
            stream.settimeout(min(left, LAST_BYTE_S) if decoder.lacks_last_byte else left)
            try:
                chunk = stream.recv(65536)
                messages = decoder.feed(chunk) if chunk else decoder.end_without_cr()
            except TimeoutError:
                chunk, messages = b"", decoder.end_without_cr()
                if not messages:
                    raise
            except FramingError as error:
                self._refuse(stream, peer, error)
                return
            if not chunk and not messages:
                if decoder.half_a_message:
                    log.warning("mllp.half_a_message", peer=peer)
                return
            with self._lock:
                self._busy.add(connection)
            for message in messages:
                stream.settimeout(self._receive_timeout_s)
                stream.sendall(frame(self._answer(message, peer)))
            with self._lock:
                self._busy.discard(connection)
            if messages or not was_inside:
                wait_s = self._receive_timeout_s if decoder.half_a_message else self._idle_timeout_s
                deadline = time.monotonic() + wait_s

    def _answer(self, message: bytes, peer: str) -> bytes:
        try:
            return self._handler(message, peer)
        except UnreadableMessage as error:
            log.warning("mllp.unreadable", peer=peer, code=error.code, location=str(error.location))
            return acknowledge(message, "AR" if error.unsupported else "AE", error)
        except Exception:
            log.exception("mllp.handler_failed", peer=peer)
            failure = UnreadableMessage(
                207, ErrorLocation(), "the message could not be processed now: send it again later"
            )
            return acknowledge(message, "AE", failure)

    def _refuse(self, stream: socket.socket, peer: str, error: FramingError) -> None:
        """Say why, then close; reading on for a moment, or the answer would be lost in a reset."""
        log.warning("mllp.refused", peer=peer, why=error.sentence)
        if not error.start:
            return
        failure = UnreadableMessage(102, ErrorLocation("MSH"), error.sentence)
        stream.settimeout(2.0)
        stream.sendall(frame(acknowledge(error.start, "AR", failure)))
        stream.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and stream.recv(1 << 20):
            pass


def _bind_sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"MLLP port {port} on {host} is in use: stop the other program or set [worklist] mllp_port to a free port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"MLLP port {port} on {host} is not allowed to this user: set [worklist] mllp_port above 1023"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is no address of this machine: set [worklist] mllp_host to 127.0.0.1, 0.0.0.0 or an own address"
    return f"MLLP cannot listen on {host}:{port}: {error.strerror or error}"
