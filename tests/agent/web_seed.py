"""A morning's reading list, made through the store's own transitions and real messages, for tests of list and page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from firstread.agent import clock
from firstread.agent.clock import Moment
from firstread.agent.config import WORKLIST_DESTINATION, Settings
from firstread.agent.evidence import freeze
from firstread.agent.identify import patient_key, patient_of
from firstread.agent.objects import ResultObjects
from firstread.agent.spool import prepare
from firstread.agent.store import deliveries, images, results, studies, watch
from firstread.agent.store.engine import Store
from firstread.agent.store.images import StoredInstance
from firstread.agent.store.migrate import site_uid, upgrade
from firstread.agent.store.worklist import ensure_entry
from firstread.agent.triage import FindingPolicy, ImageFact, assess
from firstread.agent.worklist.inbox import Inbox
from firstread.integration.dicom.part10 import data_set_offset
from firstread.models.findings import LABELS, NO_FINDING, ReasonCode
from firstread.models.phantoms import Lesion, PhantomSpec, draw
from firstread.models.prediction import (
    ImageOutcome,
    ModelIdentity,
    Prediction,
    Priority,
    Reason,
    StudyIdentity,
)
from firstread.models.preprocess import Placement
from tests.agent.builders import DX, chest_film

SIDE = 512
MODEL = ModelIdentity("reference", "0.3.0", "4f1c2b7a90de" + "0" * 52)
EXPERIMENTAL = frozenset({"Hernia", "Fibrosis", "Nodule"})
ASKS = {
    "Pneumothorax": Priority.STAT,
    "Effusion": Priority.URGENT,
    "Consolidation": Priority.URGENT,
    "Mass": Priority.URGENT,
    "Pneumonia": Priority.URGENT,
}
THRESHOLDS = dict.fromkeys(LABELS, 0.55) | {"Pneumothorax": 0.60, "Effusion": 0.58, "Cardiomegaly": 0.52}
POLICY = {
    label: FindingPolicy(THRESHOLDS[label], ASKS.get(label), label in EXPERIMENTAL and label != NO_FINDING)
    for label in LABELS
}


@lru_cache(maxsize=16)
def phantom(labels: tuple[str, ...], seed: int) -> tuple[np.ndarray, dict[str, tuple[float, float, float, float]]]:
    """A drawn film uint8 [SIDE, SIDE] and where its lesions lie."""
    places = {
        "Pneumothorax": (0.85, 0.1, 0.2),
        "Effusion": (0.2, 0.9, 0.35),
        "Mass": (0.75, 0.4, 0.16),
        "Consolidation": (0.25, 0.6, 0.25),
        "Cardiomegaly": (0.5, 0.5, 0.6),
        "Nodule": (0.3, 0.3, 0.08),
    }
    lesions = tuple(Lesion(label, *places[label], 0.9) for label in labels if label in places)
    drawn = draw(PhantomSpec(seed, lesions=lesions, size=(SIDE, SIDE)))
    truth = {label: (box.left, box.top, box.right, box.bottom) for label, box in drawn.truth.items()}
    return (np.clip(drawn.image, 0, 1) * 255).astype(np.uint8), truth


def evidence_of(truth: Mapping[str, tuple[float, float, float, float]], seed: int) -> bytes:
    """Activation maps 14 x 14 that peak where the lesions were drawn, faint noise elsewhere."""
    rng = np.random.default_rng(seed)
    maps = rng.uniform(0, 0.15, (len(LABELS), 14, 14)).astype(np.float32)
    rows, columns = np.mgrid[0:14, 0:14] * (SIDE / 14) + SIDE / 28
    for label, (left, top, right, bottom) in truth.items():
        x, y = (left + right) / 2, (top + bottom) / 2
        spread = max(30.0, (right - left + bottom - top) / 6)
        maps[LABELS.index(label)] += np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * spread**2))
    for number, _ in enumerate(LABELS):
        if maps[number].max() < 0.5:
            x, y = rng.uniform(0.25, 0.75, 2) * SIDE
            maps[number] += 0.6 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 60.0**2))
    return freeze(LABELS, maps, Placement(SIDE, SIDE, 0, 0, SIDE, SIDE, 224))


@dataclass
class Morning:
    """An agent's store that fills. Times are minutes before ``now``."""

    settings: Settings
    store: Store
    now: Moment = field(default_factory=clock.now)
    count: int = 0

    @classmethod
    def on(cls, folder: Path, **sections: object) -> Morning:
        """A fresh store in ``folder``, with a PACS, a RIS and the built-in list."""
        values = {
            "storage": {"path": str(folder), "reserve_mb": 0},
            "destinations": [
                {"name": "pacs", "type": "dicom", "host": "127.0.0.1", "port": 1, "ae_title": "PACS"},
                {"name": "ris", "type": "hl7", "host": "127.0.0.1", "port": 2},
            ],
        } | sections
        prepare(folder)
        settings = Settings.model_validate(values)
        store = Store(settings.database_url)
        upgrade(store)
        return cls(settings, store)

    def at(self, minutes_ago: float) -> Moment:
        """The moment so many minutes before now."""
        return self.now.plus(-60 * minutes_ago)

    def roles(self, *, dead: tuple[str, ...] = (), batch_sizes: dict[str, int] | None = None) -> None:
        """Every role beats; those in ``dead`` did so an hour ago."""
        status = {
            "receive": {"listening": True, "associations": 2},
            "analyse": {"engine": "onnx", "films": 24, "batch_sizes": batch_sizes or {"1": 5, "8": 2}},
        }
        with self.store.write() as connection:
            for name in ("receive", "analyse", "studies", "deliver", "web"):
                when = self.at(60) if name in dead else self.now
                watch.beat(connection, name, f"host/aa/{name}/1", status.get(name, {}), when)

    def identity(self, name: str, **values: object) -> StudyIdentity:
        """An invented patient with a chest film."""
        number = self.count
        usual = StudyIdentity(
            study_instance_uid=f"2.25.{4711000 + number}", patient_id=f"P{100200 + number}", patient_name=name,
            birth_date="19620714", sex="M", accession_number=f"A26-{4000 + number}", study_date=f"{self.now.at:%Y%m%d}",
            study_time="081500", study_description="Chest", modality="DX", body_part="CHEST", view_position="PA",
            patient_age_years=63.0, institution="St Elsewhere", station="XR2",
        )  # fmt: skip
        return replace(usual, **values)

    def film(
        self, name: str, minutes_ago: float, *, ordered: Priority | None = None, **values: object
    ) -> tuple[StudyIdentity, int]:
        """A film is received: its identity, and the id of its entry on the list."""
        self.count += 1
        identity, when = self.identity(name, **values), self.at(minutes_ago)
        with self.store.write() as connection:
            wanted = ordered or studies.ordered_priority_of(connection, identity)
            study_id = studies.create(connection, identity, "CR_ROOM_2", wanted, when)
            self._add_image(connection, identity, study_id, when)
            entry_id = ensure_entry(connection, identity, when.at)
        return identity, entry_id

    def another_film(self, identity: StudyIdentity, minutes_ago: float) -> None:
        """A late film of a study that is known."""
        self.count += 1
        with self.store.write() as connection:
            row = studies.find(connection, identity.study_instance_uid)
            studies.touch(connection, row, identity, "PACS", "a late image", "receive", self.at(minutes_ago))
            self._add_image(connection, identity, row.id, self.at(minutes_ago))
            ensure_entry(connection, identity, self.at(minutes_ago).at, new_film=True)

    def _add_image(self, connection, identity: StudyIdentity, study_id: int, when: Moment) -> None:
        place = f"films/{self.count}.dcm"
        path = self.settings.spool / place
        dataset = chest_film()
        dataset.StudyInstanceUID, dataset.PatientID = identity.study_instance_uid, identity.patient_id
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{99000 + self.count}"
        dataset.PatientName, dataset.AccessionNumber = identity.patient_name, identity.accession_number[:16]
        dataset.save_as(path, enforce_file_format=True)
        content = path.read_bytes()
        content = content[data_set_offset(content) :]
        stored = StoredInstance(
            sop_instance_uid=f"2.25.{99000 + self.count}", series_instance_uid="2.25.7", sop_class_uid=DX,
            transfer_syntax_uid="1.2.840.10008.1.2.1", patient_key=patient_key(identity), is_image=True, path=place,
            size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), association={},
        )  # fmt: skip
        images.add(connection, stored, study_id, None, when)

    def claim(self, minutes_ago: float) -> list[images.ImageClaim]:
        """An analyser claims everything that waits."""
        with self.store.write() as connection:
            return images.claim(connection, owner="host/aa/analyse/1", lease_s=3600, limit=64, now=self.at(minutes_ago))

    def analyse(
        self, claims: list[images.ImageClaim], minutes_ago: float, *, reason: ReasonCode | None = None, **found: float
    ) -> None:
        """What was claimed ends with a prediction or a reason; its picture is a drawn film."""
        labels = tuple(sorted(label for label, value in found.items() if value >= 0.5))
        for held in claims:
            picture, truth = phantom(labels, held.id % 6)
            place = f"previews/{held.id}.png"
            Image.fromarray(picture).save(self.settings.spool / place)
            with self.store.write() as connection:
                if reason is not None:
                    images.end_not_analysed(
                        connection, held, Reason(reason), preview_path=place, actor="analyse", now=self.at(minutes_ago)
                    )
                    continue
                rng = np.random.default_rng(held.id)
                values = {label: float(rng.uniform(0.02, 0.4)) for label in LABELS} | found
                values[NO_FINDING] = 0.2 if labels else 0.8
                images.end_analysed(
                    connection, held, Prediction(held.sop_instance_uid, values, {}, MODEL), preview_path=place,
                    saliency=evidence_of(truth, held.id), actor="analyse", now=self.at(minutes_ago),
                )  # fmt: skip

    def sum_up(self, identity: StudyIdentity, minutes_ago: float, *, in_full: bool = False, told: bool = True) -> None:
        """The study's result is made; ``in_full`` with report and heat map. ``told``: its message reaches the list."""
        when = self.at(minutes_ago)
        objects = ResultObjects(self.settings, self.store, site_uid(self.store))
        with self.store.read() as connection:
            ready = studies.load(connection, studies.find(connection, identity.study_instance_uid))
        facts = [
            ImageFact(
                ImageOutcome(one.sop_instance_uid, one.sop_class_uid, one.series_instance_uid, one.reason),
                patient_of(one.patient_key), one.prediction,
            )
            for one in ready.images
        ]  # fmt: skip
        assessment = assess(
            study_instance_uid=identity.study_instance_uid, revision=ready.revision, created_at=when.at, images=facts,
            policy=POLICY, ordered=ready.ordered_priority, earlier=ready.earlier,
        )  # fmt: skip
        if in_full:
            artifacts = objects.build(ready, assessment, when)
        else:
            target = self.settings.destination(WORKLIST_DESTINATION)
            artifacts = [objects.message(ready, assessment, target, {}, when)]
        with self.store.write() as connection:
            assert results.commit(connection, ready, assessment, artifacts, sent=True, actor="studies", now=when)
        if told:
            self.deliver(WORKLIST_DESTINATION, minutes_ago)

    def deliver(self, destination: str, minutes_ago: float) -> None:
        """Everything that is due at a destination is delivered; to the built-in list really."""
        when = self.at(minutes_ago)
        while True:
            with self.store.write() as connection:
                held = deliveries.claim(
                    connection, destination, on_hold=False, owner="deliver", lease_s=60, now=when.plus(1)
                )
            if held is None:
                return
            if destination == WORKLIST_DESTINATION:
                answer = Inbox(self.store, lambda: when)(held.message, "127.0.0.1:1")
                assert b"MSA|AA" in answer
            with self.store.write() as connection:
                deliveries.end_delivered(connection, held, status="AA", detail="", actor="deliver", now=when.plus(1))

    def fail(self, destination: str, minutes_ago: float, detail: str) -> None:
        """One try at a destination fails."""
        with self.store.write() as connection:
            held = deliveries.claim(
                connection, destination, on_hold=False, owner="d", lease_s=60, now=self.at(minutes_ago)
            )
            assert held is not None
            deliveries.retry_later(
                connection, held, delay_s=300, refused=False, status="", detail=detail, actor="deliver",
                now=self.at(minutes_ago),
            )  # fmt: skip

    def read(
        self,
        name: str,
        minutes_ago: float,
        *,
        in_full: bool = False,
        reason: ReasonCode | None = None,
        ordered: Priority | None = None,
        found: Mapping[str, float] | None = None,
        **values: object,
    ) -> int:
        """A film that came and went all the way to the list; answers with its entry."""
        identity, entry_id = self.film(name, minutes_ago, ordered=ordered, **values)
        soon = max(0.0, minutes_ago - 0.3)
        self.analyse(self.claim(minutes_ago), soon, reason=reason, **(found or {}))
        self.sum_up(identity, soon, in_full=in_full)
        return entry_id

    def advance(self, minutes: float) -> None:
        """Time goes on."""
        self.now = self.now.plus(60 * minutes)


def busy_morning(morning: Morning) -> dict[str, int]:
    """Some twenty studies in every state that a row can show; entry ids by a short name."""
    found = {}
    read = morning.read
    found["waited"] = read("MORI^SATOSHI=森^聡=もり^さとし", 491, sex="M", patient_age_years=58.0)
    found["plain"] = read("Lindqvist^Ebba", 171, sex="F", patient_age_years=44.0)
    found["nodule"] = read("OKAFOR^CHIDI", 95, found={"Nodule": 0.71}, patient_age_years=51.0)
    found["lateral"] = read("WEBER^KLARA", 83, reason=ReasonCode.LATERAL_VIEW, sex="F", view_position="LL")
    found["effusion"] = read("ROE^ANNA MARIA", 62, in_full=True, sex="F", view_position="AP",
                             found={"Effusion": 0.66, "Cardiomegaly": 0.58, "Atelectasis": 0.61})  # fmt: skip
    found["stat"] = read("DOE^JOHN", 41, in_full=True, found={"Pneumothorax": 0.81}, patient_age_years=64.0)
    found["long"] = read("MUSTERMANN VON DER HOHEN WARTE^MAXIMILIAN ALEXANDER FERDINAND^^PROF DR", 38,
                         found={"Mass": 0.77})  # fmt: skip
    found["japanese"] = read(
        "Chigusa-no-mori-Higashikuninomiya^Kyoutarou=千種之森東久邇宮^京太郎左衛門=ちぐさのもりひがしくにのみや^きょうたろうざえもん",
        33, found={"Consolidation": 0.72, "Effusion": 0.63, "Pneumonia": 0.6, "Infiltration": 0.58, "Edema": 0.56},
    )  # fmt: skip
    found["ordered"] = read("HADDAD^LAYLA", 21, ordered=Priority.STAT, sex="F", patient_age_years=29.0)
    found["child"] = read("SILVA^JOAO", 18, reason=ReasonCode.BELOW_MINIMUM_AGE, patient_age_years=1.4)
    hand = {"body_part": "HAND", "study_description": "Hand left", "sex": "F"}
    found["hand"] = read("NOVAK^PETRA", 16, reason=ReasonCode.NOT_A_CHEST, **hand)
    found["failed"] = read("KOWALSKI^JAN", 12, reason=ReasonCode.CANNOT_DECODE)
    found["quiet"] = read("SMITH^MARY", 9, sex="F")
    identity, found["unsent"] = morning.film("IVANOVA^OLGA", 5, sex="F")
    morning.analyse(morning.claim(5), 4.8, Cardiomegaly=0.64)
    morning.sum_up(identity, 4.7, told=False)
    _, found["analysing"] = morning.film("GARCIA^LUIS", 2)
    morning.claim(1.5)
    _, found["received"] = morning.film("NGUYEN^LAN", 0.4, sex="F")
    return found
