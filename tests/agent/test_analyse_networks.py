"""Networks that are not the shipped one: without maps, with metadata as inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import select
from starlette.testclient import TestClient

from firstread.agent.film import read_film
from firstread.agent.store import studies
from firstread.agent.store.tables import artifact
from firstread.agent.web.app import create_app
from firstread.models.engine import EngineOutput
from firstread.models.findings import LABELS, NO_FINDING, PATHOLOGIES
from firstread.models.phantoms import PhantomSpec, draw
from firstread.models.prediction import Prediction
from tests.agent import builders
from tests.agent.builders import MODEL
from tests.agent.test_analyse import Network, Room, readable
from tests.agent.ward import Ward
from tests.models.tiny import make_tiny_bundle

CHEST = draw(PhantomSpec(seed=4, size=(256, 256))).image


class Blind(Network):
    """Finds pneumothorax, and cannot say where; remembers what it was told of each film."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def run(self, squares: np.ndarray, metadata: Any = None) -> EngineOutput:
        self.told += list(metadata)
        found = np.full((len(squares), len(LABELS)), 0.01, np.float32)
        found[:, LABELS.index("Pneumothorax")] = 0.99
        return EngineOutput(found, None)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path / "spool")
    made.models._model.engine = Blind()
    yield made
    made.store.close()


def film(room: Room, **attributes: Any) -> None:
    values = (np.clip(CHEST, 0, 1) * 4000).astype(np.uint16)
    room.receive(Rows=256, Columns=256, PixelData=values.tobytes(), WindowCenter=2000, WindowWidth=4000, **attributes)


def test_a_network_is_told_age_sex_and_view_of_each_film(room: Room) -> None:
    film(room, PatientAge="061Y", PatientSex="F", ViewPosition="PA")
    film(room, PatientAge="", PatientBirthDate="", PatientSex="", ViewPosition="AP")
    room.turn(read_film, turns=2)
    assert room.states() == ["analysed", "analysed"]
    first, second = room.models._model.engine.told
    assert (first["age"], first["sex"], first["view"]) == (61, "F", "PA")
    assert (second["age"], second["sex"], second["view"]) == (None, "", "AP")


def test_without_maps_a_finding_is_reported_without_a_place_and_there_is_no_heat_map(room: Room) -> None:
    room.receive(study="1.2.3")
    room.turn(readable, turns=2)
    with room.store.read() as connection:
        (image,) = studies.images_of(connection, studies.find(connection, "1.2.3").id)
    assert image.prediction is not None and image.prediction.boxes == {} and image.saliency is None
    assert image.prediction.probabilities["Pneumothorax"] == pytest.approx(0.99)


FEWER = {
    "the 14 findings, as many published weights have them": PATHOLOGIES,
    "eight labels, no No Finding": ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule",
                                    "Pneumonia", "Pneumothorax"),
}  # fmt: skip


@pytest.mark.parametrize("labels", FEWER.values(), ids=FEWER)
def test_a_label_that_the_weights_lack_is_not_assessed_in_report_message_and_list(
    labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(
        tmp_path / "spool", make_tiny_bundle(tmp_path / "tiny", labels=labels), monkeypatch, worklist={"enabled": True}
    )
    monkeypatch.setattr(builders, "predict", lambda sop, **_: Prediction(sop, dict.fromkeys(labels, 0.02), {}, MODEL))
    ward.ended_study("1.2.3")
    lacking = [label for label in LABELS if label not in labels]
    assert NO_FINDING in lacking
    with ward.store.read() as connection:
        stored = connection.execute(select(artifact)).all()
    report = dcmread(next(ward.settings.spool / one.path for one in stored if one.path and one.kind == "sr"))
    assert assessed_as(report, "NOT_ASSESSED") == len(lacking)
    message = next(one.message for one in stored if one.message).decode()
    lines = message.split("\r")
    said = [
        number for number, line in enumerate(lines) if line.startswith("NTE") and "not assessed by this model" in line
    ]
    assert len(said) == len(lacking)
    for number in said:  # each stands behind an observation without a value, "cannot be obtained" (table 0085)
        observation = [line for line in lines[:number] if line.startswith("OBX")][-1].split("|")
        assert (observation[5], observation[11]) == ("", "X")
    page = TestClient(create_app(ward.settings, ward.store), base_url="http://127.0.0.1:8080").get("/study/1").text
    assert page.count("not assessed") >= len(lacking)
    ward.store.close()


def assessed_as(item: Any, code: str) -> int:
    """How often a code stands as a value in a report."""
    own = int(any(one.CodeValue == code for one in getattr(item, "ConceptCodeSequence", ())))
    return own + sum(assessed_as(one, code) for one in getattr(item, "ContentSequence", ()))
