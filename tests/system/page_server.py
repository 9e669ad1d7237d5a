"""The page over a real socket, and a browser that looks at it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from firstread.agent import clock
from firstread.agent.web.app import serve
from tests.agent.web_seed import Morning

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class PageServer:
    """Serves a morning's page; can be stopped and started again on the same port."""

    def __init__(self, morning: Morning) -> None:
        self.morning = morning
        self.port = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens on the port it had before, or a free one."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        bound.listen(64)
        self.port = bound.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=serve, args=(self.morning.settings, self.morning.store, self._stop, bound), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends it, with every page that is open."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
            assert not self._thread.is_alive(), "the server did not stop though it was told to"


@contextmanager
def served(morning: Morning) -> Iterator[PageServer]:
    """A running server of a morning whose roles live."""
    alive = threading.Event()

    def beat() -> None:
        while not alive.wait(2.0):
            morning.now = clock.now()
            morning.roles()

    morning.roles()
    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    server = PageServer(morning)
    server.start()
    try:
        yield server
    finally:
        alive.set()
        beating.join(10)
        server.stop()
