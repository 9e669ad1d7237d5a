"""A set of films looked over before anybody trains on it or judges by it: what is wrong, and what gives it away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from firstread.models.data.decode import broken_sentence
from firstread.models.data.duplicates import exact_groups, near_pairs
from firstread.models.data.facts import FilmFacts, measure_films
from firstread.models.data.film import DataError, Film
from firstread.models.data.nuisance import of_film
from firstread.models.data.problems import Problem, Severity
from firstread.models.data.processes import Failed, OnProgress
from firstread.models.data.separability import Separability, separability
from firstread.models.data.splits import film_name, leaks, read_list
from firstread.models.data.tables import LabelTable, read_table
from firstread.models.findings import LABELS

_BLANK = 2.0
"""Grey levels of 255: a film whose greys spread less shows nothing."""

_MOST_OF_ONE = 0.5
_SOME_FILMS = 20


@dataclass(frozen=True, eq=False)
class Checked:
    """A set that was looked over.

    ``facts``: of each film of ``table.films``, None where it cannot be read. ``problems``: all that was met, errors
    first. ``nuisances``: per film, all variables at hand. ``same``, ``alike``: indices of films that stand more than
    once. ``labels``: how far each label that occurs can be told apart without anatomy.
    """

    table: LabelTable
    table_path: Path
    images: Path
    facts: tuple[FilmFacts | None, ...]
    nuisances: tuple[Mapping[str, float], ...]
    problems: tuple[Problem, ...]
    same: tuple[tuple[int, ...], ...]
    alike: tuple[tuple[int, int, float], ...]
    labels: tuple[Separability, ...]

    @property
    def usable(self) -> bool:
        """No error was met."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)


def check(
    table: Path,
    images: Path,
    *,
    boxes: Path | None = None,
    train_list: Path | None = None,
    test_list: Path | None = None,
    ignore: Collection[str] = (),
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Checked:
    """Read a label table and every film of it, and collect whatever is wrong instead of stopping at it.

    ``train_list``, ``test_list``: files of image names, one a line, as NIH gives them. ``on_progress``: told (done,
    all) films measured.

    Raises:
        DataError: there is nothing to check: no table, no columns of images or labels, no films, no such list.
    """
    if (train_list is None) != (test_list is None):
        raise DataError("a split needs both lists: give the training list and the test list, or neither")
    read = read_table(table, images, boxes=boxes, strict=False, ignore=ignore)
    films = read.films
    measured = measure_films([film.path for film in films if film.path is not None], workers, on_progress)
    facts = tuple(None if isinstance(one, Failed) else one for one in measured)
    # A film whose header is broken is met again when it is measured, with its row.
    problems = [problem for problem in read.problems if problem.kind != "broken image"]
    for film, one in zip(films, measured, strict=True):
        if isinstance(one, Failed):
            problems.append(_problem("broken image", broken_sentence(film, one.reason), film))
        elif one.nuisances["contrast"] < _BLANK:
            problems.append(_problem("blank film", f"{_said(film)}: shows nothing", film, Severity.WARNING))
    sides = _sides(films, train_list, test_list, problems)
    same = exact_groups(facts)
    alike = tuple((pair.first, pair.second, pair.correlation) for pair in near_pairs(facts))
    problems += _repeated(films, same, alike, sides)
    problems += _of_patients(films)
    problems += _of_classes(Path(table), films)
    nuisances = tuple(
        {**({} if one is None else one.nuisances), **of_film(film)} for film, one in zip(films, facts, strict=True)
    )
    good = [index for index, one in enumerate(facts) if one is not None]
    return Checked(
        table=read,
        table_path=Path(table),
        images=Path(images),
        facts=facts,
        nuisances=nuisances,
        problems=tuple(sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)),
        same=same,
        alike=alike,
        labels=separability([films[i] for i in good], [nuisances[i] for i in good]),
    )


def _problem(kind: str, message: str, film: Film, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(kind, message, severity, film.row, film.path)


def _said(film: Film) -> str:
    row = "" if film.row is None else f" (row {film.row} of the table)"
    return f"{film.path}{row}"


def _sides(
    films: Sequence[Film], train_list: Path | None, test_list: Path | None, problems: list[Problem]
) -> dict[str, str]:
    """File name to side, by the lists given; what is wrong with them is added to ``problems``."""
    if train_list is None or test_list is None:
        return {}
    lists = {"train": read_list(train_list), "test": read_list(test_list)}
    for name in sorted(set(lists["train"]) & set(lists["test"])):
        line = lists["test"][name]
        sentence = f"{test_list}, line {line}: {name} stands in {train_list} too: take it out of one"
        problems.append(Problem("film in both lists", sentence, Severity.ERROR, line, test_list))
    for sentence in leaks(films, lists):
        problems.append(
            Problem("patient on both sides", f"{test_list}: {sentence}: keep all of a patient's films on one side")
        )
    strangers = [film for film in films if not any(film_name(film) in names for names in lists.values())]
    if strangers:
        sentence = (
            f"{_said(strangers[0])}: stands in neither list ({len(strangers)} such films): it will not be used when "
            "these lists are asked for"
        )
        problems.append(_problem("film in neither list", sentence, strangers[0], Severity.WARNING))
    return {name: side for side, names in lists.items() for name in names}


def _repeated(
    films: Sequence[Film],
    same: Sequence[Sequence[int]],
    alike: Sequence[tuple[int, int, float]],
    sides: Mapping[str, str],
) -> Iterator[Problem]:
    """Films that stand more than once: an error where a split would have one of them on each side."""
    for group in same:
        for other in group[1:]:
            yield _pair(films[group[0]], films[other], "holds the same greys as", "duplicate film", sides)
    for first, second, correlation in alike:
        words = f"is most likely the same film (correlation {correlation:.3f}) as"
        yield _pair(films[first], films[second], words, "near duplicate", sides)


def _pair(first: Film, second: Film, words: str, kind: str, sides: Mapping[str, str]) -> Problem:
    one, other = sides.get(film_name(first)), sides.get(film_name(second))
    known = (first.known > 0) & (second.known > 0)
    differ = [label for label, a, b, k in zip(LABELS, first.target, second.target, known, strict=True) if k and a != b]
    labels = f"; their labels differ ({', '.join(differ)})" if differ else ""
    whose = "" if first.patient == second.patient else f" of another patient ({first.patient}, {second.patient})"
    sentence = f"{_said(second)}: {words} {_said(first)}{whose}{labels}"
    if one is not None and other is not None and one != other:
        return _problem(f"{kind} across the split", f"{sentence}: one is in {one}, one in {other}", second)
    kind = kind if not whose else f"{kind} of another patient"
    return _problem(kind, f"{sentence}: keep one of them", second, Severity.WARNING)


def _of_patients(films: Sequence[Film]) -> Iterator[Problem]:
    """Identifiers that cannot be one person's, or that stand for everybody."""
    of: dict[str, list[Film]] = {}
    for film in films:
        of.setdefault(film.patient, []).append(film)
    for patient, theirs in of.items():
        female, male = (next((film for film in theirs if film.sex == sex), None) for sex in ("F", "M"))
        if female is not None and male is not None:
            sentence = f"{_said(male)}: patient {patient} is a man here and a woman in row {female.row}: two patients?"
            yield _problem("contradictory sex", sentence, male, Severity.WARNING)
    largest = max(of.values(), key=len)
    if len(of) > 1 and len(films) >= _SOME_FILMS and len(largest) > _MOST_OF_ONE * len(films):
        sentence = (
            f"{_said(largest[0])}: patient {largest[0].patient} has {len(largest)} of {len(films)} films: does this "
            "stand for everybody whose name was taken away?"
        )
        yield _problem("one patient for many", sentence, largest[0], Severity.WARNING)
    if len(of) == 1 and len(films) > 1:
        sentence = f"all {len(films)} films are of patient {largest[0].patient}: they cannot be split by patient"
        yield _problem("one patient for all", sentence, largest[0])


def _of_classes(table: Path, films: Sequence[Film]) -> Iterator[Problem]:
    """A label is of use only where films with it and without it are known."""
    both = [
        label
        for column, label in enumerate(LABELS)
        if len({bool(film.target[column]) for film in films if film.known[column]}) == 2
    ]
    if not both:
        yield Problem(
            "one class only",
            f"{table}: no label has films with it and films without it: nothing can be learned or judged from them",
            Severity.ERROR,
            None,
            table,
        )
