"""The decision: which priority, why, and what is never claimed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstread.agent.triage import FindingPolicy, ImageFact, Patient, assess, looks_the_same
from firstread.models.findings import LABELS, NO_FINDING, ReasonCode
from firstread.models.prediction import Assessment, ImageOutcome, Priority, Reason
from tests.agent.builders import predict

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = {"Pneumothorax": Priority.STAT, "Effusion": Priority.URGENT, "Pneumonia": Priority.URGENT}
POLICY = {label: FindingPolicy(0.6, RULES.get(label), label == "Mass") for label in LABELS}


def film(number: int = 1, reason: Reason | None = None, key: str = "1", **probabilities: float) -> ImageFact:
    uid = f"1.2.3.1.{number}"
    prediction = None if reason else predict(uid, **probabilities)
    return ImageFact(ImageOutcome(uid, "1.2", "1.3", reason), Patient(key, "DOE", "1960"), prediction)


def judged(
    *images: ImageFact, ordered: Priority | None = None, earlier: tuple[Assessment, ...] = (), **more
) -> Assessment:
    return assess(
        study_instance_uid="1.2.3",
        revision=len(earlier) + 1,
        created_at=NOON,
        images=images,
        policy=more.pop("policy", POLICY),
        ordered=ordered,
        earlier=earlier,
        **more,
    )


def found(assessment: Assessment, label: str):
    return next(one for one in assessment.findings if one.label == label)


def test_a_pneumothorax_above_its_threshold_raises_to_stat_and_says_why():
    result = judged(film(Pneumothorax=0.81))
    assert result.priority is Priority.STAT
    assert result.causes == ("Pneumothorax",)
    assert result.priority_reason == "pneumothorax 0.81 at or above 0.60"


def test_exactly_the_threshold_counts():
    assert judged(film(Pneumothorax=0.6)).priority is Priority.STAT


def test_negative_result_never_lowers_a_stat_order():
    result = judged(film(), ordered=Priority.STAT)
    assert result.priority is Priority.STAT
    assert result.priority_reason.startswith("ordered as STAT")


def test_a_later_negative_revision_keeps_the_priority_of_an_earlier_one_and_says_so():
    first = judged(film(Effusion=0.9))
    second = judged(film(), earlier=(first,))
    assert second.priority is Priority.URGENT
    assert "kept from revision 1" in second.priority_reason


def test_a_revision_that_is_not_analysed_keeps_the_priority_too():
    first = judged(film(Pneumothorax=0.9))
    second = judged(film(), film(2, key="2"), earlier=(first,))
    assert second.reason is not None and second.reason.code is ReasonCode.CONFLICTING_PATIENTS
    assert second.priority is Priority.STAT


def test_the_highest_probability_over_images_speaks_and_no_finding_takes_the_lowest():
    result = judged(film(1, Effusion=0.2, No_Finding=0.9), film(2, Effusion=0.7, No_Finding=0.3))
    assert found(result, "Effusion").probability == 0.7
    assert found(result, "Effusion").sop_instance_uid == "1.2.3.1.2"
    assert found(result, NO_FINDING).probability == 0.3


def test_no_finding_is_not_claimed_when_an_eligible_image_could_not_be_analysed():
    result = judged(film(1, No_Finding=0.99), film(2, Reason(ReasonCode.CANNOT_DECODE, "JPEG 2000: ends early")))
    claim = found(result, NO_FINDING)
    assert claim.probability is None and not claim.present
    assert "could not be analysed" in claim.not_assessed
    assert result.notes == ("1 of 2 images not analysed: cannot decode: JPEG 2000: ends early",)


def test_a_lateral_view_beside_a_frontal_one_leaves_no_finding_standing():
    result = judged(film(1, No_Finding=0.99), film(2, Reason(ReasonCode.LATERAL_VIEW)))
    assert found(result, NO_FINDING).probability == 0.99
    assert result.analysed


def test_no_finding_is_never_present_beside_a_finding():
    result = judged(film(Mass=0.9, No_Finding=0.95))
    assert not found(result, NO_FINDING).present


def test_an_experimental_finding_raises_nothing_and_the_reason_says_it():
    result = judged(film(Mass=0.99))
    assert result.priority is Priority.ROUTINE
    assert "experimental" in result.priority_reason
    assert found(result, "Mass").present


def test_an_experimental_finding_that_the_site_allows_raises_and_stays_marked():
    policy = {**POLICY, "Mass": FindingPolicy(0.6, Priority.URGENT, experimental=True, experimental_may_raise=True)}
    result = judged(film(Mass=0.99), policy=policy)
    assert result.priority is Priority.URGENT
    assert found(result, "Mass").experimental


def test_a_label_that_the_model_lacks_is_not_assessed_and_never_zero():
    image = film()
    probabilities = {label: 0.1 for label in LABELS if label != "Hernia"}
    image = ImageFact(
        image.outcome, image.patient, type(image.prediction)("1", probabilities, {}, image.prediction.model)
    )
    hernia = found(judged(image), "Hernia")
    assert hernia.probability is None and hernia.not_assessed == "not assessed by this model"


def test_an_incomplete_study_never_gives_a_clean_negative_as_its_reason():
    result = judged(film(1), film(2, Reason(ReasonCode.CANNOT_DECODE, "cut short")))
    assert result.priority_reason == (
        "incomplete: none of the assessed findings above threshold in the 1 of 2 images that could be analysed"
    )


@pytest.mark.parametrize(
    ("first", "second", "conflict"),
    [
        (Patient("1", "DOE", "1960"), Patient("", "DOE", "1960"), False),
        (Patient("1", "DOE", "1960"), Patient("", "ROE", "1960"), True),
        (Patient("1", "DOE", "1960"), Patient("1", "DOE JOHN", "1960"), False),
        (Patient("1", "DOE", "1960"), Patient("2", "DOE", "1960"), True),
        (Patient("", "DOE", "1960"), Patient("", "DOE", "1961"), True),
    ],
)
def test_an_empty_identifier_is_unknown_and_not_another_patient(first, second, conflict):
    images = [
        ImageFact(ImageOutcome(str(n), "1.2", "1.3"), who, predict(str(n))) for n, who in enumerate((first, second))
    ]
    reason = judged(*images).reason
    assert (reason is not None and reason.code is ReasonCode.CONFLICTING_PATIENTS) is conflict


def test_a_study_without_images_says_so():
    assert judged().reason == Reason(ReasonCode.NO_IMAGE)


def test_the_reason_that_can_be_mended_speaks_for_a_study_with_several():
    result = judged(film(1, Reason(ReasonCode.LATERAL_VIEW)), film(2, Reason(ReasonCode.CANNOT_DECODE, "x")))
    assert result.reason is not None and result.reason.code is ReasonCode.CANNOT_DECODE


def test_a_study_that_is_summed_up_while_an_image_is_unfinished_does_not_claim_no_finding():
    waiting = ImageFact(ImageOutcome("1.9", "1.2", "1.3"), Patient("1"))
    result = judged(film(1, No_Finding=0.9), waiting, unfinished_s=300)
    assert found(result, NO_FINDING).probability is None
    assert "analysis has not ended" in result.notes[0]
    assert judged(waiting, unfinished_s=300).reason.code is ReasonCode.PROCESSING_FAILED


def test_a_revision_without_visible_change_looks_the_same():
    first = judged(film(Effusion=0.701))
    assert looks_the_same(first, judged(film(Effusion=0.702), earlier=(first,)))
    assert not looks_the_same(first, judged(film(Effusion=0.75)))


@given(
    st.lists(st.dictionaries(st.sampled_from(LABELS[:14]), st.floats(0, 1), max_size=5), min_size=1, max_size=4),
    st.sampled_from([None, *Priority]),
)
def test_priority_never_falls_over_any_sequence_of_revisions(seen, ordered):
    earlier: tuple[Assessment, ...] = ()
    for probabilities in seen:
        new = judged(film(**probabilities), ordered=ordered, earlier=earlier)
        assert all(new.priority >= one.priority for one in earlier)
        assert ordered is None or new.priority >= ordered
        earlier = (*earlier, new)


@pytest.mark.parametrize("code", list(ReasonCode))
def test_every_reason_alone_gives_a_study_that_reason_and_raises_nothing(code):
    result = judged(film(1, Reason(code, "detail")))
    assert result.reason is not None and result.reason.code is code
    assert result.priority is Priority.ROUTINE and not result.findings
