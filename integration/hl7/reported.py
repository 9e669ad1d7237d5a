"""Results that come in as ORU^R01: our own on their way to the built-in list, and the RIS's reports."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from firstread.integration.hl7 import incoming
from firstread.integration.hl7 import vocabulary as words
from firstread.integration.hl7.er7 import Message, Segment, read
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from firstread.integration.hl7.incoming import Group
from firstread.integration.hl7.person import read_dtm
from firstread.models.findings import FINDINGS, PRIVATE_SCHEME, REASON_MEANINGS, Code, ReasonCode
from firstread.models.prediction import FindingResult, ModelIdentity, Priority, Reason, StudyIdentity

RESULT_KINDS = {"ORU": "R01"}
_LABELS = {(finding.code.value, finding.code.scheme): finding.label for finding in FINDINGS}


@dataclass(frozen=True)
class IncomingResult:
    """One result as it came.

    ``ours``: written by Firstread (this one or another): then findings, reason, revision and model are filled.
    ``final``: a report that ends the study's time on the list (OBR-25 F or C, and not ours: an AI result never is).
    ``cancelled``: the result or its order was cancelled (OBR-25 X).
    ``priority``: the highest that any known place says, None when none does.
    ``report_text``: the text of a report that is not ours, lines joined by line breaks.
    """

    message_control_id: str
    study_instance_uid: str = ""
    accession_numbers: tuple[str, ...] = ()
    placer_order_number: str = ""
    filler_order_number: str = ""
    patient: StudyIdentity = StudyIdentity("")  # noqa: RUF009 - frozen
    priority: Priority | None = None
    priority_reason: str = ""
    causes: tuple[str, ...] = ()
    findings: tuple[FindingResult, ...] = ()
    reason: Reason | None = None
    model: ModelIdentity | None = None
    notes: tuple[str, ...] = ()
    revision: int | None = None
    ours: bool = False
    final: bool = False
    cancelled: bool = False
    result_status: str = ""
    report_uid: str = ""
    heatmap_uid: str = ""
    report_text: str = ""
    sending_application: str = ""
    reported_at: datetime | None = None
    remark: str = ""

    @property
    def accession_number(self) -> str:
        """The first accession number, empty when there is none."""
        return self.accession_numbers[0] if self.accession_numbers else ""


def parse_results(
    message: bytes,
    *,
    priority_values: Mapping[str, Priority] | None = None,
    priority_places: Sequence[str] = (),
    accession_places: Sequence[str] = incoming.ACCESSION_PLACES,
) -> tuple[IncomingResult, ...]:
    """All results of a message, one for each OBR group, at least one.

    ``priority_places``: a sender's own places (``ZFR-1``, ``OBX:CODE``) beside the ones that are always asked.
    Raises ``UnreadableMessage``: 100 no OBR; 101 no key by which the study could be found; 200, 201, 203 not ORU^R01.
    """
    taken = read(message)
    incoming.check_kind(taken, RESULT_KINDS)
    found = [group for group in incoming.groups(taken) if group.first("OBR")]
    if not found:
        raise UnreadableMessage(100, ErrorLocation("OBR"), "a result without OBR: send ORC, OBR and OBX")
    results = tuple(_result(taken, group, priority_values, priority_places, accession_places) for group in found)
    for group, result in zip(found, results, strict=True):
        keys = (result.study_instance_uid, result.accession_numbers, result.placer_order_number)
        if not any((*keys, result.filler_order_number)):
            obr = group.first("OBR")
            at = obr.at(3) if obr else ErrorLocation("OBR", 1, 3)
            raise UnreadableMessage(
                101, at, "the result has no key: send an order number, an accession number or a Study UID"
            )
    return results


def parse_result(
    message: bytes,
    *,
    priority_values: Mapping[str, Priority] | None = None,
    priority_places: Sequence[str] = (),
    accession_places: Sequence[str] = incoming.ACCESSION_PLACES,
) -> IncomingResult:
    """A message's results as one: for our own, which repeat themselves for each accession number of a study.

    Of several, the keys are put together, the priority is the highest, and it is final or cancelled only when every
    one is: what stays on the list by mistake is seen, what leaves it by mistake is not.
    """
    results = parse_results(
        message,
        priority_values=priority_values,
        priority_places=priority_places,
        accession_places=accession_places,
    )
    first = results[0]
    accessions = tuple(dict.fromkeys(number for result in results for number in result.accession_numbers))
    return replace(
        first,
        study_instance_uid=next((result.study_instance_uid for result in results if result.study_instance_uid), ""),
        accession_numbers=accessions,
        patient=replace(first.patient, accession_numbers=accessions, accession_number=(*accessions, "")[0]),
        priority=max((result.priority for result in results if result.priority is not None), default=None),
        final=all(result.final for result in results),
        cancelled=all(result.cancelled for result in results),
        report_text="\n".join(dict.fromkeys(result.report_text for result in results if result.report_text)),
    )


def _result(
    message: Message,
    group: Group,
    priority_values: Mapping[str, Priority] | None,
    priority_places: Sequence[str],
    accession_places: Sequence[str],
) -> IncomingResult:
    placer, filler = incoming.order_numbers(group)
    accessions = incoming.accession_numbers(group, accession_places)
    uid = incoming.study_instance_uid(group.segments)
    status = group.value("OBR", 25).upper()
    observed = _Observations(group)
    ours = observed.has(words.REVISION)
    priority, _ = incoming.read_priority(group, priority_values, priority_places)
    told = observed.priority()
    observed_at = group.value("OBR", 7)
    study = StudyIdentity(
        uid,
        study_date=observed_at[:8],
        study_time=re.sub(r"[^0-9].*", "", observed_at[8:]),
        accession_number=(*accessions, "")[0],
        accession_numbers=accessions,
        placer_order_number=placer,
        filler_order_number=filler,
        procedure_code=group.value("OBR", 4),
        procedure_meaning=group.value("OBR", 4, 2),
        procedure_scheme=group.value("OBR", 4, 3),
    )
    return IncomingResult(
        message_control_id=message.header.value(10),
        study_instance_uid=uid,
        accession_numbers=accessions,
        placer_order_number=placer,
        filler_order_number=filler,
        patient=incoming.read_patient(message, study),
        priority=max((p for p in (priority, told) if p is not None), default=None),
        priority_reason=observed.text(words.PRIORITY_REASON),
        causes=observed.causes(),
        findings=observed.findings(),
        reason=observed.reason(),
        model=observed.model(),
        notes=_notes(group),
        revision=observed.number(words.REVISION),
        ours=ours,
        final=status in ("F", "C") and not ours,
        cancelled=status == "X" and not ours,
        result_status=status,
        report_uid=observed.text(words.REPORT_UID),
        heatmap_uid=observed.text(words.HEATMAP_UID),
        report_text="" if ours else observed.report(),
        sending_application=message.header.value(3),
        reported_at=read_dtm(group.value("OBR", 22)),
        remark=message.remark,
    )


def _notes(group: Group) -> tuple[str, ...]:
    """Comments on the whole result (before the first OBX), without the sentences that every message of ours has."""
    standing = {words.STATEMENT, words.NO_STUDY_TIME}
    found: list[str] = []
    for segment in group.segments:
        if segment.name == "OBX":
            break
        if segment.name == "NTE":
            text = _comment(segment)
            if text and text not in standing and not words.is_replacement(text):
                found.append(text)
    return tuple(found)


def _comment(nte: Segment) -> str:
    return "\n".join(nte.text(repetition) for repetition in nte.repetitions(3)).strip()


class _Observations:
    """The OBX of a group with the comments that follow each."""

    def __init__(self, group: Group) -> None:
        self._found: list[tuple[Segment, list[str]]] = []
        for segment in group.segments:
            if segment.name == "OBX":
                self._found.append((segment, []))
            elif segment.name == "NTE" and self._found:
                self._found[-1][1].append(_comment(segment))

    def _of(self, concept: Code) -> tuple[Segment, list[str]] | None:
        wanted = (concept.value, concept.scheme)
        return next((pair for pair in self._found if (pair[0].value(3, 1), pair[0].value(3, 3)) == wanted), None)

    def has(self, concept: Code) -> bool:
        return self._of(concept) is not None

    def text(self, concept: Code) -> str:
        found = self._of(concept)
        return "".join(map(found[0].text, found[0].repetitions(5))).strip() if found else ""

    def number(self, concept: Code) -> int | None:
        text = self.text(concept)
        return int(text) if text.isascii() and text.isdigit() else None

    def priority(self) -> Priority | None:
        found = self._of(words.TRIAGE_PRIORITY)
        if not found:
            return None
        said = [words.ordered_priority(found[0].value(5, part)) for part in (1, 4)]
        return max((priority for priority in said if priority is not None), default=None)

    def causes(self) -> tuple[str, ...]:
        found = self._of(words.PRIORITY_CAUSE)
        if not found:
            return ()
        obx = found[0]
        codes = ((obx.value(5, 1, 1, n), obx.value(5, 3, 1, n)) for n in range(1, len(obx.repetitions(5)) + 1))
        return tuple(_LABELS[code] for code in codes if code in _LABELS)

    def reason(self) -> Reason | None:
        found = self._of(words.NOT_ANALYSED)
        if not found:
            return None
        obx, comments = found
        text = comments[0] if comments else obx.value(5, 9)
        try:
            code = ReasonCode(obx.value(5, 1))
        except ValueError:
            return Reason(ReasonCode.PROCESSING_FAILED, text or obx.value(5, 2))
        meaning = REASON_MEANINGS[code]
        return Reason(code, text.removeprefix(meaning).removeprefix(":").strip())

    def model(self) -> ModelIdentity | None:
        name, version = self.text(words.ALGORITHM_NAME), self.text(words.ALGORITHM_VERSION)
        return ModelIdentity(name, version, self.text(words.WEIGHTS_SHA256)) if name or version else None

    def findings(self) -> tuple[FindingResult, ...]:
        found: list[FindingResult] = []
        for obx, comments in self._found:
            label = _LABELS.get((obx.value(3, 1), obx.value(3, 3)))
            if label is None or obx.value(2) != "NM":
                continue
            experimental = words.EXPERIMENTAL_TEXT in comments
            why = next((comment for comment in comments if comment != words.EXPERIMENTAL_TEXT), "")
            probability = None if obx.value(11) == "X" else _fraction(obx.value(5))
            found.append(
                FindingResult(
                    label,
                    probability,
                    threshold=_fraction(obx.value(7).lstrip("<")),
                    present=any(obx.value(8, 1, 1, n) == "H" for n in range(1, len(obx.repetitions(8)) + 1)),
                    experimental=experimental,
                    not_assessed=(why or "not obtained") if probability is None else "",
                )
            )
        return tuple(found)

    def report(self) -> str:
        lines = [
            obx.text(repetition)
            for obx, _ in self._found
            if obx.value(2) in ("TX", "FT", "ST") and obx.value(3, 3) != PRIVATE_SCHEME
            for repetition in obx.repetitions(5)
        ]
        return "\n".join(lines).strip()


def _fraction(text: str) -> float | None:
    """A probability or operating point, None for what is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= 1 else None
