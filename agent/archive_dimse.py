"""An archive that speaks DIMSE: C-FIND to find, C-GET or C-MOVE to fetch (PS3.4 C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from firstread.agent.archive_source import Fetched, FetchFailed, Later
from firstread.agent.config import Settings
from firstread.agent.config_wire import archive_peer, receive_settings
from firstread.agent.intake import Intake
from firstread.integration.dicom.identity_check import is_uid
from firstread.integration.dicom.retrieve_scu import ArchiveScu, RetrieveFailed

_T = TypeVar("_T")
NO_TRIALS_BY_MOVE = (
    'trials do not come by C-MOVE, since nothing tells them from what is really sent: set retrieve = "get"'
)


class DimseArchive:
    """The node that ``[archive]`` names by host and port. Raises TlsFilesError for its certificates."""

    def __init__(self, settings: Settings) -> None:
        one = settings.archive
        self._peer = archive_peer(settings)
        self._scu = ArchiveScu(self._peer, receive_settings(settings), one.answer_timeout_s)
        self._by_move = one.retrieve == "move"
        self._ours = settings.dicom.ae_title

    def bring(self, study_instance_uid: str, intake: Intake) -> Fetched:
        """Asks how many objects the study has, then for the study: what came is fetched when it is all of them."""
        study = study_instance_uid
        if self._by_move and intake.trial is not None:
            raise FetchFailed(NO_TRIALS_BY_MOVE)
        wanted = self._number_of_objects(study)
        if self._by_move:
            # A film comes in by the receiver, and is acknowledged there when it is kept: then the archive counts it.
            retrieved = self._asked(lambda: self._scu.move(study, self._ours))
        else:
            retrieved = self._asked(lambda: self._scu.get(study, intake.take))
        failures = retrieved.failures
        if not failures and retrieved.stored < wanted:
            failures = (f"the archive names {wanted} objects and sent {retrieved.stored}",)
        return Fetched(study, retrieved.stored, failures)

    def studies_of(self, day: str, modality: str) -> Sequence[str]:
        """One C-FIND on study level. What is answered beside what was asked is left out."""
        keys = {"StudyDate": day, "ModalitiesInStudy": modality, "StudyInstanceUID": ""}
        found: dict[str, None] = {}
        for one in self._asked(lambda: self._scu.find("STUDY", keys)):
            date, modalities = str(one.get("StudyDate") or ""), _texts(one.get("ModalitiesInStudy"))
            other = date not in ("", day) or (modality and modalities and modality not in modalities)
            uid = str(one.get("StudyInstanceUID") or "")
            if is_uid(uid) and not other:
                found[uid] = None
        return list(found)

    def body_parts(self, study_instance_uid: str) -> Sequence[str]:
        """One C-FIND on series level."""
        keys = {"StudyInstanceUID": study_instance_uid, "SeriesInstanceUID": "", "BodyPartExamined": ""}
        matches = self._asked(lambda: self._scu.find("SERIES", keys))
        return list(dict.fromkeys(str(one.get("BodyPartExamined") or "").strip() for one in matches))

    def probe(self) -> tuple[bool, str]:
        """Whether it answers to a C-FIND for one study that nobody has, and what it says."""
        try:
            self._scu.find("STUDY", {"StudyInstanceUID": "1.2.840.10008.1.1"})
        except RetrieveFailed as error:
            return False, str(error)
        return True, f"answers to C-FIND at {self._peer.ae_title}, {self._peer.host}:{self._peer.port}"

    def close(self) -> None:
        """Nothing is kept open."""

    def _number_of_objects(self, study: str) -> int:
        """How many objects the archive says that the study has, 0 where it does not say."""
        keys = {"StudyInstanceUID": study, "NumberOfStudyRelatedInstances": ""}
        matches = self._asked(lambda: self._scu.find("STUDY", keys))
        ours = [one for one in matches if str(one.get("StudyInstanceUID") or study) == study]
        if not ours:
            raise FetchFailed(f"the archive has no study {study}")
        said = str(ours[0].get("NumberOfStudyRelatedInstances") or "")
        return int(said) if said.isdigit() else 0

    @staticmethod
    def _asked(ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except RetrieveFailed as error:
            raise (Later if error.later else FetchFailed)(str(error)) from error


def _texts(value: object) -> list[str]:
    return [] if not value else [value] if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]
