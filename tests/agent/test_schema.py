"""The schema that migrations make is the one that the tables in the code describe, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.migrate import differences, newest_version, schema_version, site_uid, upgrade


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'firstread.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database, once of each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


def test_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    store = Store(url)
    assert schema_version(store) is None
    assert upgrade(store) is None
    assert differences(store) == []
    assert schema_version(store) == newest_version()
    store.close()


def test_second_upgrade_changes_nothing(url: str) -> None:
    store = Store(url)
    upgrade(store)
    first = site_uid(store)
    assert upgrade(store) is None
    assert site_uid(store) == first
    store.close()


def test_database_of_a_newer_release_is_refused_with_what_to_do(url: str) -> None:
    store = Store(url)
    upgrade(store)
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"schema version 9999.*start the release that made it"):
        upgrade(store)
    store.close()


def test_table_that_no_migration_makes_is_noticed(url: str) -> None:
    store = Store(url)
    upgrade(store)
    with store.write() as connection:
        connection.exec_driver_sql("DROP TABLE alarm")
    assert any("alarm" in str(each) for each in differences(store))
    store.close()
