"""The system view, and what an administrator's tools ask: health, readiness, metrics."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from firstread.agent import clock
from firstread.agent.config_wire import certificates
from firstread.agent.store import deliveries, watch
from firstread.agent.store import overview as stand
from firstread.agent.store.engine import StoreError
from firstread.agent.tls import TlsFilesError, days_left
from firstread.agent.web import health
from firstread.agent.web.desk import Desk, session_of
from firstread.agent.web.links import links
from firstread.agent.web.metrics import metrics_text
from firstread.agent.web.system_view import system_view

LATEST_REFUSALS = 20


class SystemPages:
    """Handlers of the system view and its endpoints."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Every address of the system view."""
        return [
            Route("/system", self.system_page),
            Route("/system/parts", self.system_parts),
            Route("/delivery/{id:int}/retry", self.retry, methods=["POST"]),
            Route("/destination/{name}/release", self.release, methods=["POST"]),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/metrics", self.metrics),
        ]

    def system_page(self, request: Request) -> Response:
        """Links, queues, refusals, the last 24 hours."""
        return self._desk.page(request, "system.html", "system", **self._system_values(request))

    def system_parts(self, request: Request) -> Response:
        """The same without its frame, for the script."""
        return HTMLResponse(self._desk.pages.render("system_parts.html", **self._system_values(request)))

    async def retry(self, request: Request) -> Response:
        """Sends a delivery again that was rejected or cancelled, as ``firstread deliveries retry`` does."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._desk.ours(request, form):
            return self._desk.forged(request)
        return await asyncio.to_thread(self._retry, request, str(form.get("study", "")))

    async def release(self, request: Request) -> Response:
        """Sends what a destination on hold kept back, as ``firstread deliveries release`` does."""
        form = await request.form(max_files=0, max_fields=10)
        if not self._desk.ours(request, form):
            return self._desk.forged(request)
        return await asyncio.to_thread(self._release, request)

    def health(self, request: Request) -> Response:
        """Every role alive? 200 or 503."""
        in_full = not self._desk.settings.web.needs_login or bool(session_of(request).user)
        try:
            status, body = health.health(self._desk.overview(counted=False), in_full=in_full)
        except StoreError as error:
            status, body = 503, {"status": "bad", "problems": [{"what": "database", "words": str(error)}]}
        return JSONResponse(body, status)

    def ready(self, request: Request) -> Response:
        """Are associations accepted? 200 or 503."""
        try:
            with self._desk.store.read() as connection:
                lives = stand.role_lives(connection, clock.now())
        except StoreError as error:
            return JSONResponse({"ready": False, "words": str(error)}, 503)
        status, body = health.ready(next((one for one in lives if one.name == "receive"), None))
        return JSONResponse(body, status)

    def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        now = clock.now().at
        since = now - timedelta(hours=1)
        facts = self._desk.overview()
        with self._desk.store.read() as connection:
            content = metrics_text(
                facts,
                stand.deliveries_by_state(connection, self._desk.totals.get(connection)),
                stand.refusals_by_status(connection, since),
                stand.stage_seconds(connection, since, [one.name for one in facts.destinations]),
                self._certificates(),
                now,
            )
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _certificates(self) -> dict[str, float]:
        left = {}
        for name, path in certificates(self._desk.settings).items():
            with contextlib.suppress(TlsFilesError):  # an alarm says so
                left[name] = days_left(path)
        return left

    def _retry(self, request: Request, study: str) -> Response:
        key, now, actor = request.path_params["id"], clock.now(), self._desk.actor(request)
        with self._desk.store.write() as connection:
            done = deliveries.retry_now(connection, key, actor, now)
            if done:
                watch.clear_alarm(connection, f"delivery/{key}", actor=actor, now=now)
        if not done:
            return self._desk.message(
                request, "Left as it is", "It is being sent, or was delivered or superseded.", 409
            )
        return RedirectResponse(f"/study/{study}" if study.isdigit() else "/system", 303)

    def _release(self, request: Request) -> Response:
        destination = self._desk.settings.destination(request.path_params["name"])
        if destination is None:
            return self._desk.message(request, "No such destination", "The settings do not name it.", 404)
        with self._desk.store.write() as connection:
            deliveries.release(
                connection,
                destination.name,
                on_hold=destination.hold,
                send=True,
                actor=self._desk.actor(request),
                now=clock.now(),
            )
        return RedirectResponse("/system", 303)

    def _system_values(self, request: Request) -> dict[str, Any]:
        now = clock.now().at
        token = self._desk.sessions.form_token(session_of(request))
        facts = self._desk.overview()
        with self._desk.store.read() as connection:
            refused = stand.refusals(connection, LATEST_REFUSALS)
            hours = stand.last_hours(connection, 24, now)
        view = system_view(facts, links(facts, self._desk.settings, now), refused, hours, now)
        return {"view": view, "now": now, "token": token, "may_change": self._desk.may_change(request)}
