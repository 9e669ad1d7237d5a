"""STOW-RS: a request's body on its way from the event loop to the intake, and the answer to it (PS3.18 10.5)."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain

import structlog
from starlette.requests import Request
from starlette.responses import Response

from firstread.agent.admission import Admission
from firstread.agent.config_wire import web_receive_settings
from firstread.agent.intake import Intake
from firstread.agent.stow import StoreRequest
from firstread.agent.web.dicomweb import Dicomweb, acceptable, base_url, refused, uid_of
from firstread.agent.web.inflow import Inflow
from firstread.agent.web.straight import BodyBroken, borrow
from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.errors import NotAcceptable, RequestError, UnsupportedMediaType
from firstread.integration.dicomweb.media import MediaType
from firstread.integration.dicomweb.native_xml import to_xml
from firstread.integration.dicomweb.store_response import Outcome, response_document, status_of

log = structlog.get_logger()

SILENCE_S = 60.0
"""A sender that sends nothing for so long is given up."""

_LOOK_S = 1.0


class StoreService:
    """Handler of the store transaction. Every request has a thread of its own: storing waits for the disk."""

    def __init__(self, shared: Dicomweb) -> None:
        settings = shared.settings
        self._shared = shared
        most = settings.dicomweb.max_stores
        self._receive = web_receive_settings(settings)
        self._spool = settings.spool
        self._places = threading.BoundedSemaphore(most)
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="stow")
        self._admission = Admission(settings, shared.store, lambda _: None)
        self._looked_at = 0.0

    @cached_property
    def _intake(self) -> Intake:
        return Intake(self._shared.settings, self._shared.store, self._shared.site_uid)

    async def store(self, request: Request) -> Response:
        """Stores what the body holds."""
        try:
            study = uid_of(request, "study") if "study" in request.path_params else None
            kind = media.content_type(request.headers.get("content-type"))
            xml = _wants_xml(acceptable(request))
            if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise UnsupportedMediaType("send the body without Content-Encoding: instances compress themselves")
        except RequestError as error:
            return refused(error.status, str(error), connection="close")
        if not self._places.acquire(blocking=False):
            return refused(503, "too many store requests at the same time: send again later", connection="close")
        try:
            if (closed := await asyncio.to_thread(self._closed_because)) is not None:
                return refused(*closed, connection="close")
            return await self._take(request, kind, study, xml)
        finally:
            self._places.release()

    async def _take(self, request: Request, kind: MediaType, study: str | None, xml: bool) -> Response:
        body, source = Inflow(SILENCE_S), request.stream()
        address = request.client.host if request.client else ""
        taking = StoreRequest(self._intake, self._receive, address, study)
        rest = borrow(request) if await body.feed_one(source) else None
        if rest is not None:
            body.end()

        def take() -> list[Outcome]:
            try:
                return taking.take(kind, chain(body.pieces(), rest.pieces(SILENCE_S) if rest is not None else ()))
            finally:
                body.leave()

        working = asyncio.get_running_loop().run_in_executor(self._threads, take)
        try:
            if rest is None:
                await body.feed(source)
            outcomes = await working
        except RequestError as error:
            return refused(error.status, str(error), connection="close")
        except BodyBroken as error:
            log.warning("a store request broke off", address=address, why=str(error), stored=len(taking.outcomes))
            return refused(408, f"the body broke off: {error}", connection="close")
        except asyncio.CancelledError:
            if rest is not None:
                rest.cut()
            raise
        finally:
            if rest is not None:
                rest.give_back()
        document = response_document(outcomes, base_url(request))
        status = status_of(outcomes)
        headers = {"retry-after": "5"} if status in (503, 507) else {}
        if xml:
            return Response(to_xml(document), status, headers, media.XML)
        return Response(json.dumps(document), status, headers, media.JSON)

    def _closed_because(self) -> tuple[int, str] | None:
        """Status and reason while nothing is taken, None otherwise: the same reasons as for DICOM associations."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            self._admission.look()
        reason = self._admission.closed_because
        if reason is None:
            return None
        full = shutil.disk_usage(self._spool).free < self._receive.disk_reserve_bytes
        return (507 if full else 503), reason


def _wants_xml(types: list[MediaType]) -> bool:
    chosen = media.choose(types, (media.JSON, "application/json", media.XML))
    if chosen is None:
        raise NotAcceptable("the answer comes as application/dicom+json or application/dicom+xml")
    return chosen[1] == media.XML
