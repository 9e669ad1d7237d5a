"""Wire formats: bytes to dataclasses and back. No database, no torch."""
