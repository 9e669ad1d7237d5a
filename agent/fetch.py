"""Fetching a study back from the archive: WADO-RS into the same intake as a film that is sent to us (PS3.18 10.4)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from firstread.agent.config import Settings
from firstread.agent.config_wire import web_receive_settings, web_service
from firstread.agent.intake import Intake
from firstread.agent.store.engine import Store
from firstread.agent.store.site import site_uid
from firstread.agent.stow import StoreRequest
from firstread.integration.dicomweb import media
from firstread.integration.dicomweb.client import Answer, DicomwebClient, ServiceFailed, retry_after_s
from firstread.integration.dicomweb.errors import RequestError

TRIES = 3
LONGEST_WAIT_S = 60.0
_OF_THE_MOMENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_ANY_SYNTAX = f'{media.RELATED}; type="{media.DICOM}"; transfer-syntax=*'


class FetchFailed(Exception):
    """The study did not come; the message says why and what to do. What came of it is kept."""


@dataclass(frozen=True)
class Fetched:
    """``stored``: films that lie here now. ``refused``: what was not taken, each with its reason."""

    study_instance_uid: str
    stored: int
    refused: tuple[str, ...]


class Archive:
    """What ``[archive]`` names. Raises FetchFailed when it names nothing, TlsFilesError for its certificates."""

    def __init__(self, settings: Settings, store: Store, wait: Callable[[float], None] = time.sleep) -> None:
        if not settings.archive.url:
            raise FetchFailed("no archive is named: set [archive] url to its DICOMweb address")
        self._client = DicomwebClient(web_service(settings.archive))
        self._intake = Intake(settings, store, site_uid(store))
        self._receive = web_receive_settings(settings)
        self._address = urlsplit(settings.archive.url).hostname or ""
        self._wait = wait

    def fetch(self, study_instance_uid: str) -> Fetched:
        """Brings a whole study, as it is stored there. Raises FetchFailed.

        A film that lies here already is taken once; one that was deleted lies here again, under the result it had.
        An archive that is busy or breaks off is asked again.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return self._fetch_once(study_instance_uid)
            except _Later as later:
                if attempt == TRIES:
                    raise FetchFailed(f"{later}: tried {TRIES} times, try again later") from later
                self._wait(min(LONGEST_WAIT_S, later.wait_s if later.wait_s is not None else 2.0**attempt))
        raise AssertionError

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _fetch_once(self, study: str) -> Fetched:
        try:
            with self._client.stream("GET", f"studies/{study}", headers={"Accept": _ANY_SYNTAX}) as (answer, chunks):
                _look_at(answer, study)
                taking = StoreRequest(self._intake, self._receive, self._address, study)
                outcomes = taking.take(media.content_type(answer.headers.get("content-type")), chunks)
        except ServiceFailed as error:
            raise _Later(str(error), None) from error
        except RequestError as error:
            raise FetchFailed(f"what the archive sent for {study} is no study: {error}") from error
        refused = [
            f"{one.sop_instance_uid or 'an instance'}: {one.failure.status.comment}" for one in outcomes if one.failure
        ]
        return Fetched(study, sum(one.failure is None for one in outcomes), tuple(refused))


class _Later(Exception):
    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def _look_at(answer: Answer, study: str) -> None:
    if answer.status == 200:
        return
    said = f"HTTP {answer.status}"
    if answer.status in _OF_THE_MOMENT:
        raise _Later(
            f"the archive answered {said}", retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
        )
    if answer.status in (204, 404, 410):
        raise FetchFailed(f"the archive has no study {study} ({said})")
    if answer.status in (401, 403):
        raise FetchFailed(f"the archive does not let us in ({said}): look at token or oauth2_... in [archive]")
    raise FetchFailed(f"the archive answered {said} for {study}")
