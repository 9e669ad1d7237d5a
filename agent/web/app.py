"""The web application, and the server that runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from firstread.agent.config import Settings
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.web.board import Board, wait_limits
from firstread.agent.web.desk import Desk
from firstread.agent.web.dicomweb import routes as dicomweb_routes
from firstread.agent.web.guard import Guard
from firstread.agent.web.live import Feed
from firstread.agent.web.pages import Pages
from firstread.agent.web.routes import routes
from firstread.agent.web.sessions import Sessions, session_key
from firstread.agent.web.straight import LendingProtocol
from firstread.agent.web.ups import UpsRoutes
from firstread.agent.web.ups_events import NotificationConnections
from firstread.agent.work_items import WorkItems

log = structlog.get_logger()

STOP_LOOK_S = 0.1
STOP_GRACE_S = 3


class WebAddressError(Exception):
    """The page cannot listen where it was told to; the message says what to do."""


def create_app(settings: Settings, store: Store) -> Starlette:
    """The application on an open store. Its session key lies in the spool."""
    sessions = Sessions(session_key(settings.spool), settings.web)
    board = Board(settings, store)
    pages = Pages(settings.site.name, wait_limits(settings))
    feed = Feed(board, pages.live_message)
    desk = Desk(settings, store, sessions, board, pages, feed)
    connections = NotificationConnections(WorkItems(settings, store), store, settings.web)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        looking = [asyncio.create_task(feed.run()), asyncio.create_task(connections.run())]
        try:
            yield
        finally:
            for task in looking:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            dicomweb.close()

    dicomweb, services = dicomweb_routes(settings, store)
    app = Starlette(
        routes=[*routes(desk), *UpsRoutes(desk, connections).routes(), *services],
        middleware=[Middleware(Guard, web=settings.web, dicomweb=settings.dicomweb, sessions=sessions)],
        exception_handlers={HTTPException: _plain_error, StoreError: _store_error, Exception: _unexpected},
        lifespan=lifespan,
    )
    app.state.feed, app.state.connections = feed, connections
    return app


def serve(
    settings: Settings,
    store: Store,
    stop: threading.Event,
    listening: socket.socket | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serves the page until ``stop``. ``listening``: a socket that is bound already, else ``[web] host port``.
    ``tls``: HTTPS alone.

    Raises WebAddressError when it cannot listen there.
    """
    app = create_app(settings, store)
    config = _Config(
        app,
        http=LendingProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=STOP_GRACE_S,
        h11_max_incomplete_event_size=65536,
        ws="websockets-sansio",
        ws_max_size=4096,  # subscribers listen, they have nothing to say
    )
    config.tls = tls
    server = _Server(config)
    with contextlib.closing(listening or _listen(settings.web.host, settings.web.port)) as bound:
        log.info("page is served", host=settings.web.host, port=bound.getsockname()[1])
        asyncio.run(_serve(server, app, bound, stop))


class _Config(uvicorn.Config):
    tls: ssl.SSLContext | None = None

    def load(self) -> None:
        """Takes a context that is made, and renewed, elsewhere: uvicorn's own is read from files once."""
        super().load()
        self.ssl = self.tls


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the role that runs this server."""
        yield


async def _serve(server: uvicorn.Server, app: Starlette, bound: socket.socket, stop: threading.Event) -> None:
    async def watch() -> None:
        while not stop.is_set():
            await asyncio.sleep(STOP_LOOK_S)
        await app.state.connections.close()
        await app.state.feed.close()
        server.should_exit = True

    watching = asyncio.create_task(watch())
    await server.serve(sockets=[bound])
    watching.cancel()


def _listen(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise WebAddressError(_sentence(host, port, error)) from error
    return bound


def _sentence(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop the other program or set [web] port to a free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} is not allowed to this user: set [web] port above 1023"
    return f"{host} is no address of this machine: set [web] host to 127.0.0.1, 0.0.0.0 or an own address"


def _plain_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)


def _store_error(_: Request, error: Exception) -> Response:
    log.warning("the database cannot be used", error=str(error))
    return PlainTextResponse(f"{error}\n", 503)


def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request failed", path=request.url.path, exc_info=error)
    return PlainTextResponse("Something went wrong here; the agent's log says what.\n", 500)
