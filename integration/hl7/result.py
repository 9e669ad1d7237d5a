"""An assessment as ORU^R01^ORU_R01, HL7 v2.5.1 (chapter 7): what the RIS is told about a study.

A revision goes out as a whole and as unverified again (OBX-11 R, OBR-25 R): a receiver replaces what it had of the same
order with the new set (snapshot mode, 2.10.4), and labels that fell away come as X, so nothing old is left standing.
"C, correction" is kept for destinations that map our status to F: table 0085 says that it replaces a *final* result,
and to send it over an unverified one would claim that a final one had been there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from firstread.integration.hl7 import person
from firstread.integration.hl7 import vocabulary as words
from firstread.integration.hl7.charset import codec_of
from firstread.integration.hl7.er7 import field, header, segment
from firstread.integration.hl7.errors import UnbuildableMessage
from firstread.integration.hl7.escape import clean, escape, pieces, tidy
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.findings import FINDING_BY_LABEL, LABELS, NO_FINDING, PRIVATE_SCHEME, Code, reason_concept
from firstread.models.prediction import Assessment, FindingResult, Priority, StudyIdentity

__all__ = ["Hl7Mapping", "build_oru"]

_CONTROL_ID = re.compile(r"[!-~]{1,20}")
_TEXT_LIMIT = 199


def build_oru(
    assessment: Assessment,
    study: StudyIdentity,
    mapping: Hl7Mapping,
    *,
    control_id: str,
    message_datetime: datetime,
    report_uids: Mapping[str, str] | None = None,
) -> bytes:
    """The message for one revision of a study, segments ended by CR, without MLLP framing.

    ``control_id``: MSH-10, 1 to 20 printable ASCII characters, the same on every retry.
    ``report_uids``: SOP Instance UIDs of what went to the PACS, by kind: ``sr``, ``heatmap``.
    Priority fields stand in it only when ``assessment.priority`` is above ROUTINE.
    What ``mapping.character_set`` lacks becomes ``?`` in names and texts; for an identifier's sake the whole message is
    written in UTF-8, and says so. Raises ``UnbuildableMessage`` for a control id that is none; no study can cause it.
    """
    if not _CONTROL_ID.fullmatch(control_id) or set(control_id) & set("|^~\\&"):
        raise UnbuildableMessage(f"MSH-10 {control_id!r}: use 1 to 20 letters, digits or points")
    charset = _charset(study, mapping)
    lines = [
        _msh(mapping, control_id, message_datetime, charset),
        _pid(study, mapping),
        segment("PV1", {2: escape(_patient_class(study))}),
    ]
    for number, accession in enumerate(_accessions(study, mapping), start=1):
        lines += _order_group(number, accession, assessment, study, mapping, report_uids or {})
    lines += _z_segments(assessment, mapping)
    return "".join(line + "\r" for line in lines).encode(codec_of(charset) or "utf-8", errors="replace")


def _charset(study: StudyIdentity, mapping: Hl7Mapping) -> str:
    """MSH-18: the destination's, or UTF-8 where that cannot write an identifier, which must never become ``?``."""
    keys = (study.patient_id, study.placer_order_number, study.filler_order_number, *_accessions(study, mapping))
    try:
        "".join(map(clean, keys)).encode(codec_of(mapping.character_set) or "utf-8")
    except UnicodeEncodeError:
        return "UNICODE UTF-8"
    return mapping.character_set


def _msh(mapping: Hl7Mapping, control_id: str, moment: datetime, charset: str) -> str:
    return header(
        {
            3: field(*person.hd(mapping.sending_application)),
            4: field(*person.hd(mapping.sending_facility)),
            5: field(*person.hd(mapping.receiving_application)),
            6: field(*person.hd(mapping.receiving_facility)),
            7: person.dtm(moment),
            9: "ORU^R01^ORU_R01",
            10: control_id,
            11: mapping.processing_id,
            12: "2.5.1",
            18: charset,
        }
    )


def _pid(study: StudyIdentity, mapping: Hl7Mapping) -> str:
    authority = tidy(study.issuer_of_patient_id) or mapping.assigning_authority
    return segment(
        "PID",
        {
            1: "1",
            3: person.cx(study.patient_id, authority, mapping.patient_id_type),
            5: person.xpn(study.patient_name),
            7: person.birth_date(study.birth_date),
            8: person.sex(study.sex),
        },
    )


def _patient_class(study: StudyIdentity) -> str:
    """Table 0004 is the user's own, so a code is kept; U (unknown) where there is none."""
    code = study.patient_class.strip().upper()
    return code if re.fullmatch(r"[A-Z0-9]{1,3}", code) else "U"


def _accessions(study: StudyIdentity, mapping: Hl7Mapping) -> list[str]:
    """The accession numbers as received, one order group each; one empty where the study has none."""
    known = dict.fromkeys(tidy(number) for number in (study.accession_number, *study.accession_numbers))
    numbers = [number for number in known if number] or [""]
    return numbers if mapping.every_accession else numbers[:1]


def _order_group(
    number: int,
    accession: str,
    assessment: Assessment,
    study: StudyIdentity,
    mapping: Hl7Mapping,
    report_uids: Mapping[str, str],
) -> Iterator[str]:
    raised = assessment.priority > Priority.ROUTINE
    value = escape(mapping.priority_values[assessment.priority]) if raised else ""
    places = mapping.priority_place if raised else ()
    order = {2: escape(tidy(study.placer_order_number)), 3: escape(tidy(study.filler_order_number))}
    order |= {int(place[4:]): escape(accession) for place in mapping.accession_place}
    observed = person.study_time(study.study_date, study.study_time)
    yield segment("ORC", {1: "RE", 2: order[2], 3: order[3]})
    yield segment(
        "OBR",
        {
            **order,
            1: str(number),
            4: _service(study),
            5: value if "OBR-5" in places else "",
            7: observed or person.dtm(assessment.created_at),
            22: person.dtm(assessment.created_at),
            24: "RAD",
            25: _status(mapping.obr_25, assessment),
            27: f"^^^^^{value}" if "OBR-27.6" in places else "",
        },
    )
    for line, note in enumerate(_notes(assessment, bool(observed)), start=1):
        yield _nte(line, note)
    if "TQ1-9" in places:
        yield segment("TQ1", {1: "1", 9: _tq1_priority(assessment.priority, mapping)})
    observations = _observations(assessment, study, mapping, report_uids)
    for line, (fields, comments) in enumerate(observations, start=1):
        yield segment("OBX", {1: str(line)} | fields)
        for comment_line, comment in enumerate(comments, start=1):
            yield _nte(comment_line, comment)


def _tq1_priority(priority: Priority, mapping: Hl7Mapping) -> str:
    value = mapping.priority_values[priority]
    for code, text in words.TABLE_0485.values():
        if value == code:
            return field(code, text, "HL70485")
    return field(value)


def _service(study: StudyIdentity) -> str:
    """OBR-4, what was ordered. Without a code from the sender it is ours, and the text is the study's description."""
    if tidy(study.procedure_code):
        return field(_short(study.procedure_code), _short(study.procedure_meaning), _short(study.procedure_scheme))
    return field("STUDY", _short(study.study_description) or "Radiographic study", PRIVATE_SCHEME)


def _short(text: str) -> str:
    return tidy((pieces(tidy(text), _TEXT_LIMIT) or [""])[0])


def _status(status: str, assessment: Assessment) -> str:
    return "C" if status == "F" and assessment.revision > 1 else status


def _notes(assessment: Assessment, observed: bool) -> Iterator[str]:
    yield words.STATEMENT
    if assessment.revision > 1:
        yield words.REPLACES.format(assessment.revision)
    yield from filter(tidy, assessment.notes)
    if not observed:
        yield words.NO_STUDY_TIME


def _nte(number: int, text: str) -> str:
    return segment("NTE", {1: str(number), 2: "L", 3: escape(tidy(text)), 4: "RE"})


_Observation = tuple[dict[int, str], tuple[str, ...]]


def _observations(
    assessment: Assessment, study: StudyIdentity, mapping: Hl7Mapping, report_uids: Mapping[str, str]
) -> Iterator[_Observation]:
    """OBX after OBX without its number, each with its comments: one fact each."""
    status = _status(mapping.result_status, assessment)
    uid = tidy(study.study_instance_uid) or assessment.study_instance_uid
    yield _obx("ST", words.STUDY_INSTANCE_UID, escape(uid), status), ()
    yield from _priority(assessment, mapping, status)
    if assessment.reason is not None:
        concept = reason_concept(assessment.reason.code)
        text = _short(assessment.reason.text)
        coded = field(concept.value, concept.meaning, concept.scheme, "", "", "", "", "", text)
        comments = (assessment.reason.text,) if text != tidy(assessment.reason.text) else ()
        yield _obx("CWE", words.NOT_ANALYSED, coded, status), comments
    told = {finding.label: finding for finding in assessment.findings}
    for label in (*LABELS, *(label for label in told if label not in LABELS)):
        yield _finding(told.get(label) or _unknown(label, assessment), status)
    if assessment.model is not None:
        yield _obx("ST", words.ALGORITHM_NAME, escape(_short(assessment.model.name)), status), ()
        yield _obx("ST", words.ALGORITHM_VERSION, escape(_short(assessment.model.version)), status), ()
        if assessment.model.weights_sha256:
            yield _obx("ST", words.WEIGHTS_SHA256, escape(assessment.model.weights_sha256), status), ()
    yield _obx("NM", words.REVISION, str(assessment.revision), status), ()
    for kind, concept in (("sr", words.REPORT_UID), ("heatmap", words.HEATMAP_UID)):
        if report_uids.get(kind):
            yield _obx("ST", concept, escape(report_uids[kind]), status), ()


def _unknown(label: str, assessment: Assessment) -> FindingResult:
    """A label that the assessment does not hold: said as not obtained, so that silence is never a negative."""
    why = "study not analysed" if assessment.reason is not None else "not assessed by this model"
    return FindingResult(label, None, not_assessed=why)


def _obx(value_type: str, concept: Code, value: str, status: str, **more: str) -> dict[int, str]:
    return {
        2: value_type,
        3: field(concept.value, concept.meaning, concept.scheme),
        5: value,
        11: status,
    } | {int(number[1:]): text for number, text in more.items()}


def _priority(assessment: Assessment, mapping: Hl7Mapping, status: str) -> Iterator[_Observation]:
    if assessment.priority <= Priority.ROUTINE:
        return
    priority = assessment.priority
    code, text = words.TABLE_0485[priority]
    value = field(code, text, "HL70485", priority.name, priority.name, PRIVATE_SCHEME)
    flag = escape(mapping.abnormal_flags[priority]) if "OBX-8" in mapping.priority_place else ""
    yield _obx("CWE", words.TRIAGE_PRIORITY, value, status, f8=flag), ()
    if tidy(assessment.priority_reason):
        lines = "~".join(map(escape, pieces(tidy(assessment.priority_reason), _TEXT_LIMIT)))
        yield _obx("TX", words.PRIORITY_REASON, lines, status), ()
    causes = [FINDING_BY_LABEL[label].code for label in assessment.causes if label in FINDING_BY_LABEL]
    if causes:
        coded = "~".join(field(cause.value, cause.meaning, cause.scheme) for cause in causes)
        yield _obx("CWE", words.PRIORITY_CAUSE, coded, status), ()
    for place in mapping.priority_place:
        if place.startswith("OBX:"):
            concept, meaning, scheme = ([*place[4:].split("^"), "", ""])[:3]
            named = Code(concept, scheme or "L", meaning or "Priority")
            yield _obx("ST", named, escape(mapping.priority_values[priority]), status), ()


def _finding(finding: FindingResult, status: str) -> _Observation:
    concept = _concept(finding.label)
    method = {"f17": field(words.ARTIFICIAL_INTELLIGENCE.value, words.ARTIFICIAL_INTELLIGENCE.meaning, "DCM")}
    comments = (words.EXPERIMENTAL_TEXT,) if finding.experimental else ()
    if finding.probability is None or not 0 <= finding.probability <= 1:
        why = tidy(finding.not_assessed) or "not assessed by this model"
        return _obx("NM", concept, "", "X", **method), (*comments, why)
    is_finding = finding.label != NO_FINDING
    value, threshold = _numbers(finding)
    more = {
        "f6": field("1", "", "UCUM"),
        "f7": f"<{threshold}" if threshold and is_finding else "",
        "f8": "H" if finding.present and is_finding else "",
    }
    return _obx("NM", concept, value, status, **more, **method), comments


def _concept(label: str) -> Code:
    known = FINDING_BY_LABEL.get(label)
    return known.code if known else Code(_short(label).upper().replace(" ", "_"), PRIVATE_SCHEME, _short(label))


def _numbers(finding: FindingResult) -> tuple[str, str]:
    """Probability and threshold as NM, with as many digits as it takes to keep them on their sides of each other."""
    probability, threshold = finding.probability or 0.0, finding.threshold
    if threshold is None or not math.isfinite(threshold):
        return _number(probability, 4), ""
    for digits in (4, 6, 9, 15):
        value, limit = _number(probability, digits), _number(threshold, digits)
        if (float(value) >= float(limit)) == (probability >= threshold):
            break
    return value, limit


def _number(value: float, digits: int) -> str:
    """NM without exponent: ``0.81``, ``0.8123``."""
    whole, _, fraction = f"{value:.{digits}f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _z_segments(assessment: Assessment, mapping: Hl7Mapping) -> Iterator[str]:
    """The sites' own segments, behind everything that the standard orders."""
    if assessment.priority <= Priority.ROUTINE:
        return
    value = escape(mapping.priority_values[assessment.priority])
    found: dict[str, dict[int, str]] = {}
    for place in mapping.priority_place:
        if place.startswith("Z"):
            name, _, number = place.partition("-")
            found.setdefault(name, {})[int(number)] = value
    for name, fields in found.items():
        yield segment(name, fields)
