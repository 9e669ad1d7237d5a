"""What decoding the DICOMweb services need done in a process of its own: pictures, and other transfer syntaxes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from firstread.models.rendering import CannotRender, View, render


@dataclass(frozen=True)
class RenderOrder:
    """One frame as a picture."""

    path: Path
    frame: int
    view: View
    media_type: str
    quality: int


@dataclass(frozen=True)
class TranscodeOrder:
    """A whole object in another transfer syntax."""

    path: Path
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Made:
    """What was made, or why nothing was."""

    content: bytes
    why_not: str = ""


LOSSLESS_TARGETS = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
)
"""Transfer syntaxes that an object can be brought into without a loss: explicit and implicit little endian, RLE,
JPEG-LS lossless, JPEG 2000 lossless."""


def work(order: RenderOrder | TranscodeOrder) -> Made:
    """Does one order."""
    if isinstance(order, TranscodeOrder):
        return _transcoded(order)
    try:
        return Made(render(order.path, order.frame, order.view, order.media_type, order.quality))
    except CannotRender as error:
        return Made(b"", str(error))


def _transcoded(order: TranscodeOrder) -> Made:
    from pydicom import dcmread
    from pydicom.uid import UID, ImplicitVRLittleEndian

    target = UID(order.transfer_syntax_uid)
    try:
        dataset = dcmread(order.path)
        source = UID(str(dataset.file_meta.TransferSyntaxUID))
        if "PixelData" in dataset:
            if source.is_encapsulated:
                dataset.decompress(as_rgb=False, generate_instance_uid=False)
            if target.is_encapsulated:
                dataset.compress(target, generate_instance_uid=False)
        implicit = target == ImplicitVRLittleEndian
        if not target.is_encapsulated:
            dataset.file_meta.TransferSyntaxUID = target
        buffer = io.BytesIO()
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
    except Exception as error:  # pydicom and its codecs raise many kinds on pixels they do not know
        return Made(b"", f"{type(error).__name__}: {error}")
    return Made(buffer.getvalue())
