"""What a site settles with its RIS: priority places, accessions, identifiers, dates, character sets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firstread.integration.hl7.check import check_message
from firstread.integration.hl7.errors import UnbuildableMessage
from firstread.integration.hl7.mapping import Hl7Mapping
from firstread.models.prediction import Priority
from tests.integration.hl7_examples import RAISED, STUDY, lines, oru, segments


def test_the_priority_stands_in_each_place_that_is_mapped_and_in_no_other() -> None:
    def where(place: str) -> set[str]:
        message = oru(mapping=Hl7Mapping(priority_place=(place,)))
        obr = [*segments(message, "OBR")[0], *[""] * 30]
        observed = {obx[3].split("^")[0]: [*obx, *[""] * 12] for obx in segments(message, "OBX")}
        found = {
            "TQ1-9": bool(segments(message, "TQ1")),
            "OBR-5": obr[5] == "S",
            "OBR-27.6": obr[27] == "^^^^^S",
            "OBX-8": observed["TRIAGE_PRIORITY"][8] == "AA",
            "OBX:PRIO": "PRIO" in observed and observed["PRIO"][5] == "S",
            "ZFR-2": "ZFR||S" in lines(message),
        }
        assert check_message(message) == []
        return {name for name, there in found.items() if there}

    for place in ("TQ1-9", "OBR-5", "OBR-27.6", "OBX-8", "OBX:PRIO", "ZFR-2"):
        assert where(place) == {place}


def test_a_named_obx_may_bring_its_text_and_scheme_and_two_z_fields_share_a_segment() -> None:
    mapping = Hl7Mapping(priority_place=("OBX:PRIO^AI urgency^99RIS", "ZFR-1", "ZFR-3"))
    message = oru(mapping=mapping)
    assert any(obx[3] == "PRIO^AI urgency^99RIS" for obx in segments(message, "OBX"))
    assert lines(message)[-1] == "ZFR|S||S"


def test_a_site_has_its_own_words_for_priorities() -> None:
    words = {Priority.STAT: "CITO", Priority.URGENT: "EIL"}
    message = oru(mapping=Hl7Mapping(priority_values=words, priority_place=("TQ1-9", "OBR-5")))
    assert segments(message, "TQ1")[0][9] == "CITO"
    assert segments(message, "OBR")[0][5] == "CITO"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"priority_place": ("PV1-2",)}, "priority_place"),
        ({"priority_place": ("ZFR",)}, "priority_place"),
        ({"accession_place": ("OBR-4",)}, "accession_place"),
        ({"processing_id": "D"}, "processing_id"),
        ({"result_status": "C"}, "result_status"),
        ({"obr_25": "Z"}, "obr_25"),
        ({"character_set": "UTF-9"}, "character_set"),
        ({"priority_values": {Priority.STAT: "S"}}, "priority_values"),
        ({"abnormal_flags": {Priority.URGENT: "A"}}, "abnormal_flags"),
    ],
)
def test_a_mapping_that_could_not_be_sent_is_refused_by_the_setting_s_name(
    wrong: dict[str, object], named: str
) -> None:
    with pytest.raises(UnbuildableMessage, match=named):
        Hl7Mapping(**wrong)  # type: ignore[arg-type]


def test_every_accession_of_a_study_gets_its_own_group_with_the_priority_in_it() -> None:
    study = replace(STUDY, accession_numbers=("ACC-1", "ACC-2"))
    message = oru(study=study)
    assert [obr[18] for obr in segments(message, "OBR")] == ["ACC-1", "ACC-2"]
    assert [obr[1] for obr in segments(message, "OBR")] == ["1", "2"]
    assert len(segments(message, "TQ1")) == 2
    assert check_message(message) == []
    first = oru(study=study, mapping=Hl7Mapping(every_accession=False))
    assert [obr[18] for obr in segments(first, "OBR")] == ["ACC-1"]


def test_a_missing_accession_leaves_the_field_empty_and_the_study_uid_speaks() -> None:
    message = oru(study=replace(STUDY, accession_number=""))
    assert segments(message, "OBR")[0][18] == ""
    assert segments(message, "OBX")[0][5] == STUDY.study_instance_uid


def test_an_accession_beyond_its_vr_travels_as_received_and_where_the_site_wants_it() -> None:
    long = "2026-0001-" + "7" * 46
    obr = segments(
        oru(study=replace(STUDY, accession_number=long), mapping=Hl7Mapping(accession_place=("OBR-3",))), "OBR"
    )
    assert (obr[0][3], obr[0][18]) == (long, "")


def test_the_assigning_authority_is_the_film_s_and_else_the_site_s() -> None:
    mapping = Hl7Mapping(assigning_authority="CITY^1.2.3^ISO", patient_id_type="PI")
    assert segments(oru(mapping=mapping), "PID")[0][3] == "P-4711^^^HOSP^PI"
    unnamed = oru(study=replace(STUDY, issuer_of_patient_id=""), mapping=mapping)
    assert segments(unnamed, "PID")[0][3] == "P-4711^^^CITY&1.2.3&ISO^PI"


@pytest.mark.parametrize(
    ("birth_date", "sent"),
    [("19500131", "19500131"), ("1950.01.31", "19500131"), ("5f2c9d", ""), ("19501331", ""), ("", "")],
)
def test_a_birth_date_that_is_none_is_left_empty(birth_date: str, sent: str) -> None:
    pid = [*segments(oru(study=replace(STUDY, birth_date=birth_date)), "PID")[0], "", ""]
    assert pid[7] == sent


@pytest.mark.parametrize(
    ("day", "clock", "sent"),
    [
        ("20260102", "030405.12", "20260102030405"),
        ("20260102", "0304", "202601020304"),
        ("20260102", "", "20260102"),
        ("20260102", "99", "20260102"),
        ("20260102", "nonsense", "20260102"),
    ],
)
def test_the_study_s_time_goes_into_obr_7_as_far_as_it_is_one(day: str, clock: str, sent: str) -> None:
    assert segments(oru(study=replace(STUDY, study_date=day, study_time=clock)), "OBR")[0][7] == sent


def test_an_unknown_study_date_is_said_and_the_time_of_analysis_stands_in() -> None:
    message = oru(study=replace(STUDY, study_date="yesterday"))
    assert segments(message, "OBR")[0][7] == "20260102030607+0000"
    assert any("study's date is not known" in nte[3] for nte in segments(message, "NTE"))


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P"),
        ("=山田^太郎", "山田^太郎^^^^^L^I"),
        ("Doe^John^^Dr^Jr", "Doe^John^^Jr^Dr^^L"),
        ("CITIZEN", "CITIZEN^^^^^^L"),
        ("O'Brien|x^~&", r"O'Brien\F\x^\R\\T\^^^^^L"),
        ("^^^^", "^^^^^^U"),
        ('""', "^^^^^^U"),
    ],
)
def test_a_dicom_name_becomes_an_hl7_name(name: str, sent: str) -> None:
    message = oru(study=replace(STUDY, patient_name=name))
    assert segments(message, "PID")[0][5] == sent
    assert check_message(message) == []


def test_latin_1_is_written_where_a_receiver_asks_for_it() -> None:
    message = oru(mapping=Hl7Mapping(character_set="8859/1"))
    assert "Müller".encode("latin-1") in message
    assert b"|8859/1\r" in message
    assert check_message(message) == []


def test_a_name_that_a_character_set_lacks_becomes_question_marks_and_an_identifier_never_does() -> None:
    latin = Hl7Mapping(character_set="8859/1")
    assert b"??^??" in oru(study=replace(STUDY, patient_name="山田^太郎"), mapping=latin)
    for study in (replace(STUDY, patient_id="患者1"), replace(STUDY, accession_numbers=("ACC-1", "受付2"))):
        message = oru(study=study, mapping=latin)
        assert "UNICODE UTF-8" in lines(message)[0]
        assert "患者1" in message.decode() or "受付2" in message.decode()
        assert check_message(message) == []


def test_procedures_without_a_code_get_ours_with_the_study_s_description() -> None:
    bare = replace(STUDY, procedure_code="", procedure_meaning="", procedure_scheme="")
    assert segments(oru(study=bare), "OBR")[0][4] == "STUDY^Thorax p.a.^99FIRSTREAD"
    assert (
        segments(oru(study=replace(bare, study_description="")), "OBR")[0][4] == "STUDY^Radiographic study^99FIRSTREAD"
    )


def test_training_messages_say_so() -> None:
    assert "|T|2.5.1|" in lines(oru(RAISED, mapping=Hl7Mapping(processing_id="T")))[0]
