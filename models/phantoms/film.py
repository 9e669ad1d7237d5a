"""Phantoms as whole DICOM objects: CR, DX and films wrapped as Secondary Capture (PS3.3 A.2, A.26, A.8)."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEGBaseline8Bit

from firstread.models.phantoms.drawing import draw
from firstread.models.phantoms.encoding import Pixels, put_pixels
from firstread.models.phantoms.habits import DX, HABITS, SC, Habit
from firstread.models.phantoms.spec import Image, Phantom, PhantomError, PhantomSpec

PHANTOM_COMMENT = "Synthetic phantom, not a person"
_SCREEN_MM = 410.0

BITS = (8, 10, 12, 14, 16)
POLARITIES = ("MONOCHROME1", "MONOCHROME2")

_VIEW_CODES = {
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
    "LATERAL": ("399173006", "left lateral"),
    "HAND": ("272479007", "postero-anterior"),
}
_VIEW_POSITIONS = {"PA": "PA", "AP": "AP", "LATERAL": "LL", "HAND": "PA"}
_ORIENTATIONS = {"PA": ["L", "F"], "AP": ["L", "F"], "LATERAL": ["A", "F"], "HAND": ["L", "F"]}
_REGIONS = {"HAND": ("85562004", "Hand")}
_CHEST = ("816094009", "Chest")


@dataclass(frozen=True)
class PhantomPatient:
    """Whose film a phantom claims to be. ``name``: DICOM PN with its component groups."""

    patient_id: str = "PH0001"
    name: str = "PHANTOM^ANNA"
    birth_date: date | None = None
    """From the spec's age when None."""


def derived_uid(*parts: object) -> str:
    """A UID under 2.25 (PS3.5 B.2) that is the same for the same parts."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _stored_values(image: Image, habit: Habit, bits: int) -> tuple[NDArray[np.float64], dict[str, str], list[Dataset]]:
    """Greys to stored values (bone high), and the attributes that lead back from values to greys."""
    top = 2**bits - 1
    slope, intercept = habit.rescale or (1.0, 0.0)
    if habit.greys == "full" or bits == 8:
        return image.astype(np.float64) * top, {}, []
    low, high = round(top * 0.08), round(top * 0.86)
    if habit.greys == "window":
        # PS3.3 C.11.2.1.2.1: LINEAR has its ends at center - 0.5 -/+ (width - 1) / 2
        first, last = low * slope + intercept, high * slope + intercept
        ends = {"WindowCenter": f"{(first + last) / 2 + 0.5:g}", "WindowWidth": f"{last - first + 1:g}"}
        return low + image.astype(np.float64) * (high - low), {**ends, "VOILUTFunction": "LINEAR"}, []
    entries = min(4096, high - low + 1)
    ramp = np.linspace(-1.0, 1.0, entries)
    curve = (np.tanh(1.3 * ramp) / np.tanh(1.3) + 1) / 2
    lut = Dataset()
    lut.LUTDescriptor = [entries, low, 16]
    lut.LUTExplanation = "NORMAL"
    lut.LUTData = (curve * 65535 + 0.5).astype("<u2").tobytes()
    lut["LUTData"].VR = "OW"
    lut["LUTDescriptor"].VR = "US"
    values = low + np.interp(image, curve, np.arange(entries))
    return values, {}, [lut]


def _collimated(shape: tuple[int, int], spec: PhantomSpec) -> NDArray[np.bool_]:
    rows, columns = shape
    left, top, right, bottom = spec.collimation
    covered = np.ones(shape, dtype=np.bool_)
    open_columns = slice(round(left * columns), columns - round(right * columns))
    covered[round(top * rows) : rows - round(bottom * rows), open_columns] = False
    return covered


def _put_image(dataset: Dataset, phantom: Phantom, habit: Habit, polarity: str, bits: int) -> Pixels:
    values, window, luts = _stored_values(phantom.image, habit, bits)
    top = 2**bits - 1
    stored = np.clip(np.rint(values), 0, top)
    if habit.padding and any(phantom.spec.collimation):
        padding = 0 if polarity == "MONOCHROME2" else top
        stored = np.where(_collimated(phantom.image.shape, phantom.spec), 0, np.clip(stored, 1, top - 1))
        dataset.PixelPaddingValue = padding
        dataset["PixelPaddingValue"].VR = "US"
    if polarity == "MONOCHROME1":
        stored = top - stored
        if "WindowCenter" in window:  # the window is of stored values: it turns round with them
            slope, intercept = habit.rescale or (1.0, 0.0)
            center = float(window["WindowCenter"]) - 0.5
            window["WindowCenter"] = f"{top * slope + 2 * intercept - center + 0.5:g}"
        for lut in luts:
            entries, first, depth = lut.LUTDescriptor
            lut.LUTDescriptor = [entries, top - (first + entries - 1), depth]
            lut["LUTDescriptor"].VR = "US"
            lut.LUTData = (65535 - np.frombuffer(lut.LUTData, "<u2")[::-1]).astype("<u2").tobytes()
            lut["LUTData"].VR = "OW"
    for keyword, value in window.items():
        setattr(dataset, keyword, value)
    if luts:
        dataset.VOILUTSequence = luts
    rows, columns = phantom.image.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = polarity
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    if habit.rescale:
        dataset.RescaleSlope, dataset.RescaleIntercept = (f"{value:g}" for value in habit.rescale)
        dataset.RescaleType = "US"
    if habit.lut_shape:
        dataset.PresentationLUTShape = "INVERSE" if polarity == "MONOCHROME1" else "IDENTITY"
    spacing = f"{_SCREEN_MM / max(rows, columns):.4f}"
    for keyword in habit.spacing:
        setattr(dataset, keyword, [spacing, spacing])
    return stored.astype(np.uint8) if bits == 8 else stored.astype(np.uint16)


def _put_view(dataset: Dataset, view: str, habit: Habit) -> None:
    words = habit.words(view)
    dataset.BodyPartExamined = words.body_part
    for keyword, text in (
        ("SeriesDescription", words.series),
        ("ProtocolName", words.protocol),
        ("StudyDescription", words.study),
    ):
        if text:
            setattr(dataset, keyword, text)
    if habit.sop_class_uid != DX and words.body_part != "CHEST":
        dataset.Laterality = "R" if view == "HAND" else ""
    if habit.view_position:
        dataset.ViewPosition = _VIEW_POSITIONS[view]
    elif habit.sop_class_uid != SC:
        dataset.ViewPosition = ""
    if habit.view_code:
        dataset.ViewCodeSequence = [_code(_VIEW_CODES[view][0], "SCT", _VIEW_CODES[view][1])]
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    if habit.region_code:
        region = _REGIONS.get(view, _CHEST)
        dataset.AnatomicRegionSequence = [_code(region[0], "SCT", region[1])]
    dataset.PatientOrientation = _ORIENTATIONS[view] if habit.orientation else None


def _put_acquisition(dataset: Dataset, view: str, habit: Habit, when: datetime) -> None:
    """What CR and DX say of the exposure; DX wants more (PS3.3 C.8.11)."""
    dataset.KVP = "55" if view == "HAND" else ("90" if view == "AP" else "125")
    dataset.Exposure = "2"
    dataset.AcquisitionDate, dataset.AcquisitionTime = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    if habit.sop_class_uid != DX:
        dataset.PlateType = "IP"
        return
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if dataset.PhotometricInterpretation == "MONOCHROME1" else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"
    dataset.BurnedInAnnotation = "NO"
    dataset.DetectorType = "SCINTILLATOR"
    dataset.ImageLaterality = "R" if view == "HAND" else "U"
    dataset.AcquisitionContextSequence = []
    dataset.PositionerType = ""
    dataset.AnatomicRegionSequence = dataset.get("AnatomicRegionSequence") or []


def to_dicom(
    source: Phantom | PhantomSpec,
    *,
    maker: str = "alder",
    polarity: str = "",
    transfer_syntax_uid: str = "",
    bits: int = 0,
    patient: PhantomPatient | None = None,
    study_instance_uid: str = "",
    series_instance_uid: str = "",
    sop_instance_uid: str = "",
    accession_number: str = "",
    study_datetime: datetime = datetime(2024, 1, 1, 9, 0),
    instance_number: int = 1,
) -> Dataset:
    """A phantom as a CR, DX or SC object with file meta information, ready for ``save_as`` or C-STORE.

    What is left empty follows the maker's habit (polarity, bits, transfer syntax) or the spec (patient, UIDs under
    2.25, the same for the same spec and maker). ``maker``: a key of HABITS. JPEG baseline brings its 8 bits along.
    Raises PhantomError for a maker, polarity, bit depth or transfer syntax that cannot be had.
    """
    phantom = draw(source) if isinstance(source, PhantomSpec) else source
    spec = phantom.spec
    habit = HABITS.get(maker)
    if habit is None:
        raise PhantomError(f"unknown maker {maker!r}: choose among {', '.join(HABITS)}")
    polarity, syntax = polarity or habit.polarity, transfer_syntax_uid or str(habit.transfer_syntax_uid)
    bits = bits or (8 if syntax == JPEGBaseline8Bit else max(habit.bits, 10 if transfer_syntax_uid else 8))
    if polarity not in POLARITIES or bits not in BITS:
        raise PhantomError(f"polarity is one of {POLARITIES} and bits one of {BITS}, not {polarity!r} and {bits}")
    patient = patient or PhantomPatient()
    born = patient.birth_date or (study_datetime - timedelta(days=365.25 * spec.age + 40)).date()
    years = study_datetime.year - born.year - ((study_datetime.month, study_datetime.day) < (born.month, born.day))
    study = study_instance_uid or derived_uid("study", spec, patient, accession_number)
    series = series_instance_uid or derived_uid("series", spec, study, maker)
    instance = sop_instance_uid or derived_uid("instance", spec, study, series, polarity, syntax, bits, instance_number)

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = habit.sop_class_uid
    dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.SpecificCharacterSet = list(habit.character_set) if len(habit.character_set) > 1 else habit.character_set[0]
    dataset.SOPClassUID, dataset.SOPInstanceUID = habit.sop_class_uid, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    for keyword in ("StudyDate", "SeriesDate", "ContentDate"):
        setattr(dataset, keyword, f"{study_datetime:%Y%m%d}")
    for keyword in ("StudyTime", "SeriesTime", "ContentTime"):
        setattr(dataset, keyword, f"{study_datetime:%H%M%S}")
    dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = accession_number, "1", ""
    dataset.SeriesNumber, dataset.InstanceNumber = 1, instance_number
    is_dx = habit.sop_class_uid == DX
    dataset.Modality = "DX" if is_dx else "CR"
    dataset.ImageType = ["DERIVED", "PRIMARY", ""] if is_dx else ["DERIVED", "PRIMARY"]
    dataset.Manufacturer, dataset.ManufacturerModelName = habit.manufacturer, habit.model
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "PHANTOM", "1"
    dataset.InstitutionName, dataset.StationName = habit.institution, maker.upper()
    dataset.PatientID, dataset.PatientName = patient.patient_id, patient.name
    dataset.PatientBirthDate, dataset.PatientSex = f"{born:%Y%m%d}", spec.sex
    dataset.PatientAge, dataset.PatientComments = f"{years:03d}Y", PHANTOM_COMMENT
    _put_view(dataset, spec.view, habit)
    pixels = _put_image(dataset, phantom, habit, polarity, bits)
    if habit.sop_class_uid == SC:
        dataset.ConversionType = "WSD"
    else:
        _put_acquisition(dataset, spec.view, habit, study_datetime)
    put_pixels(dataset, pixels, syntax)
    return dataset
