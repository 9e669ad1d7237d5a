"""The coded concepts of a report that are no findings: standard ones where there is one, ours under 99FIRSTREAD."""

from __future__ import annotations

from firstread.models.findings import PRIVATE_SCHEME, Code
from firstread.models.prediction import Priority

IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_OBSERVER_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_OBSERVER_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_OBSERVER_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_OBSERVER_MODEL_NAME = Code("121015", "DCM", "Device Observer Model Name")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UNIQUE_IDENTIFIER = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING = Code("121071", "DCM", "Finding")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_FAMILY = Code("111000", "DCM", "Algorithm Family")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
PROBABILITY = Code("122157", "DCM", "Probability")
NO_UNITS = Code("1", "UCUM", "no units")
PRESENCE = Code("705057003", "SCT", "Presence")
PRESENT = Code("52101004", "SCT", "Present")
IMAGE_REGION = Code("111030", "DCM", "Image Region")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
SOURCE = Code("260753009", "SCT", "Source")
COMMENT = Code("121106", "DCM", "Comment")
SUMMARY = Code("121111", "DCM", "Summary")

CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain X-ray of chest")
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")

MODALITY = Code("121139", "DCM", "Modality")
ACQUISITION_DATE = Code("126201", "DCM", "Acquisition Date")
ACQUISITION_TIME = Code("126202", "DCM", "Acquisition Time")
IMAGE_VIEW = Code("111031", "DCM", "Image View")
PATIENT_ORIENTATION_ROW = Code("111044", "DCM", "Patient Orientation Row")
PATIENT_ORIENTATION_COLUMN = Code("111043", "DCM", "Patient Orientation Column")
HORIZONTAL_PIXEL_SPACING = Code("111026", "DCM", "Horizontal Pixel Spacing")
VERTICAL_PIXEL_SPACING = Code("111066", "DCM", "Vertical Pixel Spacing")
MILLIMETER = Code("mm", "UCUM", "mm")

MODALITIES = {
    "CR": Code("CR", "DCM", "Computed Radiography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
    "RG": Code("RG", "DCM", "Radiographic imaging"),
    "RF": Code("RF", "DCM", "Radiofluoroscopy"),
    "OT": Code("OT", "DCM", "Other Modality"),
}
"""Of CID 29, those that films come as; others are left out."""

VIEWS = {
    "AP": Code("399348003", "SCT", "antero-posterior"),
    "PA": Code("272479007", "SCT", "postero-anterior"),
    "LL": Code("399173006", "SCT", "left lateral"),
    "RL": Code("399198007", "SCT", "right lateral"),
}
"""View Position (0018,5101) as CID 4010 "DX View"."""

SOFTWARE_VERSION = Code("SOFTWARE_VERSION", PRIVATE_SCHEME, "Device Observer Software Version")
OPERATING_POINT = Code("OPERATING_POINT", PRIVATE_SCHEME, "Operating point")
ASSESSMENT = Code("ASSESSMENT", PRIVATE_SCHEME, "Assessment")
NOT_ASSESSED = Code("NOT_ASSESSED", PRIVATE_SCHEME, "Not assessed")
NOT_ANALYSED = Code("NOT_ANALYSED", PRIVATE_SCHEME, "Reason not analysed")
TRIAGE_PRIORITY = Code("TRIAGE_PRIORITY", PRIVATE_SCHEME, "Triage priority")
TRIAGE_REASON = Code("TRIAGE_REASON", PRIVATE_SCHEME, "Reason for triage priority")
NOT_RAISED = Code("NOT_RAISED", PRIVATE_SCHEME, "Not raised")

PRIORITIES = {
    Priority.STAT: Code("STAT", PRIVATE_SCHEME, "STAT"),
    Priority.URGENT: Code("URGENT", PRIVATE_SCHEME, "Urgent"),
    Priority.ROUTINE: NOT_RAISED,
}
"""ROUTINE is said as "Not raised": the report must not read as if it lowered an order."""
