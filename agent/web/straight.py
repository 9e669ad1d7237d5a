"""A request's body lent to the thread that wants it: it reads the socket itself, past the event loop.

uvicorn hands a body over in pieces of 64 KiB, each copied seven times on its way through h11. Where the length is known
and the connection is plain, a thread takes what is left of the body from the socket, as a C-STORE is taken; the loop
reads nothing of this connection meanwhile. With TLS, or a body in chunks, the body comes as ever.
"""

from __future__ import annotations

import contextlib
import socket
from asyncio import Transport
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from h11._readers import ContentLengthReader
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

_EXTENSION = "firstread.straight"
_READ = 256 * 1024


class BodyBroken(Exception):
    """The body did not come to its end: the peer went away or fell silent."""


@dataclass
class Rest:
    """What is left of a body: ``begin`` was read already, ``left`` bytes come over ``connection``."""

    connection: socket.socket
    begin: bytes
    left: int
    _give_back: Callable[[int], None]

    def pieces(self, silence_s: float) -> Iterator[bytes]:
        """The rest, in a thread. Raises BodyBroken when the peer goes away or sends nothing for ``silence_s``."""
        if self.begin:
            yield self.begin
        self.connection.settimeout(silence_s)
        while self.left:
            try:
                piece = self.connection.recv(min(_READ, self.left))
            except TimeoutError as error:
                raise BodyBroken(f"nothing came for {silence_s:.0f} s") from error
            except OSError as error:
                raise BodyBroken(f"the connection broke: {type(error).__name__}") from error
            if not piece:
                raise BodyBroken("the connection broke: the peer closed it")
            self.left -= len(piece)
            yield piece

    def give_back(self) -> None:
        """The connection is the event loop's again; in the event loop, when no thread reads any more."""
        self.connection.close()
        self._give_back(self.left)

    def cut(self) -> None:
        """Ends the connection, and with it the wait of a thread that reads."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already


class LendingProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 over h11, whose application may borrow the rest of a body with :func:`borrow`."""

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """As uvicorn's; an answer's second packet does not wait 40 ms for the first one's acknowledgement.

        asyncio does that for sockets made with IPPROTO_TCP alone, and those of a listening socket made with 0 are not.
        """
        connection = transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # it has ended already
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def handle_events(self) -> None:
        """As uvicorn's; a new request is told that its body can be lent."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not None and self.cycle is not before and self.scheme == "http":
            self.cycle.scope.setdefault("extensions", {})[_EXTENSION] = {"lend": self._lend}

    def _lend(self) -> Rest | None:
        reader, cycle = self.conn._reader, self.cycle
        if not isinstance(reader, ContentLengthReader) or not reader._remaining or cycle.waiting_for_100_continue:
            return None
        if cycle.disconnected or self.transport.is_closing():
            return None
        self.flow.pause_reading()
        begin, cycle.body = bytes(cycle.body), bytearray()
        connection: socket.socket = self.transport.get_extra_info("socket").dup()
        return Rest(connection, begin, reader._remaining, self._take_back)

    def _take_back(self, left: int) -> None:
        reader = self.conn._reader
        if isinstance(reader, ContentLengthReader) and not self.transport.is_closing():
            reader._remaining = left
            self.handle_events()


def borrow(request: Request) -> Rest | None:
    """The rest of a request's body, of which some was received already; None where it must come through the loop.

    Until :meth:`Rest.give_back` nothing may be received of this request.
    """
    lend: Callable[[], Rest | None] | None = request.scope.get("extensions", {}).get(_EXTENSION, {}).get("lend")
    return lend() if lend is not None else None
