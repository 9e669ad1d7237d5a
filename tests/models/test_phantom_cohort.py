"""The demo's morning: who comes, with what, in which order."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import numpy as np

from firstread.models.findings import NO_FINDING, ReasonCode
from firstread.models.phantoms.anatomy import measure
from firstread.models.phantoms.cohort import demo_cohort

NOW = datetime(2025, 6, 2, 8, 30)


def test_the_morning_is_24_films_of_20_adults_of_both_sexes() -> None:
    films = demo_cohort(now=NOW)
    assert len(films) == 24
    assert len({film.patient.patient_id for film in films}) == 20
    assert len({film.sop_instance_uid for film in films}) == 24
    assert {film.spec.sex for film in films} == {"F", "M"}
    assert all(18 <= film.spec.age < 100 for film in films)
    assert all(film.patient.name.startswith("PHANTOM^") for film in films)


def test_the_morning_holds_every_finding_twice_a_hand_a_lateral_and_a_late_image() -> None:
    films = demo_cohort(now=NOW)
    found = Counter(label for film in films for label in film.expected)
    for label in ("Pneumothorax", "Effusion", "Mass", "Nodule", "Cardiomegaly", "Consolidation"):
        assert found[label] >= 2, label
    reasons = Counter(film.reason for film in films)
    assert reasons[ReasonCode.NOT_A_CHEST] == 1
    assert reasons[ReasonCode.LATERAL_VIEW] == 1
    assert "hand" in next(film.what for film in films if film.reason is ReasonCode.NOT_A_CHEST)
    late = films[-1]
    first = next(film for film in films if film.study_instance_uid == late.study_instance_uid)
    assert first.expected == (NO_FINDING,)
    assert late.expected == ("Pneumothorax",)
    assert late.send_after_s > films[-2].send_after_s + 10


def test_the_worrisome_films_come_last_so_that_reordering_shows() -> None:
    films = demo_cohort(now=NOW)
    assert [film.send_after_s for film in films] == sorted(film.send_after_s for film in films)
    urgent = [film.number for film in films if "Pneumothorax" in film.expected]
    normal = [film.number for film in films if film.expected == (NO_FINDING,)]
    assert min(urgent) > max(normal)


def test_makers_polarities_and_syntaxes_are_mixed() -> None:
    films = demo_cohort(now=NOW, longest_side=128)
    assert len({film.maker for film in films}) >= 6
    assert {film.polarity for film in films} == {"MONOCHROME1", "MONOCHROME2"}
    datasets = [film.dataset() for film in films]
    assert len({dataset.file_meta.TransferSyntaxUID for dataset in datasets}) >= 6
    for film, dataset in zip(films, datasets, strict=True):
        assert dataset.PatientName == film.patient.name
        assert dataset.PatientAge == f"{film.spec.age:03d}Y"
        assert dataset.StudyInstanceUID == film.study_instance_uid
        assert dataset.StudyDate == "20250602"
        assert len(dataset.AccessionNumber) <= 16


def test_one_study_is_one_patient_one_accession_and_one_date() -> None:
    films = demo_cohort(now=NOW)
    said: dict[str, set[tuple[str, str, datetime]]] = {}
    for film in films:
        key = (film.patient.patient_id, film.accession_number, film.study_datetime)
        said.setdefault(film.study_instance_uid, set()).add(key)
    assert len(said) == 21
    assert all(len(keys) == 1 for keys in said.values())


def test_two_films_of_a_patient_show_the_same_person() -> None:
    films = [film for film in demo_cohort(now=NOW) if film.patient.patient_id == "PH0017"]
    knobs = {round(measure(film.spec).knob, 6) for film in films}
    assert len(films) == 2
    assert len(knobs) == 1


def test_a_second_demo_is_a_new_morning_and_the_same_one_repeats() -> None:
    first, again = demo_cohort(now=NOW, longest_side=96), demo_cohort(now=NOW, longest_side=96)
    later = demo_cohort(now=NOW.replace(minute=31), longest_side=96)
    assert first == again
    assert {film.study_instance_uid for film in first}.isdisjoint(film.study_instance_uid for film in later)
    assert np.array_equal(first[0].dataset().pixel_array, again[0].dataset().pixel_array)
