"""Metadata and bulk data that came apart, put together into one data set on disk (PS3.18 10.5.1, F, 8.6.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from firstread.integration.dicom.part10 import FileMeta
from firstread.integration.dicom.sink import StoreSink
from firstread.integration.dicom.status import CannotUnderstand
from firstread.integration.dicomweb.media import FRAME_TYPES

EXPLICIT = "1.2.840.10008.1.2.1"
LARGEST_IN_MEMORY = 4 * 1024 * 1024
"""Bytes of a bulk value other than pixel data."""

_PIXEL_DATA = "7FE00010"
_PIECE = 256 * 1024


@dataclass(frozen=True)
class BulkData:
    """A bulk data part, on disk. ``transfer_syntax_uid``: as its Content-Type says, empty where it does not."""

    path: Path
    size_bytes: int
    media_type: str
    transfer_syntax_uid: str


def announced(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """SOP class and instance of metadata in the JSON model; empty where they are missing."""
    return _first(metadata, "00080016"), _first(metadata, "00080018")


def assemble(
    metadata: Mapping[str, Any], bulk: Mapping[str, BulkData], open_sink: Callable[[FileMeta], StoreSink]
) -> tuple[FileMeta, StoreSink]:
    """Writes one instance to a sink: pixel data piece by piece, all else in memory.

    Raises CannotUnderstand for metadata that makes no data set, and bulk data that is missing or cannot be used.
    """
    elements = {tag: value for tag, value in metadata.items() if tag.upper() > "00030000" and tag != _PIXEL_DATA}
    pixels = _bulk_of(metadata[_PIXEL_DATA], bulk) if "BulkDataURI" in metadata.get(_PIXEL_DATA, {}) else None
    if pixels is None and _PIXEL_DATA in metadata:
        elements[_PIXEL_DATA] = metadata[_PIXEL_DATA]
    syntax = EXPLICIT
    if pixels is not None and pixels.media_type != "application/octet-stream":
        syntax = pixels.transfer_syntax_uid or _first(metadata, "00083002") or _first(metadata, "00020010")
        if FRAME_TYPES.get(syntax) != pixels.media_type:
            raise CannotUnderstand(f"{pixels.media_type} without the transfer syntax that it is in")
        if _first(metadata, "00280008") not in ("", "1"):
            raise CannotUnderstand("compressed frames of a multi-frame image: send it as application/dicom")
    dataset = _dataset(elements, bulk)
    sop_class, sop_instance = announced(metadata)
    meta = FileMeta(sop_class, sop_instance, syntax, 0)
    sink = open_sink(meta)
    sink.write(_encoded(dataset[:0x7FE00010]))
    if pixels is not None:
        allocated = _first(metadata, "00280100")
        _write_pixels(sink, pixels, native=syntax == EXPLICIT, wide=allocated not in ("", "8"))
    sink.write(_encoded(dataset[0x7FE00010:]))
    return meta, sink


def _dataset(elements: Mapping[str, Any], bulk: Mapping[str, BulkData]) -> Dataset:
    def content(_tag: str, _vr: str, uri: str) -> bytes:
        found = _bulk_of({"BulkDataURI": uri}, bulk)
        if found.size_bytes > LARGEST_IN_MEMORY:
            raise CannotUnderstand(f"bulk data of {found.size_bytes} bytes that is no pixel data")
        return found.path.read_bytes()

    try:
        dataset = Dataset.from_json(dict(elements), bulk_data_uri_handler=content)
        dataset.SpecificCharacterSet = "ISO_IR 192"
    except CannotUnderstand:
        raise
    except Exception as error:  # pydicom raises many kinds on JSON that is no data set
        raise CannotUnderstand(f"metadata: {type(error).__name__}: {error}") from error
    return dataset


def _bulk_of(element: Mapping[str, Any], bulk: Mapping[str, BulkData]) -> BulkData:
    uri = str(element["BulkDataURI"])
    found = bulk.get(uri)
    if found is None:
        raise CannotUnderstand(f"bulk data {uri[-40:]} did not come")
    return found


def _encoded(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    try:
        write_dataset(buffer, dataset)
    except Exception as error:  # values that their VR does not allow
        raise CannotUnderstand(f"metadata: {type(error).__name__}: {error}") from error
    encoded: bytes = buffer.getvalue()
    return encoded


def _write_pixels(sink: StoreSink, pixels: BulkData, *, native: bool, wide: bool) -> None:
    length = pixels.size_bytes + pixels.size_bytes % 2
    if native:
        sink.write(struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW" if wide else b"OB", length))
    else:
        sink.write(struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF))
        sink.write(struct.pack("<HHL", 0xFFFE, 0xE000, 0))  # an empty offset table
        sink.write(struct.pack("<HHL", 0xFFFE, 0xE000, length))
    with pixels.path.open("rb") as file:
        while piece := file.read(_PIECE):
            sink.write(piece)
    if pixels.size_bytes % 2:
        sink.write(b"\0")
    if not native:
        sink.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))


def _first(metadata: Mapping[str, Any], tag: str) -> str:
    element = metadata.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    return str(values[0]) if isinstance(values, list) and values else ""
