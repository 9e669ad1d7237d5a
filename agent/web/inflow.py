"""A request's body on its way from the event loop to a thread: a few pieces at a time, so that the sender waits."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator

from firstread.agent.web.straight import BodyBroken

MOST_WAITING = 1024 * 1024
"""Bytes between loop and thread; then the peer is made to wait."""


class Inflow:
    """One side feeds in the event loop, the other iterates in a thread."""

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._state = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._over = False
        self._broken = ""
        self._unwanted = False

    async def feed(self, source: AsyncIterator[bytes]) -> None:
        """Hands over the whole body; returns early when nobody wants the rest."""
        while await self.feed_one(source):
            pass

    async def feed_one(self, source: AsyncIterator[bytes]) -> bool:
        """Hands over the next piece; False when it was the last, the peer has gone, or nobody wants it."""
        await self._room.wait()
        if self._unwanted:
            return False
        try:
            async with asyncio.timeout(self._silence_s):
                piece = await anext(source)
            self._put(piece)
            return True
        except StopAsyncIteration:
            self.end()
        except TimeoutError:
            self.end(f"nothing came for {self._silence_s:.0f} s")
        except asyncio.CancelledError:
            self.end("the server stops")
            raise
        except Exception as error:  # the server's own ways of saying that the peer is gone
            self.end(f"the connection broke: {type(error).__name__}")
        return False

    def pieces(self) -> Iterator[bytes]:
        """The body in the thread. Raises BodyBroken."""
        while True:
            with self._state:
                while not self._pieces and not self._over:
                    self._state.wait()
                if not self._pieces:
                    if self._broken:
                        raise BodyBroken(self._broken)
                    return
                piece = b"".join(self._pieces)
                self._pieces.clear()
                self._waiting = 0
            self._loop.call_soon_threadsafe(self._room.set)
            yield piece

    def leave(self) -> None:
        """The thread wants nothing more."""
        with self._state:
            self._unwanted = True
            self._pieces.clear()
        self._loop.call_soon_threadsafe(self._room.set)

    def _put(self, piece: bytes) -> None:
        with self._state:
            if piece:
                self._pieces.append(piece)
                self._waiting += len(piece)
            if self._waiting >= MOST_WAITING:
                self._room.clear()
            self._state.notify()

    def end(self, broken: str = "") -> None:
        """Nothing more comes through here; ``broken`` says why a body did not come to its end."""
        with self._state:
            self._over, self._broken = True, broken
            self._state.notify()
