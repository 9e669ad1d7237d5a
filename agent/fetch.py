"""Fetching a study back from the archive, into the same intake as a film that is sent to us."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from firstread.agent.archive_source import ArchiveAway, ArchiveSource, Fetched, FetchFailed, Later
from firstread.agent.archive_web import WebArchive
from firstread.agent.config import Settings
from firstread.agent.intake import Intake
from firstread.agent.store import studies, trials
from firstread.agent.store.engine import Store
from firstread.agent.store.site import site_uid
from firstread.agent.store.studies import Trial

__all__ = ["Archive", "ArchiveAway", "FetchFailed", "Fetched"]

TRIES = 3
LONGEST_WAIT_S = 60.0
_T = TypeVar("_T")


class Archive:
    """What ``[archive]`` names. Raises FetchFailed when it names nothing, TlsFilesError for its certificates.

    An archive that is busy or breaks off is asked again, as late as it wishes, one request at a time.
    """

    def __init__(self, settings: Settings, store: Store, wait: Callable[[float], None] = time.sleep) -> None:
        self._source = _source(settings)
        self._store = store
        self._intake = Intake(settings, store, site_uid(store))
        self._wait = wait

    def fetch(self, study_instance_uid: str, trial: Trial | None = None) -> Fetched:
        """Brings a whole study, as it is stored there. Raises FetchFailed, ArchiveAway.

        A film that lies here already is taken once; one that was deleted lies here again, under the result it had.
        ``trial``: the run over the archive that it is fetched for. A study that is a trial here stays one.
        """
        intake = replace(self._intake, trial=trial or self._trial_of(study_instance_uid))
        return self._asked(lambda: self._source.bring(study_instance_uid, intake))

    def studies_of(self, day: str, modality: str) -> Sequence[str]:
        """Study Instance UIDs of a day (YYYYMMDD) that have this modality. Raises FetchFailed, ArchiveAway."""
        return self._asked(lambda: self._source.studies_of(day, modality))

    def body_parts(self, study_instance_uid: str) -> Sequence[str]:
        """Body Part Examined of a study's series. Raises FetchFailed, ArchiveAway."""
        return self._asked(lambda: self._source.body_parts(study_instance_uid))

    def close(self) -> None:
        """Closes the connection."""
        self._source.close()

    def _trial_of(self, study_instance_uid: str) -> Trial | None:
        with self._store.read() as connection:
            row = studies.find(connection, study_instance_uid)
            run = None if row is None or row.trial_run_id is None else trials.find(connection, row.trial_run_id)
        return None if run is None else run.trial

    def _asked(self, ask: Callable[[], _T]) -> _T:
        for attempt in range(1, TRIES + 1):
            try:
                return ask()
            except Later as later:
                if attempt == TRIES:
                    raise ArchiveAway(f"{later}: tried {TRIES} times, try again later") from later
                self._wait(min(LONGEST_WAIT_S, later.wait_s if later.wait_s is not None else 2.0**attempt))
        raise AssertionError


def _source(settings: Settings) -> ArchiveSource:
    if not settings.archive.named:
        raise FetchFailed("no archive is named: set [archive] url to its DICOMweb address, or host, port and ae_title")
    if settings.archive.type == "dimse":
        from firstread.agent.archive_dimse import DimseArchive

        return DimseArchive(settings)
    return WebArchive(settings)
