"""The DICOMweb services of the web role: their addresses, and what all of them do alike (PS3.18 10)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from firstread.agent.config import Settings
from firstread.agent.decoders import Helpers
from firstread.agent.holdings import Holdings
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.site import site_uid
from firstread.agent.web.dicomweb_work import Made, RenderOrder, TranscodeOrder, work
from firstread.agent.web.openapi import document
from firstread.integration.dicom.identity_check import is_uid
from firstread.integration.dicomweb import media, multipart
from firstread.integration.dicomweb.errors import BadRequest, NotAcceptable, RequestError
from firstread.integration.dicomweb.media import MediaType
from firstread.integration.dicomweb.native_xml import to_xml

log = structlog.get_logger()

ROOT = "/dicom-web"
RENDERED_AT_ONCE = 2
RENDER_TIMEOUT_S = 60.0

Handler = Callable[[Request], Response]


class NotHeld(RequestError):
    """404: nothing of that name is held here."""

    status = 404


class Gone(RequestError):
    """410: it was held until just now."""

    status = 410


class Dicomweb:
    """Shared by the services."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.helpers: Helpers[RenderOrder | TranscodeOrder, Made] = Helpers(
            work, count=RENDERED_AT_ONCE, timeout_s=RENDER_TIMEOUT_S
        )

    @cached_property
    def site_uid(self) -> str:
        """Under which our own objects are told. Raises StoreError while there are no tables yet."""
        return site_uid(self.store)

    @cached_property
    def holdings(self) -> Holdings:
        """What is held."""
        return Holdings(self.settings, self.store, self.site_uid)

    def close(self) -> None:
        """Ends the processes that decode."""
        self.helpers.close()


def answered(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler that runs in a thread; what it refuses becomes the status and a body that says why."""

    async def answer(request: Request) -> Response:
        try:
            return await run_in_threadpool(handler, request)
        except RequestError as error:
            return refused(error.status, str(error))
        except FileNotFoundError:
            return refused(Gone.status, "its days were over a moment ago, or its file is missing on the disk")
        except StoreError as error:
            return refused(503, str(error))

    return answer


def refused(status: int, why: str, **headers: str) -> Response:
    """An answer that says why something was not done."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if status == 503:
        named.setdefault("retry-after", "5")
    return Response(json.dumps({"error": why}) + "\n", status, named, "application/json")


def uid_of(request: Request, name: str) -> str:
    """A UID of the address. Raises BadRequest where it is none."""
    uid = str(request.path_params[name])
    if not is_uid(uid):
        raise BadRequest(f"{uid[:70]!r} is no {name} UID")
    return uid


def base_url(request: Request) -> str:
    """The service's own address as the client wrote it."""
    return f"{request.url.scheme}://{request.url.netloc}{ROOT}"


def acceptable(request: Request) -> list[MediaType]:
    """What the client accepts, best first."""
    return media.accepted(request.headers.get("accept"), request.query_params.getlist("accept"))


def data_sets(request: Request, found: Iterable[Mapping[str, Any]], headers: Mapping[str, str]) -> Response:
    """Data sets of the JSON model as application/dicom+json or as multipart/related of XML documents."""
    chosen = media.choose(acceptable(request), (media.JSON, "application/json", media.XML))
    if chosen is None:
        raise NotAcceptable("metadata comes as application/dicom+json or multipart/related of application/dicom+xml")
    if chosen[1] != media.XML:
        return Response(json.dumps(list(found)), 200, dict(headers), chosen[1])
    boundary = multipart.new_boundary()
    parts = (({"Content-Type": media.XML}, (to_xml(one),)) for one in found)
    content = b"".join(multipart.written(boundary, parts))
    return Response(content, 200, dict(headers), f'multipart/related; type="{media.XML}"; boundary={boundary}')


def _described(_: Request) -> Response:
    return Response(json.dumps(document()), 200, media_type="application/json")


def routes(settings: Settings, store: Store) -> tuple[Dicomweb, list[Route]]:
    """Every address of the services, and what they share."""
    from firstread.agent.web.dicomweb_pictures import Pictures
    from firstread.agent.web.dicomweb_retrieve import Retrieve
    from firstread.agent.web.dicomweb_search import Search
    from firstread.agent.web.dicomweb_store import StoreService

    shared = Dicomweb(settings, store)
    search, retrieve, pictures = Search(shared), Retrieve(shared), Pictures(shared)
    storing = StoreService(shared)
    study = f"{ROOT}/studies/{{study}}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frames = f"{instance}/frames/{{frames}}"
    found: list[Route] = [
        Route(f"{ROOT}/studies", storing.store, methods=["POST"]),
        Route(study, storing.store, methods=["POST"]),
    ]
    reads: tuple[tuple[str, Handler], ...] = (
        (f"{ROOT}/studies", search.studies),
        (f"{ROOT}/series", search.series),
        (f"{ROOT}/instances", search.instances),
        (f"{study}/series", search.series),
        (f"{study}/instances", search.instances),
        (f"{series}/instances", search.instances),
        *((place, retrieve.instances) for place in (study, series, instance)),
        *((f"{place}/metadata", retrieve.metadata) for place in (study, series, instance)),
        *((f"{place}/rendered", pictures.rendered) for place in (study, series, instance, frames)),
        *((f"{place}/thumbnail", pictures.thumbnail) for place in (study, series, instance, frames)),
        (frames, retrieve.frames),
        (f"{instance}/bulkdata/{{path:path}}", retrieve.bulk_data),
    )
    found.append(Route("/openapi.json", _described, methods=["GET"]))
    return shared, found + [Route(place, answered(handler), methods=["GET"]) for place, handler in reads]
