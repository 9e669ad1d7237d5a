"""What is answered at which address. Everything that asks the database runs in a thread, never in the event loop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from firstread.agent import clock
from firstread.agent.config import Settings
from firstread.agent.store import overview as stand
from firstread.agent.store import reading_list, worklist
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.overview import Overview
from firstread.agent.store.reading_list import StudyInFull
from firstread.agent.web import health, pictures
from firstread.agent.web.board import Board, Snapshot, longest_waits
from firstread.agent.web.guard import cookie_header
from firstread.agent.web.links import links
from firstread.agent.web.live import Feed
from firstread.agent.web.metrics import metrics_text
from firstread.agent.web.pages import STATIC, Pages
from firstread.agent.web.rows import working_words
from firstread.agent.web.sessions import LoginBrake, Session, Sessions
from firstread.agent.web.study_view import StudyView, study_view
from firstread.agent.web.system_view import system_view
from firstread.agent.worklist.ordering import duration

log = structlog.get_logger()

ROWS_AT_ONCE = 2000
LATEST_REFUSALS = 20
ENDED_SHOWN = 200
PICTURES = {"cache-control": "private, no-store"}


class KeptFiles(StaticFiles):
    """Static files that browsers keep: their address changes with their content."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, to be kept."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


@dataclass
class Web:
    """The handlers, with what they work on."""

    settings: Settings
    store: Store
    sessions: Sessions
    board: Board
    pages: Pages
    feed: Feed
    brake: LoginBrake

    def routes(self) -> list[Route | Mount]:
        """Every address."""
        return [
            Route("/", self.list_page),
            Route("/study/{id:int}", self.study_page),
            Route("/study/{id:int}/panel", self.panel),
            Route("/study/{id:int}/remove", self.remove, methods=["POST"]),
            Route("/study/{id:int}/restore", self.restore, methods=["POST"]),
            Route("/rows", self.rows),
            Route("/live", self.live),
            Route("/off", self.off_page),
            Route("/system", self.system_page),
            Route("/system/parts", self.system_parts),
            Route("/film/{id:int}/preview.png", self.preview),
            Route("/film/{id:int}/thumb.jpg", self.thumbnail),
            Route("/film/{id:int}/heat/{label}.png", self.heat),
            Route("/login", self.login_page),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
            Mount("/static", KeptFiles(directory=STATIC)),
        ]

    # The reading list

    def list_page(self, request: Request) -> Response:
        """The whole list, in reading order or in order of arrival."""
        return self._list(request, None)

    def study_page(self, request: Request) -> Response:
        """The list with one study opened below it."""
        full = self._full(request)
        return self._not_found(request, "No such study") if full is None else self._list(request, full)

    def panel(self, request: Request) -> Response:
        """The opened study alone, for the script."""
        full = self._full(request)
        if full is None:
            return Response("no such study", 404)
        return HTMLResponse(self.pages.render("panel.html", **self._panel_values(request, full)))

    def rows(self, request: Request) -> Response:
        """The rows with the ids asked for, one after the other: what a page missed while it was not live."""
        wanted = {int(word) for word in request.query_params.get("ids", "").split(",")[:ROWS_AT_ONCE] if word.isdigit()}
        snapshot = self.board.current()
        return HTMLResponse(self.pages.rows((row for row in snapshot.rows if row.id in wanted), snapshot.at))

    async def live(self, request: Request) -> Response:
        """Server-sent events: ``list`` with each change, ``pulse`` in between."""
        return StreamingResponse(
            self.feed.events(_session(request).expires),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    def off_page(self, request: Request) -> Response:
        """What was taken off, to be undone by hand; and orders whose film has not come."""
        with self.store.read() as connection:
            ended = reading_list.ended_entries(connection, ENDED_SHOWN)
        snapshot = self.board.current()
        return self._page(request, "off.html", "off", ended=ended, orders=snapshot.ordered_only, now=snapshot.at)

    async def remove(self, request: Request) -> Response:
        """Takes a study off the list by hand, with a reason."""
        form = await request.form(max_files=0, max_fields=10)
        why = str(form.get("why", "")).strip()[:200]
        if not self._ours(request, form):
            return self._forged(request)
        if not why:
            return self._message(request, "Say why", "A study leaves the list only with a reason.", 400)
        return await asyncio.to_thread(self._remove, request, why)

    async def restore(self, request: Request) -> Response:
        """Puts a study back on the list by hand."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._ours(request, form):
            return self._forged(request)
        return await asyncio.to_thread(self._restore, request)

    # The system

    def system_page(self, request: Request) -> Response:
        """Links, queues, refusals, the last 24 hours."""
        return self._page(request, "system.html", "system", **self._system_values())

    def system_parts(self, request: Request) -> Response:
        """The same without its frame, for the script."""
        return HTMLResponse(self.pages.render("system_parts.html", **self._system_values()))

    def health(self, request: Request) -> Response:
        """Every role alive? 200 or 503."""
        in_full = not self.settings.web.needs_login or bool(_session(request).user)
        try:
            status, body = health.health(self._overview(), in_full=in_full)
        except StoreError as error:
            status, body = 503, {"status": "bad", "problems": [{"what": "database", "words": str(error)}]}
        return JSONResponse(body, status)

    def ready(self, request: Request) -> Response:
        """Are associations accepted? 200 or 503."""
        try:
            with self.store.read() as connection:
                lives = stand.role_lives(connection, clock.now())
        except StoreError as error:
            return JSONResponse({"ready": False, "words": str(error)}, 503)
        status, body = health.ready(next((one for one in lives if one.name == "receive"), None))
        return JSONResponse(body, status)

    def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        now = clock.now().at
        since = now - timedelta(hours=1)
        facts = self._overview()
        with self.store.read() as connection:
            content = metrics_text(
                facts,
                stand.deliveries_by_state(connection),
                stand.refusals_by_status(connection, since),
                stand.stage_seconds(connection, since),
                now,
            )
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    # Pictures

    def preview(self, request: Request) -> Response:
        """The upright film."""
        return self._picture(lambda: pictures.preview(self.settings.spool, self._place(request)), "image/png")

    def thumbnail(self, request: Request) -> Response:
        """The film, small."""
        return self._picture(lambda: pictures.thumbnail(self.settings.spool, self._place(request)), "image/jpeg")

    def heat(self, request: Request) -> Response:
        """The evidence for one finding, to be laid over the film."""

        def draw() -> bytes:
            with self.store.read() as connection:
                stored = reading_list.evidence_bytes(connection, request.path_params["id"])
            return pictures.heat(stored, request.path_params["label"])

        return self._picture(draw, "image/png")

    # Login

    def login_page(self, request: Request) -> Response:
        """The form."""
        return self._login_form(request, "")

    async def login(self, request: Request) -> Response:
        """Checks name and password; slow on purpose for those who guess."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._ours(request, form):
            return self._login_form(request, "The form was too old. Try again.", 403)
        address = request.client.host if request.client else ""
        wait_s = self.brake.wait_s(address, time.monotonic())
        if wait_s > 0:
            response = self._login_form(request, f"Too many wrong tries. Wait {wait_s / 60:.0f} min.", 429)
            response.headers["retry-after"] = str(int(wait_s) + 1)
            return response
        username, password = str(form.get("username", "")), str(form.get("password", ""))[:1024]
        if not await asyncio.to_thread(self.settings.web.accepts, username, password):
            self.brake.failed(address, time.monotonic())
            log.warning("login failed", address=address)
            return self._login_form(request, "Name or password is wrong.", 401)
        self.brake.succeeded(address)
        log.info("login", address=address)
        to_page = RedirectResponse(_own_path(str(form.get("next", "/"))), 303)
        session = self.sessions.begin(time.time(), username)
        to_page.headers["set-cookie"] = cookie_header(self.sessions.write(session), request.scope)
        return to_page

    async def logout(self, request: Request) -> Response:
        """Ends the session of this browser."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._ours(request, form):
            return self._forged(request)
        to_login = RedirectResponse("/login", 303)
        to_login.headers["set-cookie"] = cookie_header(
            self.sessions.write(self.sessions.begin(time.time())), request.scope
        )
        return to_login

    # Parts

    def _list(self, request: Request, full: StudyInFull | None) -> Response:
        snapshot = self.board.current()
        arrival = request.query_params.get("order") == "arrival"
        rows = snapshot.rows
        if arrival:
            by_id = {row.id: row for row in rows}
            rows = tuple(by_id[key] for key in snapshot.arrival)
        values: dict[str, Any] = {"selected": None} if full is None else self._panel_values(request, full)
        values |= {
            "snapshot": snapshot,
            "arrival": arrival,
            "request_path": request.url.path,
            "rows_html": self.pages.rows(rows, snapshot.at),
        }
        return self._page(request, "list.html", "list", **values)

    def _full(self, request: Request) -> StudyInFull | None:
        with self.store.read() as connection:
            return reading_list.in_full(connection, request.path_params["id"])

    def _panel_values(self, request: Request, full: StudyInFull) -> dict[str, Any]:
        asked = request.query_params
        film = asked.get("film", "")
        return {
            "selected": self._study_view(full, int(film) if film.isdigit() else None, asked.get("label")),
            "heat": asked.get("heat") != "off",
            "working": working_words(full.listed),
            "now": clock.now().at,
            "token": self.sessions.form_token(_session(request)),
        }

    def _study_view(self, full: StudyInFull, film_id: int | None, label: str | None) -> StudyView:
        with self.store.read() as connection:
            return study_view(
                full,
                self.settings.spool,
                lambda key: pictures.read_evidence(reading_list.evidence_bytes(connection, key)),
                film_id=film_id,
                label=label,
            )

    def _remove(self, request: Request, why: str) -> Response:
        with self.store.write() as connection:
            done = worklist.remove_entry(connection, request.path_params["id"], why, clock.now(), self._actor(request))
        if not done:
            return self._message(request, "Not on the list", "The study is not on the list any more.", 409)
        return RedirectResponse("/", 303)

    def _restore(self, request: Request) -> Response:
        with self.store.write() as connection:
            done = worklist.restore_entry(connection, request.path_params["id"], clock.now(), self._actor(request))
        if not done:
            return self._message(request, "On the list already", "The study is on the list.", 409)
        return RedirectResponse(f"/study/{request.path_params['id']}", 303)

    def _overview(self) -> Overview:
        destinations = self.settings.all_destinations
        with self.store.read() as connection:
            return stand.overview(
                connection,
                [one.name for one in destinations],
                [one.name for one in destinations if one.hold],
                clock.now(),
            )

    def _system_values(self) -> dict[str, Any]:
        now = clock.now().at
        facts = self._overview()
        with self.store.read() as connection:
            refused = stand.refusals(connection, LATEST_REFUSALS)
            hours = stand.last_hours(connection, 24, now)
        return {"view": system_view(facts, links(facts, self.settings, now), refused, hours, now), "now": now}

    def _place(self, request: Request) -> str | None:
        with self.store.read() as connection:
            return reading_list.preview_path(connection, request.path_params["id"])

    def _picture(self, draw: Any, media_type: str) -> Response:
        try:
            return Response(draw(), media_type=media_type, headers=PICTURES)
        except (pictures.NoPicture, KeyError) as error:
            return Response(f"{error}\n", 404, media_type="text/plain")
        except OSError as error:
            log.warning("a picture cannot be read", error=error.strerror or type(error).__name__)
            return Response("the picture cannot be read\n", 404, media_type="text/plain")

    def _page(self, request: Request, template: str, here: str, status: int = 200, **values: Any) -> HTMLResponse:
        session = _session(request)
        values = {"user": session.user, "token": self.sessions.form_token(session), "here": here} | values
        return HTMLResponse(self.pages.render(template, **values), status)

    def _message(self, request: Request, title: str, text: str, status: int) -> HTMLResponse:
        return self._page(request, "message.html", "", status, title=title, text=text)

    def _not_found(self, request: Request, title: str) -> HTMLResponse:
        return self._message(request, title, "It may have been deleted when its days were over.", 404)

    def _forged(self, request: Request) -> HTMLResponse:
        return self._message(
            request, "Not done", "The form was too old or not ours. Open the page again and repeat.", 403
        )

    def _login_form(self, request: Request, problem: str, status: int = 200) -> HTMLResponse:
        token = self.sessions.form_token(_session(request))
        target = _own_path(request.query_params.get("next", "/"))
        return HTMLResponse(self.pages.render("login.html", token=token, next=target, problem=problem), status)

    def _ours(self, request: Request, form: Any) -> bool:
        return self.sessions.form_is_ours(_session(request), str(form.get("token", "")))

    def _actor(self, request: Request) -> str:
        return _session(request).user or "page"


def describe(pages: Pages) -> Any:
    """How the live feed writes a snapshot."""

    def write(snapshot: Snapshot, before: Snapshot | None) -> str:
        return pages.live_message(snapshot, before)

    return write


def wait_limits(settings: Settings) -> str:
    """``STAT 30 min, URGENT 2 h, ROUTINE 8 h``"""
    limits = longest_waits(settings)
    return ", ".join(f"{priority.name} {duration(limits[priority])}" for priority in sorted(limits, reverse=True))


def _session(request: Request) -> Session:
    session: Session = request.state.session
    return session


def _own_path(path: str) -> str:
    """A path on this page; anything that a browser could take for another site becomes the list."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path else "/"
