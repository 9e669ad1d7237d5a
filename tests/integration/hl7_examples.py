"""Studies, assessments and orders that the HL7 tests speak about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.integration.hl7.result import build_oru
from firstread.models.findings import NO_FINDING, PATHOLOGIES, ReasonCode
from firstread.models.prediction import (
    Assessment,
    FindingResult,
    ModelIdentity,
    Priority,
    Reason,
    StudyIdentity,
)

STUDY = StudyIdentity(
    "1.2.840.113619.2.55.3",
    patient_id="P-4711",
    issuer_of_patient_id="HOSP",
    patient_name="Müller^Änne^Maria^Dr^MD",
    birth_date="19500131",
    sex="F",
    accession_number="ACC-1",
    placer_order_number="PL-1",
    filler_order_number="FI-1",
    study_date="20260102",
    study_time="030405.120000",
    study_description="Thorax p.a.",
    procedure_code="RXTHPA",
    procedure_scheme="99RIS",
    procedure_meaning="Thorax p.a. Bett",
    patient_class="E",
)

MODEL = ModelIdentity("reference", "1.0.0", "ab" * 32)
NOW = datetime(2026, 1, 2, 3, 6, 7, tzinfo=UTC)


def findings() -> tuple[FindingResult, ...]:
    """Pneumothorax over its operating point, hernia experimental, mass not assessed, the rest below."""
    told: dict[str, FindingResult] = {
        "Pneumothorax": FindingResult("Pneumothorax", 0.8123, 0.6, present=True, raises=Priority.STAT),
        "Hernia": FindingResult("Hernia", 0.9, 0.5, present=True, experimental=True),
        "Mass": FindingResult("Mass", None, not_assessed="not assessed by this model"),
        NO_FINDING: FindingResult(NO_FINDING, 0.97, 0.5, present=True),
    }
    return tuple(told.get(label, FindingResult(label, 0.1, 0.5)) for label in (*PATHOLOGIES, NO_FINDING))


RAISED = Assessment(
    STUDY.study_instance_uid,
    1,
    NOW,
    findings=findings(),
    priority=Priority.STAT,
    priority_reason="pneumothorax 0.81 above 0.60",
    causes=("Pneumothorax",),
    notes=("one of 2 images not analysed: lateral view",),
    model=MODEL,
)
QUIET = replace(RAISED, priority=Priority.ROUTINE, priority_reason="", causes=(), notes=())
NOT_ANALYSED = Assessment(
    STUDY.study_instance_uid, 1, NOW, reason=Reason(ReasonCode.LATERAL_VIEW, "ViewPosition LL"), model=MODEL
)


def oru(
    assessment: Assessment = RAISED,
    study: StudyIdentity = STUDY,
    mapping: Hl7Mapping | None = None,
    control_id: str = "FR0001",
    report_uids: dict[str, str] | None = None,
) -> bytes:
    """A result as it would go out."""
    return build_oru(
        assessment,
        study,
        mapping or Hl7Mapping(sending_facility="HOSP", receiving_application="RIS"),
        control_id=control_id,
        message_datetime=NOW,
        report_uids=report_uids,
    )


def lines(message: bytes) -> list[str]:
    """The segments as text."""
    return message.decode().rstrip("\r").split("\r")


def segments(message: bytes, name: str) -> list[list[str]]:
    """The segments of one name, each split into its fields: ``[...][n]`` is field n (not for MSH)."""
    return [line.split("|") for line in lines(message) if line.startswith(name + "|")]


def order(
    *more: str, header: str = "ORM^O01^ORM_O01", charset: str = "UNICODE UTF-8", orc: str = "ORC|NW|PL-1|FI-1"
) -> bytes:
    """An order as a RIS sends it: header, patient, visit, ORC, and the segments in ``more``."""
    return "".join(
        line + "\r"
        for line in (
            f"MSH|^~\\&|RIS|HOSP|FIRSTREAD||20260102030405||{header}|CTL-1|P|2.5.1||||||{charset}",
            "PID|1||P-4711^^^HOSP^MR||Müller^Änne^Maria^MD^Dr||19500131|F",
            "PV1|1|E",
            orc,
            *more,
        )
    ).encode("utf-8")
