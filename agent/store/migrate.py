"""Creates or upgrades the schema, keeping a copy of an SQLite file that it changes."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from firstread.agent.store import archive_tables as archive_tables  # its tables are part of the schema
from firstread.agent.store import holding_tables as holding_tables  # its tables are part of the schema
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.site import give_identity
from firstread.agent.store.site import site_uid as site_uid
from firstread.agent.store.tables import metadata
from firstread.agent.store.upkeep import let_it_shrink
from firstread.agent.store.work_tables import work_item as work_item  # its tables stand in the same metadata

_FOLDER = Path(__file__).parent / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


def newest_version() -> str:
    """The schema version that this release needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise StoreError("this installation carries no migrations: install Firstread again")
    return head


def schema_version(store: Store) -> str | None:
    """The version that the database has, None when it is empty."""
    with store.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def known_version(version: str) -> bool:
    """True when this release knows the schema version, so that it can upgrade from it."""
    return version in {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade(store: Store) -> str | None:
    """Brings the schema to this release's version; answers with the copy's path when an SQLite file was changed.

    Raises StoreError when the database was made by a newer release.
    """
    current, newest = schema_version(store), newest_version()
    if current == newest:
        return None
    if current is not None and not known_version(current):
        raise StoreError(
            f"the database has schema version {current}, which this release ({newest}) does not know: "
            "start the release that made it, or restore the copy that lies beside the database"
        )
    copy = _copy(store, current) if current is not None else None
    with store.write() as connection:
        command.upgrade(_config(connection), "head")
        give_identity(connection)
    let_it_shrink(store)
    return copy


def require_newest(store: Store) -> None:
    """Raises StoreError unless the schema is this release's: one role alone changes no schema under the others."""
    current, newest = schema_version(store), newest_version()
    if current != newest:
        raise StoreError(
            f"the database has {'no tables yet' if current is None else f'schema version {current}'}, "
            f"this release needs {newest}: stop every role and run `firstread db upgrade`"
        )


def differences(store: Store) -> list[object]:
    """What the tables in the code have that the migrations do not make (empty when they agree)."""
    with store.read() as connection:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))


def _copy(store: Store, version: str) -> str | None:
    database = store.engine.url.database
    if not store.is_sqlite or database is None:
        return None
    target = f"{database}.{version}.{datetime.now(UTC):%Y%m%dT%H%M%S}.copy"
    with sqlite3.connect(database) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    Path(target).chmod(0o600)
    return target
