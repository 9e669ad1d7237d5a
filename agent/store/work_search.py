"""Work items that a query means, most urgent first, a page at a time (PS3.4 CC.2.8, PS3.18 11.9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, select

from firstread.agent.store.work_items import WorkItem, from_row
from firstread.agent.store.work_tables import work_item
from firstread.integration.dicom.ups import Json
from firstread.integration.dicom.ups_match import matches

_AT_ONCE = 200

_BY_COLUMN = {
    "00080018": work_item.c.sop_instance_uid,
    "00741000": work_item.c.state,
    "0020000D": work_item.c.study_instance_uid,
    "00100020": work_item.c.patient_id,
}
"""Attributes that stand in a column of their own; everything else is matched on the attributes."""


def search(connection: Connection, keys: Json, *, limit: int, offset: int) -> tuple[list[WorkItem], bool]:
    """The items that match ``keys``, from number ``offset`` on, ``limit`` at most; and whether there are more.

    The most urgent come first, then the oldest; what has ended stands behind all that is open.
    """
    query, rest = _narrowed(keys)
    if not rest:
        rows = connection.execute(
            query.order_by(work_item.c.urgency.desc(), work_item.c.id).limit(limit + 1).offset(offset)
        ).all()
        return [from_row(row) for row in rows[:limit]], len(rows) > limit
    found: list[WorkItem] = []
    for item in _in_order(connection, query):
        if not matches(item.attributes, rest):
            continue
        if offset:
            offset -= 1
        elif len(found) == limit:
            return found, True
        else:
            found.append(item)
    return found, False


def _narrowed(keys: Json) -> tuple[Select[Any], Json]:
    """The rows that may match, and the keys that the database did not look at."""
    query: Select[Any] = select(work_item)
    rest: Json = {}
    for tag, key in keys.items():
        values = [value for value in key.get("Value") or [] if value not in (None, "", {})]
        if not values:
            continue
        exact = all(isinstance(value, str) and not set(value) & {"*", "?"} for value in values)
        if tag in _BY_COLUMN and exact:
            query = query.where(_BY_COLUMN[tag].in_([value.strip() for value in values]))
        else:
            rest[tag] = key
    return query, rest


def _in_order(connection: Connection, query: Select[Any]) -> Iterator[WorkItem]:
    """The rows of a query as they come from the database, few at a time."""
    ordered = query.order_by(work_item.c.urgency.desc(), work_item.c.id)
    with connection.execution_options(yield_per=_AT_ONCE).execute(ordered) as rows:
        for row in rows:
            yield from_row(row)
