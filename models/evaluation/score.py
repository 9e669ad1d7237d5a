"""Every film of a table through a bundle, exactly as the service reads it: gate, square, engine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from firstread.models import eligibility, gate
from firstread.models.bundle import Bundle
from firstread.models.data.film import DataError, Film
from firstread.models.engine import open_engine, processor_threads
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Reason
from firstread.models.preprocess import Placement, Preprocessing, place, prepare
from firstread.models.radiograph import UnreadableRadiograph, read_header, read_radiograph

FloatImage = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]

LONGEST_SIDE = 1024
"""The service shrinks a film to this many pixels before anything looks at it; so does this."""

BATCH = 8
FEWEST_FOR_PROCESSES = 200
"""Fewer pictures than this are read in this process: starting others takes longer. A DICOM film counts as ten, since it
takes ten times as long, and a broken one may take its process down."""

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
        EngineError: no engine can run the bundle here.
    """
    if not films:
        raise DataError("there are no films to score: check the table and the folder of images")
    engine = open_engine(bundle, device, threads=threads)
    labels, count = len(bundle.labels), len(films)
    probabilities, logits = np.full((count, labels), np.nan), np.full((count, labels), np.nan)
    refused: list[Reason | None] = [None] * count
    problems: list[str | None] = [None] * count
    notes: list[tuple[str, ...]] = [()] * count
    placements: list[Placement | None] = [None] * count
    kept: npt.NDArray[np.float32] | None = None
    waiting: list[tuple[int, FloatImage]] = []

    def run() -> None:
        nonlocal kept
        rows = [index for index, _ in waiting]
        told = [{"age": films[row].age, "sex": films[row].sex, "view": films[row].view} for row in rows]
        output = engine.run(np.stack([square for _, square in waiting]), told)
        probabilities[rows], logits[rows] = output.probabilities, output.logits
        if maps and output.saliency is not None:
            if kept is None:
                kept = np.zeros((count, *output.saliency.shape[1:]), np.float32)
            kept[rows] = output.saliency
        waiting.clear()

    processes = _processes(workers, processor_threads(threads), films, transform)
    readings = _readings(films, bundle.preprocessing, transform, processes)
    for done, (index, reading) in enumerate(readings, start=1):
        refused[index], problems[index], placements[index] = reading.refused, reading.problem, reading.placement
        notes[index] = reading.notes
        if reading.square is not None:
            waiting.append((index, reading.square))
        if len(waiting) == BATCH:
            run()
        if on_progress is not None:
            on_progress(done, count)
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
        placements=tuple(placements),
        maps=kept,
        engine=engine.name,
    )


@dataclass(frozen=True, eq=False)
class Reading:
    """One film made ready: its ``square`` [S, S] in [0, 1] and where it lies, or the ``problem`` in a sentence.

    ``refused``: what tags or gate have against it; ``notes``: what the gate put right.
    """

    square: FloatImage | None
    placement: Placement | None
    refused: Reason | None
    problem: str | None
    notes: tuple[str, ...] = ()


def read_film(
    film: Film, preprocessing: Preprocessing, transform: Callable[[FloatImage], FloatImage] | None = None
) -> Reading:
    """Read, judge and prepare one film. What is wrong with it is an answer, not an error."""
    try:
        grey, refused = upright(film)
        if transform is not None:
            grey = np.ascontiguousarray(transform(grey), np.float32)
        grey, against, notes = admitted(grey)
        placement = place(grey, preprocessing)
        return Reading(prepare(grey, preprocessing, placement), placement, refused or against, None, notes)
    except DataError as error:
        return Reading(None, None, None, str(error))
    except (OSError, ValueError, MemoryError) as error:
        return Reading(None, None, None, f"{where(film)}: cannot be read ({error}): fetch it again or take the row out")


def upright(film: Film) -> tuple[FloatImage, Reason | None]:
    """The film [rows, columns] in [0, 1], bone bright, at most 1024 pixels long, and what its tags have against it.

    Raises:
        DataError: the file is missing or broken; names file and row.
    """
    if film.path is not None and _is_dicom(film.path):
        try:
            refused = eligibility.judge(read_header(film.path))
            return read_radiograph(film.path, longest_side=LONGEST_SIDE).pixels, refused
        except UnreadableRadiograph as error:
            raise DataError(f"{where(film)}: {error.reason.text}: fetch it again or take the row out") from error
    from firstread.models.data.pixels import grey_of

    grey = grey_of(film)
    longest = max(grey.shape)
    if longest > LONGEST_SIDE:
        rows, columns = (max(1, round(side * LONGEST_SIDE / longest)) for side in grey.shape)
        shrunk = Image.fromarray(np.ascontiguousarray(grey, np.float32)).resize((columns, rows), Image.Resampling.BOX)
        grey = np.asarray(shrunk, np.float32)
    return grey, None


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


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _processes(workers: int | None, cores: int, films: Sequence[Film], transform: object) -> int:
    """How many processes read; 0 for this one."""
    if not _travels(transform):
        return 0
    if workers is not None:
        return workers
    work = sum(1 if film.path is not None and film.path.suffix.lower() in _PICTURES else 10 for film in films)
    return min(cores, len(films)) if work >= FEWEST_FOR_PROCESSES else 0


def _travels(transform: object) -> bool:
    try:
        pickle.dumps(transform)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def _readings(
    films: Sequence[Film],
    preprocessing: Preprocessing,
    transform: Callable[[FloatImage], FloatImage] | None,
    processes: int,
) -> Iterator[tuple[int, Reading]]:
    """Each film's reading with its index, in any order."""
    if processes == 0:
        for index, film in enumerate(films):
            yield index, read_film(film, preprocessing, transform)
        return
    # Films that were under way when a process died are read again, each in a process of its own, to find the culprit.
    suspects: list[int] = []
    left = iter(range(len(films)))
    while True:
        remaining = list(left)
        if not remaining:
            break
        done: set[int] = set()
        try:
            for index, reading in _pooled(films, remaining, preprocessing, transform, processes):
                done.add(index)
                yield index, reading
            break
        except BrokenProcessPool:
            behind = [index for index in remaining if index not in done]
            cut = _in_flight(processes)
            suspects += behind[:cut]
            left = iter(behind[cut:])
    for index in suspects:
        try:
            yield from _pooled(films, [index], preprocessing, transform, 1)
        except BrokenProcessPool:
            sentence = "the process that read it ended: the file breaks its decoder; take the row out"
            yield index, Reading(None, None, None, f"{where(films[index])}: {sentence}")


def _in_flight(processes: int) -> int:
    """Films handed to the processes at a time: enough to keep them busy, few enough to keep memory small."""
    return 4 * processes


def _pooled(
    films: Sequence[Film],
    indices: Sequence[int],
    preprocessing: Preprocessing,
    transform: Callable[[FloatImage], FloatImage] | None,
    processes: int,
) -> Iterator[tuple[int, Reading]]:
    # Spawned, not forked: this process has an engine's threads. In order, so that the films in flight are known.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        flying: list[tuple[int, Future[Reading]]] = []
        for index in indices:
            flying.append((index, pool.submit(read_film, films[index], preprocessing, transform)))
            if len(flying) == _in_flight(processes):
                first, future = flying.pop(0)
                yield first, future.result()
        for first, future in flying:
            yield first, future.result()
