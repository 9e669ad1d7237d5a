"""What is wrong with a set of films: raised at once, or collected for a report."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from firstread.models.data.film import DataError


class Severity(enum.StrEnum):
    """ERROR: the set must not be used as it is. WARNING: it may, by somebody who has read this."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: ``kind`` for counting, ``message`` a whole sentence that names file and row."""

    kind: str
    message: str
    severity: Severity = Severity.ERROR
    row: int | None = None
    path: Path | None = None


@dataclass
class Complaints:
    """Where readers say what they meet.

    ``strict``: an error raises :class:`DataError` at once; else it is collected. Warnings and notes never raise.
    ``on_note``: is told each note and warning as it is met.
    """

    strict: bool = True
    on_note: Callable[[str], None] | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def error(self, kind: str, message: str, *, row: int | None = None, path: Path | None = None) -> None:
        """Something that must be put right first.

        Raises:
            DataError: when strict.
        """
        if self.strict:
            raise DataError(message)
        self.problems.append(Problem(kind, message, Severity.ERROR, row, path))

    def warning(self, kind: str, message: str, *, row: int | None = None, path: Path | None = None) -> None:
        """Something that somebody should look at."""
        self.problems.append(Problem(kind, message, Severity.WARNING, row, path))
        if self.on_note is not None:
            self.on_note(message)

    def note(self, sentence: str) -> None:
        """How something was taken that could have been taken otherwise."""
        self.notes.append(sentence)
        if self.on_note is not None:
            self.on_note(sentence)
