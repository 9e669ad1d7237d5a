"""Audit messages as syslog (RFC 5424, PS3.15 A.6 and A.7): to a file, or over TCP or TLS with octets counted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import ssl
import sys
import termios
import time
from datetime import datetime
from pathlib import Path

PRIORITY = 10 * 8 + 5
"""Facility 10 (security), severity 5 (notice): A.6 asks for 85 where nothing else is wanted."""

MESSAGE_ID = "DICOM+RFC3881"
"""MSGID of A.6: the repository knows by it what the text is."""


SETTLE_S = 0.1
"""A repository that closes after a record has done so by then."""


class AuditUnreachable(Exception):
    """A message could not be handed over; it is kept and tried again. The text says why."""


def syslog_record(message: bytes, at: datetime, *, host: str, application: str, process: int) -> bytes:
    """One RFC 5424 record, UTF-8 with its byte order mark before the text (RFC 5424 6.4)."""
    stamp = at.astimezone().isoformat(timespec="milliseconds")
    head = f"<{PRIORITY}>1 {stamp} {_word(host, 255)} {_word(application, 48)} {process} {MESSAGE_ID} - "
    return head.encode("ascii") + b"\xef\xbb\xbf" + message


def _word(text: str, longest: int) -> str:
    """PRINTUSASCII of RFC 5424; a dash stands for nothing."""
    return re.sub(r"[^\x21-\x7e]", "_", text)[:longest] or "-"


class AuditFile:
    """Records in a file of the site's, each counted as over TCP, so that one that spans lines stays one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, record: bytes) -> None:
        """Durable when it returns. Raises AuditUnreachable."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                whole = record.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
                if os.write(descriptor, whole) != len(whole):
                    raise OSError("only a part could be written")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise AuditUnreachable(f"{self._path} cannot be written: {error.strerror or error}") from error

    def settle(self) -> None:
        """Each record is durable already."""

    def close(self) -> None:
        """Nothing is kept open: a rotated file is written anew."""


class AuditStream:
    """A repository over TCP or TLS (RFC 5425): one connection, kept; nothing is ever answered.

    Without an answer nobody can know what a repository made of a record. What can be known is that its machine has
    acknowledged every byte and that it has not closed since: :meth:`settle` says so, and until it does the records
    count as not sent. What is sent twice for that reason has the same bytes.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> None:
        self._host, self._port, self._tls, self._timeout_s = host, port, tls, timeout_s
        self._connection: socket.socket | None = None

    def send(self, record: bytes) -> None:
        """Raises AuditUnreachable."""
        counted = str(len(record)).encode() + b" " + record
        try:
            if self._connection is None or self._closed():
                self._open()
            assert self._connection is not None
            self._connection.sendall(counted)
        except OSError as error:
            self.close()
            raise AuditUnreachable(f"{self._host}:{self._port}: {error}") from error

    def settle(self) -> None:
        """Returns when the other machine has every byte and has not closed. Raises AuditUnreachable."""
        deadline = time.monotonic() + self._timeout_s
        while self._connection is not None and self._unacknowledged() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(SETTLE_S)
        if self._connection is None or self._unacknowledged() or self._closed():
            self.close()
            raise AuditUnreachable(f"{self._host}:{self._port}: the connection broke before all was received")

    def _unacknowledged(self) -> int:
        """Bytes that the other machine has not acknowledged (Linux; 0 where that cannot be asked)."""
        assert self._connection is not None
        waiting = bytearray(4)
        try:
            fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, waiting)
        except OSError:
            return 0
        return int.from_bytes(waiting, sys.byteorder)

    def close(self) -> None:
        """Ends the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None

    def _open(self) -> None:
        self.close()
        connection = socket.create_connection((self._host, self._port), self._timeout_s)
        try:
            self._connection = (
                self._tls.wrap_socket(connection, server_hostname=self._host) if self._tls else connection
            )  # fmt: skip
        except BaseException:
            connection.close()
            raise

    def _closed(self) -> bool:
        """True when the other side has ended the connection: it never sends anything else."""
        assert self._connection is not None
        self._connection.settimeout(0.0)
        try:
            return self._connection.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        finally:
            self._connection.settimeout(self._timeout_s)
