"""Which images may be analysed, told from headers as real devices write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    XRayRadiationDoseSRStorage,
)

from firstread.models.eligibility import RULES, is_image_for_us, judge
from firstread.models.findings import ReasonCode
from firstread.models.radiograph import read_header
from tests.models.dicom_files import data_set, film, write

CR = ComputedRadiographyImageStorage
SC = SecondaryCaptureImageStorage

CHEST_SAID = """
    Rx tórax PA | RX TORACE | Radiographie du thorax de face | Radio pulmonaire | Poitrine | Thorax ap |
    Röntgen-Thorax | Herz/Lunge | X-thorax | Thoraxfoto | Lungor | Hjärta och lungor | Hjerte/lunger | Cor
    et pulm | RTG klatki piersiowej | KLP | Klatka piersiowa PA | RTG hrudníku | Snímek plic | Srce i pluća
    | Mellkas | Tüdő | Akciğer grafisi | Göğüs | Keuhkot | Θώρακος | Рентгенография ОГК | Грудная клетка |
    胸部正面 | 胸片 | 흉부 후전 | ทรวงอก | צילום חזה | الصدر | Tórax, frente | Torax | Chest2 | CHEST_PA
"""

OTHER_PARTS_SAID = """
    HAND | Hand links ap | Knie rechts | Genou gauche face | Rodilla | Ginocchio dx | Kolano | LWS ap | BWS
    | Thoracic spine AP | T-Spine | Columna torácica | Rachis dorsal | Colonna toracica | Brustwirbelsäule |
    Kręgosłup piersiowy | 胸椎 | Ribs left | Rippen | Hemithorax knöchern | Gril costal | Costillas | Żebra |
    Sternum | Clavicle | Abdomen übersicht | Abdomen sans préparation | ABD | KUB | Pelvis AP |
    Beckenübersicht | Schädel | Skull | 腹部 | 骨盤 | Panoramic | EXTREMITY | LSPINE | UPPERLIMB | Bone age |
    Scoliosis | Fuß | Pied droit | Schulter | Épaule | Hombro | Shoulder
"""


def header(**tags: Any) -> Dataset:
    """A CR header of 2000 x 2000 pixels that says nothing else; ``tags`` by keyword."""
    made = Dataset()
    made.SOPClassUID, made.Modality, made.Rows, made.Columns = CR, "CR", 2000, 2000
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


def coded(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def code(**tags: Any) -> ReasonCode | None:
    reason = judge(header(**tags))
    return reason.code if reason else None


def test_a_film_with_empty_tags_is_left_to_the_gate() -> None:
    assert judge(Dataset()) is None
    assert judge(header()) is None
    assert code(BodyPartExamined="", ViewPosition="", SeriesDescription="", PatientAge="", StudyDescription="") is None


@pytest.mark.parametrize(
    "tags",
    [
        {"BodyPartExamined": "CHEST", "ViewPosition": "PA"},
        {"BodyPartExamined": "THORAX", "ViewPosition": "AP", "PatientOrientation": ["L", "F"]},
        {"BodyPartExamined": "LUNG"},
        {"BodyPartExamined": "CHESTABDOMEN"},
        {"SeriesDescription": "Thorax p.a. stehend", "StudyDescription": "Röntgen Thorax in 2 Ebenen"},
        {"SeriesDescription": "W Chest PA", "ProtocolName": "CHEST"},
        {"AcquisitionDeviceProcessingDescription": "CHEST,FRN P->A"},
        {"StudyDescription": "Chest PA and lateral", "SeriesDescription": "PA"},
        {"StudyDescription": "XR CHEST 2 VIEWS", "ViewPosition": "PA"},
        {"BodyPartExamined": "ABDOMEN", "SeriesDescription": "Thorax AP im Bett"},
        {"StudyDescription": "Polytrauma: Thorax, Becken, HWS"},
        {"AnatomicRegionSequence": [coded("51185008", "Brustkorb")]},
        {"AnatomicRegionSequence": [coded("T-D3000", "", "SRT")], "BodyPartExamined": "DEFAULT"},
        {"BodyPartExamined": "UNKNOWN", "ViewPosition": "AP"},
        {"BodyPartExamined": "CHEST", "ViewCodeSequence": [coded("272479007", "postero-anterior")]},
    ],
)
def test_films_of_a_chest_are_let_through(tags: dict[str, Any]) -> None:
    assert code(**tags) is None


@pytest.mark.parametrize(
    "said",
    [word.strip() for word in CHEST_SAID.split("|")],
)
def test_the_chest_is_known_in_many_languages(said: str) -> None:
    assert code(BodyPartExamined="HIP") is ReasonCode.NOT_A_CHEST
    assert code(BodyPartExamined="HIP", SeriesDescription=said) is None


@pytest.mark.parametrize(
    "said",
    [word.strip() for word in OTHER_PARTS_SAID.split("|")],
)
def test_other_parts_of_the_body_are_refused_in_many_languages(said: str) -> None:
    assert code(SeriesDescription=said) is ReasonCode.NOT_A_CHEST
    assert code(StudyDescription=said) is ReasonCode.NOT_A_CHEST


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "ProtocolName", "AcquisitionDeviceProcessingDescription"])
def test_the_reason_says_which_attribute_told_it(keyword: str) -> None:
    reason = judge(header(**{keyword: "HIP"}))
    assert reason is not None
    assert reason.text == f'not a chest: {pydicom.datadict.dictionary_description(keyword)} says "hip"'


@pytest.mark.parametrize("region", [coded("29836001", "Hüfte"), coded("T-D2500", "", "SRT"), coded("x", "Knee", "99L")])
def test_anatomic_regions_are_known_by_code_and_by_meaning(region: Dataset) -> None:
    assert code(AnatomicRegionSequence=[region]) is ReasonCode.NOT_A_CHEST


def test_what_is_said_of_the_image_comes_before_what_is_said_of_the_study() -> None:
    assert code(StudyDescription="Pelvis", SeriesDescription="Chest AP") is None
    assert code(StudyDescription="Chest", SeriesDescription="Hand") is ReasonCode.NOT_A_CHEST


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "LL"},
        {"ViewPosition": "RL"},
        {"ViewPosition": "LAT"},
        {"ViewPosition": "LATERAL"},
        {"SeriesDescription": "Chest Lat"},
        {"SeriesDescription": "Thorax seitlich"},
        {"SeriesDescription": "Thorax seitl."},
        {"SeriesDescription": "Thorax profil"},
        {"SeriesDescription": "Tórax perfil"},
        {"SeriesDescription": "Torace LL"},
        {"SeriesDescription": "Torace latero-laterale"},
        {"SeriesDescription": "Klatka piersiowa boczne"},
        {"SeriesDescription": "Thorax dwars"},
        {"SeriesDescription": "胸部側面"},
        {"SeriesDescription": "흉부 측면"},
        {"ProtocolName": "W034 Chest lateral"},
        {"AcquisitionDeviceProcessingDescription": "CHEST,LAT"},
        {"PatientOrientation": ["A", "F"]},
        {"PatientOrientation": ["P", "F"]},
        {"ViewCodeSequence": [coded("399067008", "seitlich")]},
        {"ViewCodeSequence": [coded("R-10236", "", "SRT")]},
        {"ViewCodeSequence": [coded("L1", "left lateral", "99L")]},
    ],
)
def test_lateral_views_are_refused_whoever_says_so(tags: dict[str, Any]) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is ReasonCode.LATERAL_VIEW


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "PA", "SeriesDescription": "CHEST PA/LAT"},
        {"ViewPosition": "PA", "PatientOrientation": ["A", "F"]},
        {"SeriesDescription": "Thorax pa + seitl."},
        {"StudyDescription": "Chest lateral"},
        {"SeriesDescription": "Bilateral effusions?"},
        {"SeriesDescription": "Torax decúbito supino"},
        {"SeriesDescription": "Thorax couché décubitus"},
    ],
)
def test_contradictions_and_lookalikes_of_lateral_are_left_to_the_gate(tags: dict[str, Any]) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is None


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "RAO"},
        {"ViewPosition": "LLD"},
        {"ViewPosition": "AP", "SeriesDescription": "Chest left decubitus"},
        {"SeriesDescription": "Lateral decubitus"},
        {"SeriesDescription": "Chest apical lordotic"},
        {"SeriesDescription": "Thorax schräg"},
        {"ViewCodeSequence": [coded("399135007", "left anterior oblique")]},
        {"SeriesDescription": "Chest PA bone suppressed"},
        {"SeriesDescription": "Dual energy soft"},
    ],
)
def test_views_and_films_that_the_model_never_saw_are_refused(tags: dict[str, Any]) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is ReasonCode.OUTSIDE_EXPERIENCE


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"SOPClassUID": CTImageStorage, "Modality": "CT"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": MRImageStorage, "Modality": "MR"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": UltrasoundImageStorage}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "CT", "BodyPartExamined": "CHEST"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "OT"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "DOC"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "OT", "StudyDescription": "Chest"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "CR", "SeriesDescription": "Dose Report"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "DX", "SeriesDescription": "AI results chest"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": SC, "Modality": "", "ConversionType": "SD"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SeriesDescription": "TG18-QC test pattern"}, ReasonCode.NOT_A_RADIOGRAPH),
        ({"SOPClassUID": DigitalMammographyXRayImageStorageForPresentation}, ReasonCode.NOT_A_CHEST),
        ({"Modality": "MG"}, ReasonCode.NOT_A_CHEST),
        ({"SOPClassUID": SC, "Modality": "CR", "ConversionType": "WSD", "ViewPosition": "PA"}, None),
        ({"SOPClassUID": SC, "Modality": "DX"}, None),
        ({"SOPClassUID": SC, "Modality": "OT", "BodyPartExamined": "CHEST"}, None),
        ({"SOPClassUID": SC, "Modality": "OT", "SeriesDescription": "digitized film"}, None),
        ({"SOPClassUID": SC, "Modality": ""}, None),
        ({"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"}, None),
        ({"Modality": "RF"}, None),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, ReasonCode.FOR_PROCESSING),
        ({"PresentationIntentType": "FOR PROCESSING"}, ReasonCode.FOR_PROCESSING),
        ({"NumberOfFrames": 12}, ReasonCode.SEVERAL_FRAMES),
        ({"NumberOfFrames": 1}, None),
        ({"Rows": 100}, ReasonCode.TOO_SMALL),
    ],
)
def test_classes_modalities_and_sizes_are_judged(tags: dict[str, Any], expected: ReasonCode | None) -> None:
    assert code(**tags) is expected


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientSpeciesDescription": "Canis familiaris"},
        {"PatientSpeciesCodeSequence": [coded("448771007", "Canis lupus")]},
        {"PatientBreedDescription": "Dachshund"},
        {"PatientSexNeutered": "ALTERED"},
        {"ResponsiblePersonRole": "OWNER"},
        {"InstitutionName": "Tierklinik Süd"},
        {"InstitutionName": "Clínica veterinaria"},
        {"SeriesDescription": "FELINE THORAX"},
        {"AcquisitionDeviceProcessingDescription": "CANINE LATERAL THORAX"},
        {"StudyDescription": "Hund Thorax"},
    ],
)
def test_animals_are_refused(tags: dict[str, Any]) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is ReasonCode.ANIMAL


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientSpeciesDescription": "Homo sapiens"},
        {"PatientSpeciesCodeSequence": [coded("337915000", "homo sapiens")]},
        {"ResponsiblePerson": "Doe^Jane", "ResponsiblePersonRole": "MOTHER"},
        {"PatientBreedDescription": ""},
        {"InstitutionName": "Dr. Hund und Partner"},
        {"StudyDescription": "Chest CAT score"},
    ],
)
def test_people_are_not_taken_for_animals(tags: dict[str, Any]) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is None


@pytest.mark.parametrize(
    ("tags", "young"),
    [
        ({"PatientAge": "003Y"}, True),
        ({"PatientAge": "017Y"}, True),
        ({"PatientAge": "018Y"}, False),
        ({"PatientAge": "11M"}, True),
        ({"PatientAge": "062"}, False),
        ({"PatientAge": "000Y"}, False),
        ({"PatientAge": "999Y"}, False),
        ({"PatientAge": "young"}, False),
        ({"PatientBirthDate": "20150601", "StudyDate": "20200601"}, True),
        ({"PatientBirthDate": "19500601", "StudyDate": "20200601"}, False),
        ({"PatientBirthDate": "20200601"}, False),
        ({"PatientBirthDate": "20200601", "StudyDate": "20100101"}, False),
        ({"PatientBirthDate": "18000101", "StudyDate": "20080504"}, False),
        ({"PatientBirthDate": "20150601", "StudyDate": "20200601", "PatientAge": "045Y"}, False),
        ({"PatientBirthDate": "19000101", "StudyDate": "20200601", "PatientAge": "004Y"}, False),
        ({"PatientBirthDate": "18000101", "StudyDate": "20200601", "PatientAge": "004Y"}, True),
    ],
)
def test_age_is_told_from_what_is_plausible_and_unknown_is_not_young(tags: dict[str, Any], young: bool) -> None:
    assert code(BodyPartExamined="CHEST", **tags) is (ReasonCode.BELOW_MINIMUM_AGE if young else None)


def test_the_minimum_age_is_the_sites_to_say() -> None:
    child = header(PatientAge="010Y")
    assert judge(child, minimum_age_years=6) is None
    reason = judge(child, minimum_age_years=14)
    assert reason is not None
    assert reason.text == "below minimum age: 10 years, the minimum is 14 years"


def test_values_that_break_their_vr_are_unknown_and_raise_nothing(tmp_path: Path) -> None:
    made = data_set(film(), 12, PatientBirthDate="19700101", PatientAge="045Y", NumberOfFrames="1", ViewPosition="PA")
    content = write(tmp_path / "film.dcm", made).read_bytes()
    content = content.replace(b"19700101", b"d14a028c").replace(b"045Y", b"\xff\0\xfe\xfd")
    (tmp_path / "film.dcm").write_bytes(content)
    assert judge(read_header(tmp_path / "film.dcm")) is None


@pytest.mark.parametrize(
    "keyword", ["PatientAge", "NumberOfFrames", "ViewPosition", "Modality", "BodyPartExamined", "Rows"]
)
def test_a_value_of_the_wrong_kind_is_unknown(keyword: str) -> None:
    class Odd(Dataset):
        def get(self, key: Any, default: Any = None) -> Any:
            if key == keyword:
                raise ValueError("breaks its VR")
            return super().get(key, default)

    odd = Odd()
    odd.update(header(BodyPartExamined="CHEST", ViewPosition="PA"))
    assert judge(odd) is None


def test_every_test_file_of_pydicom_can_be_judged() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in sorted(folder.glob("[A-Z]*.dcm")):
        reason = judge(read_header(path))
        assert reason is None or reason.text


@pytest.mark.parametrize(
    "uid",
    [
        CR,
        SC,
        CTImageStorage,
        DigitalXRayImageStorageForPresentation,
        DigitalXRayImageStorageForProcessing,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    ],
)
def test_images_are_for_us(uid: str) -> None:
    assert is_image_for_us(uid)


@pytest.mark.parametrize(
    "uid",
    [
        GrayscaleSoftcopyPresentationStateStorage,
        KeyObjectSelectionDocumentStorage,
        BasicTextSRStorage,
        EncapsulatedPDFStorage,
        XRayRadiationDoseSRStorage,
        "1.2.3.4",
        "",
    ],
)
def test_what_is_no_image_is_left_alone(uid: str) -> None:
    assert not is_image_for_us(uid)


def test_every_rule_is_a_function_of_the_film_alone() -> None:
    assert len({rule.__name__ for rule in RULES}) == len(RULES) >= 10
