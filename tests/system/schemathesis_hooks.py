"""How schemathesis writes bodies of the media types that DICOMweb has: as the bytes that it made up."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/dicom", "multipart/related")
def raw(_context: Any, value: Any) -> bytes:
    """The body itself."""
    return value if isinstance(value, bytes) else str(value).encode()
