"""Values of a header as text, whatever state it is in: nothing here raises, warns or logs a value.

pydicom's own conversion validates, warns with the value in the warning (patient data in a log) and raises on some
real headers. So values are taken raw, before it, and decoded with the header's character set.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.charset import TEXT_VR_DELIMS, convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from firstread.integration.dicom.values import mend, number_in

_MOST_BYTES = 64 * 1024
"""Of one value; the longest text that any VR here allows is 10,240 characters."""


def tag_of(keyword: str) -> BaseTag:
    """The tag of a standard keyword."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag)


def read_header(path: Path, keywords: tuple[str, ...]) -> Dataset:
    """The named attributes of a Part 10 file, without pixel data. OSError or pydicom's errors if it is unreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(
            path, stop_before_pixels=True, force=True, specific_tags=[tag_of(keyword) for keyword in keywords]
        )


@dataclass
class Header:
    """A data set, or an item of one, read leniently; ``notes`` collects what was wrong, never a value."""

    dataset: Dataset
    encodings: list[str] = field(default_factory=lambda: ["iso8859"])
    notes: list[str] = field(default_factory=list)
    prefix: str = ""

    def __post_init__(self) -> None:
        declared = self.text("SpecificCharacterSet")
        if declared:
            self.encodings = _encodings(declared)

    def text(self, keyword: str) -> str:
        """The value as text, several joined by a backslash; empty where the attribute is absent or unreadable."""
        tag = tag_of(keyword)
        try:
            element = self.dataset.get_item(tag)
            value = None if element is None else element.value
        except Exception:  # whatever a broken element raises, the others are still good
            self._note(keyword, "cannot be read: left empty")
            return ""
        if isinstance(value, bytes):
            return self._decoded(value[:_MOST_BYTES], dictionary_VR(tag))
        if isinstance(value, (list, tuple, MultiValue)):
            return "\\".join("" if part is None else str(part) for part in value)
        return "" if value is None else str(value)

    def values(self, keyword: str) -> list[str]:
        """The values of a multi-valued attribute, blanks stripped, empty ones kept."""
        text = self.text(keyword)
        return [part.strip(" \0") for part in text.split("\\")] if text else []

    def mended(self, keyword: str, *, may_cut: bool = True) -> str:
        """The value made valid for the attribute's VR; a note says what had to be done."""
        result = mend(dictionary_VR(tag_of(keyword)), self.text(keyword), may_cut=may_cut)
        if result.done:
            self._note(keyword, result.done)
        return result.value

    def mended_values(self, keyword: str) -> list[str]:
        """All values of a multi-valued attribute, each made valid, empty ones left out."""
        vr = dictionary_VR(tag_of(keyword))
        results = [mend(vr, value) for value in self.values(keyword)]
        for done in sorted({result.done for result in results if result.done}):
            self._note(keyword, done)
        return [result.value for result in results if result.value]

    def number(self, keyword: str) -> int | None:
        """A US value; None where it is absent or not two bytes."""
        element = None
        try:
            element = self.dataset.get_item(tag_of(keyword))
            value = None if element is None else element.value
        except Exception:  # as in text()
            value = None
        if isinstance(value, bytes):
            order = "little" if getattr(element, "is_little_endian", True) else "big"
            return int.from_bytes(value, order) if len(value) == 2 else None  # type: ignore[arg-type]
        return value if isinstance(value, int) and 0 <= value < 65536 else None

    def numbers(self, keyword: str) -> list[float]:
        """The values of a DS attribute; empty if any of them is not a number."""
        numbers = [number_in(value) for value in self.values(keyword)]
        return [] if None in numbers else [number for number in numbers if number is not None]

    def items(self, keyword: str) -> Iterator[Header]:
        """The items of a sequence; none where it is absent or unreadable."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                element = self.dataset.get(tag_of(keyword))
                items = [] if element is None else list(element.value or [])
        except Exception:  # as in text()
            self._note(keyword, "cannot be read: left out")
            return
        for item in items:
            if isinstance(item, Dataset):
                yield Header(item, self.encodings, self.notes, f"{self.prefix}{keyword} > ")

    def _decoded(self, value: bytes, vr: str) -> str:
        if vr in ("PN", "SH", "LO", "ST", "LT", "UC", "UT"):
            return _decode(value, self.encodings)
        return value.decode("ascii", errors="replace")

    def _note(self, keyword: str, done: str) -> None:
        tag = tag_of(keyword)
        self.notes.append(f"{self.prefix}{keyword} ({tag.group:04X},{tag.element:04X}) {done}")


def _encodings(declared: str) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(convert_encodings([name.strip(" \0") for name in declared.split("\\")])) or ["iso8859"]
        except (LookupError, ValueError):
            return ["iso8859"]


def _decode(value: bytes, encodings: list[str]) -> str:
    """Bytes as text; undeclared UTF-8 is believed, what fits nothing becomes replacement characters."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if encodings == ["iso8859"]:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("latin-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(decode_bytes(value, encodings, set(TEXT_VR_DELIMS) | {0x5E, 0x3D}))
        except (LookupError, ValueError):
            return value.decode("ascii", errors="replace")
