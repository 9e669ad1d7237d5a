"""Films that stand in a set more than once: the same greys in two files, or much the same picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.data.facts import FilmFacts

NEAR_BITS = 40
"""Of 256: hashes that differ in so few bits may belong to one film in two forms (a JPEG, another size: up to 6; another
gamma: 24). Any two of 808 NIH films of 611 patients differ in 52 or more, but for one film that stands there twice."""
NEAR_CORRELATION = 0.985
"""Thumbnails of one film in two forms agree to 0.995 and more, those of any two different films to 0.956 and less."""

_BLOCK = 2048


@dataclass(frozen=True)
class Near:
    """Two films, by index, that are most likely one: resized, recompressed, or with other contrast."""

    first: int
    second: int
    correlation: float


def exact_groups(facts: Sequence[FilmFacts | None]) -> tuple[tuple[int, ...], ...]:
    """Groups of indices whose films have the same greys; None is passed over."""
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(facts):
        if one is not None:
            groups.setdefault(one.exact, []).append(index)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def near_pairs(facts: Sequence[FilmFacts | None]) -> tuple[Near, ...]:
    """Pairs that look alike without being the same greys, the most alike first.

    The perceptual hash (256 bits of a cosine transform) chooses, the correlation of thumbnails decides. Every film is
    compared with every other, by products of matrices: a hundred thousand films take minutes, not hours.
    """
    at = [index for index, one in enumerate(facts) if one is not None]
    kept = [one for one in facts if one is not None]
    if len(kept) < 2:
        return ()
    signs = np.unpackbits(np.stack([one.bits for one in kept]), axis=1).astype(np.float32) * 2 - 1
    found = []
    for row, column in _close(signs):
        correlation = float(kept[row].thumb.astype(np.float32) @ kept[column].thumb.astype(np.float32))
        if correlation >= NEAR_CORRELATION and kept[row].exact != kept[column].exact:
            found.append(Near(at[row], at[column], correlation))
    return tuple(sorted(found, key=lambda pair: -pair.correlation))


def _close(signs: npt.NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Index pairs (smaller first) whose hashes differ in at most ``NEAR_BITS`` bits."""
    bits = signs.shape[1]
    for start in range(0, len(signs), _BLOCK):
        for other in range(start, len(signs), _BLOCK):
            agree = signs[start : start + _BLOCK] @ signs[other : other + _BLOCK].T
            rows, columns = np.nonzero(agree >= bits - 2 * NEAR_BITS)
            for row, column in zip(rows + start, columns + other, strict=True):
                if row < column:
                    yield int(row), int(column)
