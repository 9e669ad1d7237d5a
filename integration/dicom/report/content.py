"""The content tree of a report: TID 1500 Measurement Report (PS3.16), built of highdicom's content items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DateContentItem,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TimeContentItem,
    TrackingIdentifier,
)

from firstread.integration.dicom import identity
from firstread.integration.dicom.report import concepts, wording
from firstread.integration.dicom.report.instance import ReportSettings
from firstread.integration.dicom.report.source import Source
from firstread.models.findings import FINDING_BY_LABEL, PRIVATE_SCHEME, Code, reason_concept
from firstread.models.prediction import Assessment, Box, FindingResult, ImageOutcome, ModelIdentity

CONTAINS = RelationshipTypeValues.CONTAINS
HAS_ACQ_CONTEXT = RelationshipTypeValues.HAS_ACQ_CONTEXT
HAS_CONCEPT_MOD = RelationshipTypeValues.HAS_CONCEPT_MOD
HAS_OBS_CONTEXT = RelationshipTypeValues.HAS_OBS_CONTEXT
HAS_PROPERTIES = RelationshipTypeValues.HAS_PROPERTIES
INFERRED_FROM = RelationshipTypeValues.INFERRED_FROM


def concept(code: Code) -> CodedConcept:
    """Our code as highdicom's."""
    return CodedConcept(code.value, code.scheme, code.meaning)


@dataclass(frozen=True)
class Film:
    """An image of the study: its references, and its header where that could be read."""

    outcome: ImageOutcome
    source: Source | None = None


def document(
    assessment: Assessment,
    films: Mapping[str, Film],
    settings: ReportSettings,
    procedure: Code,
    notes: list[str],
) -> ContainerContentItem:
    """The root container with all its rows. ``films``: by SOP Instance UID; ``notes``: takes what was left out."""
    root = hollow_root()
    content = ContentSequence([*frame(settings, procedure), *images_read(assessment, films)])
    if assessment.analysed:
        container = measurements_container()
        container.ContentSequence = ContentSequence()
        for group in groups(assessment, films, settings, notes):
            container.ContentSequence.extend(built(group))
        content.append(container)
    content.append(overall(assessment, films))
    root.ContentSequence = content
    return root


def frame(settings: ReportSettings, procedure: Code) -> list[ContentItem]:
    """The rows that do not depend on the study: language, observer, procedure."""
    return [
        *LanguageOfContentItemAndDescendants(CodedConcept(settings.language, "RFC5646", "English")),
        *_observer(settings),
        CodeContentItem(concept(concepts.PROCEDURE_REPORTED), concept(procedure), HAS_CONCEPT_MOD),
    ]


def images_read(assessment: Assessment, films: Mapping[str, Film]) -> list[ContentItem]:
    """The library of the images that were read, where there are any."""
    read = [film for film in films.values() if film.outcome.reason is None]
    return [_image_library(read)] if assessment.analysed and read else []


def measurements_container() -> ContainerContentItem:
    """The container of the measurement groups, empty."""
    return _container(concepts.IMAGING_MEASUREMENTS)


def hollow_root() -> ContainerContentItem:
    """The root without its rows.

    highdicom's SR constructor copies the whole tree twice and searches it twice, which is more than half of the time a
    report takes: it gets the root alone, and the rows are laid in afterwards.
    """
    root = _container(concepts.IMAGING_MEASUREMENT_REPORT, None, template_id="1500")
    root.ContentSequence = ContentSequence()
    return root


def _container(
    name: Code, relationship: RelationshipTypeValues | None = CONTAINS, template_id: str | None = None
) -> ContainerContentItem:
    """A container of separate items: CONTINUOUS, highdicom's default, would make a viewer join them as prose."""
    return ContainerContentItem(concept(name), False, template_id, relationship)


def _observer(settings: ReportSettings) -> Iterator[ContentItem]:
    """TID 1001, 1002 and 1004: the device that observed. The version extends TID 1004, which has no row for it."""
    yield from ObserverContext(
        observer_type=concept(concepts.DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=settings.device_uid,
            name=settings.device_name,
            manufacturer_name=settings.manufacturer,
            model_name=settings.model_name,
        ),
    )
    yield TextContentItem(concept(concepts.SOFTWARE_VERSION), settings.software_versions, HAS_OBS_CONTEXT)


def _image_library(films: Iterable[Film]) -> ContainerContentItem:
    """TID 1600: the images that were read, one group, each with what its header says (TID 1602, 1603).

    highdicom's own library raises on films without ImagerPixelSpacing or PatientOrientation; ours says what is there.
    """
    library = _container(concepts.IMAGE_LIBRARY)
    group = _container(concepts.IMAGE_LIBRARY_GROUP)
    entries = ContentSequence()
    for film in films:
        entry = _image(film.outcome, concepts.SOURCE, CONTAINS)
        if film.source is not None:
            descriptors = list(_descriptors(film.source))
            if descriptors:
                entry.ContentSequence = ContentSequence(descriptors)
        entries.append(entry)
    group.ContentSequence = entries
    library.ContentSequence = ContentSequence([group])
    return library


def _descriptors(source: Source) -> Iterator[ContentItem]:
    if source.modality in concepts.MODALITIES:
        modality = concepts.MODALITIES[source.modality]
        yield CodeContentItem(concept(concepts.MODALITY), concept(modality), HAS_ACQ_CONTEXT)
    if source.acquisition_date:
        yield DateContentItem(concept(concepts.ACQUISITION_DATE), source.acquisition_date, HAS_ACQ_CONTEXT)
    if source.acquisition_time:
        yield TimeContentItem(concept(concepts.ACQUISITION_TIME), source.acquisition_time, HAS_ACQ_CONTEXT)
    if source.view_position in concepts.VIEWS:
        view = concepts.VIEWS[source.view_position]
        yield CodeContentItem(concept(concepts.IMAGE_VIEW), concept(view), HAS_ACQ_CONTEXT)
    if len(source.patient_orientation) == 2:
        names = (concepts.PATIENT_ORIENTATION_ROW, concepts.PATIENT_ORIENTATION_COLUMN)
        for name, direction in zip(names, source.patient_orientation, strict=True):
            yield TextContentItem(concept(name), direction, HAS_ACQ_CONTEXT)
    if source.spacing_mm:
        names = (concepts.VERTICAL_PIXEL_SPACING, concepts.HORIZONTAL_PIXEL_SPACING)
        for name, spacing in zip(names, source.spacing_mm, strict=True):
            yield NumContentItem(
                concept(name), spacing, concept(concepts.MILLIMETER), relationship_type=HAS_ACQ_CONTEXT
            )


def _image(outcome: ImageOutcome, name: Code, relationship: RelationshipTypeValues) -> ImageContentItem:
    return ImageContentItem(
        name=concept(name),
        referenced_sop_class_uid=outcome.sop_class_uid,
        referenced_sop_instance_uid=outcome.sop_instance_uid,
        relationship_type=relationship,
    )


@dataclass(frozen=True)
class GroupShape:
    """What a measurement group of a finding has in common with those of other studies.

    ``image_classes``: SOP classes of the images it refers to, one where there is a ``region``.
    """

    code: Code
    assessed: bool
    present: bool
    threshold: float | None
    comments: tuple[str, ...]
    model: ModelIdentity | None
    device_name: str
    image_classes: tuple[str, ...]
    region: bool


@dataclass(frozen=True)
class Group:
    """A measurement group: its shape, and what is this study's own.

    ``number``: the probability as it is written. ``images``: SOP Instance UIDs. ``corners``: x, y of the region's five
    points in the film's pixels.
    """

    shape: GroupShape
    tracking_uid: str
    number: float
    images: tuple[str, ...]
    corners: tuple[float, ...] = ()


def groups(
    assessment: Assessment, films: Mapping[str, Film], settings: ReportSettings, notes: list[str]
) -> list[Group]:
    """One group for each finding, in reading order."""
    return [_group(finding, assessment, films, settings, notes) for finding in wording.in_reading_order(assessment)]


def _group(
    finding: FindingResult,
    assessment: Assessment,
    films: Mapping[str, Film],
    settings: ReportSettings,
    notes: list[str],
) -> Group:
    film = films.get(finding.sop_instance_uid or "")
    corners = _corners(finding, film, notes)
    chosen = [film] if film is not None and corners else _sources_of(finding, film, films)
    threshold = finding.threshold
    assessed = wording.is_assessed(finding)
    return Group(
        GroupShape(
            code=_finding_code(finding.label),
            assessed=assessed,
            present=assessed and wording.is_present(finding, assessment),
            threshold=threshold if threshold is not None and np.isfinite(threshold) else None,
            comments=tuple(wording.finding_comments(finding, assessment)),
            model=assessment.model,
            device_name=settings.device_name,
            image_classes=tuple(one.outcome.sop_class_uid for one in chosen),
            region=bool(corners),
        ),
        identity.tracking_uid(settings.device_uid, assessment.study_instance_uid, finding.label),
        _decimal(finding.probability, threshold) if assessed else 0.0,
        tuple(one.outcome.sop_instance_uid for one in chosen),
        corners,
    )


def built(group: Group) -> ContentSequence:
    """TID 1501 for one finding, TID 1410 where it was localised, as highdicom builds it."""
    shape = group.shape
    measurements = []
    evaluations = []
    if shape.assessed:
        unit = concept(concepts.NO_UNITS)
        measurements.append(Measurement(concept(concepts.PROBABILITY), group.number, unit))
        if shape.threshold is not None:
            measurements.append(Measurement(concept(concepts.OPERATING_POINT), _decimal(shape.threshold), unit))
        if shape.present:
            evaluations.append(QualitativeEvaluation(concept(concepts.PRESENCE), concept(concepts.PRESENT)))
    else:
        evaluations.append(QualitativeEvaluation(concept(concepts.ASSESSMENT), concept(concepts.NOT_ASSESSED)))
    common = {
        "tracking_identifier": TrackingIdentifier(
            uid=group.tracking_uid, identifier=f"{shape.device_name}: {shape.code.meaning}"
        ),
        "finding_type": concept(shape.code),
        "algorithm_id": _algorithm(shape.model),
        "measurements": measurements,
        "qualitative_evaluations": evaluations,
    }
    sources = list(zip(shape.image_classes, group.images, strict=True))
    if shape.region:
        region = _region(group.corners, *sources[0])
        made = PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **common)
    else:
        images = [SourceImageForMeasurementGroup(*source) for source in sources] or None
        made = MeasurementsAndQualitativeEvaluations(source_images=images, **common)
    made[0].ContinuityOfContent = "SEPARATE"
    for comment in shape.comments:
        made[0].ContentSequence.append(TextContentItem(concept(concepts.COMMENT), comment, CONTAINS))
    return made


def _sources_of(finding: FindingResult, film: Film | None, films: Mapping[str, Film]) -> list[Film]:
    """The image a probability comes from; all that were read where none is named; none where nothing was assessed."""
    if film is not None:
        return [film]
    if wording.is_assessed(finding):
        return [other for other in films.values() if other.outcome.reason is None]
    return []


def _corners(finding: FindingResult, film: Film | None, notes: list[str]) -> tuple[float, ...]:
    """A closed POLYLINE around the evidence in the film's own pixels, clipped to the film (PS3.3 C.18.6)."""
    if finding.box is None or film is None or not wording.is_assessed(finding):
        return ()
    source = film.source
    box = _clipped(finding.box, source.columns if source else None, source.rows if source else None)
    if box is None:
        notes.append(f"the region of {finding.label} lies outside the film: left out")
        return ()
    points = (
        (box.left, box.top),
        (box.right, box.top),
        (box.right, box.bottom),
        (box.left, box.bottom),
        (box.left, box.top),
    )
    corners = tuple(np.array(points, np.float32).flatten().tolist())
    try:
        _region(corners, film.outcome.sop_class_uid, film.outcome.sop_instance_uid)
    except (KeyError, ValueError):
        notes.append(f"the region of {finding.label} cannot be drawn on an object of this kind: left out")
        return ()
    return corners


def _region(corners: Sequence[float], sop_class_uid: str, sop_instance_uid: str) -> ImageRegion:
    points = np.array(corners, np.float32).reshape(-1, 2)
    return ImageRegion(GraphicTypeValues.POLYLINE, points, SourceImageForRegion(sop_class_uid, sop_instance_uid))


def _clipped(box: Box, columns: int | None, rows: int | None) -> Box | None:
    edges = (box.left, box.top, box.right, box.bottom)
    if not all(np.isfinite(edge) for edge in edges):
        return None
    left, top = max(0.0, box.left), max(0.0, box.top)
    right = min(float(columns), box.right) if columns else box.right
    bottom = min(float(rows), box.bottom) if rows else box.bottom
    return Box(left, top, right, bottom) if left < right and top < bottom else None


def _finding_code(label: str) -> Code:
    known = FINDING_BY_LABEL.get(label)
    return known.code if known else Code(wording.clean(label)[:16], PRIVATE_SCHEME, wording.clean(label)[:64])


def _decimal(value: float | None, beside: float | None = None) -> float:
    """Four decimals: more would be noise. But a number stays on its own side of the one ``beside`` it."""
    number = float(value or 0.0)
    rounded = round(number, 4)
    if beside is not None and (rounded >= beside) != (number >= beside):
        return round(number, 12)
    return rounded


def _algorithm(model: ModelIdentity | None) -> AlgorithmIdentification | None:
    """TID 4019; the whole hash stands once, in the overall evaluations."""
    if model is None:
        return None
    return AlgorithmIdentification(
        name=wording.clean(model.name) or "unnamed",
        version=f"{wording.clean(model.version) or 'unknown'} (weights {model.weights_sha256[:12] or 'unknown'})",
        family=concept(concepts.ARTIFICIAL_INTELLIGENCE),
    )


def overall(assessment: Assessment, films: Mapping[str, Film]) -> ContainerContentItem:
    """TID 1500 rows 12 to 14: what holds for the whole study."""
    container = _container(concepts.QUALITATIVE_EVALUATIONS)
    content = ContentSequence()

    def say(name: Code, text: str) -> None:
        content.append(TextContentItem(concept(name), text, CONTAINS))

    def state(name: Code, value: Code) -> CodeContentItem:
        item = CodeContentItem(concept(name), concept(value), CONTAINS)
        content.append(item)
        return item

    if assessment.reason is not None:
        state(concepts.NOT_ANALYSED, reason_concept(assessment.reason.code))
    say(concepts.SUMMARY, " ".join(wording.summary(assessment)))
    say(concepts.COMMENT, wording.DISCLAIMER)
    if assessment.analysed or assessment.priority > min(concepts.PRIORITIES):
        state(concepts.TRIAGE_PRIORITY, concepts.PRIORITIES[assessment.priority])
        reason = wording.priority_sentence(assessment)
        if reason:
            say(concepts.TRIAGE_REASON, reason)
    for note in wording.distinct(assessment.notes):
        say(concepts.COMMENT, note)
    for film in films.values():
        if film.outcome.reason is not None:
            item = state(concepts.NOT_ANALYSED, reason_concept(film.outcome.reason.code))
            item.ContentSequence = ContentSequence(_image_reason(film.outcome))
    if assessment.model is not None:
        model = assessment.model
        say(concepts.COMMENT, f"Model {model.name} {model.version}, weights SHA-256 {model.weights_sha256}.")
    if assessment.revision > 1:
        say(concepts.COMMENT, f"Revision {assessment.revision} of this result; it replaces the earlier ones.")
    container.ContentSequence = content
    return container


def _image_reason(outcome: ImageOutcome) -> Sequence[ContentItem]:
    """Which image the reason is about, and in words what was found."""
    items: list[ContentItem] = [_image(outcome, concepts.SOURCE, INFERRED_FROM)]
    detail = wording.sentence(outcome.reason.detail) if outcome.reason else ""
    if detail:
        items.append(TextContentItem(concept(concepts.COMMENT), detail, HAS_PROPERTIES))
    return items
