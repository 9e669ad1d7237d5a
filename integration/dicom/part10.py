"""The Part 10 file around a data set: our meta header in front, and back to the bytes behind it (PS3.10 7.1)."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from firstread import __version__

IMPLEMENTATION_CLASS_UID = "2.25.207931346297823213467014312908457261093"
IMPLEMENTATION_VERSION_NAME = f"FIRSTREAD_{__version__}"[:16]

_LONG_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"))
_LARGEST_META = 1 << 20

OWN_HEADER = 144
"""Bytes of preamble, prefix and group length, with which meta_header begins."""


class NotPart10(ValueError):
    """A file that is no DICOM file: the message says what is missing."""


@dataclass(frozen=True)
class FileMeta:
    """What the meta header of a Part 10 file says, and where the data set begins (bytes from the start)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    source_ae_title: str = ""
    """Who sent it, where the file says so (0002,0016 or 0002,0017)."""


def meta_header(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae_title: str = "",
    receiving_ae_title: str = "",
) -> bytes:
    """Preamble, prefix and meta elements, ready to be followed by the data set's bytes.

    ``source_ae_title`` stands as Source and Sending, ``receiving_ae_title`` as Receiving Application Entity Title.
    Written by hand: it is ten elements on every film, and nothing of a peer's odd values may make it fail.
    """
    elements = b"".join(
        (
            struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01",
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, b"AE", source_ae_title) if source_ae_title else b"",
            _element(0x0017, b"AE", source_ae_title) if source_ae_title else b"",
            _element(0x0018, b"AE", receiving_ae_title) if receiving_ae_title else b"",
        )
    )
    length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(elements))
    return bytes(128) + b"DICM" + length + elements


def data_set_offset(start: bytes) -> int:
    """Where the data set begins in a file with our meta header, from its first OWN_HEADER bytes: by the group's length.

    Raises :class:`NotPart10` where these bytes are not ours (damaged, or another program's).
    """
    fits = len(start) >= OWN_HEADER and start[128:140] == b"DICM" + struct.pack("<HH2sH", 0x0002, 0x0000, b"UL", 4)
    if not fits:
        raise NotPart10("its meta header is damaged")
    return OWN_HEADER + int(struct.unpack_from("<I", start, OWN_HEADER - 4)[0])


def read_meta(source: Path | bytes) -> FileMeta:
    """What the meta header of a Part 10 file says.

    Raises :class:`NotPart10` for anything without prefix, transfer syntax or SOP UIDs, ``OSError`` for what cannot be
    opened. The group is read to its last element, whatever its group length says (real files get it wrong).
    """
    if isinstance(source, bytes):
        return _read_meta(io.BytesIO(source))
    with source.open("rb") as file:
        return _read_meta(file)


def _element(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\x00" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded


def _read_meta(file: BinaryIO) -> FileMeta:
    if file.read(132)[128:] != b"DICM":
        raise NotPart10("no DICOM file: the prefix DICM is missing at byte 128; send Part 10 files only")
    values: dict[int, str] = {}
    offset = 132
    while offset < _LARGEST_META:
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            break
        element, vr, length = struct.unpack("<2xH2sH", head)
        size = 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack("<I", file.read(4).ljust(4, b"\x00"))
            size = 12
        if length > _LARGEST_META:
            raise NotPart10(f"no DICOM file: meta element (0002,{element:04x}) claims {length} bytes")
        values[element] = file.read(length).rstrip(b"\x00 ").decode("ascii", "replace")
        offset += size + length
    for element, name in ((0x0010, "transfer syntax"), (0x0002, "SOP class UID"), (0x0003, "SOP instance UID")):
        if not values.get(element):
            raise NotPart10(f"DICOM file without {name} (0002,{element:04x}) in its meta header; write it anew")
    source = (values.get(0x0017) or values.get(0x0016) or "").strip()
    return FileMeta(values[0x0002], values[0x0003], values[0x0010], offset, source)


def meta_is_complete(begin: bytes | bytearray) -> bool:
    """True when the beginning of a file reaches past its meta header, or cannot be one: then :func:`read_meta` says
    which."""
    if len(begin) < 140:
        return False
    if begin[128:132] != b"DICM":
        return True
    offset = 132
    while offset < _LARGEST_META:
        if len(begin) < offset + 12:
            return False
        if begin[offset : offset + 2] != b"\x02\x00":
            return True
        long = bytes(begin[offset + 4 : offset + 6]) in _LONG_VRS
        offset += struct.unpack_from("<8xI" if long else "<6xH", begin, offset)[0] + (12 if long else 8)
    return True
