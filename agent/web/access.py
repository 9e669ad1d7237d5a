"""Who may do what on the page: every address in one table. What is not in it is closed."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from types import MappingProxyType


class Role(enum.IntEnum):
    """What a visitor may; each may what those before it may."""

    ANYONE = 0
    """Not logged in: nothing of a patient."""
    READER = 1
    """Sees everything, changes nothing."""
    ADMIN = 2
    """Takes studies off the list, sends again, releases what is held."""


def dicomweb_reads() -> list[str]:
    """Addresses of DICOMweb's query and retrieve services."""
    study = "/dicom-web/studies/{study}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frames = f"{instance}/frames/{{frames}}"
    return [
        "/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances", f"{study}/series", f"{study}/instances",
        f"{series}/instances", study, series, instance, frames, f"{instance}/bulkdata/{{path}}",
        *(f"{place}/metadata" for place in (study, series, instance)),
        *(f"{place}/{kind}" for place in (study, series, instance, frames) for kind in ("rendered", "thumbnail")),
    ]  # fmt: skip


ACCESS: Mapping[tuple[str, str], Role] = MappingProxyType(
    {
        ("GET", "/health"): Role.ANYONE,
        ("GET", "/ready"): Role.ANYONE,
        ("GET", "/metrics"): Role.ANYONE,
        ("GET", "/login"): Role.ANYONE,
        ("POST", "/login"): Role.ANYONE,
        ("POST", "/logout"): Role.ANYONE,
        ("GET", "/static/{path}"): Role.ANYONE,
        ("GET", "/"): Role.READER,
        ("GET", "/study/{id}"): Role.READER,
        ("GET", "/study/{id}/panel"): Role.READER,
        ("GET", "/rows"): Role.READER,
        ("GET", "/live"): Role.READER,
        ("GET", "/off"): Role.READER,
        ("GET", "/film/{id}/preview.png"): Role.READER,
        ("GET", "/film/{id}/thumb.jpg"): Role.READER,
        ("GET", "/film/{id}/heat/{label}.png"): Role.READER,
        ("GET", "/viewer/{path}"): Role.READER,
        ("GET", "/system"): Role.READER,
        ("GET", "/system/parts"): Role.READER,
        ("POST", "/study/{id}/remove"): Role.ADMIN,
        ("POST", "/study/{id}/restore"): Role.ADMIN,
        ("POST", "/delivery/{id}/retry"): Role.ADMIN,
        ("POST", "/destination/{name}/release"): Role.ADMIN,
        ("GET", "/openapi.json"): Role.ANYONE,
        # DICOMweb; a caller with a token or a trusted certificate may do all of it (see bearer.py, guard.py)
        ("POST", "/dicom-web/studies"): Role.ADMIN,
        ("POST", "/dicom-web/studies/{study}"): Role.ADMIN,
        **dict.fromkeys((("GET", place) for place in dicomweb_reads()), Role.READER),
        ("GET", "/dicom-web/workitems"): Role.READER,
        ("GET", "/dicom-web/workitems/{uid}"): Role.READER,
        ("GET", "/dicom-web/ws/subscribers/{ae}"): Role.READER,
        ("POST", "/dicom-web/workitems"): Role.ADMIN,
        ("POST", "/dicom-web/workitems/{uid}"): Role.ADMIN,
        ("PUT", "/dicom-web/workitems/{uid}/state"): Role.ADMIN,
        ("POST", "/dicom-web/workitems/{uid}/cancelrequest"): Role.ADMIN,
        ("POST", "/dicom-web/workitems/{uid}/subscribers/{ae}"): Role.ADMIN,
        ("DELETE", "/dicom-web/workitems/{uid}/subscribers/{ae}"): Role.ADMIN,
        ("POST", "/dicom-web/workitems/{uid}/subscribers/{ae}/suspend"): Role.ADMIN,
        ("GET", "/dicom-web/workitems/{path}"): Role.READER,
        ("POST", "/dicom-web/workitems/{path}"): Role.ADMIN,
        ("PUT", "/dicom-web/workitems/{path}"): Role.ADMIN,
        ("DELETE", "/dicom-web/workitems/{path}"): Role.ADMIN,
    }
)
"""Method and address of everything that is answered (HEAD as GET), with the role that it takes where a login is set."""


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[a-z]+\})", path)
    return re.compile(
        "".join(".+" if part == "{path}" else "[^/]+" if part[:1] == "{" else re.escape(part) for part in parts)
    )


_PATTERNS = [(method, _pattern(path), role) for (method, path), role in ACCESS.items()]


def role_needed(method: str, path: str) -> Role:
    """The role that a request takes; ADMIN for what the table does not name."""
    asked = "GET" if method == "HEAD" else method
    return next(
        (role for known, pattern, role in _PATTERNS if known == asked and pattern.fullmatch(path)), Role.ADMIN
    )  # fmt: skip
