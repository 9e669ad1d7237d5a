"""DICOM over HTTP (PS3.18): what stands on the wire, to plain values and back."""
