"""The names of the roles, and the names under which their workers hold leases."""

from __future__ import annotations

import hashlib
import socket

from firstread.agent.config import Settings

ROLES = ("receive", "web", "analyse", "studies", "deliver")
"""In the order in which they are started: films are taken, and that is said, before anything else begins."""


def owner_prefix(settings: Settings) -> str:
    """Names of workers of this machine and spool begin so."""
    spool = hashlib.sha256(str(settings.spool).encode()).hexdigest()[:8]
    return f"{socket.gethostname()[:40]}/{spool}/"


def owner_name(settings: Settings, role: str, pid: int) -> str:
    """The name under which a worker holds leases."""
    return f"{owner_prefix(settings)}{role}/{pid}"
