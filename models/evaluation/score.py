"""Every film of a table through a bundle, exactly as the service reads it: gate, square, engine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models import eligibility, gate
from firstread.models.bundle import Bundle
from firstread.models.data import nuisance
from firstread.models.data.decode import broken_sentence
from firstread.models.data.film import DataError, Film
from firstread.models.data.folder import looks_like_dicom
from firstread.models.data.pixels import grey_of
from firstread.models.data.processes import Failed, in_processes
from firstread.models.engine import EngineError, open_engine, processor_threads
from firstread.models.findings import ReasonCode
from firstread.models.header import UnreadableRadiograph, read_header
from firstread.models.prediction import Reason
from firstread.models.preprocess import Placement, Preprocessing, place, prepare

FloatImage = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

LONGEST_SIDE = 1024
"""The service shrinks a film to this many pixels before anything looks at it; so does this."""

BATCH = 8
FEWEST_FOR_PROCESSES = 200
"""Fewer pictures than this are read in this process: starting others takes longer. A DICOM film counts as ten, since it
takes ten times as long, and a broken one may take its process down."""

MEASURED = ("file_bytes", "noise", "brightness")
"""What is measured of a film's making where the table says nothing; see ``firstread.models.data.nuisance``."""

_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class Scores:
    """What a bundle said of films, film by film, in the order in which they were given.

    ``labels``: L labels in the bundle's order. ``films``: the N films.
    ``probabilities``: float64 [N, L], calibrated, as the service reports them; NaN where a film could not be read.
    ``logits``: float64 [N, L], *before* calibration; NaN likewise.
    ``refused``: why the service would not have analysed the film (tags of a DICOM file, then the gate), None where it
    would. Such films are scored all the same. ``problems``: why a film could not be read, None where it could.
    ``notes``: what the gate put right in a film (a negative made positive), mostly nothing.
    ``making``: how each film was made, in numbers: the table's own where it says any, else file size, noise and
    brightness as measured here.
    ``placements``: which part of each film filled the square, None where it could not be read.
    ``maps``: float32 [N, L, h, w] in [0, 1], only when they were asked for and the bundle has them.
    ``engine``: the engine that ran, ``cpu/onnxruntime``.
    """

    labels: tuple[str, ...]
    films: tuple[Film, ...]
    probabilities: Numbers
    logits: Numbers
    refused: tuple[Reason | None, ...]
    problems: tuple[str | None, ...]
    notes: tuple[tuple[str, ...], ...]
    making: tuple[Mapping[str, float], ...]
    placements: tuple[Placement | None, ...]
    maps: npt.NDArray[np.float32] | None
    engine: str

    @property
    def read(self) -> npt.NDArray[np.bool_]:
        """[N]: which films could be read."""
        return np.array([problem is None for problem in self.problems], bool)

    def column(self, label: str) -> int:
        """Where a label stands in ``probabilities``.

        Raises:
            DataError: the bundle does not assess it.
        """
        if label not in self.labels:
            raise DataError(f"the bundle does not assess {label!r}: it knows {', '.join(self.labels)}")
        return self.labels.index(label)


def score(
    bundle: Bundle,
    films: Sequence[Film],
    *,
    threads: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    transform: Callable[[FloatImage], FloatImage] | None = None,
    maps: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score films with a bundle; a network that takes metadata is told the film's age, sex and view.

    ``threads``: of the engine, all cores by default. ``workers``: processes that read and prepare films, as many as
    ``threads`` by default, 0 for this process. ``transform``: applied to the upright film [rows, columns] in [0, 1]
    before the gate sees it, to ask what a change does; one that cannot be pickled is applied in this process.
    ``on_progress``: told how many films of how many are done.

    A film that cannot be read, or that takes its reading process down, costs that film alone: see ``Scores.problems``.

    Raises:
        DataError: no films were given.
        EngineError: no engine can run the bundle here, or it answers with what is no probability.
    """
    if not films:
        raise DataError("there are no films to score: check the table and the folder of images")
    engine = open_engine(bundle, device, threads=threads)
    labels, count = len(bundle.labels), len(films)
    probabilities, logits = np.full((count, labels), np.nan), np.full((count, labels), np.nan)
    refused: list[Reason | None] = [None] * count
    problems: list[str | None] = [None] * count
    notes: list[tuple[str, ...]] = [()] * count
    making: list[Mapping[str, float]] = [film.nuisances for film in films]
    placements: list[Placement | None] = [None] * count
    kept: npt.NDArray[np.float32] | None = None
    waiting: list[tuple[int, FloatImage]] = []

    def run() -> None:
        nonlocal kept
        rows = [index for index, _ in waiting]
        told = [{"age": films[row].age, "sex": films[row].sex, "view": films[row].view} for row in rows]
        try:
            output = engine.run(np.stack([square for _, square in waiting]), told)
        except ValueError as error:
            names = ", ".join(films[row].key for row in rows)
            raise EngineError(f"bundle {bundle.folder} gives no answer to {names}: {error}") from error
        probabilities[rows], logits[rows] = output.probabilities, output.logits
        if maps and output.saliency is not None:
            if kept is None:
                kept = np.zeros((count, *output.saliency.shape[1:]), np.float32)
            kept[rows] = output.saliency
        waiting.clear()

    if workers is None:
        workers = _workers(processor_threads(threads), films)
    # Where the table says how films were made it knows better: of the originals, before anybody reduced them.
    measured = not any(film.nuisances for film in films)
    for index, reading in enumerate(_readings(films, bundle.preprocessing, transform, measured, workers)):
        refused[index], problems[index], placements[index] = reading.refused, reading.problem, reading.placement
        notes[index] = reading.notes
        making[index] = reading.making or making[index]
        if reading.square is not None:
            waiting.append((index, reading.square))
        if len(waiting) == BATCH:
            run()
        if on_progress is not None:
            on_progress(index + 1, count)
    if waiting:
        run()
    return Scores(
        labels=bundle.labels,
        films=tuple(films),
        probabilities=probabilities,
        logits=logits,
        refused=tuple(refused),
        problems=tuple(problems),
        notes=tuple(notes),
        making=tuple(making),
        placements=tuple(placements),
        maps=kept,
        engine=engine.name,
    )


@dataclass(frozen=True, eq=False)
class Reading:
    """One film made ready: its ``square`` [S, S] in [0, 1] and where it lies, or the ``problem`` in a sentence.

    ``refused``: what tags or gate have against it; ``notes``: what the gate put right; ``making``: how it was made.
    """

    square: FloatImage | None
    placement: Placement | None
    refused: Reason | None
    problem: str | None
    notes: tuple[str, ...] = ()
    making: Mapping[str, float] = field(default_factory=dict)


def read_film(
    film: Film,
    preprocessing: Preprocessing,
    transform: Callable[[FloatImage], FloatImage] | None = None,
    measured: bool = False,
) -> Reading:
    """Read, judge and prepare one film. What is wrong with it is an answer, not an error.

    ``measured``: also measure how it was made, before ``transform``.
    """
    try:
        grey, refused = upright(film)
        making = _measured(grey, film.path) if measured else {}
        if transform is not None:
            grey = np.ascontiguousarray(transform(grey), np.float32)
        grey, against, notes = admitted(grey)
        placement = place(grey, preprocessing)
        return Reading(prepare(grey, preprocessing, placement), placement, refused or against, None, notes, making)
    except DataError as error:
        return Reading(None, None, None, str(error))
    except (OSError, ValueError, MemoryError) as error:
        return Reading(None, None, None, broken_sentence(film, str(error) or type(error).__name__))


def upright(film: Film) -> tuple[FloatImage, Reason | None]:
    """The film [rows, columns] in [0, 1], bone bright, at most 1024 pixels long, and what its tags have against it.

    Raises:
        DataError: the file is missing or broken; names file and row.
    """
    grey = grey_of(film, LONGEST_SIDE)
    longest = max(grey.shape)
    if longest > LONGEST_SIDE:
        rows, columns = (max(1, round(side * LONGEST_SIDE / longest)) for side in grey.shape)
        shrunk = Image.fromarray(np.ascontiguousarray(grey, np.float32)).resize((columns, rows), Image.Resampling.BOX)
        grey = np.asarray(shrunk, np.float32)
    return grey, _by_its_tags(film.path)


def _by_its_tags(path: Path | None) -> Reason | None:
    if path is None or not looks_like_dicom(path):
        return None
    try:
        return eligibility.judge(read_header(path))
    except UnreadableRadiograph as error:
        return error.reason


def _measured(grey: FloatImage, path: Path | None) -> Mapping[str, float]:
    found = nuisance.measure(grey, path)
    return {name: found[name] for name in MEASURED if name in found}


def where(film: Film) -> str:
    """File and row of a film, as problems name them."""
    name = str(film.path) if film.path is not None else film.key
    return f"{name}, row {film.row}" if film.row is not None else name


def admitted(grey: FloatImage) -> tuple[FloatImage, Reason | None, tuple[str, ...]]:
    """What the service's gate makes of an upright film: what is analysed, what it has against it, what it put right."""
    if min(grey.shape) < eligibility.SMALLEST_SIDE:
        return grey, Reason(ReasonCode.TOO_SMALL, f"{grey.shape[1]} x {grey.shape[0]} pixels"), ()
    admission = gate.admit(grey)
    return admission.pixels, admission.verdict.reason, admission.notes


def _readings(
    films: Sequence[Film],
    preprocessing: Preprocessing,
    transform: Callable[[FloatImage], FloatImage] | None,
    measured: bool,
    workers: int,
) -> Iterator[Reading]:
    """Each film's reading, in order."""
    jobs = [_Job(film, preprocessing, transform, measured) for film in films]
    if workers == 0 or not _travels(transform):
        yield from map(_read, jobs)
        return
    for film, reading in zip(films, in_processes(_read, jobs, workers), strict=True):
        if isinstance(reading, Failed):
            yield Reading(None, None, None, broken_sentence(film, reading.reason))
        else:
            yield reading


@dataclass(frozen=True, eq=False)
class _Job:
    film: Film
    preprocessing: Preprocessing
    transform: Callable[[FloatImage], FloatImage] | None
    measured: bool


def _read(job: _Job) -> Reading:
    return read_film(job.film, job.preprocessing, job.transform, job.measured)


def _workers(cores: int, films: Sequence[Film]) -> int:
    """How many processes read; 0 for this one."""
    work = sum(1 if film.path is not None and film.path.suffix.lower() in _PICTURES else 10 for film in films)
    return max(cores, 2) if work >= FEWEST_FOR_PROCESSES else 0


def _travels(transform: object) -> bool:
    try:
        pickle.dumps(transform)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True
