"""Reports before other people's tools: dciodvfy finds no error, dsrdump reads them, real films stop nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from firstread.integration.dicom.report import Encoded, Predecessor
from firstread.integration.dicom.tid1500 import walk
from firstread.models.findings import ReasonCode
from firstread.models.prediction import Assessment, ImageOutcome
from tests.integration.report_cases import (
    STUDY,
    dciodvfy,
    dsrdump,
    film,
    negative,
    not_analysed,
    parsed,
    positive,
    report,
)
from tests.peers import real_films

FILMS = (
    "RG1_J2KI",
    "966_fixed",
    "rsna_cr_jpeg_baseline",
    "chrJapMulti",
    "RG2_JPLL",
    "RG3_J2KR",
    "dx_veterinary",
)
TOLERATED = ("needed to build DICOMDIR", "Retired Person Name form")
"""Warnings about values that the film lacks, or that travel on unchanged because the standard allows them."""


def correction() -> Encoded:
    first = report(positive())
    return report(
        positive(revision=2), predecessor=Predecessor(STUDY, first.series_instance_uid, first.sop_instance_uid)
    )


def in_japanese() -> Encoded:
    header = film()
    header.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    header.PatientName = pydicom.valuerep.PersonName(
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", ["iso8859", "iso2022_jp"]
    )
    return report(positive(), header)


def of_several_orders() -> Encoded:
    requests = []
    for accession in ("ACC1", "ACC2"):
        item = Dataset()
        item.AccessionNumber, item.RequestedProcedureID = accession, "R1"
        requests.append(item)
    return report(positive(), film(RequestAttributesSequence=requests))


def of_an_animal() -> Encoded:
    header = film(
        PatientSpeciesDescription="Canis lupus familiaris",
        PatientSexNeutered="ALTERED",
        ResponsiblePerson="Owner^Jo",
        ResponsiblePersonRole="OWNER",
    )
    return report(not_analysed(ReasonCode.ANIMAL, "Canis lupus familiaris"), header)


def rich() -> Encoded:
    """A header that fills what the modules allow."""
    other, issuer, procedure = Dataset(), Dataset(), Dataset()
    other.PatientID, other.IssuerOfPatientID = "P2", "OTHER"
    issuer.LocalNamespaceEntityID = "RIS"
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "THX2", "99LOCAL", "Thorax"
    return report(
        positive(),
        film(
            OtherPatientIDsSequence=[other],
            IssuerOfAccessionNumberSequence=[issuer],
            ProcedureCodeSequence=[procedure],
            IssuerOfPatientID="HOSP",
            StudyDescription="Thorax pa",
            PatientSize="1.7",
            PatientWeight="70",
            PatientIdentityRemoved="YES",
            DeidentificationMethod="by hand",
            MedicalAlerts=["latex", "contrast"],
            NameOfPhysiciansReadingStudy=["A^B", "C^D"],
            AdditionalPatientHistory="cough\r\nfever",
            TimezoneOffsetFromUTC="-0330",
        ),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: report(positive()),
        lambda: report(negative()),
        lambda: report(not_analysed()),
        lambda: report(replace(not_analysed(ReasonCode.NO_IMAGE), images=()), film(SOPInstanceUID=None)),
        correction,
        in_japanese,
        of_several_orders,
        of_an_animal,
        rich,
    ],
    ids=["positive", "negative", "not analysed", "no image", "correction", "Japanese", "orders", "animal", "rich"],
)
def test_dciodvfy_has_neither_error_nor_warning(make: object, tmp_path: Path) -> None:
    encoded = make()  # type: ignore[operator]
    errors, warnings = dciodvfy(encoded, tmp_path)
    assert (errors, [line for line in warnings if "<99LOCAL>" not in line]) == ([], [])


def test_dciodvfy_would_have_told(tmp_path: Path) -> None:
    encoded = report(positive())
    document = parsed(encoded)
    del document.VerificationFlag
    document.save_as(tmp_path / "broken.dcm")
    broken = replace(encoded, part10=(tmp_path / "broken.dcm").read_bytes())
    assert dciodvfy(broken, tmp_path)[0]


def of_real_film(name: str, assessment: Assessment) -> tuple[Encoded, pydicom.Dataset]:
    path = real_films() / "dicom" / f"{name}.dcm"
    header = pydicom.dcmread(path, stop_before_pixels=True)
    image = ImageOutcome(header.SOPInstanceUID, header.SOPClassUID, header.SeriesInstanceUID, assessment.reason)
    findings = tuple(
        replace(one, sop_instance_uid=header.SOPInstanceUID if one.sop_instance_uid else None)
        for one in assessment.findings
    )
    study = replace(assessment, study_instance_uid=header.StudyInstanceUID, images=(image,), findings=findings)
    return report(study, path), header


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("assessment", [positive(), not_analysed()], ids=["analysed", "not analysed"])
def test_a_real_film_gets_a_report_in_its_own_study(name: str, assessment: Assessment, tmp_path: Path) -> None:
    encoded, header = of_real_film(name, assessment)
    errors, warnings = dciodvfy(encoded, tmp_path)
    assert errors == []
    assert [line for line in warnings if not any(known in line for known in TOLERATED)] == []
    document = parsed(encoded)
    assert walk(document) == []
    assert document.StudyInstanceUID == header.StudyInstanceUID
    assert document.PatientID == header.PatientID
    assert dsrdump(encoded, tmp_path)


def test_a_radiologist_can_read_it_in_dsrdump(tmp_path: Path) -> None:
    printed = dsrdump(report(positive()), tmp_path)
    for line in (
        'CODE:(,,"Finding")=(36118008,SCT,"Pneumothorax")',
        'NUM:(,,"Probability")="0.8123" (1,UCUM,"no units")',
        'CODE:(,,"Presence")=(52101004,SCT,"Present")',
        'TEXT:(,,"Summary")="Above the operating point: pneumothorax 0.81, effusion 0.72. 1 of 2 images not analysed."',
        'TEXT:(,,"Comment")="AI result, not a diagnosis."',
        'CODE:(,,"Triage priority")=(STAT,99FIRSTREAD,"STAT")',
        'TEXT:(,,"Reason for triage priority")="Pneumothorax 0.81 above 0.60."',
        'CODE:(,,"Reason not analysed")=(LATERAL_VIEW,99FIRSTREAD,"lateral view")',
        "Preliminary Flag    : PRELIMINARY",
    ):
        assert line in printed


def test_a_reason_is_read_in_dsrdump_with_its_code(tmp_path: Path) -> None:
    printed = dsrdump(report(not_analysed(ReasonCode.CONFLICTING_PATIENTS, "")), tmp_path)
    assert '(CONFLICT_PATIENT,99FIRSTREAD,"conflicting patients")' in printed
    assert "Not analysed: conflicting patients." in printed


def test_a_japanese_name_is_read_in_dsrdump(tmp_path: Path) -> None:
    assert "Yamada^Tarou=山田^太郎" in dsrdump(in_japanese(), tmp_path)


def test_highdicom_reads_it_back_with_its_regions_and_probabilities(tmp_path: Path) -> None:
    from highdicom.sr import srread
    from pydicom.sr.codedict import codes

    path = tmp_path / "report.dcm"
    path.write_bytes(report(positive()).part10)
    content = srread(path).content
    (region,) = content.get_planar_roi_measurement_groups()
    assert region.finding_type == codes.SCT.Pneumothorax
    assert region.roi.value[2].tolist() == [700.5, 900.25]
    assert [one.value for one in region.get_measurements(name=codes.DCM.Probability)] == [0.8123]
    assert len(content.get_image_measurement_groups()) == 14


def test_only_the_first_report_pays_for_highdicom() -> None:
    probe = (
        "import sys, firstread.integration.dicom.report as r; assert 'highdicom' not in sys.modules; "
        "r.warm(); assert 'highdicom' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
