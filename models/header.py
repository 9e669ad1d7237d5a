"""How a DICOM header is read whatever is wrong with it: files, and single values that may break their VR."""

from __future__ import annotations

import contextlib
import io
import math
import mmap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from firstread.models.findings import ReasonCode
from firstread.models.prediction import Reason

LARGEST_VALUE_READ = 64 * 1024
"""Bytes: longer values (private tags of 100 MB are real) stay in the file until somebody asks for them."""

LARGEST_DATA_SET = 1 << 30
"""Bytes of a whole data set: the largest film allowed in three colours is half of it."""

_SIGNS_OF_AN_IMAGE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "Rows", "PixelData")


class UnreadableRadiograph(ValueError):
    """A file from which no film can be shown; ``reason`` is what SR and ORU say about it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


def refuse(code: ReasonCode, detail: str) -> UnreadableRadiograph:
    """The error for a reason; the caller raises it."""
    return UnreadableRadiograph(Reason(code, detail))


def read_header(path: Path | str) -> Dataset:
    """Everything before the pixels of a DICOM file (with or without preamble and meta header).

    Values above ``LARGEST_VALUE_READ`` are left in the file. Raises ``UnreadableRadiograph`` (CANNOT_DECODE) when
    the file is no DICOM, is cut short within the header, or cannot be opened.
    """
    return read_data_set(Path(path), stop_before_pixels=True)


def read_data_set(path: Path, *, stop_before_pixels: bool = False, keywords: Sequence[str] | None = None) -> Dataset:
    """The data set of a file, or only the top-level attributes named in ``keywords``; errors as ``read_header``."""
    try:
        if path.stat().st_size > LARGEST_DATA_SET:
            raise refuse(ReasonCode.CANNOT_DECODE, f"the file is larger than {LARGEST_DATA_SET >> 20} MiB")
        with path.open("rb") as file:
            source: Path | BinaryIO = _inflated(file) or path
        # Deferring needs a file by name; an inflated data set is in memory already.
        defer = LARGEST_VALUE_READ if isinstance(source, Path) and keywords is None else None
        tags = list(keywords) if keywords is not None else None
        read = pydicom.dcmread
        try:
            header = read(source, defer_size=defer, stop_before_pixels=stop_before_pixels, specific_tags=tags)
        except InvalidDicomError:
            header = read(
                source, defer_size=defer, stop_before_pixels=stop_before_pixels, specific_tags=tags, force=True
            )
            if not any(keyword in header for keyword in _SIGNS_OF_AN_IMAGE):
                raise refuse(ReasonCode.CANNOT_DECODE, "the file is not DICOM") from None
    except UnreadableRadiograph:
        raise
    except EOFError as error:
        raise refuse(ReasonCode.CANNOT_DECODE, "the file is cut short") from error
    except OSError as error:
        raise refuse(ReasonCode.CANNOT_DECODE, f"the file cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise refuse(ReasonCode.CANNOT_DECODE, "not enough memory to read the file") from error
    except Exception as error:  # a parser meeting hostile bytes may raise anything
        raise refuse(ReasonCode.CANNOT_DECODE, f"the header cannot be read: {describe(error)}") from error
    return header


def contains(path: Path, mark: bytes) -> bool:
    """Do these bytes stand anywhere in the file?"""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(mark) >= 0


def describe(error: BaseException) -> str:
    """One short line about somebody else's error, safe to send on."""
    line = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _inflated(file: BinaryIO) -> BinaryIO | None:
    """A deflated file as an explicit little endian one in memory, bounded; None when the file is not deflated."""
    try:
        read_preamble(file, False)
        meta = pydicom.filereader._read_file_meta_info(file)
    except InvalidDicomError:
        return None
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    # pydicom inflates without a bound: 10 MB of zeros sent deflated would become 10 GB.
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = engine.decompress(file.read(), LARGEST_DATA_SET)
    except zlib.error as error:
        raise refuse(ReasonCode.CANNOT_DECODE, f"deflated data set: {error}") from error
    if engine.unconsumed_tail:
        raise refuse(ReasonCode.CANNOT_DECODE, f"deflated data set larger than {LARGEST_DATA_SET >> 20} MiB")
    if not engine.eof:
        raise refuse(ReasonCode.CANNOT_DECODE, "the file is cut short within its deflated data set")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain = io.BytesIO()
    plain.write(b"\0" * 128 + b"DICM")
    pydicom.filewriter.write_file_meta_info(plain, meta, enforce_standard=False)
    plain.write(body)
    plain.seek(0)
    return plain


def texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    """All values of an attribute as stripped text, empty ones kept in place; () when absent or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:  # a value that breaks its VR raises on conversion: as good as absent
        return ()
    if value is None or isinstance(value, bytes | pydicom.Sequence):
        return ()
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        value = [value]
    return tuple("" if item is None else str(item).strip(" \0\t\r\n") for item in value)


def text(header: Dataset, keyword: str) -> str:
    """The values of an attribute as one text; empty when absent or unreadable. Person names as ``Family^Given``."""
    return " ".join(part for part in texts(header, keyword) if part)


def number(header: Dataset, keyword: str) -> float | None:
    """The first value of an attribute as a finite number, None when it is not one."""
    for value in texts(header, keyword)[:1]:
        with contextlib.suppress(ValueError):
            result = float(value)
            return result if math.isfinite(result) else None
    return None


def integer(header: Dataset, keyword: str) -> int | None:
    """The first value of an attribute as an integer, None when it is not one."""
    value = number(header, keyword)
    return int(value) if value is not None and value == int(value) else None


def items(header: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; () when absent, empty or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:
        return ()
    return tuple(value) if isinstance(value, pydicom.Sequence) else ()
