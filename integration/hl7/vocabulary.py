"""The codes that results carry over HL7: what each OBX is about, priorities, statuses."""

from __future__ import annotations

from collections.abc import Mapping

from firstread.models.findings import PRIVATE_SCHEME, Code
from firstread.models.prediction import Priority

STUDY_INSTANCE_UID = Code("113014", "DCM", "DICOM Study")
TRIAGE_PRIORITY = Code("TRIAGE_PRIORITY", PRIVATE_SCHEME, "Triage priority")
PRIORITY_REASON = Code("PRIORITY_REASON", PRIVATE_SCHEME, "Reason for triage priority")
PRIORITY_CAUSE = Code("PRIORITY_CAUSE", PRIVATE_SCHEME, "Finding that raised the priority")
NOT_ANALYSED = Code("NOT_ANALYSED", PRIVATE_SCHEME, "Not analysed, reason")
REVISION = Code("REVISION", PRIVATE_SCHEME, "Revision of the result")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
WEIGHTS_SHA256 = Code("WEIGHTS_SHA256", PRIVATE_SCHEME, "SHA-256 of the model's weights")
REPORT_UID = Code("REPORT_SOP_INSTANCE_UID", PRIVATE_SCHEME, "Structured report")
HEATMAP_UID = Code("HEATMAP_SOP_INSTANCE_UID", PRIVATE_SCHEME, "Heat map")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")

STATEMENT = "AI result, not verified by a person, not a diagnosis"
REPLACES = "Revision {} of this result replaces every earlier one"
NO_STUDY_TIME = "The study's date is not known: OBR-7 holds the time of the analysis"
EXPERIMENTAL_TEXT = "experimental finding: not validated for triage"

TABLE_0485 = {Priority.STAT: ("S", "Stat"), Priority.URGENT: ("A", "ASAP")}
"""TQ1-9's extended priority codes. ROUTINE has none here: an R would lower an order that we know nothing of."""

ABNORMAL_FLAGS: Mapping[Priority, str] = {Priority.STAT: "AA", Priority.URGENT: "A"}
"""Table 0078 for OBX-8 of the triage priority. S would mean "susceptible" there."""

ORDERED_PRIORITIES: Mapping[str, Priority] = {
    **dict.fromkeys(("S", "STAT", "E", "EM", "EMER", "EMERGENCY", "CRITICAL"), Priority.STAT),
    **dict.fromkeys(("A", "ASAP", "U", "UR", "URG", "URGENT", "HIGH", "P", "PREOP", "T", "C"), Priority.URGENT),
    **dict.fromkeys(("R", "ROUTINE", "N", "NORMAL", "LOW", "PRN"), Priority.ROUTINE),
}
"""What senders write as a priority: tables 0485 and 0027 and the words in use. P: before an operation; T: timing
critical; C: somebody waits at a telephone. TS<n>, TM<n> ... (critical within n seconds, minutes) are URGENT too."""


def ordered_priority(text: str, values: Mapping[str, Priority] | None = None) -> Priority | None:
    """The priority that a sender's value asks for, None for an unknown one. ``values``: a site's own, asked first."""
    word = text.strip().upper()
    for table in (values or {}, ORDERED_PRIORITIES):
        found = {key.upper(): priority for key, priority in table.items()}.get(word)
        if found is not None:
            return found
    if word[:1] == "T" and word[1:2] in tuple("SMHDWL") and word[2:].isdigit():
        return Priority.URGENT
    return None


def is_replacement(text: str) -> bool:
    """True for the sentence that every revision after the first carries."""
    before, after = REPLACES.split("{}")
    return text.startswith(before) and text.endswith(after)
