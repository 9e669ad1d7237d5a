"""Passwords as scrypt hashes, so that a settings file need not hold the word itself."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os

_COST, _BLOCK, _PARALLEL = 2**14, 8, 1


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=parallel, maxmem=2**28, dklen=32)


def _parts(text: str) -> tuple[int, int, int, bytes, bytes]:
    name, cost, block, parallel, salt, digest = text.split("$")
    if name != "scrypt" or int(cost) > 2**18:
        raise ValueError("not a hash of ours")
    return int(cost), int(block), int(parallel), base64.b64decode(salt), base64.b64decode(digest)


def hash_password(password: str) -> str:
    """``scrypt$16384$8$1$salt$digest`` with a fresh salt (RFC 7914), for ``[web] password_hash``."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _COST, _BLOCK, _PARALLEL)
    return "$".join(
        (
            "scrypt",
            str(_COST),
            str(_BLOCK),
            str(_PARALLEL),
            base64.b64encode(salt).decode(),
            base64.b64encode(digest).decode(),
        )
    )


def is_hash(text: str) -> bool:
    """True for what ``hash_password`` writes."""
    try:
        _parts(text)
    except (ValueError, binascii.Error):
        return False
    return True


def password_matches(password: str, hashed: str) -> bool:
    """True when ``hashed`` was made from ``password``; constant time. False for what is no hash."""
    try:
        cost, block, parallel, salt, digest = _parts(hashed)
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(_scrypt(password, salt, cost, block, parallel), digest)


def same_text(one: str, other: str) -> bool:
    """Equality in constant time, of any characters."""
    return hmac.compare_digest(one.encode(), other.encode())
