"""An upgrade keeps what was there and a copy of it; one that fails changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from firstread.agent.store import migrate, studies
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.migrate import newest_version, require_newest, schema_version, site_uid, upgrade
from firstread.models.prediction import StudyIdentity
from tests.agent.builders import moment

NEXT = '''
"""A later release."""
import sqlalchemy
from alembic import op

revision, down_revision = "9000", "{newest}"


def upgrade() -> None:
    op.create_table("added_later", sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    {then}


def downgrade() -> None:
    raise NotImplementedError
'''


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    """A database of this release with a study in it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'firstread.sqlite3'}"
    made = Store(url)
    upgrade(made)
    with made.write() as connection:
        studies.create(connection, StudyIdentity("1.2.3"), "PACS", None, moment(0))
    yield made
    made.close()


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes this release a later one, whose migration also does ``then``."""

    def later(then: str = "pass") -> None:
        folder = tmp_path / "migrations"
        newest = newest_version()
        shutil.copytree(migrate._FOLDER, folder)
        (folder / "versions" / "9000_later.py").write_text(NEXT.format(newest=newest, then=then))
        monkeypatch.setattr(migrate, "_FOLDER", folder)

    return later


def tables(store: Store) -> set[str]:
    engine = create_engine(store.url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_an_upgrade_keeps_the_studies_the_identity_and_a_copy(store: Store, release, tmp_path: Path) -> None:
    before, uid = schema_version(store), site_uid(store)
    release()
    copy = upgrade(store)
    assert schema_version(store) == newest_version() == "9000" and "added_later" in tables(store)
    assert site_uid(store) == uid
    with store.read() as connection:
        assert studies.find(connection, "1.2.3") is not None
    if not store.is_sqlite:
        assert copy is None, "whoever runs a PostgreSQL server keeps its copies"
        return
    assert copy is not None and Path(copy).stat().st_mode & 0o077 == 0
    with sqlite3.connect(copy) as kept:
        assert kept.execute("SELECT version_num FROM alembic_version").fetchall() == [(before,)]
        assert kept.execute("SELECT study_instance_uid FROM study").fetchall() == [("1.2.3",)]
    assert upgrade(store) is None, "a second upgrade makes no second copy"


def test_an_upgrade_that_fails_changes_nothing(store: Store, release) -> None:
    before = schema_version(store)
    release(then='op.execute("SELECT 1 FROM nowhere")')
    with pytest.raises(StoreError):
        upgrade(store)
    assert schema_version(store) == before and "added_later" not in tables(store)
    with store.read() as connection:
        assert studies.find(connection, "1.2.3") is not None


def test_a_role_alone_neither_upgrades_nor_runs_on_another_schema(store: Store, release) -> None:
    require_newest(store)
    before = schema_version(store)
    release()
    with pytest.raises(StoreError, match=f"schema version {before}, this release needs 9000.*firstread db upgrade"):
        require_newest(store)
    assert schema_version(store) == before


def test_an_empty_database_is_told_from_an_old_one(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
    with pytest.raises(StoreError, match=r"no tables yet.*firstread db upgrade"):
        require_newest(store)
    with pytest.raises(StoreError, match="firstread db upgrade"):
        site_uid(store)
    store.close()


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "firstread.sqlite3"
    path.write_bytes(b"this is not a database at all, but somebody called it one" * 100)
    store = Store(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"cannot be used.*not a database"):
        upgrade(store)
    store.close()
