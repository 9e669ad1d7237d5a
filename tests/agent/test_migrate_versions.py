"""A database of every earlier release, with rows in all its tables, is brought to this one and loses nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, LargeBinary, MetaData, Table, insert, select

from firstread.agent.store import migrate, reading_list, studies, tables
from firstread.agent.store.engine import Store
from firstread.agent.store.migrate import differences, newest_version, schema_version, upgrade
from firstread.agent.store.studies import StudyFilter
from firstread.agent.store.worklist_match import Match, find_entries

EARLIER = [
    script.revision
    for script in reversed(list(ScriptDirectory.from_config(migrate._config()).walk_revisions()))
    if script.revision != newest_version()
]

IDENTITY = {
    "study_instance_uid": "1.2.3", "patient_id": "P1", "accession_number": "A1", "accession_numbers": ["A1", "A2"],
    "station": "XR2",
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "study": {"study_instance_uid": "1.2.3", "identity": IDENTITY, "state": "analysed", "station": "XR2"},
    "worklist_accession": {"accession_number": "A2"},
    "worklist_entry": {
        "study_instance_uid": "1.2.3", "identity": IDENTITY, "state": "open", "accession_number": "A1",
        "ordered_priority": 2, "result_priority": 2, "result": None,
    },
    "event": {"kind": "list order", "study_id": None, "detail": {"entry_id": 1, "priority": "STAT"}},
    "delivery": {"released": True, "kept_back": True, "state": "pending", "destination": "PACS"},
}  # fmt: skip
"""What a migration looks at; every other column has some value of its type."""


def some(column: Any) -> Any:
    """A value that the column takes."""
    kinds: tuple[tuple[type, Any], ...] = (
        (JSON, {"of": column.name}), (Boolean, True), (DateTime, datetime(2026, 3, 1, 12)), (Integer, 1), (Float, 1.5),
        (LargeBinary, b"bytes"),
    )  # fmt: skip
    return next((value for kind, value in kinds if isinstance(column.type, kind)), f"{column.name}"[:16])


def rows_of(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table there is."""
    there = MetaData()
    with store.read() as connection:
        there.reflect(connection)
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in there.sorted_tables
        }


def made_by(version: str, url: str) -> Store:
    """A database as the release of that schema version left it."""
    store = Store(url)
    with store.write() as connection:
        command.upgrade(migrate._config(connection), version)
    there = MetaData()
    with store.write() as connection:
        there.reflect(connection)
        for table in there.sorted_tables:
            if table.name != "alembic_version":
                told = {name: value for name, value in ROWS.get(table.name, {}).items() if name in table.columns}
                if table.name == "delivery" and version >= "0004":
                    told["kept_back"] = False
                values = {column.name: some(column) for column in table.columns} | told
                connection.execute(insert(Table(table.name, there)).values(**values))
    return store


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("version", EARLIER)
def test_every_earlier_release_is_brought_forward_with_all_it_knew(
    version: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'x.sqlite3'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    store = made_by(version, url)
    before = rows_of(store)
    assert len(before) > 10 and all(len(rows) == 1 for rows in before.values())
    copy = upgrade(store)
    assert schema_version(store) == newest_version() and differences(store) == []
    after = rows_of(store)
    for table, (row,) in before.items():
        if table in ("alembic_version", "site"):
            continue
        (kept,) = after[table]
        changed = {name for name, value in row.items() if kept[name] != value}
        turned = {"kept_back"} if table == "delivery" and version < "0004" else set()
        assert changed == turned, f"{table}: {changed}"
    if kind == "sqlite":
        old = Store(f"sqlite:///{copy}")
        assert rows_of(old) == before, "the copy is what was there"
        old.close()
    if version >= "0004":  # what 0004 derived is there already
        store.close()
        return
    with store.read() as connection:
        assert studies.selected(connection, StudyFilter(station="XR2"), 5)[0].study_instance_uid == "1.2.3"
        for number in ("A1", "A2"):
            assert [row.id for row in find_entries(connection, Match(accession_numbers=(number,)))] == [1]
        assert connection.execute(select(tables.delivery.c.released, tables.delivery.c.kept_back)).one() == (
            True,
            False,
        )
        assert [one.kind for one in reading_list._entry_trail(connection, 1)] == ["list order"]
    store.close()
