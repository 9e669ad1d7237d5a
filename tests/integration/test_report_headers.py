"""Headers as they come: nothing in them stops a report, what was changed is noted, and no value gets into a note."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from firstread.integration.dicom.report.header import tag_of
from firstread.integration.dicom.report.source import READ, read_source
from firstread.integration.dicom.tid1500 import walk
from firstread.integration.dicom.values import MAXIMUM_LENGTH, mend
from tests.integration.report_cases import (
    dciodvfy,
    film,
    finding,
    items,
    not_analysed,
    parsed,
    positive,
    report,
    written,
)

HASH = "d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f"


def raw(keyword: str, vr: str, value: bytes) -> RawDataElement:
    """An element as it lies in a file, whatever its value."""
    return RawDataElement(tag_of(keyword), vr, len(value), value, 0, False, True)


def with_raw(**values: bytes) -> Dataset:
    """The well-made film with raw bytes in place of some values, each with the VR of its keyword."""
    header = film()
    for keyword, value in values.items():
        header._dict[tag_of(keyword)] = raw(keyword, pydicom.datadict.dictionary_VR(tag_of(keyword)), value)
    return header


def test_patient_and_study_are_copied_as_they_came() -> None:
    document = parsed(report(positive(), film(IssuerOfPatientID="HOSP", StudyDescription="Thorax pa")))
    copied = {
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "IssuerOfPatientID": "HOSP",
        "PatientBirthDate": "19600101",
        "PatientSex": "F",
        "PatientAge": "065Y",
        "StudyDate": "20250301",
        "StudyTime": "115500",
        "StudyID": "S1",
        "StudyDescription": "Thorax pa",
        "AccessionNumber": "ACC1",
        "ReferringPhysicianName": "Ward^North",
    }
    assert {keyword: str(document[keyword].value) for keyword in copied} == copied


def test_a_hash_as_birth_date_is_left_empty_and_noted() -> None:
    encoded = report(positive(), with_raw(PatientBirthDate=HASH.encode()))
    assert parsed(encoded).PatientBirthDate == ""
    assert encoded.notes == ("PatientBirthDate (0010,0030) is not a date (56 characters): left empty",)


def test_an_accession_number_that_is_too_long_is_left_empty_because_a_cut_one_is_another_studys() -> None:
    encoded = report(positive(), with_raw(AccessionNumber=HASH.encode()))
    assert parsed(encoded).AccessionNumber == ""
    assert encoded.notes == ("AccessionNumber (0008,0050) has 56 characters where 16 are allowed: left empty",)


def test_a_weight_of_zero_is_no_weight() -> None:
    document = parsed(report(positive(), with_raw(PatientWeight=b"0", PatientSize=b"1.7 ")))
    assert "PatientWeight" not in document
    assert document.PatientSize == 1.7


def test_text_that_is_too_long_is_cut() -> None:
    encoded = report(positive(), with_raw(StudyDescription=b"x" * 70))
    assert parsed(encoded).StudyDescription == "x" * 64


@pytest.mark.parametrize("name", ["ward", HASH, "Doe", "Prince^^^Dr."])
def test_a_name_that_the_standard_allows_travels_unchanged(name: str) -> None:
    encoded = report(positive(), film(PatientName=name))
    assert parsed(encoded).PatientName == name
    assert encoded.notes == ()


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (b"ISO_IR 192", "Wáng^Xiǎo=王^小東".encode(), "Wáng^Xiǎo=王^小東"),
        (b"ISO_IR 100", b"M\xfcller^J\xf6rg", "Müller^Jörg"),
        (b"ISO_IR 144", b"\xbb\xee\xda\xdc^\xb0", "Люкм^А"),
        (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"", "Müller^Jörg".encode(), "Müller^Jörg"),
        (b"", b"M\xfcller^J\xf6rg", "Müller^Jörg"),
        (b"NOT A CHARSET", b"M\xfcller^J\xf6rg", "Müller^Jörg"),
    ],
)
def test_names_of_every_character_set_travel_on_in_utf_8(declared: bytes, value: bytes, expected: str) -> None:
    document = parsed(report(positive(), with_raw(SpecificCharacterSet=declared, PatientName=value)))
    assert document.SpecificCharacterSet == "ISO_IR 192"
    assert document.PatientName == expected


def test_bytes_outside_the_declared_character_set_are_replaced_and_noted() -> None:
    encoded = report(positive(), with_raw(SpecificCharacterSet=b"ISO_IR 192", PatientName=b"M\xfcller"))
    assert parsed(encoded).PatientName == "M\ufffdller"
    assert any("character set" in note for note in encoded.notes)


def test_type_2_attributes_are_present_though_the_film_lacks_them() -> None:
    bare = Dataset()
    bare.SOPInstanceUID, bare.StudyInstanceUID = film().SOPInstanceUID, film().StudyInstanceUID
    document = parsed(report(positive(), bare))
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "ReferringPhysicianName",
        "StudyID",
        "AccessionNumber",
        "ReferencedPerformedProcedureStepSequence",
        "PerformedProcedureCodeSequence",
    ):
        assert keyword in document


def test_several_accession_numbers_stand_in_the_referenced_requests() -> None:
    requests = []
    for accession in ("ACC1", "ACC2"):
        item = Dataset()
        item.AccessionNumber, item.RequestedProcedureID = accession, f"R{accession}"
        requests.append(item)
    document = parsed(report(positive(), film(RequestAttributesSequence=requests)))
    assert [item.AccessionNumber for item in document.ReferencedRequestSequence] == ["ACC1", "ACC2"]
    assert document.ReferencedRequestSequence[0].StudyInstanceUID == document.StudyInstanceUID


def test_the_procedure_is_the_films_own_where_it_is_coded_and_a_chest_film_else() -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "THX2", "99LOCAL", "Thorax 2 planes"
    own = parsed(report(positive(), film(ProcedureCodeSequence=[code])))
    assert items(own, "121058")[0].ConceptCodeSequence[0].CodeValue == "THX2"
    assert items(parsed(report(positive())), "121058")[0].ConceptCodeSequence[0].CodeValue == "399208008"


def test_times_are_written_in_the_films_own_zone() -> None:
    from datetime import UTC, datetime

    from firstread.integration.dicom.report import build_report
    from tests.integration.report_cases import SETTINGS, uids

    moment = datetime(2025, 3, 1, 23, 30, tzinfo=UTC)
    encoded = build_report(
        positive(), [film(TimezoneOffsetFromUTC="+0530")], uids(positive(), "sr"), SETTINGS, content_datetime=moment
    )
    document = parsed(encoded)
    assert (document.ContentDate, document.ContentTime) == ("20250302", "050000")
    assert document.TimezoneOffsetFromUTC == "+0530"


def test_neither_logs_nor_warnings_nor_notes_hold_a_patients_value(caplog: pytest.LogCaptureFixture) -> None:
    secrets = {"PatientName": b"SECRETNAME" * 9, "PatientBirthDate": b"SECRETBIRTH", "PatientID": b"SECRETID\x07" * 9}
    header = with_raw(AccessionNumber=b"SECRETACCESSION99", **secrets)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoded = report(positive(), header)
    said = [*encoded.notes, *(record.getMessage() for record in caplog.records), *(str(one.message) for one in caught)]
    assert len(encoded.notes) == 4
    assert not any("SECRET" in text for text in said)


def test_a_file_that_is_no_dicom_gives_a_report_with_an_empty_patient_and_a_note(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(b"not dicom at all" * 40)
    encoded = report(positive(), path)
    assert walk(parsed(encoded)) == []
    missing = report(positive(), tmp_path / "gone.dcm")
    assert parsed(missing).PatientID == ""
    assert any("cannot be read" in note for note in missing.notes)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_a_file_that_ends_early_stops_no_report(syntax: str, tmp_path: Path) -> None:
    path = written(film(), tmp_path, syntax)
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        assert read_source(path).patient_study is not None
    assert walk(parsed(report(not_analysed(), path))) == []


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_headers_read_the_same_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    header = film(PatientName="Müller^Jörg")
    if syntax == "1.2.840.10008.1.2.2":
        header.file_meta = pydicom.dataset.FileMetaDataset()
        path = tmp_path / "film.dcm"
        header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        pydicom.dcmwrite(path, header, implicit_vr=False, little_endian=False, enforce_file_format=True)
    else:
        path = written(header, tmp_path, syntax)
    source = read_source(path)
    assert (source.rows, source.columns, source.spacing_mm) == (2000, 1600, (0.2, 0.2))
    assert source.patient_study.PatientName == "Müller^Jörg"
    assert source.notes == ()


_VALUES = st.one_of(
    st.binary(max_size=90),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [HASH.encode(), b"\\\\\\", b"=^=^=^=", b"20251341", b"1e999", b"-0", b"\x1b$B\x1b(B\x1b", b"\xff" * 8]
    ),
)
_VRS = st.sampled_from(["", "UN", "PN", "LO", "US", "SQ", "OB", "UV", "DS"])
_CHARACTER_SETS = st.sampled_from(
    [b"", b"\\ISO 2022 IR 87", b"ISO 2022 IR 13\\ISO 2022 IR 87", b"ISO_IR 192", b"GBK", b"hex", b"idna", b"\xff\\\x00"]
)


@st.composite
def _headers(draw: st.DrawFn) -> Dataset:
    header = film()
    for keyword in draw(st.lists(st.sampled_from(READ), unique=True, max_size=8)):
        if keyword in ("SOPInstanceUID",):
            continue
        own = pydicom.datadict.dictionary_VR(Tag(tag_of(keyword)))
        vr = draw(_VRS) or own
        header._dict[tag_of(keyword)] = raw(keyword, vr, draw(_VALUES))
    header._dict[tag_of("SpecificCharacterSet")] = raw("SpecificCharacterSet", "CS", draw(_CHARACTER_SETS))
    return header


@settings(max_examples=80, deadline=None)
@given(_headers())
def test_no_header_stops_a_report(header: Dataset) -> None:
    assert walk(parsed(report(positive(findings=(finding("Mass", 0.9),)), header))) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=_headers())
def test_a_report_of_any_header_passes_dciodvfy(header: Dataset, tmp_path: Path) -> None:
    errors, _ = dciodvfy(report(positive(findings=(finding("Mass", 0.9),)), header), tmp_path)
    assert errors == []


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["DA", "TM", "AS", "CS", "UI", "DS", "IS", "PN", "SH", "LO", "ST", "LT"]), st.text())
def test_a_mended_value_fits_its_vr_and_is_not_mended_twice(vr: str, text: str) -> None:
    once = mend(vr, text)
    assert mend(vr, once.value).value == once.value
    for group in once.value.split("=") if vr == "PN" else [once.value]:
        assert len(group) <= MAXIMUM_LENGTH.get(vr, 64)
    pydicom.valuerep.validate_value(vr, once.value, pydicom.config.RAISE)


@pytest.mark.parametrize(
    ("vr", "text", "value", "changed"),
    [
        ("DA", "20250229", "", True),
        ("DA", "2025.03.01", "20250301", True),
        ("DA", " 20250301 ", "20250301", False),
        ("TM", "11:55:00", "115500", True),
        ("TM", "115500.123456", "115500.123456", False),
        ("TM", "2560", "", True),
        ("AS", "65", "", True),
        ("CS", "dx", "DX", True),
        ("UI", "1.02.3", "", True),
        ("DS", "0.12345678901234567", "0.123456789", True),
        ("DS", "NaN", "", True),
        ("PN", "a^b^c^d^e^f", "a^b^c^d^e f", True),
        ("PN", "A^B\\C^D", "A^B", True),
        ("LO", "a\\b", "a/b", True),
        ("SH", "ok\x00", "ok", False),
    ],
)
def test_values_are_mended_as_a_reader_would(vr: str, text: str, value: str, changed: bool) -> None:
    mended = mend(vr, text)
    assert (mended.value, bool(mended.done)) == (value, changed)
