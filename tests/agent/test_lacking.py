"""A model that lacks labels, maps or pixels alone: from film to SR, ORU, list and page, nothing is made up for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import select
from starlette.testclient import TestClient

from firstread.agent import clock
from firstread.agent.analyse import Analyser
from firstread.agent.film import read_film
from firstread.agent.listing import assessment_object
from firstread.agent.models_at_hand import LoadedModel
from firstread.agent.objects import ResultObjects
from firstread.agent.store.codec import assessment_from_json
from firstread.agent.store.reading_list import open_entries
from firstread.agent.store.tables import alarm, artifact, instance, result
from firstread.agent.studies import SummingUp
from firstread.agent.web.app import create_app
from firstread.agent.web.rows import ordering_entry, row_view
from firstread.agent.worklist.inbox import Inbox
from firstread.agent.worklist.ordering import order
from firstread.integration.hl7.reported import parse_result
from firstread.models.bundle import Bundle
from firstread.models.bundle_writer import BundleDraft, write_bundle
from firstread.models.engine import Engine, EngineOutput, open_engine
from firstread.models.findings import FINDING_BY_LABEL, LABELS, NO_FINDING, PATHOLOGIES
from firstread.models.phantoms import PhantomSpec, draw
from firstread.models.prediction import Assessment, Priority
from tests.agent.builders import Bench
from tests.agent.test_analyse import Readers
from tests.models.tiny import tiny_draft

CHEST = draw(PhantomSpec(seed=4, size=(256, 256))).image
FOURTEEN = PATHOLOGIES
EIGHT = ("Atelectasis", "Cardiomegaly", "Edema", "Effusion", "Mass", "Nodule", "Pneumonia", NO_FINDING)
NEVER, ALWAYS = 1.0, 1e-9


class Way(Bench):
    """Every step of the service by hand, with a real bundle."""

    def __init__(self, folder: Path, draft: BundleDraft) -> None:
        self.bundle: Bundle = write_bundle(draft, folder / "bundle")
        super().__init__(
            folder / "spool",
            bundle=self.bundle.folder,
            triage={"use_experimental": True},
            worklist={"enabled": True},
            study={"quiet_period_s": 1},
        )
        self.told: list[Any] = []
        model = LoadedModel(self.bundle, self._listening(open_engine(self.bundle, "cpu", threads=1)))
        models = type("Models", (), {"named": lambda *_: model, "forget": lambda *_: None, "failed": lambda *_: None})
        self.analyser = Analyser(self.settings, self.store, models(), "test/analyse/1")  # type: ignore[arg-type]
        self.summing_up = SummingUp(self.settings, self.store, ResultObjects(self.settings, self.store, self.site_uid))

    def _listening(self, engine: Engine) -> Engine:
        run = engine.run

        def heard(squares: np.ndarray, metadata: Any = None) -> EngineOutput:
            self.told.append(metadata)
            return run(squares, metadata)

        engine.run = heard  # type: ignore[method-assign]
        return engine

    def film(self, **attributes: Any) -> None:
        values = (np.clip(CHEST, 0, 1) * 4000).astype(np.uint16)
        self.receive(
            Rows=256, Columns=256, PixelData=values.tobytes(), WindowCenter=2000, WindowWidth=4000, **attributes
        )

    def result(self, monkeypatch: pytest.MonkeyPatch) -> Assessment:
        """Analyses what waits, sums it up, and hands the list its message."""
        readers = Readers(read_film)
        for _ in range(3):
            self.analyser.step(readers)  # type: ignore[arg-type]
        later = clock.now().plus(60)
        with monkeypatch.context() as context:
            context.setattr(clock, "now", lambda: later)
            assert self.summing_up.run_once() == 1
        for row in self.rows(artifact):
            if row.kind == "oru" and row.message is not None:
                Inbox(self.store, clock.now)(bytes(row.message), "127.0.0.1:1")
        return assessment_from_json(self.rows(result)[-1].assessment)

    def rows(self, table: Any) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(select(table)).all())

    def kinds(self) -> set[str]:
        return {row.kind for row in self.rows(artifact)}

    def report(self) -> Dataset:
        (path,) = [row.path for row in self.rows(artifact) if row.kind == "sr"]
        return dcmread(BytesIO((self.settings.spool / path).read_bytes()))

    def message(self) -> bytes:
        return bytes(next(row.message for row in self.rows(artifact) if row.kind == "oru"))

    def row(self) -> Any:
        with self.store.read() as connection:
            (listed,) = open_entries(connection)
        longest_wait = {priority: timedelta(hours=9) for priority in Priority}
        placed = order([ordering_entry(listed)], clock.now().at, longest_wait)
        return row_view(listed, placed[0], longest_wait)

    def page(self) -> str:
        client = TestClient(create_app(self.settings, self.store), base_url="http://127.0.0.1:8080")
        with self.store.read() as connection:
            (listed,) = open_entries(connection)
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", client.get(f"/study/{listed.id}").text))


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Callable[[BundleDraft], Way]]:
    made: list[Way] = []

    def begin(draft: BundleDraft) -> Way:
        made.append(Way(tmp_path, draft))
        return made[-1]

    yield begin
    for one in made:
        one.store.close()


def drafted(labels: tuple[str, ...], threshold: float = NEVER, **network: Any) -> BundleDraft:
    """No Finding is called whenever it is assessed, whatever else is."""
    draft = tiny_draft(labels=labels, **network)
    return replace(
        draft, thresholds=dict.fromkeys(labels, threshold) | ({NO_FINDING: ALWAYS} if NO_FINDING in labels else {})
    )


def sentences(report: Dataset) -> list[str]:
    """Every text of a report, in order."""
    found: list[str] = []
    for item in report.get("ContentSequence", []):
        if item.ValueType == "TEXT":
            found.append(item.TextValue)
        found += sentences(item)
    return found


def groups(report: Dataset) -> dict[str, list[Dataset]]:
    """The report's measurement groups by the code of their finding."""
    found: dict[str, list[Dataset]] = {}

    def walk(item: Dataset) -> None:
        children = list(item.get("ContentSequence", []))
        for child in children:
            if child.ValueType == "CODE" and child.ConceptNameCodeSequence[0].CodeMeaning == "Finding":
                found[child.ConceptCodeSequence[0].CodeValue] = children
            walk(child)

    walk(report)
    return found


LACKING = [(FOURTEEN, (NO_FINDING,)), (EIGHT, tuple(label for label in LABELS if label not in EIGHT))]


@pytest.mark.parametrize(("labels", "missing"), LACKING, ids=["fourteen", "eight"])
@pytest.mark.parametrize("threshold", [NEVER, ALWAYS], ids=["nothing found", "everything found"])
def test_a_label_that_the_bundle_lacks_is_not_assessed_everywhere(
    way: Callable[[BundleDraft], Way],
    monkeypatch: pytest.MonkeyPatch,
    labels: tuple[str, ...],
    missing: tuple[str, ...],
    threshold: float,
) -> None:
    made = way(drafted(labels, threshold))
    made.film()
    assessment = made.result(monkeypatch)
    assert assessment.analysed
    by_label = {one.label: one for one in assessment.findings}
    assert set(by_label) == set(LABELS)
    said = parse_result(made.message())
    heard = {one.label: one for one in said.findings}
    reported = groups(made.report())
    listed = {one["label"]: one for one in assessment_object(assessment)["findings"]}
    for label in LABELS:
        if label in missing:
            assert by_label[label].probability is None
            assert not by_label[label].present
            assert by_label[label].raises is None
            assert by_label[label].not_assessed == "not assessed by this model"
            assert heard[label].probability is None
            assert not heard[label].present
            assert heard[label].not_assessed == "not assessed by this model"
            assert listed[label]["probability"] is None
            assert listed[label]["not_assessed"] == "not assessed by this model"
            children = reported[FINDING_BY_LABEL[label].code.value]
            assert not [item for item in children if item.ValueType == "NUM"]
            assert "Not assessed by this model." in [item.TextValue for item in children if item.ValueType == "TEXT"]
        else:
            assert by_label[label].probability is not None
            assert heard[label].probability == pytest.approx(by_label[label].probability, abs=1e-4)
    raw = made.message().decode()
    for label in missing:
        line = next(
            line
            for line in raw.split("\r")
            if line.startswith("OBX") and f"|{FINDING_BY_LABEL[label].code.value}^" in line
        )
        fields = line.split("|")
        assert fields[5] == ""
        assert fields[11] == "X"
    if threshold == ALWAYS:
        assert {one.name for one in made.row().findings} <= {FINDING_BY_LABEL[label].display for label in labels}


def test_without_no_finding_a_negative_speaks_of_findings_and_never_of_a_film_without_any(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted(FOURTEEN))
    made.film()
    assessment = made.result(monkeypatch)
    assert assessment.priority_reason == "none of the assessed findings above threshold"
    row = made.row()
    assert (row.said, row.said_as) == ("none of the assessed findings above threshold", "nothing")
    page = made.page()
    assert "None of the 14 assessed findings above threshold." in page
    assert "Whether the film is without any finding is not assessed either." in page
    assert "incomplete" not in page
    assert "None of the 14 assessed findings is above its operating point." in " ".join(sentences(made.report()))


def test_a_model_of_eight_labels_counts_what_it_assesses(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted(EIGHT))
    made.film()
    assessment = made.result(monkeypatch)
    words = "none of the 7 assessed findings above threshold (7 not assessed)"
    assert assessment.priority_reason == words
    assert (made.row().said, made.row().said_as) == (words, "nothing")
    assert "None of the 7 assessed findings above threshold. 7 findings are not assessed by this model." in made.page()
    said = " ".join(sentences(made.report()))
    assert "None of the 7 assessed findings is above its operating point." in said
    assert (
        "Not assessed: consolidation, emphysema, fibrosis, hernia, infiltration, pleural thickening, pneumothorax."
        in said
    )


def test_a_model_of_no_finding_alone_says_nothing_of_findings(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted((NO_FINDING,)))
    made.film()
    assessment = made.result(monkeypatch)
    assert assessment.priority_reason == "no single finding is assessed by this model: it raises nothing"
    assert (made.row().said, made.row().said_as) == ("no single finding is assessed by this model", "reason")
    page, said = made.page(), " ".join(sentences(made.report()))
    assert "No single finding is assessed by this model." in page
    assert "None of the findings could be assessed." in said
    for text in (page, said, assessment.priority_reason):
        assert "assessed findings above" not in text
        assert "0 assessed" not in text


def test_a_film_that_fails_makes_the_negative_incomplete_without_no_finding_too(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted(FOURTEEN))
    made.film()
    made.receive(Rows=8, Columns=8, PixelData=b"\0" * 128)
    assessment = made.result(monkeypatch)
    assert assessment.priority_reason.startswith("incomplete: none of the assessed findings above threshold")
    assert made.row().said_as == "reason"
    assert made.row().said.startswith("incomplete")
    assert "Nothing above threshold, but incomplete" in made.page()


@pytest.mark.parametrize("threshold", [NEVER, ALWAYS], ids=["nothing found", "everything found"])
def test_a_model_without_maps_makes_no_heat_map_no_region_and_says_so(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    made = way(drafted(LABELS, threshold, head="dense", hidden=(16,)))
    made.film()
    assessment = made.result(monkeypatch)
    assert made.kinds() == {"sr", "oru"}
    assert all(one.box is None for one in assessment.findings)
    assert any(one.present for one in assessment.findings) or threshold == NEVER
    assert [row.saliency for row in made.rows(instance)] == [None]
    note = "this model cannot show where a finding lies: no heat map, no region"
    assert assessment.notes == (note,)
    report = made.report()
    assert "SCOORD" not in str(report)
    assert f"{note[0].upper()}{note[1:]}." in sentences(report)
    assert note in made.message().decode()
    assert note in made.page()
    assert note not in " ".join(made.row().notes), "a row is for what differs from study to study"
    assert made.row().film is not None, "the film is shown all the same"
    assert made.rows(alarm) == [], "an object that cannot be had is no object that failed"


def test_a_model_with_maps_does_not_speak_of_them(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted(EIGHT, ALWAYS))
    made.film()
    assert made.result(monkeypatch).notes == ()
    assert made.kinds() == {"sr", "oru", "heatmap"}


def test_age_sex_and_view_of_the_film_reach_the_model(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = way(drafted(EIGHT, metadata=("age", "sex", "view")))
    made.film(PatientAge="", ViewPosition="AP")
    made.result(monkeypatch)
    ((known,),) = made.told
    assert known["sex"] == "F"
    assert known["view"] == "AP"
    assert known["age"] == pytest.approx(66.0, abs=0.01)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientSex": "", "PatientBirthDate": "", "ViewPosition": ""},
        {
            "PatientSex": "O",
            "PatientBirthDate": "19990101",
            "StudyDate": "",
            "PatientAge": "000Y",
            "ViewPosition": "XX",
        },
    ],
    ids=["empty", "senseless"],
)
def test_a_film_that_says_nothing_of_its_patient_is_analysed_all_the_same(
    way: Callable[[BundleDraft], Way], monkeypatch: pytest.MonkeyPatch, attributes: dict[str, str]
) -> None:
    made = way(drafted(EIGHT, metadata=("age", "sex", "view")))
    made.film(**attributes)
    assessment = made.result(monkeypatch)
    assert assessment.analysed
    ((known,),) = made.told
    expected = made.bundle
    plain = open_engine(expected, "cpu", threads=1)
    square = np.zeros((1, 64, 64), np.float32)
    np.testing.assert_array_equal(plain.run(square, [known]).probabilities, plain.run(square).probabilities)
