"""One row of the reading list as it is shown: a pure decision from an entry and its place. No markup, no clock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from firstread.agent.store.reading_list import ListedStudy
from firstread.agent.store.tables import StudyState
from firstread.agent.store.worklist import ListedResult
from firstread.agent.triage import nothing_above
from firstread.agent.web.words import age_words, count_words, finding_name, person_names, view_words
from firstread.agent.worklist.ordering import Entry, Placed, duration
from firstread.models.findings import NO_FINDING
from firstread.models.prediction import FindingResult, Priority

SHOWN_NARROW, SHOWN_WIDE = 2, 4


@dataclass(frozen=True)
class RowFinding:
    """A finding above its threshold: ``share`` and ``threshold`` in percent of the bar."""

    name: str
    probability: str
    share: float
    threshold: float | None
    experimental: bool
    raises: bool


@dataclass(frozen=True)
class RowView:
    """Everything that a row shows but its waiting time. ``tone``: which of stat, urgent, waited, routine it looks like.

    ``said`` stands where findings would: a working state, a reason, or that nothing was above threshold;
    ``said_as`` is "working", "reason", "nothing" or "" (there are findings).
    """

    id: int
    tone: str
    mark: str
    word: str
    arrived_ms: int
    name: str
    other_name: str
    sex_age: str
    patient_id: str
    accession: str
    view: str
    findings: tuple[RowFinding, ...]
    said: str
    said_as: str
    notes: tuple[str, ...]
    why: str
    overdue: bool
    film: int | None

    def __hash__(self) -> int:
        """Of few fields: rows are looked up by the thousand, and hashing all of them took a quarter of a page."""
        return hash((self.id, self.arrived_ms, self.why))

    @property
    def signature(self) -> str:
        """Changes whenever anything that is shown does."""
        return hashlib.blake2b(repr(self).encode(), digest_size=6).hexdigest()

    @property
    def more_narrow(self) -> int:
        """Findings that a narrow page does not show."""
        return max(0, len(self.findings) - SHOWN_NARROW)

    @property
    def more_wide(self) -> int:
        """Findings that a wide page does not show either."""
        return max(0, len(self.findings) - SHOWN_WIDE)

    @property
    def spoken(self) -> str:
        """The row as a screen reader says it on its link."""
        name = f"{self.name} {self.other_name}".strip()
        parts = (name, self.word, self.sex_age, self.view, self.findings_words, self.why)
        return ", ".join(part for part in parts if part)

    @property
    def findings_words(self) -> str:
        """Every finding above threshold, what is said in their place, and the notes, in full."""
        seen = [f"{one.name} {one.probability}{' experimental' if one.experimental else ''}" for one in self.findings]
        return ", ".join((*seen, *((self.said,) if self.said else ()), *self.notes))


def ordering_entry(listed: ListedStudy) -> Entry:
    """What the order of the list depends on."""
    return Entry(
        key=listed.id,
        arrived_at=listed.arrived_at,
        ordered=listed.ordered,
        result=listed.raised,
        result_reason=short_reason(listed.result) if listed.result else "",
    )


def short_reason(result: ListedResult) -> str:
    """Why the result raised it, short enough for a row: ``raised: above 0.60``, ``kept from revision 1``."""
    first = result.priority_reason.split(";")[0].strip()
    if first.startswith(("kept", "ordered")):
        return first
    limits = [f"{one.threshold:.2f}" for one in result.findings if one.label in result.causes and one.threshold]
    if limits:
        return f"raised: above {', '.join(dict.fromkeys(limits))}"
    return f"raised: {first}" if first else ""


def row_view(listed: ListedStudy, placed: Placed, longest_wait: Mapping[Priority, timedelta]) -> RowView:
    """The row of an entry in its place."""
    identity = listed.identity
    tone, mark, word = _priority(placed)
    name, other = person_names(identity.patient_name)
    findings = row_findings(listed.result) if listed.result else ()
    said, said_as = _said(listed, bool(findings))
    why = placed.why
    if placed.overdue and not placed.waited:
        why += f", over {duration(longest_wait[placed.priority])}"
    return RowView(
        id=listed.id,
        tone=tone,
        mark=mark,
        word=word,
        arrived_ms=int(listed.arrived_at.timestamp() * 1000),
        name=name,
        other_name=other,
        sex_age=f"{identity.sex.strip()[:1].upper()} {age_words(identity)}".strip(),
        patient_id=identity.patient_id,
        accession=identity.accession_number,
        view=view_words(identity),
        findings=findings,
        said=said,
        said_as=said_as,
        notes=_notes(listed),
        why=why,
        overdue=placed.overdue,
        film=listed.study.preview_instance if listed.study else None,
    )


def row_findings(result: ListedResult) -> tuple[RowFinding, ...]:
    """Findings above threshold: those that raised the study first, then by probability."""

    def place(one: FindingResult) -> tuple[bool, bool, float]:
        return one.label not in result.causes, one.experimental, -(one.probability or 0.0)

    present = [one for one in result.findings if one.present and one.label != NO_FINDING]
    return tuple(
        RowFinding(
            name=finding_name(one.label),
            probability=f"{one.probability:.2f}" if one.probability is not None else "–",
            share=round(100 * (one.probability or 0.0), 1),
            threshold=None if one.threshold is None else round(100 * one.threshold, 1),
            experimental=one.experimental,
            raises=one.label in result.causes,
        )
        for one in sorted(present, key=place)
    )


def working_words(listed: ListedStudy) -> str:
    """What is being done with a study that has no result yet, or not its newest one; empty when nothing is."""
    facts = listed.study
    if facts is None:
        return ""
    if facts.state is StudyState.RECEIVING:
        if facts.analysing:
            return "analysing"
        if facts.unfinished:
            return f"received, {count_words(facts.unfinished, 'film waits', 'films wait')} for analysis"
        return "receiving"
    return "analysed, its message is on the way" if facts.unsent else ""


def _priority(placed: Placed) -> tuple[str, str, str]:
    mark = {Priority.STAT: "!!", Priority.URGENT: "!", Priority.ROUTINE: ""}[placed.priority]
    if placed.waited and placed.priority is Priority.ROUTINE:
        return "waited", "~", "WAITED"
    return placed.priority.name.lower(), mark + ("~" if placed.waited else ""), placed.priority.name


def _said(listed: ListedStudy, has_findings: bool) -> tuple[str, str]:
    result = listed.result
    if result is None:
        return working_words(listed) or "no result yet", "working"
    if result.reason is not None:
        return f"not analysed: {result.reason.text}", "reason"
    if has_findings:
        return "", ""
    if not any(one.probability is not None for one in result.findings):
        return "a result without findings", "reason"
    if not any(one.probability is not None for one in result.findings if one.label != NO_FINDING):
        return "no single finding is assessed by this model", "reason"
    if any(one.label == NO_FINDING and one.not_assessed.startswith("not claimed") for one in result.findings):
        return "incomplete: nothing above threshold in the films that could be analysed", "reason"
    return nothing_above(result.findings), "nothing"


def _notes(listed: ListedStudy) -> tuple[str, ...]:
    if listed.result is None:
        return ()
    notes = [note for note in listed.result.notes if "not analysed" in note]
    working = working_words(listed)
    return (*notes, f"new film: {working}") if working else tuple(notes)
