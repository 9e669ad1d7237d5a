"""QIDO-RS as a user agent: which studies a service has, and of what body parts (PS3.18 10.6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from firstread.integration.dicom.identity_check import is_uid
from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.client import Answer, DicomwebClient, ServiceFailed

_LARGEST_ANSWER = 4 << 20
_STUDY_DATE, _MODALITIES, _STUDY, _BODY_PART = "00080020", "00080061", "0020000D", "00180015"


@dataclass(frozen=True)
class FoundStudy:
    """A match. ``study_date`` and ``modalities`` are empty where the service does not say them."""

    study_instance_uid: str
    study_date: str
    modalities: tuple[str, ...]


class SearchFailed(Exception):
    """The service answered, and not with matches."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.sentence())
        self.answer = answer


def studies(client: DicomwebClient, *, study_date: str, modality: str, limit: int, offset: int) -> list[FoundStudy]:
    """One page of the studies of a date (or range) with a modality (empty: any). Raises ServiceFailed, SearchFailed."""
    params = {"StudyDate": study_date, "includefield": "ModalitiesInStudy", "limit": str(limit), "offset": str(offset)}
    if modality:
        params["ModalitiesInStudy"] = modality
    found = []
    for one in _search(client, "studies", params):
        uid = next(iter(_values(one, _STUDY)), "")
        if is_uid(uid):
            date = next(iter(_values(one, _STUDY_DATE)), "")
            found.append(FoundStudy(uid, date, tuple(_values(one, _MODALITIES))))
    return found


def body_parts(client: DicomwebClient, study_instance_uid: str) -> list[str]:
    """Body Part Examined of a study's series, each once, empty where one says none.

    Raises ServiceFailed, SearchFailed.
    """
    matches = _search(client, f"studies/{study_instance_uid}/series", {"includefield": "BodyPartExamined"})
    return list(dict.fromkeys(next(iter(_values(one, _BODY_PART)), "") for one in matches))


def probe(client: DicomwebClient) -> tuple[bool, str]:
    """Whether it answers to a search for one study, and what it says."""
    try:
        answer = _ask(client, "studies", {"limit": "1"})
    except ServiceFailed as error:
        return False, str(error)
    if answer.status in (200, 204):
        return True, f"answers at {client.service.url}"
    if answer.status in (401, 403):
        return False, f"{answer.sentence()}: it does not let us in; look at the token or the client's rights"
    return False, f"{answer.sentence()}: nothing answers to searches there; url is the base, without /studies"


def _ask(client: DicomwebClient, path: str, params: Mapping[str, str]) -> Answer:
    return client.ask("GET", path, headers={"Accept": media.JSON}, params=params, limit_bytes=_LARGEST_ANSWER)


def _search(client: DicomwebClient, path: str, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
    answer = _ask(client, path, params)
    if answer.status == 204:
        return []
    if answer.status != 200:
        raise SearchFailed(answer)
    try:
        matches = json.loads(answer.content or b"[]")
    except (ValueError, RecursionError) as error:
        raise SearchFailed(answer) from error
    if not isinstance(matches, list) or not all(isinstance(one, dict) for one in matches):
        raise SearchFailed(answer)
    return matches


def _values(match: Mapping[str, Any], tag: str) -> list[str]:
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [one.strip() for one in values if isinstance(one, str)] if isinstance(values, list) else []
