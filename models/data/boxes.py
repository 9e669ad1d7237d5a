"""Boxes of lesions: NIH's ``BBox_List_2017.csv``, in pixels of its 1024 px originals, or any table of boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from firstread.models.data.film import DataError, Film
from firstread.models.data.folder import looks_like_dicom
from firstread.models.data.labels import canonical, letters
from firstread.models.data.problems import Complaints
from firstread.models.data.text_table import TextTable, read_text_table
from firstread.models.header import UnreadableRadiograph, integer, read_header
from firstread.models.prediction import Box

NIH_SIDE = 1024
"""NIH's boxes are in pixels of the published 1024 x 1024 films, whatever size they are stored at here."""

_IMAGE = ("imageindex", "image", "imageid", "path", "file", "filename", "imagepath")
_LABEL = ("findinglabel", "label", "finding", "classname")
_CORNERS = (
    (("bboxx", "y", "w", "h"), True),
    (("x", "y", "width", "height"), True),
    (("x", "y", "w", "h"), True),
    (("left", "top", "width", "height"), True),
    (("xmin", "ymin", "xmax", "ymax"), False),
    (("left", "top", "right", "bottom"), False),
)
"""Names of the four numbers, and whether the last two are a size."""


@dataclass(frozen=True)
class _Said:
    """A row: ``place`` is left, top, right, bottom in the table's units."""

    number: int
    image: str
    label: str
    place: tuple[float, float, float, float]


def with_boxes(films: Sequence[Film], path: Path, complaints: Complaints) -> tuple[Film, ...]:
    """The films with the boxes of a table, in stored pixels of each film, cut to its edges.

    NIH's list (its header has ``Bbox [x``) is scaled from 1024 px to the stored size; a table with ``x, y, width,
    height`` or ``xmin, ymin, xmax, ymax`` is taken in stored pixels. Boxes of films that are not given are counted in a
    note. Where a label has several boxes on a film, the largest is in ``boxes`` and the others in ``more_boxes``.

    Raises:
        DataError: no such table, no such columns; and when strict: an unknown label, numbers that are no box.
    """
    table = read_text_table(path, complaints)
    nih, said = _rows(table, complaints)
    by_name: dict[str, list[int]] = {}
    for index, film in enumerate(films):
        for name in {PurePosixPath(film.key).name.lower(), film.path.name.lower() if film.path else ""} - {""}:
            by_name.setdefault(name, []).append(index)
            by_name.setdefault(name.rsplit(".", 1)[0], []).append(index)
    found: dict[int, list[_Said]] = {}
    strangers = 0
    for row in said:
        there = by_name.get(PurePosixPath(row.image.replace("\\", "/")).name.lower(), [])
        if len(set(there)) > 1:
            complaints.error(
                "ambiguous box",
                f"{table.where(row.number)}: {row.image!r} names several films: give the whole path",
                row=row.number,
            )
        elif not there:
            strangers += 1
        else:
            found.setdefault(there[0], []).append(row)
    if strangers:
        complaints.note(f"{path}: {strangers} of {len(said)} boxes belong to films that are not among those read")
    result = list(films)
    for index, rows in found.items():
        result[index] = _boxed(films[index], rows, nih, table, complaints)
    return tuple(result)


def _boxed(film: Film, rows: Sequence[_Said], nih: bool, table: TextTable, complaints: Complaints) -> Film:
    size = stored_size(film)
    if size is None:  # a broken film is said to be broken where films are read
        return film
    width, height = size
    across, down = (width / NIH_SIDE, height / NIH_SIDE) if nih else (1.0, 1.0)
    boxes: dict[str, list[Box]] = {}
    for row in rows:
        left, top, right, bottom = row.place
        box = Box(
            left=min(max(left * across, 0.0), width),
            top=min(max(top * down, 0.0), height),
            right=min(max(right * across, 0.0), width),
            bottom=min(max(bottom * down, 0.0), height),
        )
        if box.right <= box.left or box.bottom <= box.top:
            complaints.error(
                "impossible box",
                f"{table.where(row.number)}: the box lies outside {row.image} ({width} x {height} pixels): correct it",
                row=row.number,
            )
        else:
            boxes.setdefault(row.label, []).append(box)
    largest: dict[str, Box] = {}
    others: dict[str, tuple[Box, ...]] = {}
    for label, several in boxes.items():
        ordered = sorted(several, key=lambda box: -(box.right - box.left) * (box.bottom - box.top))
        largest[label] = ordered[0]
        if ordered[1:]:
            others[label] = tuple(ordered[1:])
    return replace(film, boxes=largest, more_boxes=others)


def stored_size(film: Film) -> tuple[int, int] | None:
    """Columns and rows of a film's file without decoding it; None when it has none or is broken."""
    if film.path is None:
        return None
    try:
        if looks_like_dicom(film.path):
            header = read_header(film.path)
            columns, rows = integer(header, "Columns"), integer(header, "Rows")
            return (columns, rows) if columns and rows else None
        with Image.open(film.path) as opened:
            return opened.size
    except (UnreadableRadiograph, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _rows(table: TextTable, complaints: Complaints) -> tuple[bool, list[_Said]]:
    columns = {letters(name): name for name in table.columns}
    image, label = (next((columns[name] for name in names if name in columns), None) for names in (_IMAGE, _LABEL))
    corners = next(((names, size) for names, size in _CORNERS if all(name in columns for name in names)), None)
    if image is None or label is None or corners is None:
        raise DataError(
            f"{table.path}: is no list of boxes (its columns: {', '.join(table.columns)}): give NIH's "
            "BBox_List_2017.csv, or columns image, label, x, y, width, height"
        )
    names, is_size = corners
    said = []
    for row in table.rows:
        numbers = _numbers(row.cells, [columns[name] for name in names])
        known = canonical(row.cells[label])
        if known is None:
            complaints.error(
                "unknown label",
                f"{table.where(row)}: {row.cells[label]!r} is none of the 15 labels: correct it or take the row out",
                row=row.number,
            )
        elif numbers is None or (is_size and min(numbers[2:]) <= 0):
            complaints.error(
                "impossible box",
                f"{table.where(row)}: {', '.join(row.cells[columns[name]] for name in names)} is no box: correct it",
                row=row.number,
            )
        else:
            x, y, third, fourth = numbers
            place = (x, y, x + third, y + fourth) if is_size else (x, y, third, fourth)
            said.append(_Said(row.number, row.cells[image], known, place))
    return names[0] == "bboxx", said


def _numbers(cells: Mapping[str, str], names: Sequence[str]) -> tuple[float, float, float, float] | None:
    try:
        x, y, third, fourth = (float(cells[name]) for name in names)
    except ValueError:
        return None
    return (x, y, third, fourth) if all(map(math.isfinite, (x, y, third, fourth))) else None
