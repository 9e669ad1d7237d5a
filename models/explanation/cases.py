"""What is judged: a map of one finding on one film, beside the boxes in which that finding truly lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firstread.models import gate
from firstread.models.bundle import Bundle
from firstread.models.data.boxes import stored_size
from firstread.models.data.film import Film
from firstread.models.data.folder import looks_like_dicom
from firstread.models.engine import open_engine
from firstread.models.evaluation.score import Scores
from firstread.models.header import read_header, texts
from firstread.models.orientation import Orientation, turns
from firstread.models.phantoms import DRAWABLE, Phantom, draw, random_spec
from firstread.models.prediction import Box
from firstread.models.preprocess import Placement, place, prepare

Map = npt.NDArray[np.float32]

PHANTOM_SEED = 20261124
"""Phantoms of another seed than those of any training."""

PHANTOM_SIDE = 512
BATCH = 8


@dataclass(frozen=True, eq=False)
class Case:
    """``key``, ``row``: names the film. ``boxes``: where ``label`` lies, in the upright film's pixels, at least one.

    ``cam``: the map [h, w] in [0, 1]. ``probability``, ``called``: what the model said of the label. ``picture``: the
    film [rows, columns] in [0, 1] where it is held in memory (phantoms); ``film``: else where it comes from.
    """

    key: str
    row: int | None
    label: str
    boxes: tuple[Box, ...]
    cam: Map
    placement: Placement
    probability: float
    called: bool
    picture: npt.NDArray[np.float32] | None = None
    film: Film | None = None


def film_cases(bundle: Bundle, scores: Scores) -> list[Case]:
    """A case for each box label that the bundle assesses, of the films that were read and that the gate lets in.

    ``scores``: made with ``maps=True`` by a bundle that has maps.
    """
    assert scores.maps is not None
    found = []
    for index, film in enumerate(scores.films):
        placement = scores.placements[index]
        if placement is None or scores.problems[index] is not None or scores.refused[index] is not None:
            continue
        turn = upright_boxes(film, placement)
        for label, box in film.boxes.items():
            if label not in bundle.labels:
                continue
            column = bundle.labels.index(label)
            probability = float(scores.probabilities[index, column])
            found.append(
                Case(
                    key=film.key,
                    row=film.row,
                    label=label,
                    boxes=tuple(turn(one) for one in (box, *film.more_boxes.get(label, ()))),
                    cam=scores.maps[index, column],
                    placement=placement,
                    probability=probability,
                    called=probability >= bundle.thresholds[label],
                    film=film,
                )
            )
    return found


def upright_boxes(film: Film, placement: Placement) -> Callable[[Box], Box]:
    """Turns a box in a film's stored pixels into one in the pixels of the upright image that was scored."""
    size = stored_size(film)
    if film.path is None or size is None:
        return lambda box: box
    turned = (False, False, False)
    if looks_like_dicom(film.path):
        turned = turns(texts(read_header(film.path), "PatientOrientation"))
    columns, rows = size
    orientation = Orientation(rows, columns, placement.film_rows, placement.film_columns, *turned)
    return orientation.to_upright


@dataclass(frozen=True, eq=False)
class DrawnCases:
    """Cases of phantoms. ``drawn``: how many phantoms; ``refused``: how many of them the gate kept out."""

    cases: tuple[Case, ...]
    drawn: int
    refused: int


def phantom_labels(bundle: Bundle) -> tuple[str, ...]:
    """The findings that phantoms can carry and the bundle assesses."""
    return tuple(label for label in DRAWABLE if label in bundle.labels)


def drawn_phantom(label: str, number: int, seed: int = PHANTOM_SEED) -> Phantom:
    """A phantom with that finding alone: the same numbers draw the same film."""
    rng = np.random.default_rng([seed, DRAWABLE.index(label), number])
    return draw(random_spec(rng, (label,), (PHANTOM_SIDE, PHANTOM_SIDE)))


def phantom_cases(
    bundle: Bundle,
    count: int,
    *,
    seed: int = PHANTOM_SEED,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DrawnCases:
    """Draw ``count`` phantoms, one finding each and the findings in turn, and run the bundle on those the gate lets in.

    Raises:
        EngineError: no engine can run the bundle here.
    """
    labels = phantom_labels(bundle)
    if not labels or count < 1:
        return DrawnCases((), 0, 0)
    engine = open_engine(bundle, device, threads=threads)
    cases: list[Case] = []
    refused = 0
    waiting: list[tuple[str, int, Phantom]] = []
    for index in range(count):
        label, number = labels[index % len(labels)], index // len(labels)
        phantom = drawn_phantom(label, number, seed)
        if gate.inspect(phantom.image).reason is not None:
            refused += 1
        else:
            waiting.append((label, number, phantom))
        if waiting and (len(waiting) == BATCH or index == count - 1):
            placements = [place(one.image, bundle.preprocessing) for _, _, one in waiting]
            squares = [prepare(one.image, bundle.preprocessing) for _, _, one in waiting]
            output = engine.run(np.stack(squares), [told_of(one) for _, _, one in waiting])
            assert output.saliency is not None
            cases += [
                _case(bundle, *waiting[n], placements[n], output.saliency[n], output.probabilities[n])
                for n in range(len(waiting))
            ]
            waiting.clear()
        if on_progress is not None:
            on_progress(index + 1, count)
    return DrawnCases(tuple(cases), count, refused)


def told_of(phantom: Phantom) -> dict[str, float | str]:
    """What a network that takes metadata is told of a phantom."""
    return {"age": float(phantom.spec.age), "sex": phantom.spec.sex, "view": phantom.spec.view}


def _case(
    bundle: Bundle,
    label: str,
    number: int,
    phantom: Phantom,
    placement: Placement,
    maps: Map,
    probabilities: npt.NDArray[np.float32],
) -> Case:
    column = bundle.labels.index(label)
    probability = float(probabilities[column])
    return Case(
        key=f"phantom {number + 1} with {label.replace('_', ' ').lower()}",
        row=None,
        label=label,
        boxes=(phantom.truth[label],),
        cam=maps[column],
        placement=placement,
        probability=probability,
        called=probability >= bundle.thresholds[label],
        picture=phantom.image,
    )


def labels_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """The labels that occur, in the order of their first case."""
    return tuple(dict.fromkeys(case.label for case in cases))
