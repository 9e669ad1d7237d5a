"""Good bytes made bad, from a seed alone: flipped, cut, repeated, spliced; lengths that lie, nesting without end."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from random import Random

from tests.integration.dicom_wire import element

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""Where programmers err."""

VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "PN"),
    *("SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV", "??", "\0\0"),
)
TAGS = (
    0x00080005, 0x00080016, 0x00080018, 0x00080060, 0x00081032, 0x00100010, 0x00100020, 0x00180015, 0x0020000D,
    0x0020000E, 0x00200013, 0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00281050,
    0x00283000, 0x00283010, 0x00400275, 0x00091001, 0x7FE00010, 0xFFFCFFFC, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD,
)  # fmt: skip


def mutated(random: Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """``content`` after one to six accidents; ``others`` lend pieces."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _accident(random, found, others)
    return bytes(found)


def _accident(random: Random, found: bytearray, others: Sequence[bytes]) -> None:
    at = random.randrange(len(found) + 1)
    kind = random.randrange(9)
    if kind == 0 and at < len(found):
        found[at] ^= 1 << random.randrange(8)
    elif kind == 1 and at < len(found):
        found[at] = random.randrange(256)
    elif kind == 2:
        del found[at:]
    elif kind == 3:
        del found[at : at + random.choice((1, 2, 4, 16, 300))]
    elif kind == 4:
        found[at:at] = random.randbytes(random.choice((1, 2, 4, 16, 300)))
    elif kind == 5:
        found[at:at] = found[at : at + random.choice((4, 64, 1000))] * random.choice((1, 2, 50))
    elif kind == 6:
        width, order = random.choice((("H", 2), ("L", 4))), random.choice("<>")
        number = random.choice(NUMBERS) & (0xFFFF if width[1] == 2 else 0xFFFFFFFF)
        found[at : at + width[1]] = struct.pack(order + width[0], number)
    elif kind == 7 and others:
        other = random.choice(others)
        start = random.randrange(len(other) + 1)
        found[at : at + random.choice((0, 8, 100))] = other[start : start + random.choice((8, 100, 2000))]
    elif kind == 8:
        byte = random.choice((0, 0x0B, 0x0D, 0x1C, 0x20, 0x5C, 0x7C, 0xFF))
        found[at:at] = bytes((byte,)) * random.choice((1, 8, 999))


def random_text(random: Random, length: int) -> bytes:
    """Bytes that a value might hold."""
    return bytes(random.choice(b"\\^=|&~\0\x1b\x7f\xff09AZaz. -<>'\"%$`;/") for _ in range(length))


def hostile_elements(random: Random, *, implicit: bool = False) -> bytes:
    """Data elements that need not make sense: any VR, lengths that lie, sequences of undefined length."""
    parts = []
    for _ in range(random.choice((1, 2, 5, 30))):
        vr = random.choice(VRS)
        tag = random.choice(TAGS) if random.random() < 0.8 else random.randrange(1 << 32)
        value = random_text(random, random.choice((0, 1, 2, 7, 64, 300)))
        length = random.choice((-1, -1, -1, 0, len(value) + 2, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
        if not implicit and vr.encode() not in _LONG and length > 0xFFFF:
            length = 0xFFFF
        parts.append(element(tag, (vr + "  ")[:2], value, implicit=implicit, length=length))
    return b"".join(parts)


_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def nested(depth: int, *, defined: bool = False) -> bytes:
    """Sequences in sequences; with undefined lengths unless ``defined`` (then every length is a lie)."""
    head = element(0x00081140, "SQ", b"", length=0xFFFFFFFE if defined else 0xFFFFFFFF)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return (head + item) * depth


def deflated_bomb(megabytes: int) -> bytes:
    """A deflated data set of zeros that inflates a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])


def jpeg_bomb(side: int) -> bytes:
    """A JPEG header that promises ``side`` x ``side`` pixels and a few bytes of scan."""
    frame = struct.pack(">BHHBBBB", 8, side, side, 1, 1, 0x11, 0)
    head = b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame
    return head + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + b"\xff\xd9"


def jpeg_2000_bomb(side: int, levels: int = 32) -> bytes:
    """A JPEG 2000 codestream that promises ``side`` x ``side`` pixels in one tile."""
    size = struct.pack(">H8LH", 0, side, side, 0, 0, side, side, 0, 0, 1) + bytes((15, 1, 1))
    style = bytes((0, 0, 0, 1, 0, levels, 4, 4, 0, 1))
    return (
        b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + b"\xff\x52" + struct.pack(">H", len(style) + 2)
        + style + b"\xff\x5c\0\x04\x40\x40\xff\x90\0\x0a\0\0\0\0\0\0\0\x01\xff\x93\xff\xd9"
    )  # fmt: skip
