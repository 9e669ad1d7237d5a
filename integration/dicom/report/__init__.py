"""Results as DICOM: an assessment as a Structured Report and a heat map, each as bytes that are sent unchanged."""

from firstread.integration.dicom.report.document import build_report, warm
from firstread.integration.dicom.report.heatmap import build_heat_map
from firstread.integration.dicom.report.instance import Encoded, Predecessor, ReportSettings, ResultError

__all__ = ["Encoded", "Predecessor", "ReportSettings", "ResultError", "build_heat_map", "build_report", "warm"]
