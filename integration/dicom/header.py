"""A data set's header, read within bounds: everything up to the pixel data, large values left out.

pydicom reads what lies inside a sequence into memory whatever its size and inflates a deflated data set as a whole. So
the bytes are walked once, forward only, and what is small is copied; pydicom parses the copy.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from firstread.integration.dicom.status import CannotUnderstand

LARGEST_VALUE = 64 * 1024
LARGEST_SEQUENCE = 1024 * 1024
LARGEST_HEADER = 16 * 1024 * 1024
DEEPEST_SEQUENCE = 16
MOST_REPETITIONS = 16
"""How often an element may stand in a row."""

MOST_ELEMENTS = 300_000
"""A walk of so many takes about a second, and a few on a busy machine; real headers of large multi-frame objects have
some 200,000. A deflated film of zeros is a million elements in ten kilobytes."""

_IMPLICIT = "1.2.840.10008.1.2"
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)

_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs whose length field has 32 bits (PS3.5 7.1.2)."""


class _Source(Protocol):
    def read(self, size: int) -> bytes: ...

    def skip(self, size: int) -> None: ...


class _FileSource:
    """A file from its position on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size - file.tell()

    def read(self, size: int) -> bytes:
        part = self._file.read(min(size, self._left))
        self._left -= len(part)
        return part

    def skip(self, size: int) -> None:
        if size > self._left:
            raise _EndsEarly(size, self._left)
        self._file.seek(size, os.SEEK_CUR)
        self._left -= size


class _InflatingSource:
    """A deflated data set (PS3.5 A.5), inflated piece by piece; at most ``limit`` bytes in all."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._ready = b""
        self._at = 0
        """Where in ``_ready`` the next byte stands: cutting off what was read would copy the rest each time."""
        self._left = limit

    def read(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._ready):
            part, self._at = self._ready[self._at : end], end
            return part
        parts = []
        while size > 0:
            if self._at == len(self._ready) and not self._more():
                break
            parts.append(self._ready[self._at : self._at + size])
            self._at += len(parts[-1])
            size -= len(parts[-1])
        return b"".join(parts)

    def skip(self, size: int) -> None:
        missing = size
        while missing > 0:
            if self._at == len(self._ready) and not self._more():
                raise _EndsEarly(size, size - missing)
            step = min(missing, len(self._ready) - self._at)
            self._at += step
            missing -= step

    def _more(self) -> bool:
        self._ready, self._at = b"", 0
        while not self._ready and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(LARGEST_VALUE)
            if not packed:
                return False
            try:
                self._ready = self._inflate.decompress(packed, LARGEST_VALUE)
            except zlib.error as error:
                raise CannotUnderstand(f"deflated data set is damaged: {error}") from error
            self._left -= len(self._ready)
            if self._left < 0:
                raise CannotUnderstand("deflated data set: no end of the header within bounds")
        return bool(self._ready)


class _EndsEarly(Exception):
    def __init__(self, wanted: int, left: int) -> None:
        super().__init__(f"{wanted} bytes claimed, {left} left")
        self.wanted = wanted
        self.left = left


@dataclass
class _Open:
    """A sequence or item of undefined length that the walk is inside of."""

    is_item: bool


class _Walk:
    """One walk over a data set; ``kept`` is the copy."""

    def __init__(self, source: _Source, *, implicit: bool, little: bool) -> None:
        self._source = source
        self._implicit = implicit
        order = "<" if little else ">"
        self._head = struct.Struct(f"{order}HHL")
        self._short_length = struct.Struct(f"{order}H")
        self._long_length = struct.Struct(f"{order}L")
        self._open: list[_Open] = []
        self.kept = bytearray()
        self._element_start = 0
        self._dropping = False
        self._before, self._repeated = -1, 0

    def run(self) -> None:
        """Walks to the pixel data or to the end; raises :class:`CannotUnderstand` where the bytes make no sense.

        An element stands once (PS3.5 7.1); a film that has one twice is kept as it came. Zeros, which deflate a
        thousandfold, read as the same element for ever.
        """
        for _ in range(MOST_ELEMENTS):
            head = self._source.read(8)
            if len(head) < 8:
                if self._open:
                    raise CannotUnderstand("data set ends inside a sequence: it was cut short, send it again")
                return
            group, element, length = self._head.unpack(head)
            tag = group << 16 | element
            if group == 0xFFFE:
                self._delimiter(tag, head, length)
            elif tag in _PIXEL_DATA and not self._open:
                return
            else:
                if not self._open:
                    self._repeated = self._repeated + 1 if tag == self._before else 0
                    self._before = tag
                    if self._repeated > MOST_REPETITIONS:
                        raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) stands there again and again")
                self._element(tag, head, length)
        raise CannotUnderstand(f"header of more than {MOST_ELEMENTS} elements")

    def _delimiter(self, tag: int, head: bytes, length: int) -> None:
        if not self._open:
            return  # a stray one at the top level means nothing, and is left out
        top = self._open[-1]
        if tag == _ITEM and not top.is_item:
            if length == _UNDEFINED:
                self._keep(head)
                self._enter(_Open(is_item=True))
            else:
                self._value(tag, head, length, LARGEST_SEQUENCE)
        elif (tag == _ITEM_END and top.is_item) or (tag == _SEQUENCE_END and not top.is_item):
            self._keep(head)
            self._leave()
        elif tag == _SEQUENCE_END and len(self._open) > 1:
            # an item without its end: the sequence's end closes both
            self._dropping = True
            self._leave()
            self._leave()
        else:
            raise CannotUnderstand(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) where no item can stand")

    def _element(self, tag: int, head: bytes, length: int) -> None:
        vr = head[4:6]
        explicit = not self._implicit and (vr in _VRS or b"AA" <= vr <= b"ZZ")
        if explicit:
            (length,) = self._short_length.unpack_from(head, 6)
            if vr in _LONG_VRS:
                extra = self._source.read(4)
                if len(extra) < 4:
                    raise CannotUnderstand(f"data set ends in the head of ({tag >> 16:04X},{tag & 0xFFFF:04X})")
                (length,) = self._long_length.unpack(extra)
                head += extra
        if not self._open:
            self._element_start = len(self.kept)
            self._dropping = False
        if length == _UNDEFINED:
            self._keep(head)
            self._enter(_Open(is_item=False))
            if explicit and vr == b"UN":
                self._dropping = True  # implicit VR inside (PS3.5 6.2.2), which the copy could not say
            return
        self._value(tag, head, length, LARGEST_SEQUENCE if explicit and vr == b"SQ" else LARGEST_VALUE)

    def _value(self, tag: int, head: bytes, length: int, largest: int) -> None:
        try:
            if self._dropping:
                self._source.skip(length)
            elif length > largest or len(self.kept) + length > LARGEST_HEADER:
                self._source.skip(length)
                if self._open and tag == _ITEM:
                    self._dropping = True
            else:
                value = self._source.read(length)
                if len(value) < length:
                    raise _EndsEarly(length, len(value))
                self._keep(head)
                self._keep(value)
        except _EndsEarly as short:
            raise CannotUnderstand(
                f"({tag >> 16:04X},{tag & 0xFFFF:04X}) claims {short.wanted} bytes, {short.left} are left"
            ) from short

    def _keep(self, part: bytes) -> None:
        if self._dropping:
            return
        self.kept += part
        if self._open and len(self.kept) - self._element_start > LARGEST_SEQUENCE:
            self._dropping = True

    def _enter(self, level: _Open) -> None:
        self._open.append(level)
        if len(self._open) > 2 * DEEPEST_SEQUENCE:
            self._dropping = True

    def _leave(self) -> None:
        self._open.pop()
        if not self._open and self._dropping:
            del self.kept[self._element_start :]


def read_header(path: Path, offset: int, transfer_syntax_uid: str, *, inflate_limit: int = 1 << 30) -> Dataset:
    """The data set that begins at byte ``offset`` of a file, up to its pixel data.

    Without values over 64 KiB and sequences over 1 MiB. Elements are not converted yet: a value that breaks its VR
    fails or warns where it is asked for. Raises :class:`CannotUnderstand` with the element that makes no sense.
    """
    deflated = transfer_syntax_uid in _DEFLATED
    with path.open("rb") as file:
        file.seek(offset)
        source: _Source = _InflatingSource(file, inflate_limit) if deflated else _FileSource(file)
        little = transfer_syntax_uid != _BIG_ENDIAN
        first = source.read(6)
        implicit = _is_implicit(first, said=transfer_syntax_uid == _IMPLICIT)
        walk = _Walk(_Prefixed(first, source), implicit=implicit, little=little)
        walk.run()
    try:
        return read_dataset(io.BytesIO(bytes(walk.kept)), implicit, little)
    except Exception as error:  # pydicom's parser raises whatever hostile bytes lead it to
        raise CannotUnderstand(f"unreadable header: {type(error).__name__}: {error}") from error


class _Prefixed:
    """A source with the bytes that were looked at already in front."""

    def __init__(self, prefix: bytes, source: _Source) -> None:
        self._prefix = prefix
        self._source = source

    def read(self, size: int) -> bytes:
        if not self._prefix:
            return self._source.read(size)
        part, self._prefix = self._prefix[:size], self._prefix[size:]
        return part + (self._source.read(size - len(part)) if len(part) < size else b"")

    def skip(self, size: int) -> None:
        self._source.skip(size)


def _is_implicit(first: bytes, *, said: bool) -> bool:
    """What the bytes are, whatever the transfer syntax says: some senders negotiate one and send the other."""
    if len(first) < 6:
        return said
    return first[4:6] not in _VRS


def text_of(header: Dataset, tag: int) -> str:
    """A value's bytes as ASCII text without padding, unconverted; empty when absent. For identifiers."""
    element = header.get_item(tag)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip("\0 ")
    return "" if value is None else str(value).strip("\0 ")
