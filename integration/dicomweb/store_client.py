"""STOW-RS as a user agent: one instance is stored, and the response document says whether it was (PS3.18 10.5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from firstread.integration.dicom.part10 import read_meta
from firstread.integration.dicom.status import OutcomeKind, meaning_of, outcome_of
from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.client import Answer, DicomwebClient, ServiceFailed, retry_after_s
from firstread.integration.dicomweb.errors import BadRequest
from firstread.integration.dicomweb.multipart import new_boundary, written
from firstread.integration.dicomweb.native_xml import from_xml

_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_SOP_INSTANCE, _WARNING_REASON, _FAILURE_REASON = "00081155", "00081196", "00081197"

_LARGEST_DOCUMENT = 4 << 20
_OF_THE_MOMENT = frozenset((401, 403, 407, 408, 425, 429))
"""Not about the instance: a token, a gateway or too much at once. It is sent again when that is mended."""
LONGEST_WAIT_S = 900.0
"""More than this no Retry-After is obeyed: whoever answers with a year has a wrong clock."""


@dataclass(frozen=True)
class StoreAnswer:
    """``status``: as lists show it, ``200`` or ``409/A900``. ``wait_s``: what Retry-After asked for."""

    kind: OutcomeKind
    status: str
    words: str
    wait_s: float | None = None


def store(client: DicomwebClient, content: bytes) -> StoreAnswer:
    """Stores one Part 10 file as it is; never raises for what the service does.

    Delivered only where the document names the instance as stored. What FailureReason says counts as the same C-STORE
    status would (PS3.18 Annex I.2 has its values from PS3.4): A7xx and 0110 are of the moment. A document that names
    the instance nowhere is a refusal: sending again under the same identity is harmless, so that is tried first.
    """
    sop_instance_uid = read_meta(content).sop_instance_uid
    try:
        answer = _post(client, [({"Content-Type": media.DICOM}, [content])])
    except ServiceFailed as error:
        return StoreAnswer(OutcomeKind.RETRY, "", str(error))
    wait = retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
    wait = min(wait, LONGEST_WAIT_S) if wait is not None else None
    said, status = answer.sentence(), str(answer.status)
    if answer.status in (200, 202, 409):
        try:
            judged = judge(answer, sop_instance_uid)
        except ValueError as error:
            if answer.status != 409:
                return StoreAnswer(OutcomeKind.RETRY, status, f"HTTP {status}, but {error}", wait)
            judged = None
        if judged is not None:
            kind, reason, words = judged
            return StoreAnswer(kind, status if reason is None else f"{status}/{reason:04X}", words, wait)
        words = f"{said}: the answer does not name the instance, so it does not count as stored"
        return StoreAnswer(OutcomeKind.REJECTED, status, words, wait)
    if 300 <= answer.status < 400:
        words = f"{said}: it sends us elsewhere; give the address that it means as url"
        return StoreAnswer(OutcomeKind.REJECTED, status, words)
    of_the_moment = answer.status in _OF_THE_MOMENT or answer.status >= 500
    return StoreAnswer(OutcomeKind.RETRY if of_the_moment else OutcomeKind.REJECTED, status, said, wait)


def judge(answer: Answer, sop_instance_uid: str) -> tuple[OutcomeKind, int | None, str] | None:
    """What the response document says of the one instance that was sent: kind, reason and words. None: nothing.

    Raises ValueError for what is no such document, a page of a gateway or half of one: it is as good as no answer.
    """
    document = _document(answer)
    failed = _items(document, _FAILED)
    stored = _items(document, _REFERENCED)
    ours = [one for one in failed if _first(one, _SOP_INSTANCE) in (sop_instance_uid, None)]
    ours = ours or _items(document, _OTHER_FAILURES)
    if ours:
        reason = _reason(ours[0], _FAILURE_REASON)
        if reason is None:
            return OutcomeKind.REJECTED, None, "not stored; the answer does not say why"
        # a failure is never a success, whatever its number would mean as a status
        kind = OutcomeKind.RETRY if outcome_of(reason) is OutcomeKind.RETRY else OutcomeKind.REJECTED
        return kind, reason, f"not stored: {reason:04X} {meaning_of(reason)}"
    for one in stored:
        if _first(one, _SOP_INSTANCE) == sop_instance_uid:
            warning = _reason(one, _WARNING_REASON)
            if not warning:
                return OutcomeKind.DELIVERED, None, "stored"
            return OutcomeKind.DELIVERED, warning, f"stored with a warning: {warning:04X} {meaning_of(warning)}"
    return None


def probe(client: DicomwebClient) -> tuple[bool, str]:
    """Whether the service lets us store, asked by a request without instances: nothing is changed."""
    try:
        answer = _post(client, [])
    except ServiceFailed as error:
        return False, str(error)
    if answer.status in (401, 403):
        return False, f"{answer.sentence()}: it does not let us in; look at the token or the client's rights"
    if 300 <= answer.status < 400 or answer.status in (404, 405, 501):
        return False, f"{answer.sentence()}: nothing stores there; url is the base, without /studies"
    if answer.status == 429 or answer.status >= 502:
        return False, answer.sentence()
    return True, f"answers at {client.service.url} and lets us store"


def _post(client: DicomwebClient, parts: list[tuple[Mapping[str, str], list[bytes]]]) -> Answer:
    boundary = new_boundary()
    return client.ask(
        "POST",
        "studies",
        headers={
            "Content-Type": f'{media.RELATED}; type="{media.DICOM}"; boundary={boundary}',
            "Accept": f"{media.JSON}, {media.XML};q=0.5",
        },
        content=b"".join(written(boundary, parts)),
        limit_bytes=_LARGEST_DOCUMENT,
    )


def _document(answer: Answer) -> Mapping[str, Any]:
    """The response document in the JSON model; empty where there is none. Raises ValueError for what cannot be read."""
    if not answer.content.strip():
        return {}
    try:
        if answer.media_type.endswith("xml"):
            return from_xml(answer.content)[0]
        read = json.loads(answer.content)
    except (BadRequest, ValueError, RecursionError) as error:
        raise ValueError(f"its document cannot be read ({answer.media_type or 'no media type'})") from error
    if isinstance(read, list) and len(read) == 1:
        read = read[0]  # some services wrap it, as they do the answers to searches
    return read if isinstance(read, dict) else {}


def _items(document: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = document.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _first(item: Mapping[str, Any], tag: str) -> Any:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _reason(item: Mapping[str, Any], tag: str) -> int | None:
    value = _first(item, tag)
    try:
        return int(value) & 0xFFFF
    except (TypeError, ValueError):
        return None
