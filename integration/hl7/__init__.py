"""HL7 v2.5.1 on the wire: orders, results, MLLP."""
