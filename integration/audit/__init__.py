"""DICOM audit messages (PS3.15 A.5) and their way to an audit repository (RFC 5424, RFC 5425, RFC 6587)."""
