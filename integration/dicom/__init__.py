"""DICOM on the wire: receiving, sending, reports."""
