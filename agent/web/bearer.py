"""Bearer tokens at the door of the DICOMweb services: the site's own, or an OpenID provider's (RFC 6750, RFC 7519)."""

from __future__ import annotations

import hmac
import threading
import time
from typing import Any

import structlog

from firstread.agent.config_dicomweb import DicomwebSettings

log = structlog.get_logger()

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a key pair alone: a provider's public key must not pass for a shared secret."""

LEEWAY_S = 30
_ASK_TIMEOUT_S = 10.0
_ASK_AGAIN_S = 10.0


class BearerDoor:
    """Decides on the Authorization header. May ask the provider for its keys: call it from a thread."""

    def __init__(self, settings: DicomwebSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._keys: Any = None
        self._asked_at = -_ASK_AGAIN_S

    def refusal(self, authorization: str) -> str | None:
        """None when the token lets in, else why it does not."""
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return "a bearer token is needed"
        own = self._settings.token
        if own is not None and hmac.compare_digest(token.encode(), own.get_secret_value().encode()):
            return None
        if self._settings.oidc_issuer is None:
            return "the token is not the one that is set here"
        return self._refused_by_provider(token)

    def _refused_by_provider(self, token: str) -> str | None:
        import jwt

        try:
            keys = self._provider_keys()
            if keys is None:
                return "the OpenID provider cannot be asked for its keys now"
            key = keys.get_signing_key_from_jwt(token)
            jwt.decode(
                token,
                key.key,
                algorithms=list(ALGORITHMS),
                audience=self._settings.oidc_audience,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            return "the token has expired"
        except jwt.PyJWTError as error:
            return f"the token is not accepted: {error}"
        return None

    def _provider_keys(self) -> Any:
        import httpx
        import jwt

        with self._lock:
            if self._keys is None and time.monotonic() - self._asked_at >= _ASK_AGAIN_S:
                self._asked_at = time.monotonic()
                issuer = str(self._settings.oidc_issuer).rstrip("/")
                try:
                    found = httpx.get(f"{issuer}/.well-known/openid-configuration", timeout=_ASK_TIMEOUT_S)
                    address = found.raise_for_status().json()["jwks_uri"]
                    self._keys = jwt.PyJWKClient(address, cache_keys=True, timeout=int(_ASK_TIMEOUT_S))
                except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                    log.error("the OpenID provider did not answer", issuer=issuer, error=str(error))
            return self._keys
