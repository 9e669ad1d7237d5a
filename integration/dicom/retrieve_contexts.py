"""What we take by C-GET: presentation contexts for films as they lie there, and what comes beside (PS3.8 7.1)."""

from __future__ import annotations

from firstread.integration.dicom.requestor import MOST_CONTEXTS, Context

_IMAGE = "1.2.840.10008.5.1.4.1.1."
FILMS = (
    f"{_IMAGE}1",  # computed radiography
    f"{_IMAGE}1.1",  # digital X-ray, for presentation
    f"{_IMAGE}1.1.1",  # digital X-ray, for processing
    f"{_IMAGE}7",  # secondary capture
)
BESIDE = (
    f"{_IMAGE}7.1", f"{_IMAGE}7.2", f"{_IMAGE}7.3", f"{_IMAGE}7.4",  # multi-frame secondary capture
    f"{_IMAGE}11.1", f"{_IMAGE}11.2", f"{_IMAGE}11.3", f"{_IMAGE}11.4",  # presentation states
    f"{_IMAGE}88.11", f"{_IMAGE}88.22", f"{_IMAGE}88.33", f"{_IMAGE}88.34", f"{_IMAGE}88.59", f"{_IMAGE}88.67",  # SR
    f"{_IMAGE}104.1",  # PDF
    f"{_IMAGE}66",  # raw data
    f"{_IMAGE}2", f"{_IMAGE}4", f"{_IMAGE}6.1", f"{_IMAGE}1.2", f"{_IMAGE}12.1", f"{_IMAGE}12.2",  # other modalities
)  # fmt: skip
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.4.50",  # what was compressed with a loss comes as it is
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91",
)

STORED: tuple[Context, ...] = (
    *((film, syntax) for film in FILMS for syntax in SYNTAXES),
    *((beside, syntax) for beside in BESIDE for syntax in SYNTAXES[:2]),
)
"""Each syntax has a context of its own, so that the archive sends a film as it lies there and converts nothing."""

assert len(STORED) + 2 <= MOST_CONTEXTS
