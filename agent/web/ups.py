"""The worklist as UPS-RS under ``/dicom-web/workitems`` (PS3.18 11): requests to the service, its answers to HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from firstread.agent.web.desk import Desk, address_of, session_of
from firstread.agent.web.ups_events import NotificationConnections
from firstread.agent.work_items import WorkItems
from firstread.integration.dicom.ups import (
    FILTERED_GLOBAL,
    GLOBAL,
    MEANINGS,
    Asker,
    Json,
    State,
    Status,
    UpsRefusal,
    first,
)
from firstread.integration.dicom.ups_rules import is_uid
from firstread.integration.dicomweb.ups import (
    BadRequest,
    chosen_type,
    http_status,
    read_body,
    read_filter,
    read_query,
    with_urls,
    write_body,
)

BASE = "/dicom-web"
LARGEST_BODY = 1 << 20

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
_UID_PARAMETERS = ("AffectedSOPInstanceUID", "workitem")
_TRANSACTION_PARAMETERS = ("transaction-uid", "transactionUID", "TransactionUID", "transaction")


class UpsRoutes:
    """Handlers of the worklist."""

    def __init__(self, desk: Desk, connections: NotificationConnections) -> None:
        self._desk = desk
        self._service = WorkItems(desk.settings, desk.store)
        self._connections = connections

    def routes(self) -> list[BaseRoute]:
        """Every address of the worklist."""
        items = f"{BASE}/workitems"
        subscriber = f"{items}/{{uid}}/subscribers/{{ae}}"
        return [
            Route(items, self._answering(self._search), methods=["GET"]),
            Route(items, self._answering(self._create), methods=["POST"]),
            Route(f"{items}/{{uid}}", self._answering(self._retrieve), methods=["GET"]),
            Route(f"{items}/{{uid}}", self._answering(self._update), methods=["POST"]),
            Route(f"{items}/{{uid}}/state", self._answering(self._change_state), methods=["PUT"]),
            Route(f"{items}/{{uid}}/cancelrequest", self._answering(self._request_cancel), methods=["POST"]),
            Route(subscriber, self._answering(self._subscribe), methods=["POST"]),
            Route(subscriber, self._answering(self._unsubscribe), methods=["DELETE"]),
            Route(f"{subscriber}/suspend", self._answering(self._suspend), methods=["POST"]),
            Route(f"{items}/{{path:path}}", self._answering(_no_such), methods=["GET", "POST", "PUT", "DELETE"]),
            WebSocketRoute(f"{BASE}/ws/subscribers/{{ae}}", self._connections.serve),
        ]

    def _search(self, request: Request, _: bytes) -> Response:
        media = _media(request)
        query = read_query(request.query_params.multi_items())
        found, more = self._service.search(query.keys, limit=query.limit, offset=query.offset)
        user, address = session_of(request).user, address_of(request)
        self._desk.tell(lambda audit, connection: audit.listed(connection, user, address))
        warnings = []
        if query.fuzzy:
            warnings.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
        if more:
            warnings.append("There are more results that can be requested with offset.")
        if not found:
            return _warned(request, Response(status_code=204), *warnings)
        body, written = write_body([self._addressed(request, one) for one in found], media, several=True)
        answer = Response(body, 206 if more else 200, media_type=written)
        return _warned(request, answer, *warnings)

    def _create(self, request: Request, body: bytes) -> Response:
        uid = _parameter(request, _UID_PARAMETERS)
        if uid and not is_uid(uid):
            raise BadRequest("the UID of a work item has digits and dots, at most 64 characters")
        attributes = read_body(request.headers.get("content-type", ""), body)
        uid, status = self._service.create(uid, attributes, _asker(request))
        address = f"{_base(request)}/workitems/{uid}"
        answer = Response(status_code=201, headers={"location": address, "content-location": address})
        return _warned(request, answer, *_meaning(status))

    def _retrieve(self, request: Request, _: bytes) -> Response:
        media = _media(request)
        attributes = self._addressed(request, self._service.retrieve(_uid(request)))
        user, address = session_of(request).user, address_of(request)
        self._desk.tell(lambda audit, connection: audit.listed(connection, user, address))
        body, written = write_body([attributes], media, several=False)
        return Response(body, media_type=written, headers={"content-location": str(request.url)})

    def _update(self, request: Request, body: bytes) -> Response:
        transaction_uid = _parameter(request, _TRANSACTION_PARAMETERS)
        attributes = read_body(request.headers.get("content-type", ""), body)
        status = self._service.update(_uid(request), attributes, transaction_uid, _asker(request))
        return _warned(request, Response(status_code=200), *_meaning(status))

    def _change_state(self, request: Request, body: bytes) -> Response:
        attributes = read_body(request.headers.get("content-type", ""), body)
        state, transaction_uid = str(first(attributes, "00741000", "")), str(first(attributes, "00081195", ""))
        if state == "CANCELLED":  # as PS3.18 11.7.1.4 writes it
            state = State.CANCELED
        status = self._service.change_state(_uid(request), state, transaction_uid, _asker(request))
        return _warned(request, Response(status_code=200), *_meaning(status))

    def _request_cancel(self, request: Request, body: bytes) -> Response:
        information = read_body(request.headers.get("content-type", ""), body) if body.strip() else {}
        status = self._service.request_cancel(_uid(request), information, _asker(request))
        return _warned(request, Response(status_code=202), *_meaning(status))

    def _subscribe(self, request: Request, _: bytes) -> Response:
        resource, ae_title = _uid(request), _ae_title(request)
        lock = request.query_params.get("deletionlock", "false").lower()
        if lock not in ("true", "false"):
            raise BadRequest("deletionlock is true or false")
        keys: Json | None = None
        if resource == FILTERED_GLOBAL:
            text = request.query_params.get("filter", "")
            if not text:
                raise BadRequest("a filtered subscription needs filter=attribute=value,...")
            keys = read_filter(text)
        self._service.subscribe(resource, ae_title, _asker(request), lock=lock == "true", keys=keys)
        scheme = "wss" if request.url.scheme == "https" else "ws"
        channel = f"{scheme}://{request.url.netloc}{BASE}/ws/subscribers/{ae_title.replace(' ', '%20')}"
        return Response(status_code=201, headers={"content-location": channel})

    def _unsubscribe(self, request: Request, _: bytes) -> Response:
        if not self._service.unsubscribe(_uid(request), _ae_title(request)):
            raise BadRequest("there is no such subscription", 404)
        return Response(status_code=200)

    def _suspend(self, request: Request, _: bytes) -> Response:
        if not self._service.suspend(_uid(request), _ae_title(request)):
            raise BadRequest("there is no global subscription of this AE title", 404)
        return Response(status_code=200)

    def _addressed(self, request: Request, attributes: Json) -> Json:
        return with_urls(attributes, _base(request), self._desk.settings.dicom.ae_title)

    def _answering(self, handler: Callable[[Request, bytes], Response]) -> Callable[[Request], Any]:
        """Reads the body within bounds, asks in a thread, and says of a refusal why."""

        async def answer(request: Request) -> Response:
            try:
                body = await _body(request)
                return await asyncio.to_thread(handler, request, body)
            except BadRequest as error:
                return PlainTextResponse(f"{error}\n", error.code)
            except UpsRefusal as refusal:
                update = request.method == "POST" and request.url.path.count("/") == BASE.count("/") + 2
                code = http_status(refusal.status, update=update)
                said = PlainTextResponse(f"{refusal.status:04X}: {refusal.why}\n", code)
                return _warned(request, said, _said_of(refusal))

        return answer


def _no_such(_request: Request, _body: bytes) -> Response:
    raise BadRequest("there is nothing at this address: a work item's UID has digits and dots and no slash", 404)


def _said_of(refusal: UpsRefusal) -> str:
    """A refusal in the words of PS3.18 11.6.3.2 and 11.7.3.2."""
    if refusal.status is Status.WRONG_TRANSACTION_UID:
        return f"The Transaction UID is {'missing' if 'missing' in refusal.why else 'incorrect'}."
    if refusal.status is Status.NOT_IN_PROGRESS:
        return "The target URI did not reference a claimed Workitem."
    if refusal.status in (Status.NO_LONGER_UPDATED, Status.ALREADY_IN_PROGRESS, Status.IS_COMPLETED,
                          Status.FINAL_STATE_REQUIREMENTS, Status.SCHEDULED_BY_CREATION_ALONE):  # fmt: skip
        return "The submitted request is inconsistent with the current state of the Workitem."
    return f"{refusal.why[:1].upper()}{refusal.why[1:]}."


def _meaning(status: Status) -> tuple[str, ...]:
    return (MEANINGS[status],) if status in MEANINGS else ()


def _warned(request: Request, response: Response, *texts: str) -> Response:
    for text in texts:
        plain = re.sub(r"[^ -~]", "?", text)
        response.headers.append("warning", f"299 {_base(request)}: {plain}")
    return response


async def _body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequest("a body is taken as it is, without Content-Encoding", 415)
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_BODY:
            raise BadRequest(f"a body has at most {LARGEST_BODY} bytes", 413)
    return bytes(content)


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{BASE}"


def _media(request: Request) -> str:
    return chosen_type(request.query_params.get("accept") or request.headers.get("accept", ""))


def _uid(request: Request) -> str:
    uid: str = request.path_params["uid"]
    if uid in (GLOBAL, FILTERED_GLOBAL) and "ae" not in request.path_params:
        raise BadRequest("the worklist itself is no work item", 404)
    if not is_uid(uid):
        raise BadRequest("the UID of a work item has digits and dots, at most 64 characters")
    return uid


def _ae_title(request: Request) -> str:
    title: str = request.path_params["ae"].strip()
    if not _AE_TITLE.fullmatch(title):
        raise BadRequest("an AE title has 1 to 16 ASCII characters and no backslash")
    return title


def _parameter(request: Request, names: tuple[str, ...]) -> str:
    """A UID in the query: by its name, or alone, as PS3.18 writes it (``?{transaction-uid}``)."""
    for name in names:
        if request.query_params.get(name):
            return request.query_params[name]
    alone = request.url.query
    return "" if "=" in alone else alone


def _asker(request: Request) -> Asker:
    return Asker(f"ups-rs {session_of(request).user or address_of(request) or 'page'}"[:128])
