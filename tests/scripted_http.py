"""An HTTP service that answers as a test tells it, byte by byte where need be, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Play = Callable[[socket.socket, Asked], None]
"""Answers one request on its connection."""


def answer(status: int, body: bytes | str = b"", kind: str = "text/plain", **headers: str) -> Play:
    """A whole answer; header names with ``_`` for ``-``."""
    content = body.encode() if isinstance(body, str) else body
    head = {"Content-Type": kind, "Content-Length": str(len(content))}
    head |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return raw(f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + content)


def document(status: int, content: Mapping[str, Any], **headers: str) -> Play:
    """A store response in the DICOM JSON model."""
    return answer(status, json.dumps(content), "application/dicom+json", **headers)


def raw(content: bytes, *, hang_up: bool = False) -> Play:
    """Bytes as they are; ``hang_up`` ends the connection behind them."""

    def play(connection: socket.socket, _asked: Asked) -> None:
        connection.sendall(content)
        if hang_up:
            connection.shutdown(socket.SHUT_RDWR)

    return play


def trickle(content: bytes, every_s: float) -> Play:
    """One byte after the other, until the client has had enough."""

    def play(connection: socket.socket, _asked: Asked) -> None:
        pause = threading.Event()
        for index in range(len(content)):
            connection.sendall(content[index : index + 1])
            pause.wait(every_s)

    return play


class ScriptedHttp:
    """Listens on 127.0.0.1. ``plays`` are used up one by one; then ``otherwise`` answers."""

    def __init__(self, *plays: Play, otherwise: Play | None = None) -> None:
        self.plays = list(plays)
        self.otherwise = otherwise or answer(500, "the script is over")
        self.asked: list[Asked] = []
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> ScriptedHttp:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, *self._open):
            one.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while asked := _request(reader):
                    self.asked.append(asked)
                    (self.plays.pop(0) if self.plays else self.otherwise)(connection, asked)
            except OSError:
                return


def _request(reader: Any) -> Asked | None:
    first = reader.readline().decode("latin-1").split()
    if len(first) < 2:
        return None
    headers: dict[str, str] = {}
    while line := reader.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(first[0], first[1], headers, reader.read(int(headers.get("content-length", 0))))
