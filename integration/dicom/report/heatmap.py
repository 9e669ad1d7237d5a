"""A heat map as a colour Secondary Capture (PS3.3 A.8.1): the film in grey, the evidence over it, words burned in.

Every viewer shows a Secondary Capture; not every viewer shows an SR. So the picture says by itself what it is: the
finding, its probability and that it is no diagnosis. No patient text is in the pixels.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from firstread.integration.dicom.report import wording
from firstread.integration.dicom.report.instance import (
    Encoded,
    ReportSettings,
    ResultError,
    apply_common_modules,
    in_zone_of,
    part10,
)
from firstread.integration.dicom.report.source import Source, code_item, read_source
from firstread.integration.dicom.values import is_uid
from firstread.models.findings import FINDING_BY_LABEL, Code
from firstread.models.prediction import Assessment, Box, FindingResult

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LONGEST_SIDE = 1024
"""Pixels: enough for a reader to see where, and 3 MB instead of 22 at film size."""

WARNING = "AI - NOT FOR DIAGNOSIS"

_BAND = 0.05
_SMALLEST_BAND = 18
_LEGIBLE = 16
_SMALLEST_FONT = 8
_STRONGEST = 0.55
"""Opacity of the overlay where the evidence is strongest: the film stays readable under it."""

_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

Grey = npt.NDArray[np.uint8]


def build_heat_map(
    assessment: Assessment,
    finding_label: str,
    source: Path | Dataset,
    preview: Grey,
    saliency: npt.NDArray[np.float32],
    box: Box | None,
    identity: tuple[str, str],
    settings: ReportSettings,
    content_datetime: datetime,
) -> Encoded:
    """The heat map of one finding. The same arguments give the same bytes.

    ``source``: header of the film it was seen in. ``preview``: uint8 [h, w], the film upright and ready for display,
    bone bright; longer sides than 1024 are shrunk. ``saliency``: float32 [a, b] in [0, 1], over the same field.
    ``box``: in pixels of ``preview``. ``identity``: SOP Instance UID and Series Instance UID.
    ResultError when preview or saliency is no picture, or the finding was not assessed.
    """
    finding = _finding(assessment, finding_label)
    _check(preview, saliency)
    read = read_source(source)
    height, width = preview.shape
    band = max(_SMALLEST_BAND, round(_BAND * max(width, height)))
    shrink = min(1.0, LONGEST_SIDE / max(width, height), (LONGEST_SIDE - 2 * band) / height)
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    film = Image.fromarray(preview)
    if size != film.size:
        film = film.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    picture = _overlaid(film, saliency)
    if box is not None:
        _frame(picture, Box(box.left * shrink, box.top * shrink, box.right * shrink, box.bottom * shrink))
    picture = _between_bands(picture, finding, band)
    sop_instance_uid, series_instance_uid = identity
    instance = _instance(assessment, read, settings, content_datetime)
    instance.SOPInstanceUID = sop_instance_uid
    instance.SeriesInstanceUID = series_instance_uid
    name = _name(finding)
    instance.SeriesDescription = settings.heatmap_series_description[:64]
    instance.ImageComments = f"{name} {wording.number(finding.probability or 0, finding.threshold)}. {WARNING}"
    instance.DerivationDescription = (
        f"Class activation map for {name} over the film shrunk to {size[0]} x {size[1]} pixels. {WARNING}"
    )
    _add_references(instance, read)
    _add_spacing(instance, read, size)
    _add_pixels(instance, picture)
    return Encoded(SECONDARY_CAPTURE, sop_instance_uid, series_instance_uid, part10(instance), read.notes)


def _finding(assessment: Assessment, label: str) -> FindingResult:
    for finding in assessment.findings:
        if finding.label == label:
            if not wording.is_assessed(finding):
                raise ResultError(f"{label} was not assessed: choose a finding with a probability for the heat map")
            return finding
    raise ResultError(f"the assessment has no finding {label!r}: choose one of its findings for the heat map")


def _check(preview: Grey, saliency: npt.NDArray[np.float32]) -> None:
    if preview.dtype != np.uint8 or preview.ndim != 2 or 0 in preview.shape:
        raise ResultError(f"the preview must be uint8 [h, w], it is {preview.dtype} {preview.shape}")
    if saliency.ndim != 2 or 0 in saliency.shape:
        raise ResultError(f"the saliency must be float32 [a, b], it is {saliency.dtype} {saliency.shape}")


def _name(finding: FindingResult) -> str:
    known = FINDING_BY_LABEL.get(finding.label)
    return known.code.meaning if known else wording.clean(finding.label)


@functools.cache
def _colours() -> npt.NDArray[np.uint8]:
    """256 x RGB from blue over yellow to red: hue and brightness both rise, so it reads without colour vision too."""
    stops = np.array([0, 96, 160, 208, 255])
    shades = np.array([(0, 0, 128), (0, 160, 220), (250, 220, 40), (250, 120, 0), (220, 0, 0)])
    return np.stack([np.interp(np.arange(256), stops, shades[:, c]) for c in range(3)], axis=1).astype(np.uint8)


def _overlaid(film: Image.Image, saliency: npt.NDArray[np.float32]) -> Image.Image:
    """The film in RGB under the saliency: clear where there is no evidence, so that the film shows unchanged there."""
    levels = np.nan_to_num(saliency, nan=0.0, posinf=1.0, neginf=0.0)
    np.clip(levels, 0.0, 1.0, out=levels)
    np.multiply(levels, 255, out=levels)
    smooth = Image.fromarray(levels.astype(np.uint8)).resize(film.size, Image.Resampling.BILINEAR)
    opacity = np.interp(np.arange(256), [0, 64, 160, 255], [0, 0, 0.8, 1.0]) * _STRONGEST * 255
    mask = smooth.point(opacity.astype(np.uint8).tolist())
    smooth.putpalette(_colours().tobytes())  # Pillow looks colours up much faster than numpy
    picture = film.convert("RGB")
    picture.paste(smooth.convert("RGB"), (0, 0), mask)
    return picture


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _frame(picture: Image.Image, box: Box) -> None:
    """A thin white rectangle around the evidence, as far as it lies on the film."""
    edges = (box.left, box.top, box.right, box.bottom)
    if not all(np.isfinite(edge) for edge in edges):
        return
    left, right = (min(max(edge, 0), picture.width - 1) for edge in (box.left, box.right))
    top, bottom = (min(max(edge, 0), picture.height - 1) for edge in (box.top, box.bottom))
    if left < right and top < bottom:
        stroke = max(1, max(picture.size) // 400)
        ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(255, 255, 255), width=stroke)


def _between_bands(film: Image.Image, finding: FindingResult, band: int) -> Image.Image:
    """The film between two black bands: the finding and its probability above, the warning below.

    The words stand beside the film, never on it: they would hide an apex or the side marker.
    """
    picture = Image.new("RGB", (film.width, film.height + 2 * band))
    picture.paste(film, (0, band))
    draw = ImageDraw.Draw(picture)
    headline = f"{_name(finding)}  {wording.number(finding.probability or 0, finding.threshold)}"
    if finding.experimental:
        headline += "  experimental"
    longer = headline
    if finding.threshold is not None:
        place = "operating point" if finding.present else "below its operating point"
        longer += f"   {place} {wording.number(finding.threshold)}"
    _write(draw, (longer, headline), film.width, band, 0, (255, 255, 255))
    _write(draw, (WARNING,), film.width, band, band + film.height, (255, 210, 60))
    return picture


def _write(
    draw: ImageDraw.ImageDraw,
    versions: tuple[str, ...],
    width: int,
    band: int,
    upper: int,
    colour: tuple[int, int, int],
) -> None:
    """The first version that fits on one line at a legible size, else the last at the size that fits."""
    margin = band // 3
    largest = round(band * 0.66)
    for text in versions:
        needed = draw.textlength(text, font=_font(largest))
        size = largest if needed <= width - 2 * margin else int(largest * (width - 2 * margin) / needed)
        if size >= _LEGIBLE or text is versions[-1]:
            font = _font(max(_SMALLEST_FONT, size))
            draw.text((margin, upper + band / 2), text, font=font, fill=colour, anchor="lm")
            return


def _instance(assessment: Assessment, source: Source, settings: ReportSettings, content_datetime: datetime) -> Dataset:
    """The modules of a Secondary Capture Image besides its pixels (PS3.3 Table A.8-1)."""
    instance = Dataset()
    apply_common_modules(
        instance,
        source,
        settings,
        study_instance_uid=assessment.study_instance_uid,
        content_datetime=content_datetime,
    )
    instance.SOPClassUID = SECONDARY_CAPTURE
    instance.Modality = "OT"
    instance.ConversionType = "WSD"
    moment = in_zone_of(source, content_datetime)
    instance.DateOfSecondaryCapture = moment.strftime("%Y%m%d")
    instance.TimeOfSecondaryCapture = moment.strftime("%H%M%S")
    instance.SeriesNumber = settings.heatmap_series_number
    instance.InstanceNumber = max(1, assessment.revision)
    instance.ImageType = ["DERIVED", "SECONDARY", "HEATMAP"]
    instance.PatientOrientation = None
    instance.BodyPartExamined = "CHEST"
    instance.BurnedInAnnotation = "YES" if source.burned_in_annotation == "YES" else "NO"
    instance.RecognizableVisualFeatures = "NO"
    instance.LossyImageCompression = "00"
    return instance


def _add_references(instance: Dataset, source: Source) -> None:
    if is_uid(source.sop_instance_uid) and is_uid(source.sop_class_uid):
        reference = Dataset()
        reference.ReferencedSOPClassUID = source.sop_class_uid
        reference.ReferencedSOPInstanceUID = source.sop_instance_uid
        reference.PurposeOfReferenceCodeSequence = [code_item(_SOURCE_IMAGE)]
        instance.SourceImageSequence = [reference]


def _add_spacing(instance: Dataset, source: Source, size: tuple[int, int]) -> None:
    """Spacing of the shrunk film (PS3.3 10.7): a distance measured on the heat map is that measured on the film."""
    if source.spacing_mm is None or not source.rows or not source.columns:
        return
    width, height = size
    down, across = source.spacing_mm
    rows, columns = source.rows, source.columns
    turned = abs(width / height - rows / columns) < abs(width / height - columns / rows)
    if turned:
        rows, columns, down, across = columns, rows, across, down
    instance.PixelSpacing = [f"{down * rows / height:.6g}", f"{across * columns / width:.6g}"]
    calibration, description = source.spacing_calibration
    if calibration in ("GEOMETRY", "FIDUCIAL"):
        instance.PixelSpacingCalibrationType = calibration
        instance.PixelSpacingCalibrationDescription = description or "as in the source image"


def _add_pixels(instance: Dataset, picture: Image.Image) -> None:
    instance.SamplesPerPixel = 3
    instance.PhotometricInterpretation = "RGB"
    instance.PlanarConfiguration = 0
    instance.Rows, instance.Columns = picture.height, picture.width
    instance.BitsAllocated = instance.BitsStored = 8
    instance.HighBit = 7
    instance.PixelRepresentation = 0
    pixels = picture.tobytes()
    instance.PixelData = pixels + b"\0" * (len(pixels) % 2)
    instance["PixelData"].VR = "OB"
