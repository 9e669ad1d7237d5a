"""MLLP over TCP: the client that delivers results, and the probe behind ``config check``."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import structlog

from firstread.integration.hl7.acknowledge import AckKind, AckOutcome, read_acknowledgement
from firstread.integration.hl7.framing import LAST_BYTE_S, FrameDecoder, FramingError, frame
from firstread.integration.hl7.mllp_server import MllpServer

__all__ = ["AckKind", "AckOutcome", "MllpClient", "MllpServer", "ProbeOutcome", "probe"]

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 1 << 20


class MllpClient:
    """One connection to one receiver, kept open, one message in flight. Safe to call from several threads in turn.

    What is not certain to be an answer to this message never counts as one:

    - bytes that wait on the kept connection before anything was sent mean that the two sides are out of step; the
      connection is closed and a new one opened, instead of guessing where the next answer begins;
    - an acknowledgement that names another message is dropped and the wait goes on until the deadline, because
      receivers that answer twice (accept, then application) send the second one whenever it suits them;
    - no answer in time: the connection is closed, so that a late answer has nowhere to arrive.
    """

    def __init__(
        self,
        host: str,
        port: int,
        connect_timeout_s: float = 5.0,
        answer_timeout_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        judgements: Mapping[str, AckKind] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._tls = tls
        self._judgements = judgements
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> MllpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """True while a connection is kept open."""
        return self._socket is not None

    def close(self) -> None:
        """Close the connection; the next ``send`` opens another."""
        with self._lock:
            self._drop()

    def send(self, message: bytes, control_id: str) -> AckOutcome:
        """Send a message and wait for its acknowledgement. Never raises for what the network or the receiver does.

        ``control_id``: the message's MSH-10, which MSA-2 must repeat. A kept connection that turns out to be dead
        before any answer is replaced once and the message sent again, under the same MSH-10.
        """
        with self._lock:
            self._check_kept_connection()
            reused = self._socket is not None
            try:
                return self._exchange(message, control_id)
            except _ConnectionLost as lost:
                self._drop()
                if not reused:
                    return AckOutcome(AckKind.RETRY, text=lost.sentence)
            try:
                return self._exchange(message, control_id)
            except _ConnectionLost as lost:
                self._drop()
                return AckOutcome(AckKind.RETRY, text=lost.sentence)

    def _exchange(self, message: bytes, control_id: str) -> AckOutcome:
        try:
            connection = self._socket or self._connect()
        except OSError as error:
            return AckOutcome(AckKind.RETRY, text=_connect_sentence(self._host, self._port, error))
        self._socket = connection
        try:
            connection.settimeout(self._answer_timeout_s)
            connection.sendall(frame(message))
            return self._wait(connection, control_id, time.monotonic() + self._answer_timeout_s)
        except FramingError as error:
            self._drop()
            return AckOutcome(AckKind.RETRY, text=f"{self._place} answered what is not MLLP: {error.sentence}")
        except TimeoutError:
            return self._unanswered("")
        except OSError as error:
            raise _ConnectionLost(f"the connection to {self._place} broke: {error.strerror or error}") from error

    def _wait(self, connection: socket.socket, control_id: str, deadline: float) -> AckOutcome:
        decoder = FrameDecoder(MAX_ANSWER_BYTES)
        last = ""
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(min(left, LAST_BYTE_S) if decoder.lacks_last_byte else left)
            try:
                chunk = connection.recv(65536)
                answers = decoder.feed(chunk) if chunk else decoder.end_without_cr()
            except TimeoutError:
                chunk, answers = b"", decoder.end_without_cr()
                if not answers:
                    break
            for number, answer in enumerate(answers, start=1):
                outcome = read_acknowledgement(answer, control_id, self._judgements)
                if outcome.kind is not AckKind.NOT_OURS:
                    if number < len(answers) or decoder.half_a_message:
                        self._drop()  # more than one answer: out of step, as with unasked bytes
                    return outcome
                log.warning("mllp.answer_not_ours", host=self._host, port=self._port, why=outcome.text)
                last = outcome.text
            if not chunk and not answers:
                raise _ConnectionLost(f"{self._place} closed the connection without an answer" + (last and f"; {last}"))
        return self._unanswered(last)

    def _unanswered(self, last: str) -> AckOutcome:
        self._drop()
        sentence = f"no answer from {self._place} within {self._answer_timeout_s:g} s"
        return AckOutcome(AckKind.RETRY, text=f"{sentence}; {last}" if last else sentence)

    @property
    def _place(self) -> str:
        return f"{self._host}:{self._port}"

    def _connect(self) -> socket.socket:
        return _open(self._host, self._port, self._connect_timeout_s, self._tls)

    def _check_kept_connection(self) -> None:
        """Drop a kept connection that the peer closed, or on which bytes wait that nobody asked for."""
        if self._socket is None:
            return
        try:
            self._socket.settimeout(0)
            waiting = self._socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            waiting = b""
        if waiting:
            log.warning("mllp.unasked_bytes", host=self._host, port=self._port, size=len(waiting))
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


class _ConnectionLost(Exception):
    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__(sentence)


def _open(host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=timeout_s)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return tls.wrap_socket(connection, server_hostname=host) if tls else connection
    except BaseException:
        connection.close()
        raise


def _connect_sentence(host: str, port: int, error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on {host}:{port}: is the receiver running, and are host and port right?"
    if isinstance(error, socket.gaierror):
        return f"the name {host} cannot be resolved: check the destination's host"
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS with {host}:{port} failed ({error.reason or error}): check certificates, and that the port speaks TLS"
        )
    if isinstance(error, TimeoutError):
        return f"{host}:{port} did not take the connection in time: is a firewall between?"
    return f"cannot connect to {host}:{port}: {error.strerror or error}"


@dataclass(frozen=True)
class ProbeOutcome:
    """Whether a receiver takes connections, how long that took, and a sentence."""

    reachable: bool
    text: str
    seconds: float


def probe(host: str, port: int, timeout_s: float = 5.0, tls: ssl.SSLContext | None = None) -> ProbeOutcome:
    """Connect and hang up. No message is sent: a test message would land in somebody's worklist."""
    begun = time.monotonic()
    try:
        _open(host, port, timeout_s, tls).close()
    except OSError as error:
        return ProbeOutcome(False, _connect_sentence(host, port, error), time.monotonic() - begun)
    seconds = time.monotonic() - begun
    return ProbeOutcome(True, f"{host}:{port} takes connections ({seconds * 1000:.0f} ms)", seconds)
