"""Films split by patient: by hash, so that neither order nor other films matter, or by NIH's official lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from firstread.models.data.film import DataError, Film, fold_of

__all__ = ["Split", "fold_of", "folds", "leaks", "official", "read_list", "share_of", "split"]

SALT = "firstread"


@dataclass(frozen=True)
class Split:
    """Indices into the films that were split, in their order; no patient stands in two parts."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def share_of(patient: str, salt: str = SALT) -> float:
    """A patient's place in [0, 1): a hash, the same on every machine and for ever."""
    digest = hashlib.sha256(f"{salt}/share:{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split(films: Sequence[Film], validation: float = 0.1, test: float = 0.2, salt: str = SALT) -> Split:
    """Train, validation and test by the shares of patients asked for (of films they differ a little).

    More films never move a patient from one part to another, and a larger test share only takes in more.

    Raises:
        DataError: shares that leave nothing to train on, or none of whose patients fell into a part.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise DataError(f"shares of {validation:g} for validation and {test:g} for test leave nothing to train on")
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for index, film in enumerate(films):
        share = share_of(film.patient, salt)
        parts[2 if share < test else 1 if share < test + validation else 0].append(index)
    for part, wanted, name in zip(parts, (1.0, validation, test), ("training", "validation", "test"), strict=True):
        if wanted > 0 and not part:
            count = len({film.patient for film in films})
            raise DataError(f"of {count} patients none fell into the {name} part: give more films or a larger share")
    return Split(*(tuple(part) for part in parts))


def folds(
    films: Sequence[Film], count: int = 5, salt: str = SALT
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """``count`` pairs of (train, held out): each film is held out once, with all others of its patient.

    Raises:
        DataError: fewer than two folds, or a fold without any film.
    """
    if count < 2:
        raise DataError(f"{count} folds are no cross-validation: ask for two or more")
    place = [fold_of(film.patient, count, salt) for film in films]
    empty = sorted(set(range(count)) - set(place))
    if empty:
        raise DataError(f"fold {empty[0]} of {count} has no film: give more patients or ask for fewer folds")
    return tuple(
        (tuple(i for i, p in enumerate(place) if p != fold), tuple(i for i, p in enumerate(place) if p == fold))
        for fold in range(count)
    )


def official(
    films: Sequence[Film], train_val_list: Path, test_list: Path, validation: float = 0.125, salt: str = SALT
) -> Split:
    """The split of NIH's ``train_val_list.txt`` and ``test_list.txt``; validation is a share of the former's patients.

    Raises:
        DataError: a list cannot be read, a film stands in both or in neither, a patient stands on both sides.
    """
    sides = {"train": read_list(train_val_list), "test": read_list(test_list)}
    both = sorted(set(sides["train"]) & set(sides["test"]))
    if both:
        raise DataError(f"{test_list}, line {sides['test'][both[0]]}: {both[0]} stands in {train_val_list} too")
    found = leaks(films, sides)
    if found:
        raise DataError(
            f"{test_list}: {found[0]}: a model would be tested on patients it was trained on; mend the lists"
        )
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for index, film in enumerate(films):
        name = film_name(film)
        if name not in sides["train"] and name not in sides["test"]:
            where = "" if film.row is None else f" (row {film.row} of the table)"
            raise DataError(f"{name}{where}: stands neither in {train_val_list} nor in {test_list}: add it to one")
        if name in sides["test"]:
            parts[2].append(index)
        else:
            parts[1 if share_of(film.patient, salt) < validation else 0].append(index)
    return Split(*(tuple(part) for part in parts))


def leaks(films: Sequence[Film], sides: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """A sentence per patient whose films stand on two sides. ``sides``: file names with their lines, by side."""
    where: dict[str, dict[str, str]] = {}
    for film in films:
        for side, names in sides.items():
            if film_name(film) in names:
                where.setdefault(film.patient, {}).setdefault(side, film_name(film))
    return tuple(
        f"patient {patient} stands on both sides ({' and '.join(f'{name} in {side}' for side, name in found.items())})"
        for patient, found in where.items()
        if len(found) > 1
    )


def film_name(film: Film) -> str:
    """How lists name a film: its file's name."""
    return film.path.name if film.path is not None else PurePosixPath(film.key).name


def read_list(path: Path) -> dict[str, int]:
    """File names of a list, one a line, each with the number of its line.

    Raises:
        DataError: no such file, not text, empty, or a name twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list cannot be read ({error}): give a text file of file names") from error
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        name = PurePosixPath(line.strip().replace("\\", "/")).name
        if name and name in names:
            raise DataError(f"{path}, line {number}: {name} stands in line {names[name]} too: remove one")
        if name:
            names[name] = number
    if not names:
        raise DataError(f"{path}: the list is empty")
    return names
