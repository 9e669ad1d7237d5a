"""Bearer tokens: one that the site gave, read anew when its file changes, or one by OAuth2 client credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx

_EARLY_S = 60.0
"""A token this near to its end may be over when the request arrives."""
_LARGEST_FILE = 64 * 1024


class TokenUnavailable(Exception):
    """There is no token to show; the message says why, and holds none."""


class Tokens(Protocol):
    """Where bearer tokens come from (RFC 6750)."""

    def token(self, http: Callable[[], httpx.Client]) -> str:
        """The token in force. ``http``: the client to ask with, where one must be had. Raises TokenUnavailable."""
        ...

    def refused(self, token: str) -> bool:
        """The service answered 401 to ``token``: True when another one may be had."""
        ...


@dataclass(frozen=True)
class GivenToken:
    """A token that stands in the settings, or in a file that is read for each request: it may be renewed there."""

    secret: str | Path

    def token(self, http: Callable[[], httpx.Client]) -> str:
        """The file's content, or the text itself."""
        return secret_of(self.secret)

    def refused(self, token: str) -> bool:
        """True when the file holds another one by now."""
        return secret_of(self.secret) != token


@dataclass
class ClientCredentials:
    """OAuth2 client credentials (RFC 6749 4.4): the client shows its secret (2.3.1) and gets a token for a while."""

    token_url: str
    client_id: str
    secret: str | Path
    scope: str = ""
    _token: str = field(default="", repr=False)
    _ends_at: float = 0.0

    def token(self, http: Callable[[], httpx.Client]) -> str:
        """The one in force, renewed before it runs out."""
        if not self._token or time.monotonic() >= self._ends_at:
            self._token, lasts_s = self._ask(http())
            self._ends_at = time.monotonic() + max(lasts_s - _EARLY_S, lasts_s / 2)
        return self._token

    def refused(self, token: str) -> bool:
        """Forgets it: the next request asks for a new one."""
        self._token = ""
        return True

    def _ask(self, http: httpx.Client) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {})
        try:
            answer = http.post(self.token_url, data=form, auth=(self.client_id, secret_of(self.secret)))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TokenUnavailable(f"no token from {self.token_url}: {str(error) or type(error).__name__}") from error
        try:
            said = answer.json()
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}
        token, kind = said.get("access_token"), said.get("token_type", "")
        if answer.status_code != 200 or not _sound(token) or str(kind).lower() != "bearer":
            why = str(said.get("error", ""))[:60]
            raise TokenUnavailable(f"no token from {self.token_url}: HTTP {answer.status_code} {why}".rstrip())
        lasts = said.get("expires_in")
        # RFC 6749 5.1: without it the provider says nothing; a minute is short enough to be harmless
        sound = isinstance(lasts, int | float | str) and str(lasts).isascii() and str(lasts).isdigit()
        return str(token), float(str(lasts)[:9]) if sound else 60.0


def secret_of(secret: str | Path) -> str:
    """The text, or what the file holds now. Raises TokenUnavailable."""
    if isinstance(secret, str):
        return secret
    try:
        with secret.open("rb") as file:
            text = file.read(_LARGEST_FILE).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not ASCII text"
        raise TokenUnavailable(f"{secret} cannot be read: {why}") from error
    if not text or "\n" in text:
        raise TokenUnavailable(f"{secret} holds no token: one line is expected")
    return text


def _sound(token: object) -> bool:
    return isinstance(token, str) and token.isascii() and token.isprintable() and 0 < len(token) <= _LARGEST_FILE
