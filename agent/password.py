"""Passwords as Argon2id hashes (RFC 9106), so that a settings file need not hold the word itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import threading

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION

_HASHER = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4, type=Type.ID, hash_len=32, salt_len=16)
"""RFC 9106's second recommendation, for machines with little memory: 64 MB for each check."""

_MOST_KIB, _MOST_PASSES = 1 << 20, 20
"""A hash that asks for more is none of ours: it would stop the page."""

_AT_ONCE = threading.BoundedSemaphore(2)
"""Checks at the same time: guesses must not take the memory that films need."""


def hash_password(password: str) -> str:
    """``$argon2id$v=19$m=65536,t=3,p=4$salt$digest`` with a fresh salt, for ``[web] password_hash``."""
    return _HASHER.hash(password)


def is_hash(text: str) -> bool:
    """True for what ``hash_password`` writes, and for the scrypt hashes that it wrote before."""
    return _is_argon2(text) or _scrypt_parts(text) is not None


def password_matches(password: str, hashed: str) -> bool:
    """True when ``hashed`` was made from ``password``; constant time. False for what is no hash."""
    with _AT_ONCE:
        if _is_argon2(hashed):
            try:
                return bool(_HASHER.verify(hashed, password))
            except (VerificationError, InvalidHashError):
                return False
        parts = _scrypt_parts(hashed)
        if parts is None:
            return False
        cost, block, parallel, salt, digest = parts
        made = hashlib.scrypt(
            password.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=2**28, dklen=len(digest)
        )  # fmt: skip
        return hmac.compare_digest(made, digest)


def same_text(one: str, other: str) -> bool:
    """Equality in constant time, of any characters."""
    return hmac.compare_digest(one.encode(), other.encode())


def _is_argon2(text: str) -> bool:
    parts = text.split("$")
    if len(parts) != 6 or parts[:3] != ["", "argon2id", f"v={ARGON2_VERSION}"]:
        return False
    try:
        costs = {name: int(value) for name, _, value in (part.partition("=") for part in parts[3].split(","))}
    except ValueError:
        return False
    return (
        8 <= costs.get("m", 0) <= _MOST_KIB and 1 <= costs.get("t", 0) <= _MOST_PASSES and bool(parts[4] and parts[5])
    )


def _scrypt_parts(text: str) -> tuple[int, int, int, bytes, bytes] | None:
    try:
        name, cost, block, parallel, salt, digest = text.split("$")
        if name != "scrypt" or int(cost) > 2**18:
            return None
        return int(cost), int(block), int(parallel), base64.b64decode(salt), base64.b64decode(digest)
    except (ValueError, binascii.Error):
        return None
