"""Measurement groups from templates: highdicom builds a group of each shape once, values are laid into its bytes.

Building and encoding fifteen groups is most of what a report costs. What differs from study to study in a group of one
shape (finding, operating point, model ...) are the tracking UID, the probability, the images and the region; the rest
are the same bytes. A test holds that a report from templates is byte for byte the one that highdicom built.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_dataset
from pydicom.tag import Tag
from pydicom.valuerep import DS

from firstread.integration.dicom.report import content
from firstread.integration.dicom.report.content import Group, GroupShape

ENCODING = "ISO_IR 192"

_TRACKING = "2.25.3"
_IMAGE = "2.25.4."
_NUMBER = -7777.25
_CORNERS = tuple(float(place) for place in range(9001, 9011))
"""Values that no report holds, by which a template finds the places of its slots."""

_CONTENT = Tag("ContentSequence")
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)


@dataclass(frozen=True)
class _Slot:
    """A data element whose value differs: ``header`` is its tag and VR."""

    kind: str
    header: bytes
    place: int = 0


@dataclass(frozen=True)
class _Sequence:
    """A sequence with a slot somewhere below: its tag and VR, and its items."""

    header: bytes
    items: tuple[tuple[_Part, ...], ...]


_Part = bytes | _Slot | _Sequence


def encoded_sequence(rows: Sequence[Dataset | bytes]) -> bytes:
    """A Content Sequence, Explicit VR Little Endian. ``rows``: items as data sets, or already encoded."""
    items = b"".join(_item(row if isinstance(row, bytes) else encoded_item(row)) for row in rows)
    return _sequence(_header(_CONTENT, "SQ"), items)


def encoded_groups(groups: Sequence[Group]) -> bytes:
    """The Content Sequence of measurement groups."""
    return encoded_sequence([_filled(_template(group.shape), group) for group in groups])


def encoded_container(container: Dataset) -> bytes:
    """A container as an item's bytes, to which its Content Sequence is joined: that has the highest tag of an item."""
    alone = Dataset()
    alone.update({element.tag: element for element in container if element.tag != _CONTENT})
    return encoded_item(alone)


@functools.lru_cache(maxsize=512)
def _template(shape: GroupShape) -> tuple[_Part, ...]:
    images = tuple(f"{_IMAGE}{place + 1}" for place in range(len(shape.image_classes)))
    built = content.built(Group(shape, _TRACKING, _NUMBER, images, _CORNERS if shape.region else ()))
    return _compiled(built[0])


def _compiled(dataset: Dataset) -> tuple[_Part, ...]:
    """The data set as bytes, with slots and the sequences above them between."""
    parts: list[_Part] = []
    for element in dataset:
        header = _header(element.tag, str(element.VR))
        if element.VR == "SQ":
            items = tuple(_compiled(item) for item in element.value)
            if all(isinstance(part, bytes) for item in items for part in item):
                parts.append(_sequence(header, b"".join(_item(b"".join(item)) for item in items)))  # type: ignore[arg-type]
            else:
                parts.append(_Sequence(header, items))
        elif element.VR == "UI" and element.value == _TRACKING:
            parts.append(_Slot("tracking", header))
        elif element.VR == "UI" and str(element.value).startswith(_IMAGE):
            parts.append(_Slot("image", header, int(str(element.value)[len(_IMAGE) :]) - 1))
        elif element.VR in ("DS", "FD") and element.value == _NUMBER:
            parts.append(_Slot("text" if element.VR == "DS" else "double", header))
        elif element.VR == "FL" and tuple(element.value) == _CORNERS:
            parts.append(_Slot("corners", header))
        else:
            buffer = _buffer()
            write_data_element(buffer, element, ENCODING)
            parts.append(buffer.getvalue())
    joined: list[_Part] = []
    for part in parts:
        if joined and isinstance(part, bytes) and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return tuple(joined)


def _filled(parts: Sequence[_Part], group: Group) -> bytes:
    found = []
    for part in parts:
        if isinstance(part, bytes):
            found.append(part)
        elif isinstance(part, _Slot):
            value = _value(part, group)
            found.append(part.header + struct.pack("<H", len(value)) + value)
        else:
            found.append(_sequence(part.header, b"".join(_item(_filled(item, group)) for item in part.items)))
    return b"".join(found)


def _value(slot: _Slot, group: Group) -> bytes:
    if slot.kind == "tracking":
        return _even(group.tracking_uid, b"\0")
    if slot.kind == "image":
        return _even(group.images[slot.place], b"\0")
    if slot.kind == "text":
        return _even(str(DS(group.number, auto_format=True)), b" ")
    if slot.kind == "double":
        return struct.pack("<d", group.number)
    return struct.pack(f"<{len(group.corners)}f", *group.corners)


def _even(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding * (len(value) % 2)


def encoded_item(dataset: Dataset) -> bytes:
    """The bytes of an item, Explicit VR Little Endian, without the item's own tag and length."""
    buffer = _buffer()
    write_dataset(buffer, dataset, ENCODING)
    return bytes(buffer.getvalue())


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer


def _header(tag: int, vr: str) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + (b"\0\0" if vr == "SQ" else b"")


def _sequence(header: bytes, items: bytes) -> bytes:
    return header + struct.pack("<I", len(items)) + items


def _item(content: bytes) -> bytes:
    return _ITEM + struct.pack("<I", len(content)) + content
