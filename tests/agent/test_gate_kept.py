"""What the gate said stays with the film: its scores in the trail, its sentence in the report, a negative put right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from firstread.agent.film import FilmOrder, ReadFilm, read_film
from firstread.agent.listing import trail_object
from firstread.agent.store import studies
from firstread.models.findings import ReasonCode
from firstread.models.phantoms import PhantomSpec, draw, draw_non_chest
from tests.agent.test_analyse import Room
from tests.agent.test_triage import film as film_of
from tests.agent.test_triage import judged

CHEST = draw(PhantomSpec(seed=4, size=(256, 256))).image
PELVIS = draw_non_chest("pelvis", 3, (256, 256))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path / "spool")
    yield made
    made.store.close()


def film(room: Room, image: np.ndarray, **attributes: Any) -> None:
    values = (np.clip(image, 0, 1) * 4000).astype(np.uint16)
    room.receive(Rows=256, Columns=256, PixelData=values.tobytes(), WindowCenter=2000, WindowWidth=4000, **attributes)


def trail(room: Room) -> list[dict[str, Any]]:
    with room.store.read() as connection:
        (row,) = studies.selected(connection, studies.StudyFilter(), 10)
        return list(trail_object(connection, row)["trail"])


def test_every_score_of_a_refused_film_is_in_its_trail(room: Room) -> None:
    film(room, PELVIS)
    room.turn(read_film, turns=2)
    ((_, reason),) = room.images()
    assert reason is not None
    assert reason.code is ReasonCode.OUTSIDE_EXPERIENCE
    (event,) = (one for one in trail(room) if one["what"] == "image not analysed")
    assert event["detail"]["gate"]["likeness"] < event["detail"]["gate"]["likeness_needed"]
    assert {"noise", "edges", "clipped"} <= set(event["detail"]["gate"])
    assert f"{event['detail']['gate']['likeness']:.1f}" in event["detail"]["reason"]


def test_an_analysed_film_keeps_its_scores_too(room: Room) -> None:
    film(room, CHEST)
    room.turn(read_film, turns=2)
    (event,) = (one for one in trail(room) if one["what"] == "image analysed")
    assert event["detail"]["gate"]["likeness"] >= event["detail"]["gate"]["likeness_needed"]
    assert "notes" not in event["detail"]


def test_a_negative_is_shown_and_analysed_put_right_and_the_trail_says_so(room: Room) -> None:
    orders: list[FilmOrder] = []
    squares: list[np.ndarray] = []

    def reads(order: FilmOrder) -> ReadFilm:
        read = read_film(order)
        orders.append(order)
        squares.append(read.square)
        return read

    film(room, CHEST)
    film(room, 1 - CHEST)
    room.turn(reads, turns=2)
    assert room.states() == ["analysed", "analysed"]
    np.testing.assert_allclose(squares[0], squares[1], atol=0.02)
    shown = [np.asarray(Image.open(order.preview_target), np.float32) for order in orders]
    assert np.abs(shown[0] - shown[1]).mean() < 2
    noted = [one for one in trail(room) if one["what"] == "image analysed" and "notes" in one["detail"]]
    assert len(noted) == 1
    assert "black and white are exchanged: put right" in noted[0]["detail"]["notes"][0]


def test_a_result_says_that_a_film_was_put_right() -> None:
    seen = film_of(1, Mass=0.2)
    assert seen.prediction is not None
    told = replace(seen, prediction=replace(seen.prediction, notes=("black and white are exchanged: put right",)))
    assert judged(told).notes == ("one image: black and white are exchanged: put right",)
