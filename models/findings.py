"""The vocabulary every room shares: the 15 labels and the reasons for not analysing, with their codes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

PRIVATE_SCHEME = "99FIRSTREAD"


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Finding:
    """One label of NIH ChestX-ray14, its code and the name a radiologist reads."""

    label: str
    code: Code

    @property
    def display(self) -> str:
        """Name as shown to people, in lower case: ``pleural thickening``."""
        return self.label.replace("_", " ").lower()


NO_FINDING = "No Finding"

FINDINGS: tuple[Finding, ...] = (
    Finding("Atelectasis", Code("46621007", "SCT", "Atelectasis")),
    Finding("Cardiomegaly", Code("8186001", "SCT", "Cardiomegaly")),
    Finding("Consolidation", Code("95436008", "SCT", "Lung consolidation")),
    Finding("Edema", Code("19242006", "SCT", "Pulmonary edema")),
    Finding("Effusion", Code("60046008", "SCT", "Pleural effusion")),
    Finding("Emphysema", Code("87433001", "SCT", "Pulmonary emphysema")),
    Finding("Fibrosis", Code("51615001", "SCT", "Fibrosis of lung")),
    Finding("Hernia", Code("84089009", "SCT", "Hiatal hernia")),
    Finding("Infiltration", Code("112121", "DCM", "Infiltrate")),
    Finding("Mass", Code("309529002", "SCT", "Lung mass")),
    Finding("Nodule", Code("786838002", "SCT", "Pulmonary nodule")),
    Finding("Pleural_Thickening", Code("PLEURAL_THICK", PRIVATE_SCHEME, "Pleural thickening")),
    Finding("Pneumonia", Code("233604007", "SCT", "Pneumonia")),
    Finding("Pneumothorax", Code("36118008", "SCT", "Pneumothorax")),
    Finding(NO_FINDING, Code("NO_FINDING", PRIVATE_SCHEME, "None of the assessed findings")),
)

LABELS: tuple[str, ...] = tuple(finding.label for finding in FINDINGS)
"""The 15 labels in NIH's order, No Finding last."""

PATHOLOGIES: tuple[str, ...] = tuple(label for label in LABELS if label != NO_FINDING)
"""The 14 findings, without No Finding."""

FINDING_BY_LABEL: dict[str, Finding] = {finding.label: finding for finding in FINDINGS}


class ReasonCode(enum.StrEnum):
    """Why an image or a study was not analysed. The value is the code in SR and ORU: at most 16 characters (SH)."""

    NOT_A_RADIOGRAPH = "NOT_A_RADIOGRAPH"
    NOT_A_CHEST = "NOT_A_CHEST"
    LATERAL_VIEW = "LATERAL_VIEW"
    BELOW_MINIMUM_AGE = "BELOW_MIN_AGE"
    FOR_PROCESSING = "FOR_PROCESSING"
    SEVERAL_FRAMES = "SEVERAL_FRAMES"
    NO_PIXEL_DATA = "NO_PIXEL_DATA"
    CANNOT_DECODE = "CANNOT_DECODE"
    TOO_SMALL = "TOO_SMALL"
    ANIMAL = "ANIMAL"
    PRIOR_STUDY = "PRIOR_STUDY"
    CONFLICTING_PATIENTS = "CONFLICT_PATIENT"
    PROCESSING_FAILED = "PROCESS_FAILED"
    OUTSIDE_EXPERIENCE = "OUTSIDE_MODEL"
    NO_IMAGE = "NO_IMAGE"


REASON_MEANINGS: dict[ReasonCode, str] = {
    ReasonCode.NOT_A_RADIOGRAPH: "not a radiograph",
    ReasonCode.NOT_A_CHEST: "not a chest",
    ReasonCode.LATERAL_VIEW: "lateral view",
    ReasonCode.BELOW_MINIMUM_AGE: "below minimum age",
    ReasonCode.FOR_PROCESSING: "for processing image",
    ReasonCode.SEVERAL_FRAMES: "several frames",
    ReasonCode.NO_PIXEL_DATA: "no pixel data",
    ReasonCode.CANNOT_DECODE: "cannot decode",
    ReasonCode.TOO_SMALL: "too small",
    ReasonCode.ANIMAL: "animal",
    ReasonCode.PRIOR_STUDY: "prior study",
    ReasonCode.CONFLICTING_PATIENTS: "conflicting patients",
    ReasonCode.PROCESSING_FAILED: "processing failed",
    ReasonCode.OUTSIDE_EXPERIENCE: "outside the model's experience",
    ReasonCode.NO_IMAGE: "no image in the study",
}


def reason_concept(code: ReasonCode) -> Code:
    """The coded concept of a reason, as it stands in SR and ORU."""
    return Code(code.value, PRIVATE_SCHEME, REASON_MEANINGS[code])
