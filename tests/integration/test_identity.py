"""Identifiers are derived: a retry is the same object, and what comes back is known."""

from __future__ import annotations

import re

import pytest
from pydicom.uid import UID

from firstread.integration.dicom.identity import (
    HEATMAP,
    SR,
    control_id,
    derive_uid,
    is_ours,
    series_uid,
    tracking_uid,
)

SITE = "2.25.111"
STUDY = "1.2.3.4"


def test_a_retry_has_the_uid_of_the_first_try() -> None:
    assert derive_uid(SITE, STUDY, 3, SR) == derive_uid(SITE, STUDY, 3, SR)


def test_what_was_sent_by_an_earlier_release_is_still_ours() -> None:
    """Written down, not computed: a change of the derivation makes every result in every PACS a stranger."""
    assert derive_uid(SITE, STUDY, 1, SR) == "2.25.291291353768361986984338248335060965509"
    assert series_uid(SITE, STUDY, HEATMAP) == "2.25.77087239342902955783455436315827415842"
    assert control_id(SITE, STUDY, 1, "ris") == "4C44XMQMWNSZOMKFTQFA"


@pytest.mark.parametrize(
    "other",
    [("2.25.112", STUDY, 1, SR), (SITE, "1.2.3.5", 1, SR), (SITE, STUDY, 2, SR), (SITE, STUDY, 1, HEATMAP)],
)
def test_site_study_revision_and_kind_each_make_another_object(other: tuple[str, str, int, str]) -> None:
    assert derive_uid(*other) != derive_uid(SITE, STUDY, 1, SR)


def test_neighbouring_parts_cannot_be_taken_for_each_other() -> None:
    assert derive_uid("1.2", "3.4", 1, SR) != derive_uid("1.23", ".4", 1, SR)
    assert derive_uid(SITE, STUDY, 11, "1sr") != derive_uid(SITE, STUDY, 1, "11sr")


def test_uids_are_valid_and_fit_their_vr() -> None:
    for uid in (derive_uid(SITE, STUDY, 1, SR), series_uid(SITE, STUDY, SR), tracking_uid(SITE, STUDY, "Mass")):
        assert UID(uid).is_valid
        assert len(uid) <= 64


def test_each_kind_has_its_own_series_and_a_variant_shares_it() -> None:
    assert series_uid(SITE, STUDY, SR) != series_uid(SITE, STUDY, HEATMAP)
    assert series_uid(SITE, STUDY, "heatmap/Mass") == series_uid(SITE, STUDY, HEATMAP)


@pytest.mark.parametrize("kind", [SR, HEATMAP, "heatmap/Mass"])
def test_our_result_is_known_by_its_series_whatever_its_own_uid(kind: str) -> None:
    assert is_ours(SITE, STUDY, series_uid(SITE, STUDY, kind), "1.2.3")


@pytest.mark.parametrize("kind", [SR, HEATMAP, "heatmap/Mass"])
@pytest.mark.parametrize("revision", [1, 2, 31])
def test_our_result_is_known_by_its_own_uid_where_a_pacs_changed_the_series(kind: str, revision: int) -> None:
    assert is_ours(SITE, STUDY, "1.2.3", derive_uid(SITE, STUDY, revision, kind))


def test_other_peoples_objects_are_not_ours() -> None:
    assert not is_ours(SITE, STUDY, "1.2.3", "1.2.3.4.5")
    assert not is_ours(SITE, STUDY, "2.25.1", "2.25.2")
    assert not is_ours(SITE, STUDY, series_uid("2.25.112", STUDY, SR), derive_uid("2.25.112", STUDY, 1, SR))
    assert not is_ours(SITE, STUDY, series_uid(SITE, "1.2.3.5", SR), derive_uid(SITE, "1.2.3.5", 1, SR))


def test_a_control_id_is_short_plain_and_the_same_at_every_retry() -> None:
    assert re.fullmatch(r"[A-Z0-9]{1,20}", control_id(SITE, STUDY, 1, "ris"))
    assert control_id(SITE, STUDY, 1, "ris") == control_id(SITE, STUDY, 1, "ris")


def test_control_ids_of_different_messages_differ() -> None:
    made = {
        control_id(SITE, study, revision, name)
        for study in (STUDY, "1.2.3.5")
        for revision in (1, 2)
        for name in ("a", "b")
    }
    assert len(made) == 8
