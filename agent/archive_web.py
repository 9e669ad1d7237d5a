"""An archive that speaks DICOMweb: QIDO-RS to find, WADO-RS to fetch (PS3.18 10.4, 10.6)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from firstread.agent.archive_source import Fetched, FetchFailed, Later
from firstread.agent.config import Settings
from firstread.agent.config_wire import web_receive_settings, web_service
from firstread.agent.intake import Intake
from firstread.agent.stow import StoreRequest
from firstread.integration.dicomweb import media, search_client
from firstread.integration.dicomweb.client import Answer, DicomwebClient, ServiceFailed, retry_after_s
from firstread.integration.dicomweb.errors import RequestError
from firstread.integration.dicomweb.search_client import FoundStudy, SearchFailed

_OF_THE_MOMENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_ANY_SYNTAX = f'{media.RELATED}; type="{media.DICOM}"; transfer-syntax=*'
_PAGE = 100
_MOST_OF_A_DAY = 20_000


class WebArchive:
    """The DICOMweb services that ``[archive] url`` names. Raises TlsFilesError for its certificates."""

    def __init__(self, settings: Settings) -> None:
        self._client = DicomwebClient(web_service(settings.archive))
        self._receive = web_receive_settings(settings)
        self._address = urlsplit(settings.archive.url).hostname or ""

    def bring(self, study_instance_uid: str, intake: Intake) -> Fetched:
        """One WADO-RS request for a study, in the transfer syntaxes in which it lies there."""
        study = study_instance_uid
        try:
            with self._client.stream("GET", f"studies/{study}", headers={"Accept": _ANY_SYNTAX}) as (answer, chunks):
                _look_at(answer, study)
                taking = StoreRequest(intake, self._receive, self._address, study)
                outcomes = taking.take(media.content_type(answer.headers.get("content-type")), chunks)
        except ServiceFailed as error:
            raise Later(str(error)) from error
        except RequestError as error:
            raise FetchFailed(f"what the archive sent for {study} is no study: {error}") from error
        refused = [
            f"{one.sop_instance_uid or 'an instance'}: {one.failure.status.comment}" for one in outcomes if one.failure
        ]
        return Fetched(study, sum(one.failure is None for one in outcomes), tuple(refused))

    def studies_of(self, day: str, modality: str) -> Sequence[str]:
        """Asks page by page. What the archive answers beside what was asked (another day or modality) is left out."""
        found: dict[str, None] = {}
        offset = 0
        while True:
            page = self._page(day, modality, offset)
            fresh = [one for one in page if one.study_instance_uid not in found]
            found |= dict.fromkeys(one.study_instance_uid for one in fresh)
            if not fresh:  # the end, or an archive that knows no offset and says the same again
                return list(found)
            offset += len(page)
            if len(found) > _MOST_OF_A_DAY:
                raise FetchFailed(f"the archive names more than {_MOST_OF_A_DAY} studies of {day}: name a modality")

    def body_parts(self, study_instance_uid: str) -> Sequence[str]:
        """One request for the study's series."""
        try:
            return search_client.body_parts(self._client, study_instance_uid)
        except ServiceFailed as error:
            raise Later(str(error)) from error
        except SearchFailed as error:
            raise _failure(error.answer, f"asked for the series of {study_instance_uid}") from error

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _page(self, day: str, modality: str, offset: int) -> list[FoundStudy]:
        try:
            found = search_client.studies(self._client, study_date=day, modality=modality, limit=_PAGE, offset=offset)
        except ServiceFailed as error:
            raise Later(str(error)) from error
        except SearchFailed as error:
            raise _failure(error.answer, f"asked for the studies of {day}") from error
        return [
            one
            for one in found
            if one.study_date in ("", day) and (not modality or not one.modalities or modality in one.modalities)
        ]


def _look_at(answer: Answer, study: str) -> None:
    if answer.status == 200:
        return
    if answer.status in (204, 404, 410):
        raise FetchFailed(f"the archive has no study {study} (HTTP {answer.status})")
    raise _failure(answer, f"asked for {study}")


def _failure(answer: Answer, asked: str) -> Exception:
    said = f"HTTP {answer.status}"
    if answer.status in _OF_THE_MOMENT:
        wait_s = retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
        return Later(f"the archive answered {said}", wait_s)
    if answer.status in (401, 403):
        return FetchFailed(f"the archive does not let us in ({said}): look at token or oauth2_... in [archive]")
    return FetchFailed(f"the archive answered {said} when it was {asked}")
