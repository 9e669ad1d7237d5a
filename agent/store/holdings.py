"""What is held: the transitions of its rows (entered, replaced, let go) and the way to the bytes of each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, bindparam, delete, exists, func, insert, not_, select, update
from sqlalchemy.engine import Row

from firstread.agent.store.holding_tables import held_instance, held_series, held_study
from firstread.agent.store.tables import artifact, instance, site


@dataclass(frozen=True)
class Holding:
    """What is kept of one object for searching: values by column of the three tables, cut to their lengths."""

    study: Mapping[str, str]
    series: Mapping[str, str]
    instance: Mapping[str, str | int | None]


@dataclass(frozen=True)
class HeldObject:
    """One object and where its bytes lie. ``path`` is a Part 10 file, relative to the storage folder."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    number_of_frames: int
    path: str
    made_here: bool
    """True for our reports and heat maps."""


def enter_received(
    connection: Connection, holding: Holding, instance_id: int, *, ours: bool, first: bool = False, older: bool = False
) -> None:
    """A received instance can be found from now on, in place of an earlier version of it.

    ``ours``: a result of ours that came back. Where its frozen bytes are held already, those stay. ``first``: nothing
    of this UID can be held yet, which saves a look. ``older``: what is held of its study was said by newer instances.
    """
    _enter(
        connection,
        holding,
        {"instance_id": instance_id, "artifact_id": None},
        says_who=not (ours or older),
        first=first,
    )


def enter_made(connection: Connection, holding: Holding, artifact_id: int) -> None:
    """A report or heat map of ours can be found from now on."""
    _enter(connection, holding, {"instance_id": None, "artifact_id": artifact_id}, says_who=False)


def let_go(connection: Connection, instance_ids: Sequence[int]) -> None:
    """The bytes of received instances are gone: they are found no more, nor series and studies that are empty now."""
    series = connection.execute(
        select(held_instance.c.held_series_id).where(held_instance.c.instance_id.in_(instance_ids)).distinct()
    ).scalars()
    touched = list(series)
    connection.execute(delete(held_instance).where(held_instance.c.instance_id.in_(instance_ids)))
    for series_id in touched:
        _prune(connection, series_id)


def objects(
    connection: Connection,
    study_instance_uid: str,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    *,
    after: int = 0,
    limit: int = 1000,
) -> list[tuple[int, HeldObject]]:
    """Objects of a study, series or instance in the order of entering, each with its key; page on with ``after``."""
    wanted = [held_study.c.study_instance_uid == study_instance_uid, held_instance.c.id > after]
    if series_instance_uid is not None:
        wanted.append(held_series.c.series_instance_uid == series_instance_uid)
    if sop_instance_uid is not None:
        wanted.append(held_instance.c.sop_instance_uid == sop_instance_uid)
    return [(row.id, _object(row)) for row in connection.execute(_OBJECTS.where(*wanted).limit(limit))]


def find_object(connection: Connection, sop_instance_uid: str) -> HeldObject | None:
    """The object of this SOP Instance UID, None when it is not held."""
    row = connection.execute(_OBJECTS.where(held_instance.c.sop_instance_uid == sop_instance_uid)).one_or_none()
    return None if row is None else _object(row)


# What was received or made before there were these tables


def not_entered_yet(connection: Connection, limit: int) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """Rows of ``instance`` and ``artifact`` that are older than the tables and were not looked at, newest first."""
    received: Sequence[Any] = connection.execute(
        select(instance.c.id, instance.c.path)
        .where(instance.c.id <= _mark(connection, "instance"), instance.c.current, instance.c.path != "")
        .order_by(instance.c.id.desc())
        .limit(limit)
    ).all()
    made: Sequence[Any] = connection.execute(
        select(artifact.c.id, artifact.c.path)
        .where(artifact.c.id <= _mark(connection, "artifact"), artifact.c.path.is_not(None))
        .order_by(artifact.c.id.desc())
        .limit(limit)
    ).all()
    return list(received), list(made)


def looked_at(connection: Connection, kind: str, key: int) -> None:
    """Rows of ``kind`` (``instance``, ``artifact``) from ``key`` on are entered, or cannot be; 0: all of them."""
    name = f"holdings/{kind}"
    if key > 1:
        connection.execute(update(site).where(site.c.key == name).values(value=str(key - 1)))
    else:
        connection.execute(delete(site).where(site.c.key == name))


def all_looked_at(connection: Connection) -> bool:
    """True when nothing is left of what is older than the tables."""
    marks = select(func.count()).select_from(site).where(site.c.key.in_(("holdings/instance", "holdings/artifact")))
    return connection.execute(marks).scalar_one() == 0


def is_entered(connection: Connection, *, instance_id: int) -> bool:
    """True when a received instance is held."""
    query = select(held_instance.c.id).where(held_instance.c.instance_id == instance_id)
    return connection.execute(query).first() is not None


def is_current(connection: Connection, *, instance_id: int) -> bool:
    """True while a received instance is the newest of its UID and its file is there."""
    query = select(instance.c.id).where(instance.c.id == instance_id, instance.c.current, instance.c.path != "")
    return connection.execute(query).first() is not None


def _mark(connection: Connection, kind: str) -> int:
    return int(connection.execute(select(site.c.value).where(site.c.key == f"holdings/{kind}")).scalar() or 0)


def _enter(
    connection: Connection,
    holding: Holding,
    bytes_of: Mapping[str, int | None],
    *,
    says_who: bool,
    first: bool = False,
) -> None:
    uid = holding.instance["sop_instance_uid"]
    known = None
    if not first:
        known = connection.execute(select(held_instance).where(held_instance.c.sop_instance_uid == uid)).one_or_none()
    if known is not None and known.artifact_id is not None and not says_who and bytes_of["artifact_id"] is None:
        return
    series_id = _series(connection, holding, says_who)
    values = {**holding.instance, **bytes_of, "held_series_id": series_id}
    if known is None:
        connection.execute(insert(held_instance), values)
        return
    connection.execute(update(held_instance).where(held_instance.c.id == known.id).values(**values))
    if known.held_series_id != series_id:
        _prune(connection, known.held_series_id)


def _series(connection: Connection, holding: Holding, says_who: bool) -> int:
    """The key of the series' row, made with its study's where there are none. What the newest object says replaces what
    was said before; a value that it lacks replaces nothing."""
    row = connection.execute(
        _WHERE_IT_BELONGS.where(held_study.c.study_instance_uid == holding.study["study_instance_uid"]),
        {"series": holding.series["series_instance_uid"]},
    ).one_or_none()
    if row is None:
        study_id = _insert(connection, held_study, holding.study)
        return _insert(connection, held_series, {**holding.series, "held_study_id": study_id})
    told = row._mapping
    if says_who:
        _say(connection, held_study, told[held_study.c.id], told, holding.study)
    if told[held_series.c.id] is None:
        return _insert(connection, held_series, {**holding.series, "held_study_id": told[held_study.c.id]})
    if says_who:
        _say(connection, held_series, told[held_series.c.id], told, holding.series)
    return int(told[held_series.c.id])


_WHERE_IT_BELONGS = select(held_study, held_series).outerjoin(
    held_series,
    (held_series.c.held_study_id == held_study.c.id) & (held_series.c.series_instance_uid == bindparam("series")),
)


def _say(connection: Connection, table: Table, key: int, told: Mapping[Any, Any], values: Mapping[str, str]) -> None:
    changed = {name: value for name, value in values.items() if value and told[table.c[name]] != value}
    if changed:
        connection.execute(update(table).where(table.c.id == key).values(**changed))


def _insert(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    key = connection.execute(insert(table), dict(values)).inserted_primary_key
    if key is None:
        raise RuntimeError(f"the database gave no key for {table.name}")
    return int(key[0])


def _prune(connection: Connection, series_id: int) -> None:
    study_id = connection.execute(select(held_series.c.held_study_id).where(held_series.c.id == series_id)).scalar()
    connection.execute(
        delete(held_series).where(
            held_series.c.id == series_id, not_(exists().where(held_instance.c.held_series_id == series_id))
        )
    )
    connection.execute(
        delete(held_study).where(
            held_study.c.id == study_id, not_(exists().where(held_series.c.held_study_id == study_id))
        )
    )


_LAID: list[Column[Any]] = [held_instance.c.id, held_instance.c.sop_instance_uid, held_instance.c.sop_class_uid]
_OBJECTS: Select[Any] = (
    select(
        *_LAID,
        held_instance.c.transfer_syntax_uid,
        held_instance.c.number_of_frames,
        held_instance.c.artifact_id,
        held_series.c.series_instance_uid,
        held_study.c.study_instance_uid,
        func.coalesce(instance.c.path, artifact.c.path).label("path"),
    )
    .join(held_series, held_series.c.id == held_instance.c.held_series_id)
    .join(held_study, held_study.c.id == held_series.c.held_study_id)
    .outerjoin(instance, instance.c.id == held_instance.c.instance_id)
    .outerjoin(artifact, artifact.c.id == held_instance.c.artifact_id)
    .order_by(held_instance.c.id)
)


def _object(row: Any) -> HeldObject:
    return HeldObject(
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        number_of_frames=row.number_of_frames or 1,
        path=row.path,
        made_here=row.artifact_id is not None,
    )
