"""The demo's morning: 24 films of 20 invented patients, in the order in which they come off the scanners."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from pydicom.dataset import Dataset

from firstread.models.findings import NO_FINDING, ReasonCode
from firstread.models.phantoms.film import PhantomPatient, derived_uid, to_dicom
from firstread.models.phantoms.habits import HABITS
from firstread.models.phantoms.spec import Lesion, PhantomSpec, random_spec


@dataclass(frozen=True)
class DemoFilm:
    """One film to send, drawn only when ``dataset`` is called.

    ``send_after_s``: seconds after the start of the demo. ``what``: one line for people. ``expected``: the labels
    the film truly carries, ``("No Finding",)`` for none. ``reason``: why it is not to be analysed, None when it is.
    """

    number: int
    spec: PhantomSpec
    maker: str
    polarity: str
    patient: PhantomPatient
    study_instance_uid: str
    sop_instance_uid: str
    accession_number: str
    study_datetime: datetime
    instance_number: int
    send_after_s: float
    what: str
    expected: tuple[str, ...]
    reason: ReasonCode | None = None

    def dataset(self) -> Dataset:
        """The film as a DICOM object, the same on every call."""
        return to_dicom(
            self.spec,
            maker=self.maker,
            polarity=self.polarity,
            patient=self.patient,
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=derived_uid("series", self.study_instance_uid, self.instance_number),
            sop_instance_uid=self.sop_instance_uid,
            accession_number=self.accession_number,
            study_datetime=self.study_datetime,
            instance_number=self.instance_number,
        )


@dataclass(frozen=True)
class _Plan:
    """A line of the morning: which patient, on which scanner, with what."""

    patient: int
    maker: str
    view: str
    lesions: tuple[Lesion, ...] = ()
    study: int = 1
    polarity: str = ""
    late: bool = False


_PNEUMOTHORAX_LEFT = Lesion("Pneumothorax", 0.9, 0.2, 0.42, 1.0)
_PNEUMOTHORAX_RIGHT = Lesion("Pneumothorax", 0.1, 0.2, 0.5, 1.0)
_PNEUMOTHORAX_SMALLER = Lesion("Pneumothorax", 0.9, 0.2, 0.32, 0.95)

_MORNING: tuple[_Plan, ...] = (
    _Plan(1, "alder", "PA"),
    _Plan(2, "birch", "PA"),
    _Plan(2, "birch", "LATERAL"),
    _Plan(3, "dogwood", "PA"),
    _Plan(4, "cedar", "PA"),
    _Plan(5, "fir", "PA"),
    _Plan(6, "alder", "HAND"),
    _Plan(7, "elm", "PA"),
    _Plan(8, "gorse", "AP"),
    _Plan(9, "alder", "PA"),
    _Plan(10, "hazel", "PA", (Lesion("Nodule", 0.24, 0.42, 0.08, 0.9),)),
    _Plan(11, "cedar", "PA", (Lesion("Cardiomegaly", 0.55, 0.75, 0.64, 1.0),)),
    _Plan(13, "hazel", "PA"),
    _Plan(12, "birch", "PA", (Lesion("Nodule", 0.8, 0.36, 0.085, 1.0),)),
    _Plan(14, "dogwood", "PA", (Lesion("Consolidation", 0.24, 0.68, 0.32, 1.0),)),
    _Plan(15, "alder", "PA", (Lesion("Effusion", 0.9, 0.9, 0.4, 1.0),)),
    _Plan(16, "elm", "PA", (Lesion("Mass", 0.76, 0.45, 0.2, 1.0),)),
    _Plan(17, "gorse", "AP", (Lesion("Cardiomegaly", 0.55, 0.75, 0.66, 1.0), Lesion("Effusion", 0.1, 0.9, 0.34, 0.95))),
    _Plan(17, "gorse", "AP", (Lesion("Cardiomegaly", 0.55, 0.75, 0.66, 1.0), Lesion("Effusion", 0.1, 0.9, 0.34, 0.95))),
    _Plan(4, "cedar", "PA", (Lesion("Mass", 0.22, 0.55, 0.24, 1.0),), study=2, polarity="MONOCHROME2"),
    _Plan(18, "fir", "AP", (Lesion("Consolidation", 0.78, 0.6, 0.34, 1.0),)),
    _Plan(19, "alder", "PA", (_PNEUMOTHORAX_LEFT,), polarity="MONOCHROME1"),
    _Plan(20, "gorse", "AP", (_PNEUMOTHORAX_RIGHT,)),
    _Plan(9, "alder", "PA", (_PNEUMOTHORAX_SMALLER,), late=True),
)

_PATIENTS: tuple[tuple[str, str, int], ...] = (
    ("PHANTOM^ANNA", "F", 34),
    ("PHANTOM^BRUNO", "M", 61),
    ("PHANTOM^KÄTHE", "F", 72),
    ("PHANTOM^DAVID", "M", 66),
    ("PHANTOM^EVA", "F", 45),
    ("PHANTOM^FRED", "M", 29),
    ("PHANTOM^HANAKO=架空^花子=かくう^はなこ", "F", 52),
    ("PHANTOM^ŁUKASZ", "M", 58),
    ("PHANTOM^IRIS", "F", 23),
    ("PHANTOM^JÉRÔME", "M", 70),
    ("PHANTOM^KARIN", "F", 81),
    ("PHANTOM^LARS", "M", 55),
    ("PHANTOM^MARIE", "F", 38),
    ("PHANTOM^JÖRG", "M", 47),
    ("PHANTOM^OLGA", "F", 76),
    ("PHANTOM^TARO=架空^太郎=かくう^たろう", "M", 64),
    ("PHANTOM^QUENTIN^^DR", "M", 84),
    ("PHANTOM^ROSA", "F", 50),
    ("PHANTOM^SVEN", "M", 21),
    ("PHANTOM^TINA", "F", 57),
)
"""Name, sex and age of patients 1 to 20; the names' letters fit the character set of their scanner."""


def _what(plan: _Plan, repeat: bool) -> str:
    if plan.view == "HAND":
        return "a hand, tagged as one"
    if plan.view == "LATERAL":
        return "the lateral view of the film before"
    seen = " and ".join(lesion.label.lower() for lesion in plan.lesions) or "no finding"
    if plan.late:
        return f"a late image of a study already read, in expiration: {seen}"
    return f"{'second ' if repeat else ''}{plan.view} film, {seen}"


def demo_cohort(
    seed: int = 1,
    now: datetime | None = None,
    *,
    interval_s: float = 0.8,
    late_after_s: float = 12.0,
    longest_side: int = 1280,
) -> list[DemoFilm]:
    """24 films of 20 patients in 21 studies, ordered by ``send_after_s``; the worrisome ones come last.

    ``now``: the last film's study time (local time when None); UIDs and accession numbers follow from it and
    the seed, so that a second demo is a new morning. ``interval_s``: between two films. ``late_after_s``: how long
    after all others the late image comes; longer than the quiet period, so that its study has been read before.
    """
    moment = (now or datetime.now()).replace(microsecond=0)
    makers = tuple(HABITS)
    films: list[DemoFilm] = []
    images: dict[str, int] = {}
    begun: dict[str, datetime] = {}
    for number, plan in enumerate(_MORNING, start=1):
        name, sex, age = _PATIENTS[plan.patient - 1]
        key = f"{plan.patient}.{plan.study}"
        repeat = key in images
        images[key] = images.get(key, 0) + 1
        rng = np.random.default_rng([seed, plan.patient, plan.study, images[key]])
        long, short = longest_side, round(longest_side * (0.82, 1.0, 0.85)[makers.index(plan.maker) % 3])
        size = (short, long) if plan.view == "AP" else (long, short)
        drawn = random_spec(rng, (), size, view=plan.view)
        # the demo shows the chain, not the model's limits: exposure and habitus stay near the usual
        spec = replace(
            drawn,
            person=int(np.random.default_rng([seed, plan.patient]).integers(0, 2**63 - 1)),
            sex=sex,
            age=age,
            lesions=plan.lesions,
            exposure=drawn.exposure * 0.5,
            noise=min(drawn.noise, 1.2),
            habitus=drawn.habitus * 0.6,
            inspiration=drawn.inspiration * (0.6 if plan.late else 1.0),
            laterality_mark=drawn.laterality_mark or "L",
        )
        begun.setdefault(key, moment - timedelta(minutes=3 * (len(_MORNING) - number)))
        study = derived_uid("demo study", seed, moment.isoformat(), key)
        films.append(
            DemoFilm(
                number=number,
                spec=spec,
                maker=plan.maker,
                polarity=plan.polarity or HABITS[plan.maker].polarity,
                patient=PhantomPatient(
                    f"PH{plan.patient:04d}", name, moment.date() - timedelta(days=round(365.25 * age) + 90)
                ),
                study_instance_uid=study,
                sop_instance_uid=derived_uid("demo film", study, images[key]),
                accession_number=f"PH{moment:%y%m%d%H%M}{plan.patient:02d}{plan.study}",
                study_datetime=begun[key],
                instance_number=images[key],
                send_after_s=round((number - 1) * interval_s + (late_after_s if plan.late else 0.0), 3),
                what=_what(plan, repeat),
                expected=spec.labels if plan.view in ("PA", "AP") else (NO_FINDING,),
                reason={"HAND": ReasonCode.NOT_A_CHEST, "LATERAL": ReasonCode.LATERAL_VIEW}.get(plan.view),
            )
        )
    return films
