"""Which films are altered: by chance, but the same ones every time, with every label among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from firstread.models.data.film import Film
from firstread.models.evaluation.figures import Flags


def in_turn(films: Sequence[Film]) -> list[int]:
    """Indices in an order given by a hash, first one film of every patient, then the second ones, and so on."""
    hashed = sorted(range(len(films)), key=lambda i: hashlib.sha256(films[i].key.encode()).digest())
    seen: dict[str, int] = {}
    turn = {}
    for index in hashed:
        patient = films[index].patient
        turn[index] = seen.get(patient, 0)
        seen[patient] = turn[index] + 1
    return sorted(hashed, key=lambda index: turn[index])  # sorting is stable: within a turn the hash decides


def subset(films: Sequence[Film], present: Flags, most: int) -> list[int]:
    """At most ``most`` indices, rising: half of them as the films come, half label by label, the rarest first.

    ``present``: [N, L], which film has which label. So common labels keep their share, and rare ones are there at all.
    """
    if len(films) <= most:
        return list(range(len(films)))
    order = in_turn(films)
    chosen = dict.fromkeys(order[: most // 2])
    waiting = [[index for index in order if present[index, label]] for label in np.argsort(present.sum(axis=0))]
    waiting = [indices for indices in waiting if indices]
    while len(chosen) < most and any(waiting):
        for indices in waiting:
            while indices and indices[0] in chosen:
                indices.pop(0)
            if indices and len(chosen) < most:
                chosen[indices.pop(0)] = None
    for index in order:
        if len(chosen) >= most:
            break
        chosen[index] = None
    return sorted(chosen)


def of_either_kind(films: Sequence[Film], known: Flags, present: Flags, most: int) -> list[int]:
    """At most ``most`` indices with a label and as many without, rising."""
    order = in_turn(films)
    with_label = [index for index in order if known[index] and present[index]][:most]
    without = [index for index in order if known[index] and not present[index]][:most]
    return sorted(with_label + without)
