"""What stands before every page: the right host, a login where one is set, and headers that keep a browser strict."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from firstread.agent.config import WebSettings, is_loopback
from firstread.agent.config_dicomweb import DicomwebSettings
from firstread.agent.web.access import Role, role_needed
from firstread.agent.web.bearer import BearerDoor
from firstread.agent.web.sessions import COOKIE, LIFETIME_S, Session, Sessions
from firstread.agent.web.viewer import POLICY as VIEWER_POLICY
from firstread.agent.web.viewer import is_viewer

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware. The session it finds or begins stands in ``request.state.session``."""

    def __init__(self, app: ASGIApp, web: WebSettings, dicomweb: DicomwebSettings, sessions: Sessions) -> None:
        self._app = app
        self._web = web
        self._dicomweb = dicomweb
        self._bearer = BearerDoor(dicomweb)
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers itself what may not pass, hands on the rest with strict headers."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        now = time.time()
        found = self._found(headers, now)
        session = found or self._sessions.begin(now)
        scope.setdefault("state", {})["session"] = session
        refusal = self._refusal(scope, headers, session)
        if is_dicomweb(scope["path"]) and not isinstance(refusal, _Final):
            refusal = await self._refusal_of_peer(scope, headers, refusal)
        if scope["type"] == "websocket":
            await (refusal or self._app)(scope, receive, send)
            return
        page = headers.get("sec-fetch-dest", "document") == "document"
        renewed = found is not None and page and session.expires < now + LIFETIME_S - 60
        fresh = Session(session.id, session.user, now + LIFETIME_S) if renewed or (found is None and page) else None

        async def send_strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                if is_viewer(scope["path"]):
                    out["content-security-policy"] = VIEWER_POLICY
                if "cache-control" not in out:
                    out["cache-control"] = "no-store"
                if fresh is not None and "set-cookie" not in out:
                    out.append("set-cookie", cookie_header(self._sessions.write(fresh), scope))
            await send(message)

        await (refusal or self._app)(scope, receive, send_strictly)

    async def _refusal_of_peer(self, scope: Scope, headers: Headers, of_visitor: Response | None) -> Response | None:
        """None for who may use DICOMweb: on this machine everybody unless the site names who may, elsewhere a visitor
        who is logged in, and a peer with the right token or certificate."""
        if not self._dicomweb.enabled:
            return PlainTextResponse("DICOMweb is not served here ([dicomweb] enabled = false).\n", 404)
        if (
            self._dicomweb.trust_client_certificates
            and self._web.tls_client_ca_file
            and scope["scheme"] in ("https", "wss")
        ):
            return None  # no connection comes about without a certificate of that authority
        authorization = headers.get("authorization", "")
        if authorization and (self._dicomweb.token is not None or self._dicomweb.oidc_issuer is not None):
            why = await run_in_threadpool(self._bearer.refusal, authorization)
            return None if why is None else _unauthorized(why, 'Bearer error="invalid_token"')
        if self._web.needs_login:
            if isinstance(of_visitor, RedirectResponse) or (of_visitor is not None and of_visitor.status_code == 401):
                return _unauthorized("a bearer token, or a login, is needed", "Bearer")
            return of_visitor
        return _unauthorized("a bearer token is needed", "Bearer") if self._dicomweb.needs_token else None

    def _found(self, headers: Headers, now: float) -> Session | None:
        cookie: SimpleCookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except Exception:
            return None
        return self._sessions.read(cookie[COOKIE].value, now) if COOKIE in cookie else None

    def _refusal(self, scope: Scope, headers: Headers, session: Session) -> Response | None:
        path: str = scope["path"]
        if not self._web.needs_login and not is_loopback(_host_of(headers.get("host", ""))):
            # Without a login only the address keeps strangers out, and a name that is made to point here must not.
            return _Final(
                "This page answers to 127.0.0.1 and localhost alone. For other names, set a login in [web].\n",
                421,
            )
        # A browser opens a WebSocket to any site and sends its cookies along: it is no look but an act.
        method = scope.get("method", "GET")
        if (method not in ("GET", "HEAD") or scope["type"] == "websocket") and not _same_origin(headers):
            return _Final("This form came from another site: open the page itself.\n", 403)
        needed = role_needed(method, path)
        if not self._web.needs_login or needed is Role.ANYONE:
            return None
        if session.user and self._web.knows(session.user):
            role = Role.ADMIN if self._web.is_admin(session.user) else Role.READER
            if role >= needed:
                return None
            return PlainTextResponse("Your login may look, not change: ask an administrator.\n", 403)
        document = headers.get("sec-fetch-dest", "document") == "document" and "sec-websocket-key" not in headers
        if method == "GET" and document and not path.startswith("/dicom-web/"):
            asked = Request(scope).url
            back = f"{asked.path}?{asked.query}" if is_viewer(path) and asked.query else asked.path
            return RedirectResponse(f"/login?next={quote(back)}", 303)
        return PlainTextResponse("Log in first.\n", 401)


class _Final(PlainTextResponse):
    """A refusal that no token changes."""


def is_dicomweb(path: str) -> bool:
    """True for addresses of the DICOMweb services."""
    return path == "/dicom-web" or path.startswith("/dicom-web/")


def _unauthorized(why: str, challenge: str) -> Response:
    return PlainTextResponse(f"{why}\n", 401, headers={"www-authenticate": challenge})


def cookie_header(value: str, scope: Scope) -> str:
    """Set-Cookie: not for scripts, not for other sites, and over TLS alone where the page came that way."""
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={int(LIFETIME_S)}; HttpOnly; SameSite=Strict{secure}"


def _host_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")
