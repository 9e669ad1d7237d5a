"""Who looks: signed session cookies, tokens against forged forms, and a brake on guessing passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

from firstread.agent.config import WebSettings

COOKIE = "firstread_session"
LIFETIME_S = 12 * 3600.0
"""A reading shift; every page that is loaded begins it anew."""

KEY_FILE = "web-session.key"


@dataclass(frozen=True)
class Session:
    """One browser. ``user`` is empty before a login, and where none is needed. ``expires`` in Unix seconds."""

    id: str
    user: str
    expires: float


class Sessions:
    """Signs and reads session cookies. A changed login makes every earlier cookie worthless."""

    def __init__(self, key: bytes, web: WebSettings) -> None:
        login = [web.username, *(one.get_secret_value() if one else "" for one in (web.password, web.password_hash))]
        login += [f"{user.name}\0{user.role}\0{user.password_hash.get_secret_value()}" for user in web.users]
        self._key = hmac.new(key, "\0".join(login).encode(), hashlib.sha256).digest()

    def begin(self, now_s: float, user: str = "") -> Session:
        """A new session: a login never keeps the identifier that was there before."""
        return Session(secrets.token_urlsafe(16), user, now_s + LIFETIME_S)

    def write(self, session: Session) -> str:
        """The cookie's value."""
        body = base64.urlsafe_b64encode(json.dumps([session.id, session.user, session.expires]).encode()).decode()
        return f"{body}.{self._sign('session', body)}"

    def read(self, cookie: str, now_s: float) -> Session | None:
        """The session of a cookie; None when it is not ours, was changed or has run out."""
        body, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign("session", body).encode()):
            return None
        try:
            identifier, user, expires = json.loads(base64.urlsafe_b64decode(body))
        except ValueError:
            return None
        return Session(str(identifier), str(user), float(expires)) if now_s < float(expires) else None

    def form_token(self, session: Session) -> str:
        """What a form of this session carries, so that no other site can send it."""
        return self._sign("form", session.id)

    def form_is_ours(self, session: Session, token: str) -> bool:
        """True when the form came from a page of this session; constant time."""
        return hmac.compare_digest(token.encode(), self.form_token(session).encode())

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def session_key(spool: Path) -> bytes:
    """The key of this installation, made once, so that a restart logs nobody out."""
    path = spool / KEY_FILE
    for _ in range(2):
        try:
            kept = path.read_bytes()
            if len(kept) == 32:
                return kept
        except FileNotFoundError:
            pass
        key = secrets.token_bytes(32)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        try:
            os.link(temporary, path)  # the first of two processes wins, the other reads its key
        except FileExistsError:
            if path.stat().st_size != 32:
                os.replace(temporary, path)
                return key
        finally:
            temporary.unlink(missing_ok=True)
    return path.read_bytes()


@dataclass
class LoginBrake:
    """After ``free`` failures from one address within ``window_s``, that address waits. All addresses share a cap.

    The cap is there because each try costs a slow hash.
    """

    free: int = 5
    free_of_all: int = 60
    window_s: float = 300.0
    _failures: dict[str, list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_s(self, address: str, now_s: float) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        with self._lock:
            self._forget(now_s)
            mine = self._failures.get(address, [])
            everybody = sorted(at for failures in self._failures.values() for at in failures)
        for failures, limit in ((mine, self.free), (everybody, self.free_of_all)):
            if len(failures) >= limit:
                return max(0.0, failures[-limit] + self.window_s - now_s)
        return 0.0

    def failed(self, address: str, now_s: float) -> None:
        """Counts one wrong login."""
        with self._lock:
            self._failures.setdefault(address, []).append(now_s)

    def succeeded(self, address: str) -> None:
        """The right login forgives the wrong ones."""
        with self._lock:
            self._failures.pop(address, None)

    def _forget(self, now_s: float) -> None:
        for address in list(self._failures):
            kept = [at for at in self._failures[address] if at > now_s - self.window_s]
            if kept:
                self._failures[address] = kept
            else:
                del self._failures[address]
