"""Work items on the wire: whatever a film says becomes a valid item, XML says what JSON says, keys match."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from firstread.integration.dicom.ups import UpsPriority, UpsRefusal
from firstread.integration.dicom.ups_match import is_moment_key, matches
from firstread.integration.dicom.ups_reading import (
    Reference,
    once_more,
    performed_elsewhere,
    reading_item,
    references,
    say_why,
    with_references,
)
from firstread.integration.dicom.ups_rules import (
    PERFORMED,
    canceled,
    changed,
    created,
    read_json,
    require_completed,
    write_json,
)
from firstread.integration.dicomweb.ups_xml import UnreadableXml, from_xml, to_xml
from firstread.models.prediction import StudyIdentity

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TEXTS = {one.name: st.text(max_size=300) for one in fields(StudyIdentity) if one.type == "str"}


@given(identity=st.builds(StudyIdentity, **TEXTS), why=st.text(max_size=300))
def test_whatever_a_film_says_becomes_an_item_that_can_be_kept_and_read_again(identity, why) -> None:
    item = reading_item("2.25.1", identity, UpsPriority.MEDIUM, NOW)
    say_why(item, why)
    kept = write_json(item)
    assert write_json(read_json(kept)) == kept
    assert kept["00741000"]["Value"] == ["SCHEDULED"]
    again = from_xml(to_xml(kept))
    assert again.keys() == kept.keys()
    created(read_json(kept), "2.25.2", NOW)


VALUES = st.one_of(
    st.tuples(st.just("LO"), st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1))),
    st.tuples(st.just("US"), st.lists(st.integers(0, 65535))),
    st.tuples(st.just("FD"), st.lists(st.floats(allow_nan=False, allow_infinity=False))),
)
TAGS = st.integers(0x00090000, 0x7FDF0000).map(lambda number: f"{number:08X}")
FLAT = st.dictionaries(TAGS, VALUES.map(lambda one: {"vr": one[0], "Value": one[1]}), max_size=4)
NESTED = st.recursive(
    FLAT,
    lambda inner: st.dictionaries(
        TAGS, st.lists(inner, max_size=3).map(lambda items: {"vr": "SQ", "Value": items}), max_size=3
    ),
    max_leaves=6,
)


@given(NESTED)
def test_attributes_come_back_from_xml_as_they_went(attributes) -> None:
    assert from_xml(to_xml(attributes)) == attributes


@given(st.binary(max_size=200))
def test_bytes_that_are_no_xml_are_refused(body) -> None:
    with contextlib.suppress(UnreadableXml):
        from_xml(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
ELEMENT = st.fixed_dictionaries(
    {"vr": st.sampled_from(["CS", "SQ", "PN", "UI", "DT", "XX", ""])}, optional={"Value": JSON}
)
NAMES = st.sampled_from(["00741200", "00404021", "00100010", "00404005", "0020000D", "00741216", "zz", "00081195"])


@given(st.dictionaries(NAMES, ELEMENT | JSON, max_size=4))
def test_json_that_is_no_data_set_is_refused_and_breaks_nothing(attributes) -> None:
    with contextlib.suppress(UpsRefusal):
        write_json(read_json(attributes))


def test_every_series_of_films_and_results_is_named_once_and_can_be_fetched() -> None:
    films = [Reference("1.2.1", "1.9", "1.2.1.1"), Reference("1.2.2", "1.9", "1.2.2.1")]
    inputs = references("1.2", [*films, Reference("1.2.1", "1.9", "1.2.1.2")], "US")
    outputs = references("1.2", [Reference("1.2.3", "1.8", "1.2.3.1")], "US")
    kept = write_json(reading_item("2.25.1", StudyIdentity("1.2.3"), UpsPriority.HIGH, NOW))
    item = read_json(with_references(kept, inputs, outputs, NOW))
    assert [len(one.ReferencedSOPSequence) for one in item.InputInformationSequence] == [2, 1, 1]
    assert {one.DICOMRetrievalSequence[0].RetrieveAETitle for one in item.InputInformationSequence} == {"US"}
    (done,) = item.get(PERFORMED)
    assert done.OutputInformationSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.1"
    assert not read_json(with_references(kept, inputs, [], NOW)).get(PERFORMED)
    claimed = {**kept, "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    assert not read_json(with_references(claimed, inputs, outputs, NOW)).get(PERFORMED), "that part is its owner's"


def test_an_item_once_more_is_as_if_nobody_had_touched_it() -> None:
    item = reading_item("2.25.1", StudyIdentity("1.2.3"), UpsPriority.HIGH, NOW)
    setattr(item, PERFORMED, [performed_elsewhere(NOW, NOW)])
    require_completed(item)
    ended = canceled(item, NOW, "no")
    fresh = once_more(ended, "2.25.2", NOW)
    assert (fresh.SOPInstanceUID, fresh.ProcedureStepState, fresh.ScheduledProcedureStepPriority) == (
        "2.25.2", "SCHEDULED", "HIGH",
    )  # fmt: skip
    assert not fresh.get(PERFORMED) and not fresh.ProcedureStepProgressInformationSequence


def test_a_change_leaves_what_it_does_not_name() -> None:
    item = reading_item("2.25.1", StudyIdentity("1.2.3", patient_id="P1"), UpsPriority.HIGH, NOW)
    later = changed(item, read_json({"00741204": {"vr": "LO", "Value": ["Mine"]}}), NOW)
    assert (later.ProcedureStepLabel, later.PatientID, item.ProcedureStepLabel) == (
        "Mine",
        "P1",
        "Read chest radiograph",
    )


def test_times_match_by_what_they_may_mean() -> None:
    def found(value: str, key: str) -> bool:
        element = {"vr": "DT", "Value": [value]}
        return matches({"00404005": element}, {"00404005": {"vr": "DT", "Value": [key]}})

    assert found("20260301120000.000+0000", "20260301-20260302")
    assert found("20260301120000+0000", "20260301130000+0100")
    assert not found("20260301120000+0000", "20260301120000+0100")
    assert found("20260301120000+0000", "20260301130000+0100-20260301140000+0100")
    assert found("20260301120000+0000", "2026")
    assert not found("20260301120000+0000", "20260302-")
    assert not found("rubbish", "2026") and not found("2026", "rubbish")
    assert is_moment_key("-2026") and is_moment_key("2026-2027") and is_moment_key("2026-0500")
    assert not is_moment_key("-") and not is_moment_key("202613") and not is_moment_key("")
