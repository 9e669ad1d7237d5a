"""A site's version of a bundle: planned from its films, measured honestly, written beside the old one."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from firstread.models import canary
from firstread.models.bundle import Bundle, BundleError, load_bundle, sha256_of, verify_bundle
from firstread.models.calibration.site import SiteCalibration, plan_site
from firstread.models.calibration.version import HEADING, Source, as_json, site_version, write_site
from firstread.models.calibration.wishes import Wishes, read_wishes
from firstread.models.data.film import DataError
from firstread.models.engine import open_engine
from firstread.models.evaluation.score import Scores
from firstread.models.findings import LABELS, ReasonCode
from firstread.models.new_version import toml_ready, version_with
from firstread.models.prediction import Reason
from tests.models.evaluation_films import film_of, scores_of
from tests.models.tiny import make_tiny_bundle

DAY = date(2026, 11, 24)
SOURCE = Source("labels.csv", "0" * 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", version="1.0.0"))


def scored(bundle: Bundle, films: int = 400, *, slope: float = 0.5, offset: float = -1.0, seed: int = 0) -> Scores:
    """Pneumonia is truly present with probability sigmoid(slope * z + offset), z the bundle's calibrated log odds."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.5, 2.0, films)
    present = rng.random(films) < expit(slope * z + offset)
    table = [film_of(n, *(("Pneumonia",) if yes else ()), patient=f"patient-{n // 2}") for n, yes in enumerate(present)]
    scores = scores_of(bundle, table, {}, seed)
    logits = np.tile(rng.normal(-1, 1, (films, 1)), (1, len(LABELS)))
    column = LABELS.index("Pneumonia")
    logits[:, column] = (z - bundle.calibration.offset[column]) / bundle.calibration.slope[column]
    return replace(scores, logits=logits)


def of(site: SiteCalibration, label: str):
    return next(row for row in site.labels if row.label == label)


def test_a_miscalibrated_label_is_put_right_and_the_others_are_kept(bundle: Bundle) -> None:
    site = plan_site(bundle, scored(bundle), Wishes())
    row = of(site, "Pneumonia")
    assert row.method == "platt"
    assert row.slope_after / row.slope_before == pytest.approx(0.5, abs=0.15)
    assert row.before is not None and row.after is not None and row.brier_change is not None
    assert row.after.ece < row.before.ece / 2
    assert row.brier_change.high < 0
    hernia = of(site, "Hernia")
    assert not hernia.changed
    assert "0 films with it" in hernia.why
    assert hernia.before is None and hernia.sensitivity_before is None


def test_a_bundle_that_is_right_already_is_left_alone(bundle: Bundle) -> None:
    site = plan_site(bundle, scored(bundle, slope=1.0, offset=0.0), Wishes())
    assert not of(site, "Pneumonia").changed
    assert site.raised_before == site.raised_after


def test_a_threshold_nobody_asked_for_moves_along_so_that_the_same_films_are_called(bundle: Bundle) -> None:
    scores = scored(bundle)
    row = of(plan_site(bundle, scores, Wishes(method="platt")), "Pneumonia")
    logit = scores.logits[:, LABELS.index("Pneumonia")]
    before = expit(row.slope_before * logit + row.offset_before) >= row.threshold_before
    after = expit(row.slope_after * logit + row.offset_after) >= row.threshold_after
    assert row.threshold_after != row.threshold_before
    assert (before == after).all()
    assert before.any() and not before.all()


def test_the_wanted_sensitivity_is_reached_on_patients_that_had_no_say(bundle: Bundle) -> None:
    site = plan_site(bundle, scored(bundle, 1500), Wishes(sensitivity={"Pneumonia": 0.9}))
    row = of(site, "Pneumonia")
    assert row.sensitivity_after is not None and row.specificity_after is not None
    assert row.sensitivity_after.low < 0.9 < row.sensitivity_after.high
    assert row.sensitivity_after.value == pytest.approx(0.9, abs=0.04)
    assert 0 < row.specificity_after.value < 0.9


def test_figures_after_are_cross_validated_and_not_those_of_the_films_that_were_fitted(bundle: Bundle) -> None:
    # Sixty films whose scores mean nothing: whatever is fitted to them must not look better than it is.
    rng = np.random.default_rng(3)
    scores = scored(bundle, 60)
    scores = replace(scores, logits=rng.normal(0, 1, scores.logits.shape))
    site = plan_site(bundle, scores, Wishes(sensitivity={"Pneumonia": 1.0}, method="platt"))
    row = of(site, "Pneumonia")
    assert row.sensitivity_after is not None
    assert row.sensitivity_after.value < 1.0


def test_alerts_a_day_hold_at_the_site_s_volume_and_count_a_film_once(bundle: Bundle) -> None:
    scores = scored(bundle, 900)
    wishes = Wishes(alerts_per_day=20, films_per_day=300, raising=("Pneumonia", "Mass", "Nodule"))
    site = plan_site(bundle, scores, wishes)
    logits = scores.logits * np.asarray(site.calibration.slope) + np.asarray(site.calibration.offset)
    columns = [LABELS.index(label) for label in wishes.raising]
    called = expit(logits[:, columns]) >= [site.thresholds[label] for label in wishes.raising]
    assert called.any(axis=1).sum() == pytest.approx(60, abs=2)
    told = as_json(bundle, site, SOURCE)["alerts_per_day"]
    assert told["after"]["low"] < 20 < told["after"]["high"]
    assert told["before"]["value"] > told["after"]["value"]


def test_stated_prevalence_moves_probabilities_to_what_the_site_sees(bundle: Bundle) -> None:
    site = plan_site(bundle, scored(bundle, 3000), Wishes(prevalence={"Pneumonia": 0.02}, films_per_day=100))
    row = of(site, "Pneumonia")
    assert row.prevalence is not None and row.prevalence > 0.2
    assert row.after is not None and row.before is not None
    assert row.after.ece < 0.01 < row.before.ece
    assert any("No Finding" in note and "state its prevalence" in note for note in site.notes)
    again = plan_site(bundle, scored(bundle, 3000), Wishes())
    shift = row.offset_after - of(again, "Pneumonia").offset_after
    assert shift == pytest.approx(np.log(0.02 / 0.98) - np.log(row.prevalence / (1 - row.prevalence)))


def test_prevalence_of_a_label_without_films_is_refused_unless_the_bundle_knows_what_it_was(bundle: Bundle) -> None:
    wishes = Wishes(prevalence={"Pneumothorax": 0.01})
    with pytest.raises(DataError, match="Pneumothorax was stated, but kept: 0 films"):
        plan_site(bundle, scored(bundle), wishes)
    knows = replace(bundle, provenance={"calibration": {"Pneumothorax": {"prevalence": 0.1}}})
    row = of(plan_site(knows, scored(bundle), wishes), "Pneumothorax")
    assert row.offset_after - row.offset_before == pytest.approx(np.log(0.01 / 0.99) - np.log(0.1 / 0.9))


def test_films_that_the_gate_keeps_out_phantoms_and_broken_ones_have_no_say(bundle: Bundle) -> None:
    scores = scored(bundle)
    refused, problems, films = list(scores.refused), list(scores.problems), list(scores.films)
    for i in range(100):
        refused[i] = Reason(ReasonCode.NOT_A_CHEST)
    for i in range(100, 110):
        problems[i] = "broken"
    for i in range(110, 130):
        films[i] = replace(films[i], phantom=True)
    scores = replace(scores, refused=tuple(refused), problems=tuple(problems), films=tuple(films))
    site = plan_site(bundle, scores, Wishes())
    assert (site.films, site.refused, site.unreadable) == (270, 100, 10)
    with pytest.raises(DataError, match="none of the films can be used"):
        plan_site(bundle, replace(scores, refused=(Reason(ReasonCode.NOT_A_CHEST),) * 400), Wishes())


def test_many_films_of_few_patients_are_too_few(bundle: Bundle) -> None:
    scores = scored(bundle)
    films = tuple(replace(film, patient=f"p{n % 8}") for n, film in enumerate(scores.films))
    row = of(plan_site(bundle, replace(scores, films=films), Wishes(method="platt")), "Pneumonia")
    assert row.method == "keep" and "8 patients" in row.why


def test_scores_that_run_against_the_label_are_kept_and_said_so(bundle: Bundle) -> None:
    row = of(plan_site(bundle, scored(bundle, slope=-1.0), Wishes(method="platt")), "Pneumonia")
    assert not row.changed
    assert "do not rise with the label" in row.why


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (Wishes(sensitivity={"Hernia": 0.9}), "sensitivity of Hernia cannot be set by 0 films"),
        (Wishes(alerts_per_day=1, films_per_day=1000), "too few to set a threshold by: give at least 5000"),
        (
            Wishes(alerts_per_day=20, films_per_day=300, sensitivity={"Pneumonia": 0.9}),
            "no label left to set",
        ),
        (
            Wishes(alerts_per_day=9, films_per_day=300, sensitivity={"Pneumonia": 0.95}, raising=("Pneumonia", "Mass")),
            "raises [0-9]+ films a day already",
        ),
    ],
)
def test_wishes_that_these_films_cannot_meet_are_refused_with_the_reason(
    bundle: Bundle, wishes: Wishes, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        plan_site(bundle, scored(bundle), wishes)


def test_a_softmax_is_not_calibrated_label_by_label_but_its_operating_points_can_be_set(tmp_path: Path) -> None:
    softmax = load_bundle(make_tiny_bundle(tmp_path / "softmax", output="softmax"))
    scores = scored(softmax)
    for wishes in (Wishes(method="platt"), Wishes(prevalence={"Pneumonia": 0.1})):
        with pytest.raises(DataError, match="softmax"):
            plan_site(softmax, scores, wishes)
    site = plan_site(softmax, scores, Wishes(sensitivity={"Pneumonia": 0.9}))
    assert site.calibration == softmax.calibration
    made = write_site(softmax, site, SOURCE, tmp_path / "site", day=DAY)
    assert made.thresholds["Pneumonia"] != softmax.thresholds["Pneumonia"]


def test_the_site_s_version_loads_and_sings_and_the_old_bundle_is_untouched(bundle: Bundle, tmp_path: Path) -> None:
    before = {path.name: sha256_of(path) for path in bundle.folder.iterdir()}
    site = plan_site(bundle, scored(bundle), Wishes(sensitivity={"Pneumonia": 0.9}))
    made = write_site(bundle, site, SOURCE, tmp_path / "site", day=DAY)
    assert verify_bundle(made.folder) == []
    assert canary.check(open_engine(made, "cpu", threads=1), made).ok
    assert {path.name: sha256_of(path) for path in bundle.folder.iterdir()} == before
    assert (made.name, made.version) == ("tiny", "1.0.0+site.20261124")
    assert made.weights_sha256 == bundle.weights_sha256
    column = LABELS.index("Pneumonia")
    assert made.calibration.slope[column] == pytest.approx(site.calibration.slope[column], rel=1e-5)
    assert made.canaries[0].expected["Pneumonia"] != bundle.canaries[0].expected["Pneumonia"]
    assert made.canaries[0].expected["Hernia"] == pytest.approx(bundle.canaries[0].expected["Hernia"], abs=1e-5)
    told = made.provenance["site_calibration"]
    assert told["table_sha256"] == SOURCE.sha256 and told["used"] == 400 and told["from"] == "tiny 1.0.0"
    assert set(told["labels"]) == {row.label for row in site.changed}
    assert HEADING in made.card and "Random weights, for tests." in made.card
    assert not re.search(r"\b(nan|None|inf)\b", made.card)


def test_a_second_calibration_replaces_the_section_of_the_first(bundle: Bundle, tmp_path: Path) -> None:
    first = write_site(bundle, plan_site(bundle, scored(bundle), Wishes()), SOURCE, tmp_path / "1" / "a", day=DAY)
    again = plan_site(first, scored(first, seed=5), Wishes(specificity={"Pneumonia": 0.9}))
    second = write_site(first, again, SOURCE, tmp_path / "2" / "b", day=date(2027, 1, 2))
    assert second.version == "1.0.0+site.20270102"
    assert second.card.count(HEADING) == 1
    assert second.provenance["site_calibration"]["from"] == "tiny 1.0.0+site.20261124"


def test_nothing_is_written_where_something_lies_or_nothing_would_change(bundle: Bundle, tmp_path: Path) -> None:
    site = plan_site(bundle, scored(bundle), Wishes())
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match="exists"):
        write_site(bundle, site, SOURCE, tmp_path / "there", day=DAY)
    with pytest.raises(BundleError, match="version"):
        write_site(bundle, site, SOURCE, tmp_path / "new", day=DAY, version="1.0/../x")
    with pytest.raises(DataError, match="already"):
        write_site(bundle, site, SOURCE, tmp_path / "new", day=DAY, version="1.0.0")
    same = plan_site(bundle, scored(bundle), Wishes(method="keep"))
    with pytest.raises(DataError, match="nothing would change"):
        write_site(bundle, same, SOURCE, tmp_path / "new", day=DAY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


def test_a_full_disk_leaves_nothing_behind(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = plan_site(bundle, scored(bundle), Wishes())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("firstread.models.bundle_writer.shutil.copyfile", full)
    with pytest.raises(BundleError, match="No space left"):
        write_site(bundle, site, SOURCE, tmp_path / "site", day=DAY)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_marked_once_per_kind(bundle: Bundle) -> None:
    assert site_version(bundle, DAY) == "1.0.0+site.20261124"
    assert version_with("1.0.0+site.20250101", "site", DAY) == "1.0.0+site.20261124"
    assert version_with("1.0.0+site.20250101", "card", DAY) == "1.0.0+site.20250101.card.20261124"
    assert version_with("2.1+build7", "site", DAY) == "2.1+build7.site.20261124"


def test_what_toml_cannot_hold_is_left_out() -> None:
    assert toml_ready({"a": None, "b": float("nan"), "c": [1.23456789, None], "d": {"e": np.float64(2)}}) == {
        "c": [1.23457],
        "d": {"e": 2.0},
    }


def test_wishes_are_read_as_people_write_them(bundle: Bundle) -> None:
    wishes = read_wishes(
        bundle,
        sensitivity=["pneumonia=0.95,Pleural Thickening=0.9", "abnormal=0.98"],
        prevalence=["Mass=0.01"],
        raising=["mass, Nodule"],
    )
    assert wishes.sensitivity == {"Pneumonia": 0.95, "Pleural_Thickening": 0.9}
    assert wishes.specificity == {"No Finding": 0.98}
    assert wishes.raising == ("Mass", "Nodule")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sensitivity": ["No Finding=0.95"]}, "Abnormal=0.95"),
        ({"sensitivity": ["Fracture=0.9"]}, "does not assess"),
        ({"sensitivity": ["Mass"]}, "names no label"),
        ({"sensitivity": ["Mass=95"]}, "is a share"),
        ({"sensitivity": ["Mass=nan"]}, "is a share"),
        ({"sensitivity": ["Mass=0.9", "mass=0.8"]}, "twice"),
        ({"sensitivity": ["Mass=0.9"], "specificity": ["Mass=0.9"]}, "one threshold cannot do both"),
        ({"prevalence": ["Mass=1"]}, "is a share"),
        ({"method": "isotonic"}, "unknown"),
        ({"alerts_per_day": 20}, "volume"),
        ({"alerts_per_day": 300, "films_per_day": 300}, "every film"),
        ({"alerts_per_day": -1, "films_per_day": 300}, "above 0"),
        ({"raising": ["No Finding"]}, "raises nothing"),
    ],
)
def test_wishes_that_cannot_be_meant_are_refused_in_a_sentence(bundle: Bundle, options: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read_wishes(bundle, **options)
