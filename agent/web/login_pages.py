"""Logging in and out."""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from firstread.agent.web.desk import Desk, address_of, session_of
from firstread.agent.web.guard import cookie_header
from firstread.agent.web.sessions import LoginBrake

log = structlog.get_logger()


class LoginPages:
    """Handlers of the login. Wrong tries of an address slow that address down."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._brake = LoginBrake()

    def routes(self) -> list[Route]:
        """Every address of the login."""
        return [
            Route("/login", self.login_page),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]

    def login_page(self, request: Request) -> Response:
        """The form."""
        return self._login_form(request, "")

    async def login(self, request: Request) -> Response:
        """Checks name and password; slow on purpose for those who guess."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._desk.ours(request, form):
            return self._login_form(request, "The form was too old. Try again.", 403)
        address = address_of(request)
        wait_s = self._brake.wait_s(address, time.monotonic())
        if wait_s > 0:
            response = self._login_form(request, f"Too many wrong tries. Wait {wait_s / 60:.0f} min.", 429)
            response.headers["retry-after"] = str(int(wait_s) + 1)
            return response
        username, password = str(form.get("username", "")), str(form.get("password", ""))[:1024]
        accepted = await asyncio.to_thread(self._desk.settings.web.accepts, username, password)
        await asyncio.to_thread(
            self._desk.tell,
            lambda audit, connection: audit.login(connection, username, address, succeeded=accepted),
        )
        if not accepted:
            self._brake.failed(address, time.monotonic())
            log.warning("login failed", address=address)
            return self._login_form(request, "Name or password is wrong.", 401)
        self._brake.succeeded(address)
        log.info("login", address=address)
        to_page = RedirectResponse(_own_path(str(form.get("next", "/"))), 303)
        session = self._desk.sessions.begin(time.time(), username)
        to_page.headers["set-cookie"] = cookie_header(self._desk.sessions.write(session), request.scope)
        return to_page

    async def logout(self, request: Request) -> Response:
        """Ends the session of this browser."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._desk.ours(request, form):
            return self._desk.forged(request)
        user, address = session_of(request).user, address_of(request)
        await asyncio.to_thread(
            self._desk.tell, lambda audit, connection: audit.login(connection, user, address, succeeded=True, out=True)
        )
        to_login = RedirectResponse("/login", 303)
        to_login.headers["set-cookie"] = cookie_header(
            self._desk.sessions.write(self._desk.sessions.begin(time.time())), request.scope
        )
        return to_login

    def _login_form(self, request: Request, problem: str, status: int = 200) -> HTMLResponse:
        token = self._desk.sessions.form_token(session_of(request))
        target = _own_path(request.query_params.get("next", "/"))
        return HTMLResponse(self._desk.pages.render("login.html", token=token, next=target, problem=problem), status)


def _own_path(path: str) -> str:
    """A path on this page; anything that a browser could take for another site becomes the list."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path else "/"
