"""Searching what is held: matching as PS3.4 C.2.2.2 says, on study, series and instance level, page by page."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, asc, desc, distinct, func, or_, select

from firstread.agent.names import fuzzy_words, name_key
from firstread.agent.store.holding_tables import held_instance, held_series, held_study

MOST_AT_ONCE = 1000
"""Matches in one page."""


class Level(enum.IntEnum):
    """Query/retrieve levels of the study root (PS3.4 C.6.2)."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


class Kind(enum.Enum):
    """How a value is compared."""

    UID = "list of UIDs"
    TEXT = "single value or wildcard, upper and lower case differ"
    NAME = "person name: single value or wildcard, case and accents do not matter; fuzzy on request"
    DATE = "single date or range"
    TIME = "single time or range"
    NUMBER = "single value"
    COUNTED = "returned, not matched"


class BadQuery(ValueError):
    """A matching value that means nothing; the message says which and why."""


@dataclass(frozen=True)
class Attribute:
    """One attribute that is returned, and matched unless it is counted. ``keyword``: of PS3.6; inside a sequence
    ``Sequence.Attribute``."""

    keyword: str
    level: Level
    kind: Kind
    column: Any = None
    key: Any = None
    """The column that is compared, where it is another."""


_S, _E, _I = Level.STUDY, Level.SERIES, Level.INSTANCE
_ALL = (
    Attribute("StudyInstanceUID", _S, Kind.UID, held_study.c.study_instance_uid),
    Attribute("StudyDate", _S, Kind.DATE, held_study.c.study_date),
    Attribute("StudyTime", _S, Kind.TIME, held_study.c.study_time),
    Attribute("AccessionNumber", _S, Kind.TEXT, held_study.c.accession_number),
    Attribute("StudyID", _S, Kind.TEXT, held_study.c.study_id),
    Attribute("StudyDescription", _S, Kind.TEXT, held_study.c.study_description),
    Attribute(
        "ReferringPhysicianName", _S, Kind.NAME, held_study.c.referring_physician_name,
        held_study.c.referring_physician_key,
    ),
    Attribute("PatientName", _S, Kind.NAME, held_study.c.patient_name, held_study.c.patient_name_key),
    Attribute("PatientID", _S, Kind.TEXT, held_study.c.patient_id),
    Attribute("IssuerOfPatientID", _S, Kind.TEXT, held_study.c.issuer_of_patient_id),
    Attribute("PatientBirthDate", _S, Kind.DATE, held_study.c.patient_birth_date),
    Attribute("PatientSex", _S, Kind.TEXT, held_study.c.patient_sex),
    Attribute("TimezoneOffsetFromUTC", _S, Kind.TEXT, held_study.c.timezone_offset_from_utc),
    Attribute("ModalitiesInStudy", _S, Kind.TEXT),
    Attribute("SOPClassesInStudy", _S, Kind.UID),
    Attribute("NumberOfStudyRelatedSeries", _S, Kind.COUNTED),
    Attribute("NumberOfStudyRelatedInstances", _S, Kind.COUNTED),
    Attribute("SeriesInstanceUID", _E, Kind.UID, held_series.c.series_instance_uid),
    Attribute("Modality", _E, Kind.TEXT, held_series.c.modality),
    Attribute("SeriesNumber", _E, Kind.NUMBER, held_series.c.series_number),
    Attribute("SeriesDescription", _E, Kind.TEXT, held_series.c.series_description),
    Attribute("BodyPartExamined", _E, Kind.TEXT, held_series.c.body_part_examined),
    Attribute(
        "PerformedProcedureStepStartDate", _E, Kind.DATE, held_series.c.performed_procedure_step_start_date
    ),
    Attribute(
        "PerformedProcedureStepStartTime", _E, Kind.TIME, held_series.c.performed_procedure_step_start_time
    ),
    Attribute(
        "RequestAttributesSequence.ScheduledProcedureStepID", _E, Kind.TEXT, held_series.c.scheduled_procedure_step_id
    ),
    Attribute("RequestAttributesSequence.RequestedProcedureID", _E, Kind.TEXT, held_series.c.requested_procedure_id),
    Attribute("NumberOfSeriesRelatedInstances", _E, Kind.COUNTED),
    Attribute("SOPInstanceUID", _I, Kind.UID, held_instance.c.sop_instance_uid),
    Attribute("SOPClassUID", _I, Kind.UID, held_instance.c.sop_class_uid),
    Attribute("AvailableTransferSyntaxUID", _I, Kind.UID, held_instance.c.transfer_syntax_uid),
    Attribute("InstanceNumber", _I, Kind.NUMBER, held_instance.c.instance_number),
    Attribute("NumberOfFrames", _I, Kind.NUMBER, held_instance.c.number_of_frames),
    Attribute("Rows", _I, Kind.NUMBER, held_instance.c.rows),
    Attribute("Columns", _I, Kind.NUMBER, held_instance.c.columns),
    Attribute("BitsAllocated", _I, Kind.NUMBER, held_instance.c.bits_allocated),
)  # fmt: skip
ATTRIBUTES: Mapping[str, Attribute] = MappingProxyType({one.keyword: one for one in _ALL})
"""Everything that is known of a held object, by keyword."""


@dataclass(frozen=True)
class Query:
    """``match``: keyword -> matching value, as PS3.4 C.2.2.2 writes it (backslash between the UIDs of a list; dates
    and times as ``from-until``). An empty value or ``*`` matches everything. ``fuzzy``: names by their words in any
    order, by their beginnings, and by their sound."""

    level: Level
    match: Mapping[str, str] = field(default_factory=dict)
    fuzzy: bool = False


def can_match(keyword: str, level: Level) -> bool:
    """True when a query on this level may name the attribute: its own level's and those above."""
    known = ATTRIBUTES.get(keyword)
    return known is not None and known.level <= level and known.kind is not Kind.COUNTED


def search(connection: Connection, query: Query, *, limit: int = 100, offset: int = 0) -> list[Mapping[str, Any]]:
    """Matches: studies by date, the newest first; series and instances as they came, of one study the first one first,
    else the last. Values by keyword, of the level and of those above it; unknown ones are left out.

    ``ModalitiesInStudy`` and ``SOPClassesInStudy`` are lists of text, counts, rows and columns numbers, all else text.
    At most MOST_AT_ONCE; every match once, however often the query is paged on. Raises BadQuery.
    """
    told = [one for one in _ALL if one.column is not None and one.level <= query.level]
    columns = [one.column.label(f"a{number}") for number, one in enumerate(told)]
    keys = [held_study.c.id.label("study_key")]
    source: Any = held_study
    order: list[Any] = [held_study.c.study_date, held_study.c.id]
    if query.level >= Level.SERIES:
        source = source.join(held_series, held_series.c.held_study_id == held_study.c.id)
        keys.append(held_series.c.id.label("series_key"))
        order = [held_series.c.id]
    if query.level >= Level.INSTANCE:
        source = source.join(held_instance, held_instance.c.held_series_id == held_series.c.id)
        order = [held_instance.c.id]
    way = asc if query.match.get("StudyInstanceUID") else desc
    conditions = list(_conditions(connection.dialect.name, query))
    rows = connection.execute(
        select(*keys, *columns)
        .select_from(source)
        .where(*conditions)
        .order_by(*(way(column) for column in order))
        .limit(min(limit, MOST_AT_ONCE))
        .offset(offset)
    ).all()
    found: list[dict[str, Any]] = []
    for row in rows:
        values = {one.keyword: row._mapping[f"a{number}"] for number, one in enumerate(told)}
        found.append({keyword: value for keyword, value in values.items() if value not in ("", None)})
    _count_studies(connection, rows, found)
    if query.level >= Level.SERIES:
        _count_series(connection, rows, found)
    return [MappingProxyType(one) for one in found]


def _conditions(dialect: str, query: Query) -> Iterable[ColumnElement[bool]]:
    for keyword, value in query.match.items():
        if not can_match(keyword, query.level):
            raise BadQuery(f"{keyword} cannot be matched on {query.level.name.lower()} level")
        if value.strip("* ") == "":
            continue
        one = ATTRIBUTES[keyword]
        if keyword == "ModalitiesInStudy":
            inner = select(held_series.c.held_study_id).where(
                _matches(dialect, one, held_series.c.modality, value, query)
            )
            yield held_study.c.id.in_(inner)
        elif keyword == "SOPClassesInStudy":
            inner = (
                select(held_series.c.held_study_id)
                .join(held_instance, held_instance.c.held_series_id == held_series.c.id)
                .where(_matches(dialect, one, held_instance.c.sop_class_uid, value, query))
            )
            yield held_study.c.id.in_(inner)
        else:
            column = one.column if one.key is None else one.key
            matches = _matches(dialect, one, column, value, query)
            if one.level is Level.STUDY and one.kind in (Kind.TEXT, Kind.NAME):
                # looked up apart, so that an index alone is read through and not every row in the order of dates
                yield held_study.c.id.in_(select(held_study.c.id).where(matches).correlate(None))
            else:
                yield matches


def _matches(dialect: str, one: Attribute, column: Any, value: str, query: Query) -> ColumnElement[bool]:
    if one.kind is Kind.UID:
        wanted: ColumnElement[bool] = column.in_([part.strip() for part in value.split("\\")])
        return wanted
    if one.kind is Kind.NAME:
        return _name(dialect, one, column, value, query)
    if one.kind is Kind.DATE:
        return _range(one.keyword, column, value, _date, str)
    if one.kind is Kind.TIME:
        return _range(one.keyword, column, value, _time, _last_moment)
    if one.kind is Kind.NUMBER:
        return _number(one.keyword, column, value)
    return or_(*(_text(dialect, column, part) for part in value.split("\\")))


def _text(dialect: str, column: Any, value: str) -> ColumnElement[bool]:
    value = value.strip(" ")
    if "*" not in value and "?" not in value:
        equal: ColumnElement[bool] = column == value
        return equal
    return _wildcard(dialect, column, value)


def _wildcard(dialect: str, column: Any, value: str) -> ColumnElement[bool]:
    like: ColumnElement[bool]
    if dialect == "sqlite":  # LIKE takes upper and lower case for the same there, GLOB does not and can use an index
        like = column.op("GLOB", is_comparison=True)(value.replace("[", "[[]"))
    else:
        plain = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        like = column.like(plain.replace("*", "%").replace("?", "_"), escape="\\")
    return like


def _name(dialect: str, one: Attribute, column: Any, value: str, query: Query) -> ColumnElement[bool]:
    if query.fuzzy and one.keyword == "PatientName":
        words = held_study.c.patient_name_words
        conditions = []
        for word, sound in fuzzy_words(value):
            either = [words.contains(f" {word}", autoescape=True)]
            if sound:
                either.append(words.contains(f" ={sound} ", autoescape=True))
            conditions.append(or_(*either))
        result: ColumnElement[bool] = conditions[0] if conditions else column == column
        for more in conditions[1:]:
            result = result & more
        return result
    key = name_key(value)
    if "=" in key:
        return _text(dialect, column, key)
    # a value without "=" is compared with each representation of the name (PS3.5 6.2.1.2)
    several = (_wildcard(dialect, column, pattern) for pattern in (f"{key}=*", f"*={key}", f"*={key}=*"))
    return or_(_text(dialect, column, key), and_(column.contains("="), or_(*several)))


def _range(
    keyword: str, column: Any, value: str, check: Callable[[str, str], str], until: Callable[[str], str]
) -> ColumnElement[bool]:
    value = value.strip(" ")
    if "-" not in value:
        first = last = value
    else:
        first, _, last = value.partition("-")
        if not first.strip() and not last.strip():
            raise BadQuery(f"{keyword}: {value!r} is no range")
    bounds: ColumnElement[bool] = column != ""
    if first.strip():
        bounds = bounds & (column >= check(keyword, first.strip()))
    if last.strip():
        bounds = bounds & (column <= until(check(keyword, last.strip())))
    return bounds


def _date(keyword: str, value: str) -> str:
    digits = value.replace(".", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        raise BadQuery(f"{keyword}: {value[:20]!r} is no date (YYYYMMDD)")
    return digits


def _time(keyword: str, value: str) -> str:
    digits = value.replace(":", "")
    whole, _, fraction = digits.partition(".")
    sound = len(whole) in (2, 4, 6) and (whole + fraction).isascii() and (whole + fraction).isdigit()
    if not sound or len(fraction) > 6:
        raise BadQuery(f"{keyword}: {value[:20]!r} is no time (HHMMSS.FFFFFF)")
    return digits


def _last_moment(value: str) -> str:
    """The last moment that a time of less precision means: 1130 ends at 11:30:59.999999."""
    whole, _, fraction = value.partition(".")
    return f"{whole.ljust(6, '9')}.{fraction.ljust(6, '9')}"


def _number(keyword: str, column: Any, value: str) -> ColumnElement[bool]:
    try:
        number = int(value)
    except ValueError as error:
        raise BadQuery(f"{keyword}: {value[:20]!r} is no number") from error
    if abs(number) >= 2**31:
        raise BadQuery(f"{keyword}: {value[:20]!r} is beyond what DICOM can say")
    equal: ColumnElement[bool] = column == (str(number) if keyword in ("SeriesNumber", "InstanceNumber") else number)
    return equal


def _count_studies(connection: Connection, rows: Sequence[Row[Any]], found: Sequence[dict[str, Any]]) -> None:
    keys = {row.study_key for row in rows}
    modalities: dict[int, set[str]] = {key: set() for key in keys}
    classes: dict[int, set[str]] = {key: set() for key in keys}
    counts: dict[int, tuple[int, int]] = {}
    joined = held_series.join(held_instance, held_instance.c.held_series_id == held_series.c.id)
    for row in connection.execute(
        select(
            held_series.c.held_study_id,
            func.count(distinct(held_series.c.id)).label("series"),
            func.count(held_instance.c.id).label("instances"),
        )
        .select_from(joined)
        .where(held_series.c.held_study_id.in_(keys))
        .group_by(held_series.c.held_study_id)
    ):
        counts[row.held_study_id] = (row.series, row.instances)
    for row in connection.execute(
        select(held_series.c.held_study_id, held_series.c.modality, held_instance.c.sop_class_uid)
        .select_from(joined)
        .where(held_series.c.held_study_id.in_(keys))
        .distinct()
    ):
        modalities[row.held_study_id].add(row.modality)
        classes[row.held_study_id].add(row.sop_class_uid)
    for row, one in zip(rows, found, strict=True):
        one["ModalitiesInStudy"] = sorted(modalities[row.study_key] - {""})
        one["SOPClassesInStudy"] = sorted(classes[row.study_key])
        one["NumberOfStudyRelatedSeries"], one["NumberOfStudyRelatedInstances"] = counts.get(row.study_key, (0, 0))


def _count_series(connection: Connection, rows: Sequence[Row[Any]], found: Sequence[dict[str, Any]]) -> None:
    counts = {
        row.held_series_id: row.instances
        for row in connection.execute(
            select(held_instance.c.held_series_id, func.count().label("instances"))
            .where(held_instance.c.held_series_id.in_({row.series_key for row in rows}))
            .group_by(held_instance.c.held_series_id)
        )
    }
    for row, one in zip(rows, found, strict=True):
        one["NumberOfSeriesRelatedInstances"] = counts.get(row.series_key, 0)
