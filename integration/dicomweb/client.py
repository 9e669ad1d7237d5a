"""Asking a DICOMweb service: HTTP within a time in all, let in by a token that is renewed once (PS3.18 8)."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from firstread import __version__
from firstread.integration.dicomweb.tokens import Tokens, TokenUnavailable

_LONGEST_SENTENCE = 300
_USER_AGENT = f"firstread/{__version__}"


class ServiceFailed(Exception):
    """The service could not be asked, or its answer broke off: an outage. The message says what happened."""


@dataclass(frozen=True)
class WebService:
    """A DICOMweb service as the client knows it.

    ``url``: its base, such as ``https://pacs/dicom-web``. ``answer_timeout_s``: for one request with its answer, from
    the first byte sent to the last one read, however the other side trickles. ``tls``: None for the system's rules.
    """

    name: str
    url: str
    connect_timeout_s: float = 10
    answer_timeout_s: float = 60
    tls: ssl.SSLContext | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Answer:
    """What a service answered to one request, read to its end."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def media_type(self) -> str:
        """Of the body, without parameters, in lower case."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    def sentence(self) -> str:
        """Status and the beginning of what a person would read of the body, for logs and lists."""
        words = ""
        if self.media_type in ("text/plain", "application/json", "application/problem+json"):
            words = " ".join(self.content[:2000].decode("utf-8", "replace").split())
        printable = "".join(letter for letter in words if letter.isprintable())[:_LONGEST_SENTENCE]
        return f"HTTP {self.status}" + (f": {printable}" if printable else "")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks to wait (RFC 9110 10.2.3): a number or a date. None: neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


class DicomwebClient:
    """One request at a time to one service; its connection is kept for the next one.

    Redirects are not followed: a token is for the address that the site named, and a film must not be stored elsewhere.
    """

    def __init__(self, service: WebService) -> None:
        self.service = service
        self._clock = _Clock()
        self._http = httpx.Client(
            transport=_Transport(self._clock, service.tls),
            timeout=httpx.Timeout(service.answer_timeout_s, connect=service.connect_timeout_s),
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        limit_bytes: int,
    ) -> Answer:
        """One request with its whole answer. Raises ServiceFailed where there is none or a longer one."""
        with self.stream(method, path, headers=headers, params=params, content=content) as (answer, chunks):
            body = bytearray()
            for chunk in chunks:
                body += chunk
                if len(body) > limit_bytes:
                    raise ServiceFailed(f"{self.service.name} answered with more than {limit_bytes >> 10} KiB")
        return Answer(answer.status, answer.headers, bytes(body))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Iterator[tuple[Answer, Iterable[bytes]]]:
        """One request; the answer's body comes in pieces (``Answer.content`` is empty). Raises ServiceFailed.

        401 renews the token and asks once more; a second 401 is the answer.
        """
        url = f"{self.service.url.rstrip('/')}/{path}" if path else self.service.url
        tokens = self.service.tokens
        with self._failures():
            for last in (tokens is None, True):
                token = tokens.token(self._token_client) if tokens else None
                sent = {**headers, "Authorization": f"Bearer {token}"} if token else dict(headers)
                self._clock.start(self.service.connect_timeout_s + self.service.answer_timeout_s)
                with self._http.stream(method, url, headers=sent, params=params, content=content) as response:
                    if response.status_code == 401 and tokens and token and not last and tokens.refused(token):
                        continue
                    yield Answer(response.status_code, response.headers, b""), response.iter_bytes()
                    return

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def _token_client(self) -> httpx.Client:
        self._clock.start(self.service.connect_timeout_s + self.service.answer_timeout_s)
        return self._http

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            what = "took no connection" if isinstance(error, httpx.ConnectTimeout) else "did not answer"
            raise ServiceFailed(f"{self.service.name} {what} in time") from error
        except TokenUnavailable as error:
            raise ServiceFailed(f"{self.service.name}: {error}") from error
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise ServiceFailed(f"{self.service.name}: {str(error) or type(error).__name__}") from error


@dataclass
class _Clock:
    """When the request in progress must be over; one for all connections of a client."""

    ends_at: float = field(default=float("inf"))

    def start(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds

    def left(self, timeout: float | None, late: Callable[[], Exception]) -> float:
        remaining = self.ends_at - time.monotonic()
        if remaining <= 0:
            raise late()
        return remaining if timeout is None else min(timeout, remaining)


class _Transport(httpx.HTTPTransport):
    """httpx counts its timeouts anew with every byte; this one counts to the end of the request as well."""

    def __init__(self, clock: _Clock, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._pool.close()
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=1,
            keepalive_expiry=30,
            network_backend=_Backend(clock),
        )


class _Backend(httpcore.SyncBackend):
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._clock)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, clock: _Clock) -> None:
        self._stream = stream
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._clock.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._clock)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
