"""A table as text, in whatever encoding, delimiter and compression it came: rows with their numbers."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firstread.models.data.film import DataError
from firstread.models.data.problems import Complaints

LARGEST_TABLE = 1 << 30
"""Bytes of text, unpacked: NIH's whole table is eight million."""

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class Row:
    """One row: its ``number`` as a spreadsheet counts (the header is row 1) and its stripped ``cells`` by column."""

    number: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TextTable:
    """A table as read. ``columns``: in their order, without empty ones at the end."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def where(self, row: Row | int) -> str:
        """``labels.csv, row 7``, as messages name it."""
        return f"{self.path}, row {row if isinstance(row, int) else row.number}"


def read_text_table(path: Path, complaints: Complaints) -> TextTable:
    """A table of text with a header, separated by comma, semicolon or tab, plain or gzipped.

    UTF-8 (with or without mark) and UTF-16 are known by themselves; anything else is taken as Western European
    (cp1252), which a note says. Rows whose cells do not fit the header are an error.

    Raises:
        DataError: no such file, not a table of text, no rows, a column that stands twice.
    """
    path = Path(path)
    text = _decoded(path, _bytes_of(path), complaints)
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=lambda mark: _outside_quotes(first, mark))
    try:
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: is no table that can be read ({error}): export it again as CSV") from error
    numbered = [(number, record) for number, record in enumerate(records, start=1) if any(map(str.strip, record))]
    if not numbered:
        raise DataError(f"{path}: the table is empty: give one with a header and a row per film")
    header = [name.strip() for name in numbered[0][1]]
    while header and not header[-1]:
        header.pop()
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DataError(f"{path}, row {numbered[0][0]}: column {twice[0]!r} stands twice: rename or remove one")
    rows = [
        Row(number, cells)
        for number, record in numbered[1:]
        if (cells := _cells(path, number, record, header, complaints)) is not None
    ]
    if not rows:
        raise DataError(f"{path}: the table has a header and no rows: give one with a row per film")
    return TextTable(path, tuple(name for name in header if name), tuple(rows))


def _cells(
    path: Path, number: int, record: list[str], header: list[str], complaints: Complaints
) -> dict[str, str] | None:
    values = [value.strip() for value in record]
    while len(values) > len(header) and not values[-1]:
        values.pop()
    if len(values) != len(header):
        complaints.error(
            "malformed row",
            f"{path}, row {number}: has {len(values)} cells where the header has {len(header)}: the row is cut off, or "
            "a cell holds the delimiter and needs quotes",
            row=number,
        )
        return None
    return {name: value for name, value in zip(header, values, strict=True) if name}


def _bytes_of(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path}: is a folder, a table is needed: give the CSV file in it")
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        if not zipped:
            if path.stat().st_size > LARGEST_TABLE:
                raise DataError(f"{path}: is larger than {LARGEST_TABLE >> 20} MiB: this is no label table")
            return path.read_bytes()
        with gzip.open(path, "rb") as packed:
            content = packed.read(LARGEST_TABLE + 1)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file: give the label table (CSV, or CSV gzipped)") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}): fetch it again") from error
    if len(content) > LARGEST_TABLE:
        raise DataError(f"{path}: unpacks to more than {LARGEST_TABLE >> 20} MiB: this is no label table")
    return content


def _decoded(path: Path, content: bytes, complaints: Complaints) -> str:
    if content[:2] == b"PK":
        raise DataError(f"{path}: is a ZIP archive or a spreadsheet: unpack it, or save the sheet as CSV (UTF-8)")
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")
            encoding = "cp1252"
        except UnicodeDecodeError:
            text, encoding = content.decode("latin-1"), "latin-1"
        complaints.note(
            f"{path}: is not UTF-8, read as {encoding}: letters with accents may be wrong; save it as UTF-8 to be sure"
        )
    if "\0" in text[:100_000]:
        raise DataError(f"{path}: holds binary data: give a table of text (CSV)")
    return text


def _encoding(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    start = content[:512]
    # Every other byte of Western text in UTF-16 is zero; without a mark that is all there is to know it by.
    if len(start) >= 4 and start[1::2].count(0) > len(start) // 4:
        return "utf-16-le"
    if len(start) >= 4 and start[::2].count(0) > len(start) // 4:
        return "utf-16-be"
    return "utf-8-sig"


def _outside_quotes(line: str, mark: str) -> int:
    return sum(part.count(mark) for part in line.split('"')[::2])
