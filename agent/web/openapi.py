"""The HTTP surface for programs, as an OpenAPI 3.1 document: health, metrics and the DICOMweb services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import firstread
from firstread.agent.web.access import ACCESS, Role

_SUMMARIES: Mapping[str, str] = {
    "/health": "How every part of the agent stands",
    "/ready": "Whether the agent does its work",
    "/metrics": "Figures for Prometheus",
    "/openapi.json": "This document",
}
_JSON, _XML = "application/dicom+json", "application/dicom+xml"
_DICOM_PARTS = 'multipart/related; type="application/dicom"'
_UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
_FRAMES = {"type": "string", "pattern": r"^[0-9]+(,[0-9]+)*$"}


def document() -> dict[str, Any]:
    """The description of every address that is meant for programs."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path in ACCESS:
        if path in _SUMMARIES or path.startswith("/dicom-web/"):
            paths.setdefault(path, {})[method.lower()] = _operation(method, path)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Firstread", "version": firstread.__version__, "description": "DICOMweb is PS3.18."},
        "paths": paths,
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(method: str, path: str) -> dict[str, Any]:
    if path in _SUMMARIES:
        answers = {"200": {"description": "as described"}, "503": {"description": "something stands still"}}
        return {"summary": _SUMMARIES[path], "responses": answers}
    operation: dict[str, Any] = {
        "summary": _summary(method, path),
        "tags": ["DICOMweb"],
        "parameters": [_in_path(name) for name in _names(path)] + _query(method, path),
        "responses": _answers(method),
    }
    if ACCESS[(method, path)] is not Role.ANYONE:
        operation["security"] = [{"bearer": []}, {}]
    if method == "POST":
        kinds = (_DICOM_PARTS, f'multipart/related; type="{_JSON}"', f'multipart/related; type="{_XML}"')
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys((*kinds, "application/dicom"), binary)}
    return operation


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _in_path(name: str) -> dict[str, Any]:
    schema = _FRAMES if name == "frames" else {"type": "string"} if name == "path" else _UID
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(method: str, path: str) -> list[dict[str, Any]]:
    if method == "POST":
        return []
    if _is_search(path):
        whole = {"type": "integer", "minimum": 0}
        named: list[tuple[str, dict[str, Any]]] = [
            ("limit", whole), ("offset", whole), ("fuzzymatching", {"type": "boolean"}),
            ("includefield", {"type": "string"}), ("PatientID", {"type": "string"}),
            ("PatientName", {"type": "string"}), ("StudyDate", {"type": "string"}),
            ("AccessionNumber", {"type": "string"}), ("ModalitiesInStudy", {"type": "string"}),
        ]  # fmt: skip
    elif path.endswith(("/rendered", "/thumbnail")):
        named = [("viewport", {"type": "string"}), ("window", {"type": "string"}), ("quality", {"type": "integer"})]
    else:
        named = []
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in named]


def _is_search(path: str) -> bool:
    return path.rpartition("/")[2] in ("studies", "series", "instances")


def _summary(method: str, path: str) -> str:
    if method == "POST":
        return "STOW-RS: store instances"
    last = path.rpartition("/")[2]
    if _is_search(path):
        return f"QIDO-RS: search for {last}"
    return f"WADO-RS: {last.strip('{}')}" if last != "{path}" else "WADO-RS: bulk data"


def _answers(method: str) -> dict[str, Any]:
    refusals = {
        "400": "malformed", "401": "no token that lets in", "403": "not allowed, or from another site",
        "404": "not held here", "406": "no media type asked for can be made", "410": "held until just now",
        "421": "another host name without a login", "503": "for the moment, with Retry-After",
    }  # fmt: skip
    if method == "POST":
        refusals |= {
            "202": "some instances were not stored, the body names them", "408": "the body broke off",
            "409": "no instance was stored, the body says why", "413": "too large", "415": "of another kind",
            "507": "the disk is full",
        }  # fmt: skip
    answers = {status: {"description": why} for status, why in sorted(refusals.items())}
    return {"200": {"description": "done"}, **answers}
