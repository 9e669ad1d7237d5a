"""Films are changed and shown again: how much each probability moves, and how many results turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models.audit.alterations import Alteration, Scene
from firstread.models.audit.judge import Judge, Ready, log_odds
from firstread.models.audit.maps import share_in
from firstread.models.audit.picture import Picture
from firstread.models.audit.spectrum import Spectrum, with_gain
from firstread.models.data.film import Film
from firstread.models.evaluation.figures import Figure, Flags, Numbers, Share, auroc, auroc_difference, wilson

Progress = Callable[[int, int], None]
"""Told how many films are done, of how many."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """By how much a film's noise is amplified, so that it is to the other class's mean what it was to its own's."""

    label: str
    gain: Spectrum


@dataclass(frozen=True, eq=False)
class Retold:
    """What a judge said of F films and of their altered versions, A alterations, L labels.

    ``probabilities``: [F, L]; ``altered``: [F, A, L], NaN where an alteration had nothing to do. ``refused``: [F, A],
    whether the gate turned the altered film away. ``inside``, ``area``: the map's share inside the thorax [F, L] (NaN
    without evidence) and the thorax's share of the film [F]. ``thorax_found``: [F].
    ``exchanged``: per label, film index to (log odds as the film is, with the other class's noise).
    """

    probabilities: Numbers
    altered: Numbers
    refused: npt.NDArray[np.bool_]
    inside: Numbers
    area: Numbers
    thorax_found: npt.NDArray[np.bool_]
    exchanged: Mapping[str, Mapping[int, tuple[float, float]]]


@dataclass(frozen=True)
class Effect:
    """What one alteration does to one label over ``films`` films.

    ``median``, ``p95``: of how far the probability moves, either way. ``with_label``, ``without_label``: mean movement,
    signed, in films that have the label and in films that do not (NaN where there are none). ``shift``: mean movement
    of the log odds in standard deviations of the log odds over the films, with its 95 % interval. ``flips``: results
    that turn at the operating point, None where the label has none; ``raised`` of them turn to present.
    ``refused``: films that the gate turns away once they are altered.
    """

    key: str
    films: int
    median: float
    p95: float
    with_label: float
    without_label: float
    shift: float
    shift_low: float
    shift_high: float
    flips: Share | None
    raised: int
    refused: int


@dataclass(frozen=True)
class NoiseExchange:
    """What the other class's noise does to a label's score.

    ``towards``: mean movement of the log odds towards the other class, as a share of the classes' distance.
    ``before``, ``after``: AUROC of the films as they are and with noise exchanged; ``lost``: the difference, with
    interval. A score that rests on nothing but noise falls as far below 0.5 as it was above.
    """

    positives: int
    negatives: int
    towards: float
    before: float
    after: float
    lost: Figure


def retell(
    judge: Judge,
    films: Sequence[Film],
    picture_of: Callable[[Film], Picture],
    alterations: Sequence[Alteration],
    exchanges: Mapping[int, Sequence[Exchange]],
    altered: frozenset[int],
    threads: int = 2,
    on_progress: Progress | None = None,
) -> Retold:
    """Show each film, altered in every way, to the judge.

    ``altered``: indices of the films that undergo the alterations and the look at their map. ``exchanges``: index to
    the exchanges of noise that the film undergoes. Films that appear in neither are not looked at (NaN).
    """
    count, labels = len(films), len(judge.labels)
    probabilities = np.full((count, labels), np.nan)
    after = np.full((count, len(alterations), labels), np.nan)
    refused = np.zeros((count, len(alterations)), bool)
    inside, area = np.full((count, labels), np.nan), np.full(count, np.nan)
    found = np.zeros(count, bool)
    exchanged: dict[str, dict[int, tuple[float, float]]] = {}
    wanted = sorted(altered | set(exchanges))

    def made(index: int) -> _Made:
        return _make(judge, films[index], picture_of, alterations if index in altered else (), exchanges.get(index, ()))

    for done, (index, variants) in enumerate(_ahead(wanted, made, threads), start=1):
        answer = judge.answer(films[index], [variants.base, *variants.altered.values(), *variants.exchanged])
        probabilities[index] = answer.probabilities[0]
        for row, (column, ready) in enumerate(variants.altered.items(), start=1):
            after[index, column], refused[index, column] = answer.probabilities[row], ready.refused
        if index in altered:
            mask, found[index] = variants.thorax
            area[index] = mask.mean()
            if answer.maps is not None:
                inside[index] = [share_in(cam, variants.base.placement, mask) for cam in answer.maps[0]]
            _tell(judge, films[index], variants.base, alterations, after[index])
        odds = log_odds(answer.probabilities[1 + len(variants.altered) :])
        for number, exchange in enumerate(exchanges.get(index, ())):
            column = judge.labels.index(exchange.label)
            before = float(log_odds(answer.probabilities[0])[column])
            exchanged.setdefault(exchange.label, {})[index] = before, float(odds[number, column])
        if on_progress is not None:
            on_progress(done, len(wanted))
    return Retold(probabilities, after, refused, inside, area, found, exchanged)


@dataclass(frozen=True, eq=False)
class _Made:
    base: Ready
    altered: Mapping[int, Ready]
    exchanged: tuple[Ready, ...]
    thorax: tuple[npt.NDArray[np.bool_], bool]


def _make(
    judge: Judge,
    film: Film,
    picture_of: Callable[[Film], Picture],
    alterations: Sequence[Alteration],
    exchanges: Sequence[Exchange],
) -> _Made:
    picture = picture_of(film)
    scene = Scene(picture, film.key)
    ready: dict[int, Ready] = {}
    for column, alteration in enumerate(alterations):
        changed = alteration(scene) if alteration.tell is None else None
        if changed is not None:
            ready[column] = judge.ready(changed)
    noises = [judge.ready(with_gain(picture, exchange.gain)) for exchange in exchanges]
    thorax = (scene.thorax.mask, scene.thorax.found) if alterations else (np.zeros((1, 1), bool), False)
    return _Made(judge.ready(picture), ready, tuple(noises), thorax)


def _tell(judge: Judge, film: Film, base: Ready, alterations: Sequence[Alteration], after: Numbers) -> None:
    """The same picture with something else said of it, into ``after`` [A, L]."""
    for column, alteration in enumerate(alterations):
        told = alteration.tell(film) if alteration.tell is not None else None
        if told is not None:
            after[column] = judge.answer(told, [base]).probabilities[0]


def _ahead(indices: Sequence[int], made: Callable[[int], _Made], threads: int) -> Iterator[tuple[int, _Made]]:
    """Each index with what is made of it, in order, a few films ahead of the judge."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        flying: deque[tuple[int, Future[_Made]]] = deque()
        try:
            for index in indices:
                flying.append((index, pool.submit(made, index)))
                if len(flying) > max(1, threads):
                    first, future = flying.popleft()
                    yield first, future.result()
            while flying:
                first, future = flying.popleft()
                yield first, future.result()
        finally:
            for _, future in flying:
                future.cancel()


def effects(
    retold: Retold,
    alterations: Sequence[Alteration],
    column: int,
    known: Flags,
    present: Flags,
    threshold: float | None,
) -> tuple[Effect, ...]:
    """What each alteration does to one label (``column`` of the judge's); those that touched no film are left out.

    ``known``, ``present``: [F], whether the label is known of a film, and whether the film has it.
    """
    found = []
    before = retold.probabilities[:, column]
    shown = np.isfinite(retold.altered[:, :, column]).any(axis=1)
    spread = float(log_odds(before[shown]).std()) if shown.any() else 0.0
    for number, alteration in enumerate(alterations):
        after = retold.altered[:, number, column]
        use = np.isfinite(after)
        if not use.any():
            continue
        moved = after[use] - before[use]
        shifts = log_odds(after[use]) - log_odds(before[use])
        shifts = shifts / spread if spread > 1e-6 else np.zeros(len(shifts))
        margin = 1.96 * float(shifts.std(ddof=1)) / np.sqrt(len(shifts)) if len(shifts) > 1 else float("inf")
        with_label, without = use & known & present, use & known & ~present
        flips, raised = None, 0
        if threshold is not None:
            up = (before[use] < threshold) & (after[use] >= threshold)
            down = (before[use] >= threshold) & (after[use] < threshold)
            flips, raised = wilson(int(up.sum() + down.sum()), int(use.sum())), int(up.sum())
        found.append(
            Effect(
                key=alteration.key,
                films=int(use.sum()),
                median=float(np.median(np.abs(moved))),
                p95=float(np.quantile(np.abs(moved), 0.95)),
                with_label=_mean(after[with_label] - before[with_label]),
                without_label=_mean(after[without] - before[without]),
                shift=float(shifts.mean()),
                shift_low=float(shifts.mean() - margin),
                shift_high=float(shifts.mean() + margin),
                flips=flips,
                raised=raised,
                refused=int(retold.refused[use, number].sum()),
            )
        )
    return tuple(found)


def noise_exchange(retold: Retold, label: str, present: Flags, patients: Sequence[str]) -> NoiseExchange | None:
    """Sum up the exchange of noise for one label; None where fewer than ten films of either kind underwent it."""
    pairs = retold.exchanged.get(label, {})
    indices = np.array(sorted(pairs), int)
    flags = present[indices]
    if flags.sum() < 10 or (~flags).sum() < 10:
        return None
    own = np.array([pairs[int(index)][0] for index in indices])
    other = np.array([pairs[int(index)][1] for index in indices])
    distance = float(own[flags].mean() - own[~flags].mean())
    movement = (float((own - other)[flags].mean()) + float((other - own)[~flags].mean())) / 2
    return NoiseExchange(
        positives=int(flags.sum()),
        negatives=int((~flags).sum()),
        towards=movement / distance if distance > 1e-6 else float("nan"),
        before=auroc(flags, own),
        after=auroc(flags, other),
        lost=auroc_difference(flags, own, other, [patients[int(index)] for index in indices], draws=500),
    )


def _mean(values: Numbers) -> float:
    return float(values.mean()) if len(values) else float("nan")
