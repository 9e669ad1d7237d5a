"""From a table of labels and a bundle to an evaluation or a comparison, and the files that keep them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError, Film
from firstread.models.data.splits import film_name, read_list
from firstread.models.data.tables import read_labels
from firstread.models.evaluation import compare, readers
from firstread.models.evaluation.as_json import Source, as_json
from firstread.models.evaluation.figures import DRAWS
from firstread.models.evaluation.matching import CALLIPER
from firstread.models.evaluation.measure import Evaluation, evaluate
from firstread.models.evaluation.score import Scores, score
from firstread.models.findings import LABELS

Progress = Callable[[int, int], None]

OFFICIAL = {"train": "train_val_list.txt", "test": "test_list.txt"}
"""NIH's own split: the lists that lie beside its table or its images."""


@dataclass(frozen=True)
class Films:
    """Which films to judge by.

    ``table``: of labels; ``images``: the folder they lie in; ``boxes``: a list of boxes, or None. ``subset``: ``train``
    or ``test`` for NIH's own lists, or a text file with an image name per line; empty for all. ``readers``: columns of
    several readers (found by themselves when empty). ``consensus``: judge by the readers' majority.
    """

    table: Path
    images: Path
    boxes: Path | None = None
    subset: str = ""
    readers: tuple[str, ...] = ()
    consensus: bool = False

    @property
    def source(self) -> Source:
        """As results name it."""
        words = [self.subset, "judged by the readers' majority" if self.consensus else ""]
        return Source(self.table, self.images, "; ".join(filter(None, words)))


def read_films(wanted: Films) -> tuple[tuple[Film, ...], readers.Readings | None]:
    """The films and, where several readers labelled them, what each said.

    Raises:
        DataError: table, images or subset cannot be used, or consensus is wanted where there are no readers.
    """
    films = read_labels(wanted.table, wanted.images, boxes=wanted.boxes)
    if wanted.subset:
        films = in_subset(films, wanted)
    readings = readers.find_readers(films, wanted.readers)
    if wanted.consensus:
        if readings is None:
            raise DataError(f"{wanted.table}: no columns of several readers were found: name them with --readers")
        films = readers.judged_by_consensus(films, readings)
    return films, readings


def in_subset(films: Sequence[Film], wanted: Films) -> tuple[Film, ...]:
    """The films that the list names.

    Raises:
        DataError: there is no such list, or it names none of the films.
    """
    path = _list_file(wanted)
    names = read_list(path)
    kept = tuple(film for film in films if film_name(film) in names)
    if not kept:
        raise DataError(
            f"{path} names none of the {len(films)} films of {wanted.table}: is it the list of other films?"
        )
    return kept


def evaluate_bundle(
    bundle: Bundle,
    wanted: Films,
    now: datetime,
    *,
    by: Sequence[str] = (),
    draws: int = DRAWS,
    calliper: float = CALLIPER,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[Evaluation, dict[str, Any]]:
    """Score the films and measure: the evaluation, and the same as JSON (see ``as_json``).

    Raises:
        DataError: the films cannot be used. EngineError: the bundle cannot be run here.
    """
    films, readings = read_films(wanted)
    # A wrong column is said before the films are scored, not minutes later.
    check_columns(films, by)
    scores = score(bundle, films, device=device, threads=threads, on_progress=on_progress)
    evaluation = evaluate(bundle, scores, by, draws, calliper)
    several = None
    if readings is not None:
        several = readers.as_json(readings, readers.compare_readers(bundle, scores, readings, draws))
    return evaluation, as_json(evaluation, wanted.source, now, several)


def compare_bundles(
    first: Bundle,
    second: Bundle,
    wanted: Films,
    now: datetime,
    *,
    draws: int = DRAWS,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> tuple[compare.Comparison, dict[str, Any]]:
    """Score the films with both bundles and compare, also as JSON (see ``compare.as_json``).

    Raises:
        DataError: the films cannot be used, or the bundles share no label. EngineError: one cannot be run here.
    """
    films, _ = read_films(wanted)
    both = []
    for number, bundle in enumerate((first, second)):
        told = None if on_progress is None else _shifted(on_progress, number * len(films), 2 * len(films))
        both.append(score(bundle, films, device=device, threads=threads, on_progress=told))
    comparison = compare.compare(first, second, both[0], both[1], draws)
    return comparison, compare.as_json(comparison, both[0], wanted.source, now)


def check_columns(films: Sequence[Film], by: Sequence[str]) -> None:
    """Refuse a column to group by that no film has.

    Raises:
        DataError: names the column and those there are.
    """
    there = {name for film in films for name in film.columns} | {"sex", "age", "view"}
    for column in by:
        if column not in there:
            raise DataError(f"the table has no column {column!r} to group by: it has {', '.join(sorted(there))}")


def probabilities_csv(scores: Scores) -> str:
    """Every film with its probabilities: CSV with a column per label, and one per label of what the table says."""
    with io.StringIO(newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        truth = [f"{label} (table)" for label in scores.labels]
        writer.writerow(["film", "row", "patient", "refused", "problem", *scores.labels, *truth])
        for i, film in enumerate(scores.films):
            reason, problem = scores.refused[i], scores.problems[i]
            said = ["" if problem is not None else f"{value:.6f}" for value in scores.probabilities[i]]
            columns = [LABELS.index(label) for label in scores.labels]
            told = [int(film.target[column]) if film.known[column] else "" for column in columns]
            about = [film.key, film.row or "", film.patient, reason.text if reason else "", problem or ""]
            writer.writerow([*about, *said, *told])
        return stream.getvalue()


def _list_file(wanted: Films) -> Path:
    if wanted.subset not in OFFICIAL:
        return Path(wanted.subset)
    name = OFFICIAL[wanted.subset]
    for folder in (wanted.table.parent, wanted.images, wanted.images.parent):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"NIH's list {name} lies neither beside {wanted.table} nor in {wanted.images}: give its path")


def _shifted(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: on_progress(before + done, total)


def column_names(joined: str) -> tuple[str, ...]:
    """Columns as a command gives them: ``reader_1,reader_2``."""
    return tuple(filter(None, (name.strip() for name in joined.split(","))))
