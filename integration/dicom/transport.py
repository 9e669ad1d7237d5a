"""The socket under an association, made safe: lengths capped before allocation, deadlines for a PDU and for sending.

pynetdicom 3.0.4 believes the length field of a PDU (a peer without an association pushed 500 MB into memory), reads
4 KiB at a time, and lets a peer that trickles or stops reading hold a thread for ever.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

if TYPE_CHECKING:
    from pynetdicom.association import Association

P_DATA_TF = 0x04
_LARGEST_BY_TYPE = {0x01: 1 << 20, 0x02: 1 << 20, 0x03: 1024, 0x05: 1024, 0x06: 1024, 0x07: 1024}
"""Bytes: A-ASSOCIATE may carry 128 contexts and an identity; reject, release and abort have 4 bytes (PS3.8 9.3)."""

_SLACK = 64
"""Some senders count PDU and PDV headers differently (PS3.8 D.1 speaks of the variable field alone)."""

_BUFFER = 512 * 1024
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class BadPdu(Exception):
    """A PDU that must not be read: unknown type or a length beyond what was agreed."""


class PduStream:
    """Cuts what a socket delivers into PDUs, reading ahead up to 512 KiB.

    ``maximum_length`` is the P-DATA length announced to the peer, bytes. A PDU that has begun must end within
    ``deadline_s``; the socket's own timeout bounds each wait.
    """

    def __init__(self, connection: socket.socket, maximum_length: int, deadline_s: float) -> None:
        self._connection = connection
        self._tls = isinstance(connection, ssl.SSLSocket) or connection.gettimeout() is None
        self._largest_data = maximum_length + _SLACK
        self._deadline_s = deadline_s
        self._buffer = memoryview(bytearray(max(_BUFFER, 6 + self._largest_data)))
        self._start = 0
        self._end = 0

    @property
    def buffered(self) -> bool:
        """True when bytes of a further PDU have been read already."""
        return self._end > self._start

    @property
    def complete(self) -> bool:
        """True when a whole PDU has been read already."""
        have = self._end - self._start
        return have >= 6 and have >= 6 + int.from_bytes(self._buffer[self._start + 2 : self._start + 6], "big")

    def read(self) -> tuple[int, memoryview] | None:
        """The next PDU: its type and its bytes with the 6-byte head, valid until the next call.

        None when nothing came (a TLS record without application data). Raises :class:`BadPdu`, ``TimeoutError`` past
        the deadline, ``ConnectionError`` when the peer closed.
        """
        started = time.monotonic()
        if not self.buffered and isinstance(self._connection, ssl.SSLSocket) and not self._arrived():
            return None
        self._fill(6, started)
        pdu_type, length = struct.unpack_from(">BxL", self._buffer, self._start)
        self._check(pdu_type, length)
        size = 6 + length
        if size > len(self._buffer):
            return pdu_type, self._read_large(size, started)
        self._fill(size, started)
        pdu = self._buffer[self._start : self._start + size]
        self._start += size
        return pdu_type, pdu

    def discard(self) -> bool:
        """Throws away what has come; True when the peer has closed. Waits only when nothing was buffered."""
        if self.buffered:
            self._start = self._end = 0
            return False
        try:
            return self._connection.recv_into(self._buffer) == 0
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True

    def _check(self, pdu_type: int, length: int) -> None:
        if pdu_type == P_DATA_TF:
            largest = self._largest_data
        elif pdu_type in _LARGEST_BY_TYPE:
            largest = _LARGEST_BY_TYPE[pdu_type]
        else:
            raise BadPdu(f"unknown PDU type 0x{pdu_type:02X}: the peer does not speak DICOM")
        if length > largest:
            raise BadPdu(f"PDU of {length} bytes where {largest} are allowed")

    def _arrived(self) -> bool:
        """One read without waiting: TLS sockets turn readable for records that carry no application data."""
        timeout = self._connection.gettimeout()
        self._connection.settimeout(0.0)
        try:
            got = self._connection.recv_into(self._buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return False
        finally:
            self._connection.settimeout(timeout)
        if got == 0:
            raise ConnectionResetError("the peer closed the connection")
        self._start, self._end = 0, got
        return True

    def _fill(self, size: int, started: float) -> None:
        """Waits until ``size`` bytes stand in the buffer."""
        if self._end - self._start >= size:
            return
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size > len(self._buffer):
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        while self._end - self._start < size:
            self._end += self._receive(self._buffer[self._end :], started)

    def _read_large(self, size: int, started: float) -> memoryview:
        pdu = memoryview(bytearray(size))
        have = self._end - self._start
        pdu[:have] = self._buffer[self._start : self._end]
        self._start = self._end = 0
        while have < size:
            have += self._receive(pdu[have:], started)
        return pdu

    def _receive(self, target: memoryview, started: float) -> int:
        if time.monotonic() - started > self._deadline_s:
            raise TimeoutError(f"a PDU took longer than {self._deadline_s:g} s")
        got = self._at_hand(target)
        if got is None:
            acknowledge_at_once(self._connection)
            got = self._connection.recv_into(target)
        if got == 0:
            raise ConnectionResetError("the peer closed the connection")
        return got

    def _at_hand(self, target: memoryview) -> int | None:
        """Reads without waiting, one system call instead of three; None where nothing has come, or it is TLS."""
        if self._tls:
            return None
        try:
            return os.readv(self._connection.fileno(), [target])
        except BlockingIOError:
            return None


def acknowledge_at_once(connection: socket.socket) -> None:
    """Sends a delayed TCP acknowledgement now: a peer with Nagle's algorithm on waits 40 ms for it with every message.

    The system falls back by itself, so this is said before every wait. Linux alone knows it.
    """
    if _QUICKACK is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


class PeerSocket(AssociationSocket):  # type: ignore[misc]
    """pynetdicom's socket wrapper over a :class:`PduStream`, with a deadline for sending as well."""

    socket: Any
    """The connection, None when it is closed."""

    def __init__(
        self,
        assoc: Association,
        *,
        maximum_length: int,
        deadline_s: float,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        self._maximum_length = maximum_length
        self._deadline_s = deadline_s
        self.stream: PduStream | None = None
        self.failure: OSError | None = None
        super().__init__(assoc, client_socket=client_socket, address=address)
        if client_socket is not None:
            self._prepare()

    def connect(self, primitive: T_CONNECT) -> None:
        """Connects, with TLS where asked. As pynetdicom's, but the reason of a failure is kept in ``failure``, and what
        is sent and received afterwards has deadlines."""
        try:
            if self.tls_args:
                context, server_hostname = self.tls_args
                self.socket = context.wrap_socket(self.socket, server_hostname=server_hostname)
            self.socket.settimeout(self.assoc.connection_timeout)
            self.socket.connect(primitive.address_info.as_tuple)
            self.assoc.requestor.address_info = AddressInformation.from_tuple(self.socket.getsockname())
            self._prepare()
            self._is_connected = True
            primitive.result = "Evt2"
        except OSError as error:
            self.failure = error
            self._shutdown_socket()
            self.socket = None
            primitive.result = "Evt17"
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    def _prepare(self) -> None:
        connection = self.socket
        connection.settimeout(self._deadline_s)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.stream = PduStream(connection, self._maximum_length, self._deadline_s)

    def wait(self, wakeup: socket.socket, timeout_s: float, *, reading: bool = True) -> bool:
        """Sleeps until the peer has sent something (True), ``wakeup`` turns readable, or the time is over.

        poll and not select, which fails for descriptors above 1023.
        """
        connection = self.socket
        if connection is not None and self._is_connected and reading:
            if self.stream is not None and self.stream.buffered:
                return True
            if isinstance(connection, ssl.SSLSocket) and connection.pending():
                return True
        else:
            connection = None
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        if connection is not None:
            acknowledge_at_once(connection)
            try:
                poll.register(connection, select.POLLIN)
            except (OSError, ValueError):
                return True
        woken = {fd for fd, _ in poll.poll(max(0.0, timeout_s) * 1000)}
        if wakeup.fileno() in woken:
            with contextlib.suppress(BlockingIOError):
                wakeup.recv(64)
        return connection is not None and any(fd != wakeup.fileno() for fd in woken)

    def send(self, bytestream: bytes) -> None:
        """Sends all of ``bytestream`` or, past the deadline, gives the connection up (Evt17)."""
        try:
            self.socket.sendall(bytestream)
        except Exception:  # the state machine hears of it as "transport connection closed", whatever it was
            self.event_queue.put("Evt17")

    def _shutdown_socket(self) -> None:
        """Shuts down and closes (pynetdicom leaves the descriptor open where the peer was first)."""
        connection = self.socket
        if connection is None:
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            connection.close()
