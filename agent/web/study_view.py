"""Everything that the page shows of one study, as values: findings, films with their evidence, facts, documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firstread.agent.evidence import Evidence
from firstread.agent.store.reading_list import ShownArtifact, ShownImage, StudyInFull
from firstread.agent.store.tables import EntryState
from firstread.agent.web.report_text import ReportLine, report_lines
from firstread.agent.web.trail import TrailLine, trail_lines
from firstread.agent.web.words import age_words, date_words, finding_name, person_names
from firstread.models.findings import NO_FINDING, PATHOLOGIES
from firstread.models.prediction import Box, FindingResult, ModelIdentity, Priority

EvidenceOf = Callable[[int], Evidence | None]


@dataclass(frozen=True)
class FindingView:
    """One of the 14 findings. ``note``: experimental, what it raises, or why there is no probability."""

    label: str
    name: str
    probability: str
    threshold: str
    share: float
    threshold_share: float | None
    present: bool
    experimental: bool
    raises: str
    not_assessed: str
    film: int | None


@dataclass(frozen=True)
class BoxView:
    """Where the evidence for a finding lies, in the preview's pixels."""

    label: str
    name: str
    box: Box
    present: bool


@dataclass(frozen=True)
class FilmView:
    """One film. ``rows``, ``columns``: of its preview, 0 where its evidence does not say."""

    image: ShownImage
    rows: int
    columns: int
    boxes: tuple[BoxView, ...]
    labels: frozenset[str]


@dataclass(frozen=True)
class Document:
    """One object that went out. ``lines``: a report's content; ``segments``: a message's."""

    artifact: ShownArtifact
    title: str
    lines: tuple[ReportLine, ...]
    segments: tuple[str, ...]
    trouble: str


@dataclass(frozen=True)
class StudyView:
    """The selected study."""

    full: StudyInFull
    name: str
    other_name: str
    facts: tuple[tuple[str, str], ...]
    findings: tuple[FindingView, ...]
    statement: str
    reason: str
    priority: Priority
    priority_reason: str
    model: ModelIdentity | None
    notes: tuple[str, ...]
    films: tuple[FilmView, ...]
    film: FilmView | None
    label: str
    """The finding whose heat map is laid over the film; empty for none."""
    documents: tuple[Document, ...]
    trail: tuple[TrailLine, ...]

    @property
    def open(self) -> bool:
        """True while the study is on the list."""
        return self.full.listed.state is EntryState.OPEN


def study_view(
    full: StudyInFull, spool: Path, evidence_of: EvidenceOf, *, film_id: int | None = None, label: str | None = None
) -> StudyView:
    """The study with one film and one finding selected: those asked for, else those that matter most."""
    listed, result = full.listed, full.listed.result
    assessment = full.assessment
    raw = assessment.findings if assessment else result.findings if result else ()
    by_label = {one.label: one for one in raw}
    by_uid = {one.sop_instance_uid: one.id for one in full.images}
    causes = assessment.causes if assessment else result.causes if result else ()
    findings = tuple(
        _finding(by_label.get(name), name, by_uid)
        for name in sorted(PATHOLOGIES, key=lambda name: _weight(by_label.get(name), causes))
    )
    reason = assessment.reason if assessment else result.reason if result else None
    films = tuple(_film(one, findings, evidence_of(one.id) if one.has_evidence else None) for one in full.images)
    chosen_label = label if label in PATHOLOGIES else next((one.label for one in findings if one.film is not None), "")
    wanted = film_id if film_id is not None else next((one.film for one in findings if one.label == chosen_label), None)
    film = next((one for one in films if one.image.id == wanted), None)
    film = film or next((one for one in films if one.image.has_preview), films[0] if films else None)
    if film is None or chosen_label not in film.labels:
        chosen_label = ""
    name, other = person_names(listed.identity.patient_name)
    return StudyView(
        full=full,
        name=name,
        other_name=other,
        facts=_facts(full),
        findings=findings if raw else (),
        statement=_statement(by_label.get(NO_FINDING), findings) if raw and reason is None else "",
        reason=reason.text if reason else "",
        priority=max(listed.ordered or Priority.ROUTINE, listed.raised or Priority.ROUTINE),
        priority_reason=(assessment.priority_reason if assessment else result.priority_reason if result else ""),
        model=assessment.model if assessment else result.model if result else None,
        notes=tuple(assessment.notes if assessment else result.notes if result else ()),
        films=films,
        film=film,
        label=chosen_label,
        documents=tuple(_document(one, spool) for one in full.artifacts),
        trail=trail_lines(full.trail),
    )


def _weight(one: FindingResult | None, causes: tuple[str, ...]) -> tuple[bool, bool, bool, float]:
    if one is None or one.probability is None:
        return True, True, True, 0.0
    return one.label not in causes, not one.present, one.experimental, -one.probability / (one.threshold or 1.0)


def _finding(one: FindingResult | None, label: str, by_uid: dict[str, int]) -> FindingView:
    if one is None or one.probability is None:
        why = (one.not_assessed if one else "") or "not assessed"
        return FindingView(
            label, finding_name(label), "–", "", 0.0, None, False, bool(one and one.experimental), "", why, None
        )
    return FindingView(
        label=label,
        name=finding_name(label),
        probability=f"{one.probability:.2f}",
        threshold="" if one.threshold is None else f"{one.threshold:.2f}",
        share=round(100 * one.probability, 1),
        threshold_share=None if one.threshold is None else round(100 * one.threshold, 1),
        present=one.present,
        experimental=one.experimental,
        raises=one.raises.name if one.raises else "",
        not_assessed="",
        film=by_uid.get(one.sop_instance_uid or ""),
    )


def _statement(no_finding: FindingResult | None, findings: tuple[FindingView, ...]) -> str:
    """What is said of the whole. Never that anything is normal: 14 findings were looked for, nothing else."""
    present = [one for one in findings if one.present]
    if present:
        return ""
    if no_finding is not None and no_finding.not_assessed.startswith("not claimed"):
        return f"Nothing above threshold, but incomplete: {no_finding.not_assessed}."
    assessed = sum(1 for one in findings if not one.not_assessed)
    if assessed == 0:
        return "No single finding is assessed by this model. Nothing else was looked for."
    said = [f"None of the {assessed} assessed findings above threshold."]
    if assessed < len(findings):
        said.append(f"{len(findings) - assessed} findings are not assessed by this model.")
    if no_finding is None or no_finding.probability is None:
        said.append("Whether the film is without any finding is not assessed either.")
    return " ".join([*said, "Nothing else was looked for."])


def _film(image: ShownImage, findings: tuple[FindingView, ...], seen: Evidence | None) -> FilmView:
    if seen is None:
        return FilmView(image, 0, 0, (), frozenset())
    boxes = tuple(
        BoxView(one.label, one.name, seen.box(one.label), one.present)
        for one in findings
        if one.label in seen.labels and (one.film == image.id or not one.present)
    )
    return FilmView(image, seen.placement.film_rows, seen.placement.film_columns, boxes, frozenset(seen.labels))


def _facts(full: StudyInFull) -> tuple[tuple[str, str], ...]:
    one = full.listed.identity
    accessions = ", ".join(dict.fromkeys(number for number in (one.accession_number, *one.accession_numbers) if number))
    pairs = (
        ("patient id", one.patient_id),
        ("born", date_words(one.birth_date)),
        ("sex, age", " ".join(part for part in (one.sex, age_words(one)) if part)),
        ("accession", accessions),
        ("study", f"{date_words(one.study_date)} {one.study_description}".strip()),
        ("procedure", one.procedure_meaning),
        ("placer order", one.placer_order_number),
        ("filler order", one.filler_order_number),
        ("station", ", ".join(part for part in (one.station, one.institution) if part)),
        ("study UID", one.study_instance_uid),
    )
    return tuple((name, value) for name, value in pairs if value)


def _document(one: ShownArtifact, spool: Path) -> Document:
    titles = {"sr": "Structured Report", "heatmap": "Heat map", "oru": "HL7 message"}
    lines: tuple[ReportLine, ...] = ()
    segments: tuple[str, ...] = ()
    trouble = ""
    if one.kind == "sr" and one.path is not None:
        try:
            lines = report_lines(spool / one.path)
        except (OSError, ValueError) as error:
            trouble = f"the report cannot be shown: {error}"
    elif one.message is not None:
        segments = tuple(one.message.decode("utf-8", errors="replace").rstrip("\r").split("\r"))
    return Document(one, titles.get(one.kind, one.kind), lines, segments, trouble)
