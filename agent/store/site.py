"""The identity of this installation, given once when its tables are made."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, insert, select

from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.tables import site


def give_identity(connection: Connection) -> None:
    """Draws the UID of this installation unless it has one."""
    if _uid(connection) is None:
        connection.execute(insert(site).values(key="site_uid", value=f"2.25.{uuid.uuid4().int}"))


def site_uid(store: Store) -> str:
    """The UID of this installation: every UID that it gives out is derived from it."""
    with store.read() as connection:
        return site_uid_in(connection)


def site_uid_in(connection: Connection) -> str:
    """The same within a transaction."""
    value = _uid(connection)
    if value is None:
        raise StoreError("the database has no identity: run `firstread db upgrade`")
    return value


def _uid(connection: Connection) -> str | None:
    value: str | None = connection.execute(select(site.c.value).where(site.c.key == "site_uid")).scalar()
    return value
