"""Label tables and the films they speak of: NIH's release, any table of paths and labels, DICOM films with a table."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from firstread.models.data.boxes import with_boxes
from firstread.models.data.columns import Columns, columns_of
from firstread.models.data.dicom_headers import HeaderFacts, read_headers
from firstread.models.data.film import DataError, Film
from firstread.models.data.folder import Ambiguous, Folder, looks_like_dicom, walk
from firstread.models.data.labels import letters
from firstread.models.data.person import LATERAL
from firstread.models.data.problems import Complaints, Problem
from firstread.models.data.rows import OWN, RowReader
from firstread.models.data.text_table import Row, TextTable, read_text_table

_log = logging.getLogger(__name__)

_RELEASE = re.compile(r"Data_Entry_2017\w*\.csv(\.gz)?", re.IGNORECASE)
"""NIH's whole table: who has fetched only some of its twelve archives has rows without images."""

_NIH_NAME = re.compile(r"(\d{8})_\d{3}\.png", re.IGNORECASE)
_PATIENT_IN_PATH = re.compile(r"(?:^|/)(patient[-_]?\d+)(?:/|_)", re.IGNORECASE)


@dataclass(frozen=True)
class LabelTable:
    """A label table that was read. ``kind``: what it was taken for, in words. ``rows``: how many it has.

    ``missing``: rows whose image is not there. ``problems``: errors (only when read leniently) and warnings.
    ``notes``: how things were taken that could have been taken otherwise.
    """

    kind: str
    films: tuple[Film, ...]
    rows: int
    missing: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def read_labels(
    table: Path,
    images: Path,
    *,
    boxes: Path | None = None,
    ignore: Collection[str] = (),
    on_note: Callable[[str], None] | None = None,
) -> tuple[Film, ...]:
    """The films of a label table whose images lie below a folder, in the table's order. What the table is shows itself.

    NIH's table (either edition, also gzipped; images flat, as Kaggle lays them out, or mixed): all fifteen labels of a
    row are known. Of the whole release (``Data_Entry_2017...``) rows without an image are passed over, with a note.
    Any other table: a column of paths (``path``, ``image``, ``file`` ...), and a column ``labels`` joined by ``|`` or
    ``;`` (labels that no row names are unknown), or a column per label with 1, 0, and -1, u or nothing for unknown;
    optionally patient, age, sex, view. DICOM films: the table names SOPInstanceUID, StudyInstanceUID,
    AccessionNumber or files, and what it lacks of patient, age, sex and view comes from the headers.

    ``boxes``: NIH's ``BBox_List_2017.csv`` or a table of boxes. ``ignore``: findings outside the fifteen that rows may
    name. ``on_note``: told how doubtful things were taken; by default they are logged.

    Raises:
        DataError: the first thing that is wrong, with file, row and what to do.
    """
    return read_table(table, images, boxes=boxes, ignore=ignore, on_note=on_note or _log.warning).films


def read_table(
    table: Path,
    images: Path,
    *,
    boxes: Path | None = None,
    strict: bool = True,
    ignore: Collection[str] = (),
    on_note: Callable[[str], None] | None = None,
) -> LabelTable:
    """As :func:`read_labels`, with all that there is to say; not ``strict``: rows that are wrong become problems.

    Raises:
        DataError: strict: the first error. Else only what leaves nothing to read: no table, no such columns, no films.
    """
    complaints = Complaints(strict, on_note)
    text = read_text_table(Path(table), complaints)
    columns = columns_of(text)
    folder = walk(Path(images))
    rows = RowReader(text, columns, complaints, frozenset(map(letters, ignore)))
    reading = _Reading(text, columns, folder, complaints, rows)
    films = tuple(reading.films())
    if not films:
        raise DataError(f"no image of {text.path} lies below {folder.root}: give the folder that holds the images")
    reading.sum_up(films)
    if boxes is not None:
        films = with_boxes(films, Path(boxes), complaints)
    return LabelTable(
        kind=reading.kind(films),
        films=films,
        rows=len(text.rows),
        missing=len(reading._gone),
        problems=tuple(complaints.problems),
        notes=tuple(complaints.notes),
    )


@dataclass
class _Reading:
    """One table being read: which film lies where, and what its header adds."""

    text: TextTable
    columns: Columns
    folder: Folder
    complaints: Complaints
    rows: RowReader
    _gone: list[tuple[Row, str]] = field(default_factory=list)
    _broken_headers: tuple[str, ...] = ()

    def films(self) -> Iterator[Film]:
        """A film per row, or several where a row names a study."""
        by_identifier = self._by_identifier()
        placed: list[tuple[Row, str, Path]] = []
        seen: dict[Path, int] = {}
        for row in self.text.rows:
            for key, path in self._places(row, by_identifier):
                if path in seen:
                    self.complaints.error(
                        "row twice",
                        f"{self.text.where(row)}: {path.name} stands in row {seen[path]} too: keep one of them",
                        row=row.number,
                        path=path,
                    )
                else:
                    seen[path] = row.number
                    placed.append((row, key, path))
        facts = self._facts([path for _, _, path in placed], by_identifier)
        patients = self._patients_in_names([key for _, key, _ in placed]) if self.columns.patient is None else {}
        for row, key, path in placed:
            film = self.rows.film(row, key, path)
            if key in patients:
                film = replace(film, patient=patients[key])
            yield self._with_header(film, facts.get(path))

    def kind(self, films: Sequence[Film]) -> str:
        """What the table was taken for."""
        dicom = sum(
            film.path is not None and looks_like_dicom(film.path) for film in films[:: max(1, len(films) // 50)]
        )
        if self.columns.nih:
            return "NIH's table"
        form = (
            "a column of labels" if self.columns.labels else "a column per label" if self.columns.marks else "readers"
        )
        return f"{'DICOM films and a table' if dicom else 'a table of paths'} with {form}"

    def sum_up(self, films: Sequence[Film]) -> None:
        """Say what was met more than once: images that are not there, cells that mean nothing, unknown patients."""
        if self._gone and _RELEASE.fullmatch(self.text.path.name):
            row, name = self._gone[0]
            self.complaints.warning(
                "missing image",
                f"{self.text.path}: {len(self._gone)} of {len(self.text.rows)} rows have no image below "
                f"{self.folder.root} (first: row {row.number}, {name}): taken for a part of the release, passed over",
                row=row.number,
            )
        self.rows.say_what_was_odd()
        if any(film.patient.startswith(OWN) for film in films):
            alone = sum(film.patient.startswith(OWN) for film in films)
            self.complaints.warning(
                "no patients",
                f"{self.text.path}: nothing tells whose films {alone} of {len(films)} are: each counts as a patient of "
                "its own, so that a patient may stand on both sides of a split; add a column 'patient'",
            )
        laterals = [film for film in films if film.view == LATERAL]
        if laterals:
            self.complaints.warning(
                "lateral film",
                f"{self.text.where(laterals[0].row or 0)}: {laterals[0].key} is a lateral film ({len(laterals)} such "
                "films): the service reads frontal films only; take them out",
                row=laterals[0].row,
            )
        silent = [film for film in films if not film.known.any() and not film.target.any()]
        if silent and (self.columns.labels or self.columns.marks):
            self.complaints.warning(
                "no label",
                f"{self.text.where(silent[0].row or 0)}: says nothing of {silent[0].key} ({len(silent)} such films): "
                "all of its labels are unknown; write No Finding where nothing was found",
                row=silent[0].row,
            )

    # -- where films lie ---------------------------------------------------------------------------------------------

    def _by_identifier(self) -> Mapping[str, list[HeaderFacts]]:
        """Headers of the folder's DICOM files by every identifier that the table may name."""
        if not self.columns.identifiers:
            return {}
        facts, self._broken_headers = read_headers(list(self.folder.dicom_files()))
        found: dict[str, list[HeaderFacts]] = {}
        for one in facts:
            for key in self.columns.identifiers:
                if one.keys[key]:
                    found.setdefault(f"{key}={one.keys[key]}", []).append(one)
        return found

    def _places(self, row: Row, by_identifier: Mapping[str, list[HeaderFacts]]) -> list[tuple[str, Path]]:
        """Key and path of each film that a row speaks of."""
        names = []
        if self.columns.image is not None and (name := row.cells[self.columns.image]):
            names.append(name)
            try:
                path = self.folder.find(name, beside=self.text.path.parent)
            except Ambiguous as error:
                self.complaints.error("ambiguous image", f"{self.text.where(row)}: {error}", row=row.number)
                return []
            if path is not None:
                return [(name, path)]
        for key, column in self.columns.identifiers.items():
            # A film that is named and not there must not be stood in for by others of its study.
            if names and key != "SOPInstanceUID":
                break
            if name := row.cells[column]:
                names.append(f"{key} {name}")
                if found := by_identifier.get(f"{key}={name}"):
                    return [(one.keys["SOPInstanceUID"] or one.path.name, one.path) for one in found]
        if not names:
            self.complaints.error(
                "no image named", f"{self.text.where(row)}: names no image: fill it in or take it out", row=row.number
            )
            return []
        self._gone.append((row, names[0]))
        if not _RELEASE.fullmatch(self.text.path.name):
            unread = ""
            if self._broken_headers:
                unread = f" ({len(self._broken_headers)} files there cannot be read, first {self._broken_headers[0]})"
            self.complaints.error(
                "missing image",
                f"{self.text.where(row)}: no image {names[0][:120]!r} lies below {self.folder.root}{unread}: put it "
                "there or take the row out",
                row=row.number,
            )
        return []

    def _facts(
        self, paths: Sequence[Path], by_identifier: Mapping[str, list[HeaderFacts]]
    ) -> Mapping[Path, HeaderFacts]:
        known = {one.path: one for several in by_identifier.values() for one in several}
        facts, broken = read_headers([path for path in paths if path not in known and looks_like_dicom(path)])
        for sentence in broken:
            self.complaints.error("broken image", f"{sentence}: fetch it again or take its row out")
        return known | {one.path: one for one in facts}

    def _patients_in_names(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Patients by film where no column names them and all file names do; what cannot be seen is not guessed."""
        plain = {key: key.replace("\\", "/") for key in keys}
        for pattern, prefix in ((_NIH_NAME, "nih-"), (_PATIENT_IN_PATH, "")):
            found = {key: pattern.search(name.rsplit("/", 1)[-1] if prefix else name) for key, name in plain.items()}
            if found and all(found.values()):
                patients = {key: match.group(1) for key, match in found.items() if match}
                self.complaints.note(
                    f"{self.text.path}: has no column for patients; they are taken from the file names "
                    f"({keys[0]}: patient {patients[keys[0]]})"
                )
                return {key: f"{prefix}{int(name)}" if prefix else name for key, name in patients.items()}
        return {}

    def _with_header(self, film: Film, facts: HeaderFacts | None) -> Film:
        """What the table does not say, from the film's own header."""
        if facts is None:
            return film
        patient = film.patient
        if patient.startswith(OWN):
            study = facts.keys["StudyInstanceUID"]
            patient = facts.patient or (f"study:{study}" if study else patient)
        return replace(
            film,
            patient=patient,
            age=facts.age if film.age is None else film.age,
            sex=film.sex or facts.sex,
            view=film.view or facts.view,
            columns={**facts.columns, **film.columns},
        )
