"""The analyser's turns, with a network that does as it is told: batches, failures, a lost device, a graceful stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from firstread.agent.analyse import Analyser, prior_study
from firstread.agent.decoders import Ended
from firstread.agent.film import FilmOrder, ReadFilm
from firstread.agent.store import events, images, studies
from firstread.agent.store.tables import ImageState
from firstread.models.engine import DeviceLost, EngineOutput, OutOfMemory
from firstread.models.findings import LABELS, ReasonCode
from firstread.models.orientation import Orientation
from firstread.models.prediction import Reason, StudyIdentity
from firstread.models.preprocess import Placement, Preprocessing
from tests.agent.builders import MODEL, Bench, moment

SIZE = 32


UPRIGHT = Orientation(SIZE, SIZE, SIZE, SIZE)


class Network:
    """A network that raises what stands in its script, and else finds everything at 0.5."""

    name = "fake"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.script: deque[Exception | None] = deque()

    def run(self, squares: np.ndarray, metadata: object = None) -> EngineOutput:
        self.batches.append(len(squares))
        trouble = self.script.popleft() if self.script else None
        if trouble is not None:
            raise trouble
        shape = (len(squares), len(LABELS))
        return EngineOutput(np.full(shape, 0.5, np.float32), np.ones((*shape, 2, 2), np.float32))


class Models:
    """The bundles at hand; ``events`` says what the analyser told them."""

    def __init__(self, network: Network) -> None:
        bundle = SimpleNamespace(
            labels=LABELS, identity=MODEL, preprocessing=Preprocessing(input_size=SIZE), name="fake"
        )
        self._model = SimpleNamespace(bundle=bundle, engine=network)
        self.fit = True
        self.events: list[str] = []
        self.missing: set[str] = set()

    def fit_to_report(self) -> bool:
        return self.fit

    def named(self, bundle: str | None) -> Any:
        if bundle in self.missing:
            raise LookupError(f"{bundle} is not here")
        return self._model

    def forget(self) -> None:
        self.events.append("forgotten")

    def failed(self, model: Any, error: Exception) -> None:
        self.events.append(f"failed: {error}")


class Readers:
    """Decoders without processes: every film is read at once, as ``reads`` says of its path."""

    def __init__(self, reads: Callable[[FilmOrder], ReadFilm | str]) -> None:
        self._reads = reads
        self._ended: deque[Ended[ReadFilm]] = deque()

    @property
    def in_flight(self) -> int:
        return len(self._ended)

    def submit(self, key: int, order: FilmOrder) -> None:
        read = self._reads(order)
        self._ended.append(Ended(key, None, read) if isinstance(read, str) else Ended(key, read))

    def collect(self, timeout_s: float) -> Ended[ReadFilm] | None:
        return self._ended.popleft() if self._ended else None

    def close(self) -> None:
        pass


class HalfRead(Readers):
    """The first film is read at once, the next one never."""

    def __init__(self) -> None:
        super().__init__(readable)
        self.stuck, self._taken = 0, False

    @property
    def in_flight(self) -> int:
        return super().in_flight + self.stuck

    def submit(self, key: int, order: FilmOrder) -> None:
        if self._taken:
            self.stuck += 1
            return
        self._taken = True
        super().submit(key, order)


def readable(_: FilmOrder) -> ReadFilm:
    """A small film that stood upright."""
    square = np.zeros((SIZE, SIZE), np.float32)
    return ReadFilm(None, True, square, Placement(SIZE, SIZE, 0, 0, SIZE, SIZE, SIZE), UPRIGHT)


class Room(Bench):
    """A bench with an analyser whose turns are taken by hand."""

    def __init__(self, folder: Path, **analysis: Any) -> None:
        super().__init__(folder, analysis={"batch_size": 4, **analysis})
        self.network = Network()
        self.models = Models(self.network)
        self.analyser = Analyser(self.settings, self.store, self.models, "test/analyse/1")  # type: ignore[arg-type]

    def turn(self, reads: Callable[[FilmOrder], ReadFilm | str] = readable, turns: int = 1) -> None:
        readers = Readers(reads)
        for _ in range(turns):
            self.analyser.step(readers)  # type: ignore[arg-type]

    def images(self) -> list[tuple[ImageState, Reason | None]]:
        with self.store.read() as connection:
            (row,) = studies.selected(connection, studies.StudyFilter(), 10)
            return [(image.state, image.reason) for image in studies.images_of(connection, row.id)]

    def states(self) -> list[str]:
        return [str(state) for state, _ in self.images()]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path / "spool")
    yield made
    made.store.close()


def test_films_are_batched_up_to_the_site_s_size_and_no_further(room: Room) -> None:
    for _ in range(6):
        room.receive()
    room.turn(turns=3)
    assert room.network.batches == [4, 2] and set(room.states()) == {"analysed"}
    assert room.analyser.figures.films == 6 and room.analyser.figures.batch_sizes == {4: 1, 2: 1}


def test_a_lone_film_is_never_held_for_a_batch(tmp_path: Path) -> None:
    made = Room(tmp_path / "spool", batch_wait_ms=3_600_000)
    made.receive()
    made.turn()
    assert made.network.batches == [1] and made.states() == ["analysed"]
    made.store.close()


def test_a_film_that_was_read_waits_for_one_that_is_still_being_read_but_not_long(tmp_path: Path) -> None:
    made = Room(tmp_path / "spool", batch_wait_ms=300)
    made.receive()
    made.receive()
    readers = HalfRead()
    made.analyser.step(readers)  # type: ignore[arg-type]
    assert made.network.batches == [], "the other one may come any moment"
    began = time.monotonic()
    while not made.network.batches and time.monotonic() - began < 30:
        made.analyser.step(readers)  # type: ignore[arg-type]
        time.sleep(0.01)
    assert made.network.batches == [1] and readers.in_flight == 1
    made.store.close()


def test_a_reason_is_an_end_and_not_a_failure(room: Room) -> None:
    room.receive()
    room.turn(lambda _: ReadFilm(Reason(ReasonCode.LATERAL_VIEW, "ViewPosition LL")))
    assert room.images() == [(ImageState.NOT_ANALYSED, Reason(ReasonCode.LATERAL_VIEW, "ViewPosition LL"))]
    assert room.network.batches == []


def test_a_film_whose_reader_dies_three_times_ends_with_the_words_of_the_last_time(room: Room) -> None:
    room.receive()
    for attempt in range(3):
        assert room.states() == ["waiting"]
        room.turn(lambda _, n=attempt: f"the decoder process ended (SIGSEGV) for the {n + 1}. time")
    ((state, reason),) = room.images()
    assert state == ImageState.NOT_ANALYSED and reason is not None
    assert reason.code is ReasonCode.PROCESSING_FAILED and "3 attempts" in reason.detail and "3. time" in reason.detail


def test_one_film_that_cannot_be_read_does_not_touch_the_others_of_its_batch(room: Room) -> None:
    for _ in range(3):
        room.receive()
    answers = deque(["broken"])
    room.turn(lambda order: answers.popleft() if answers else readable(order))
    assert sorted(room.states()) == ["analysed", "analysed", "waiting"]


def test_a_network_that_fails_on_a_batch_is_put_under_suspicion_and_its_films_are_tried_one_by_one(room: Room) -> None:
    for _ in range(3):
        room.receive()
    room.network.script.append(ValueError("nan"))
    room.turn()
    assert room.models.events == ["failed: nan"] and set(room.states()) == {"waiting"}
    room.turn(turns=6)
    assert room.network.batches == [3, 1, 1, 1] and set(room.states()) == {"analysed"}


@pytest.mark.parametrize("trouble", [DeviceLost("the GPU fell off the bus"), OutOfMemory("not one image fits")])
def test_a_lost_device_costs_no_film_an_attempt(room: Room, trouble: Exception) -> None:
    room.receive()
    room.network.script.extend([trouble] * 5)
    for _ in range(5):
        room.turn()
        assert room.states() == ["waiting"]
    assert room.models.events == ["forgotten"] * 5
    room.turn()
    assert room.states() == ["analysed"]


def test_a_replay_with_a_bundle_that_is_gone_fails_alone(room: Room) -> None:
    room.receive(study="1.2.3")
    room.turn()
    with room.store.write() as connection:
        row = studies.find(connection, "1.2.3")
        assert studies.end(connection, studies.load(connection, row), None, "t", moment(1))
        assert studies.reopen(connection, row.id, "replayed", "t", moment(2), bundle="/gone")
        assert images.analyse_again(connection, row.id, actor="t", now=moment(2)) == 1
    room.models.missing.add("/gone")
    room.turn(turns=3)
    ((state, reason),) = room.images()
    assert state == ImageState.NOT_ANALYSED and reason is not None and "/gone is not here" in reason.detail


def test_what_is_under_way_when_the_analyser_stops_is_given_back_without_an_attempt(room: Room) -> None:
    room.receive()
    stop = threading.Event()
    held = threading.Event()

    class Slow(Readers):
        def collect(self, timeout_s: float) -> None:
            held.set()
            time.sleep(0.01)

    room.analyser._decoders = lambda: Slow(readable)  # type: ignore[method-assign, assignment, return-value]
    running = threading.Thread(target=room.analyser.run, args=(stop,))
    running.start()
    assert held.wait(20)
    assert room.states() == ["analysing"]
    stop.set()
    running.join(20)
    assert room.states() == ["waiting"]
    room.turn()
    with room.store.read() as connection:
        (row,) = studies.selected(connection, studies.StudyFilter(), 1)
        claims = [one.detail["attempt"] for one in events.of_study(connection, row.id) if one.kind == "claimed"]
    assert claims == [1, 1] and room.states() == ["analysed"]


def test_while_no_model_is_fit_nothing_is_claimed(room: Room) -> None:
    room.receive()
    room.models.fit = False
    stop = threading.Event()
    beats = threading.Event()
    room.analyser._decoders = lambda: Readers(readable)  # type: ignore[method-assign, assignment, return-value]
    running = threading.Thread(target=room.analyser.run, args=(stop, beats.set))
    running.start()
    assert beats.wait(20)
    stop.set()
    running.join(20)
    assert room.states() == ["waiting"]


@pytest.mark.parametrize(
    ("age_days", "limit", "prior"),
    [(8, 7, True), (7, 7, False), (0, 7, False), (-1, 7, False), (4000, None, False), (1, 0, True)],
)
def test_a_study_beyond_the_site_s_limit_is_a_prior(age_days: int, limit: int | None, prior: bool) -> None:
    day = moment(0).at.date() - timedelta(days=age_days)
    reason = prior_study(StudyIdentity("1.2.3", study_date=f"{day:%Y%m%d}"), moment(0).at, limit)
    assert (reason is not None) is prior
    assert reason is None or (reason.code is ReasonCode.PRIOR_STUDY and f"{age_days} days old" in reason.detail)


@pytest.mark.parametrize("unreadable", ["", "yesterday", "20261399", f"{date(2026, 2, 28):%d.%m.%Y}"])
def test_a_date_that_nobody_can_read_makes_no_prior(unreadable: str) -> None:
    assert prior_study(StudyIdentity("1.2.3", study_date=unreadable), moment(0).at, 7) is None
