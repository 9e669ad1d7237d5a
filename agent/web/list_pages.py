"""The reading list and the selected study: pages, live feed, pictures, and what is done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from firstread.agent import clock
from firstread.agent.config import WebSettings
from firstread.agent.store import reading_list, worklist
from firstread.agent.store.reading_list import StudyInFull
from firstread.agent.web import pictures
from firstread.agent.web.desk import Desk, address_of, session_of
from firstread.agent.web.rows import working_words
from firstread.agent.web.study_view import StudyView, study_view
from firstread.agent.web.viewer import ADDRESS
from firstread.integration.audit.message import StudyObject

log = structlog.get_logger()

ROWS_AT_ONCE = 2000
ENDED_SHOWN = 200


class ListPages:
    """Handlers of the reading list."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Every address of the list."""
        return [
            Route("/", self.list_page),
            Route("/study/{id:int}", self.study_page),
            Route("/study/{id:int}/panel", self.panel),
            Route("/study/{id:int}/remove", self.remove, methods=["POST"]),
            Route("/study/{id:int}/restore", self.restore, methods=["POST"]),
            Route("/rows", self.rows),
            Route("/live", self.live),
            Route("/off", self.off_page),
            Route("/film/{id:int}/preview.png", self.preview),
            Route("/film/{id:int}/thumb.jpg", self.thumbnail),
            Route("/film/{id:int}/heat/{label}.png", self.heat),
        ]

    def list_page(self, request: Request) -> Response:
        """The whole list, in reading order or in order of arrival."""
        user, address = session_of(request).user, address_of(request)
        self._desk.tell(lambda audit, connection: audit.listed(connection, user, address))
        return self._list(request, None)

    def study_page(self, request: Request) -> Response:
        """The list with one study opened below it."""
        full = self._full(request)
        if full is None:
            return self._desk.not_found(request, "No such study")
        self._looked_at(request, full)
        return self._list(request, full)

    def panel(self, request: Request) -> Response:
        """The opened study alone, for the script."""
        full = self._full(request)
        if full is None:
            return Response("no such study", 404)
        self._looked_at(request, full)
        return HTMLResponse(self._desk.pages.render("panel.html", **self._panel_values(request, full)))

    def rows(self, request: Request) -> Response:
        """The rows with the ids asked for, one after the other: what a page missed while it was not live."""
        wanted = {int(word) for word in request.query_params.get("ids", "").split(",")[:ROWS_AT_ONCE] if word.isdigit()}
        snapshot = self._desk.board.current()
        return HTMLResponse(self._desk.pages.rows((row for row in snapshot.rows if row.id in wanted), snapshot.at))

    async def live(self, request: Request) -> Response:
        """Server-sent events: ``list`` with each change, ``pulse`` in between."""
        return StreamingResponse(
            self._desk.feed.events(session_of(request).expires),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    def off_page(self, request: Request) -> Response:
        """What was taken off, to be undone by hand; and orders whose film has not come."""
        with self._desk.store.read() as connection:
            ended = reading_list.ended_entries(connection, ENDED_SHOWN)
        snapshot = self._desk.board.current()
        return self._desk.page(request, "off.html", "off", ended=ended, orders=snapshot.ordered_only, now=snapshot.at)

    async def remove(self, request: Request) -> Response:
        """Takes a study off the list by hand, with a reason."""
        form = await request.form(max_files=0, max_fields=10)
        why = str(form.get("why", "")).strip()[:200]
        if not self._desk.ours(request, form):
            return self._desk.forged(request)
        if not why:
            return self._desk.message(request, "Say why", "A study leaves the list only with a reason.", 400)
        return await asyncio.to_thread(self._remove, request, why)

    async def restore(self, request: Request) -> Response:
        """Puts a study back on the list by hand."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._desk.ours(request, form):
            return self._desk.forged(request)
        return await asyncio.to_thread(self._restore, request)

    def preview(self, request: Request) -> Response:
        """The upright film."""
        return self._picture(lambda: pictures.preview(self._desk.settings.spool, self._place(request)), "image/png")

    def thumbnail(self, request: Request) -> Response:
        """The film, small."""
        return self._picture(lambda: pictures.thumbnail(self._desk.settings.spool, self._place(request)), "image/jpeg")

    def heat(self, request: Request) -> Response:
        """The evidence for one finding, to be laid over the film."""

        def draw() -> bytes:
            with self._desk.store.read() as connection:
                stored = reading_list.evidence_bytes(connection, request.path_params["id"])
            return pictures.heat(stored, request.path_params["label"])

        return self._picture(draw, "image/png")

    def _list(self, request: Request, full: StudyInFull | None) -> Response:
        snapshot = self._desk.board.current()
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
            "rows_html": self._desk.pages.rows(rows, snapshot.at),
        }
        return self._desk.page(request, "list.html", "list", **values)

    def _full(self, request: Request) -> StudyInFull | None:
        with self._desk.store.read() as connection:
            return reading_list.in_full(connection, request.path_params["id"])

    def _looked_at(self, request: Request, full: StudyInFull) -> None:
        who, user, address = full.listed.identity, session_of(request).user, address_of(request)
        study = StudyObject(who.study_instance_uid or "unknown", {}, who.patient_id, who.accession_number)
        self._desk.tell(lambda audit, connection: audit.looked_at(connection, user, address, study))

    def _panel_values(self, request: Request, full: StudyInFull) -> dict[str, Any]:
        asked = request.query_params
        film = asked.get("film", "")
        return {
            "selected": self._study_view(full, int(film) if film.isdigit() else None, asked.get("label")),
            "heat": asked.get("heat") != "off",
            "working": working_words(full.listed),
            "now": clock.now().at,
            "token": self._desk.sessions.form_token(session_of(request)),
            "may_change": self._desk.may_change(request),
            "viewer": viewer_address(viewer_template(self._desk.settings.web), full.listed.identity.study_instance_uid),
        }

    def _study_view(self, full: StudyInFull, film_id: int | None, label: str | None) -> StudyView:
        with self._desk.store.read() as connection:
            return study_view(
                full,
                self._desk.settings.spool,
                lambda key: pictures.read_evidence(reading_list.evidence_bytes(connection, key)),
                film_id=film_id,
                label=label,
            )

    def _remove(self, request: Request, why: str) -> Response:
        with self._desk.store.write() as connection:
            done = worklist.remove_entry(
                connection, request.path_params["id"], why, clock.now(), self._desk.actor(request)
            )
        if not done:
            return self._desk.message(request, "Not on the list", "The study is not on the list any more.", 409)
        return RedirectResponse("/", 303)

    def _restore(self, request: Request) -> Response:
        with self._desk.store.write() as connection:
            done = worklist.restore_entry(connection, request.path_params["id"], clock.now(), self._desk.actor(request))
        if not done:
            return self._desk.message(request, "On the list already", "The study is on the list.", 409)
        return RedirectResponse(f"/study/{request.path_params['id']}", 303)

    def _place(self, request: Request) -> str | None:
        with self._desk.store.read() as connection:
            return reading_list.preview_path(connection, request.path_params["id"])

    def _picture(self, draw: Callable[[], bytes], media_type: str) -> Response:
        try:
            return Response(draw(), media_type=media_type)
        except (pictures.NoPicture, KeyError) as error:
            return Response(f"{error}\n", 404, media_type="text/plain")
        except OSError as error:
            log.warning("a picture cannot be read", error=error.strerror or type(error).__name__)
            return Response("the picture cannot be read\n", 404, media_type="text/plain")


def viewer_template(web: WebSettings) -> str | None:
    """Address of the site's own viewer, else of the one that is served here; None without either."""
    return web.viewer_url or (ADDRESS if web.viewer_folder is not None else None)


def viewer_address(template: str | None, study_instance_uid: str) -> str:
    """Where the site's viewer shows a study; empty without a viewer, or for an order whose study has not come."""
    if template is None or not study_instance_uid:
        return ""
    return template.replace("{study}", quote(study_instance_uid, safe=""))
