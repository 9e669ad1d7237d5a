"""What an archive is asked, whichever way it is spoken to: which studies there are, and one of them with its films."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from firstread.agent.intake import Intake


class FetchFailed(Exception):
    """It did not come; the message says why and what to do. What came of it is kept."""


class ArchiveAway(FetchFailed):
    """The archive is busy or away, however often it was asked: later it may succeed unchanged."""


class Later(Exception):
    """The archive cannot answer now. ``wait_s``: for how long it asked to be left alone, None when it did not say."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Fetched:
    """``stored``: films that lie here now. ``refused``: what was not taken, each with its reason."""

    study_instance_uid: str
    stored: int
    refused: tuple[str, ...]


class ArchiveSource(Protocol):
    """An archive. Its methods raise :class:`Later` for what is of the moment, :class:`FetchFailed` for the rest."""

    def bring(self, study_instance_uid: str, intake: Intake) -> Fetched:
        """Asks once for a whole study, which goes into ``intake`` as it comes."""

    def studies_of(self, day: str, modality: str) -> Sequence[str]:
        """Study Instance UIDs of a day (YYYYMMDD) that have a series of this modality (empty: of any)."""

    def body_parts(self, study_instance_uid: str) -> Sequence[str]:
        """Body Part Examined of a study's series, each once; empty for a series that does not say."""

    def close(self) -> None:
        """Ends the connection."""
