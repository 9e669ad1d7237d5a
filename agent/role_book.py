"""What the supervisor keeps in the database: its schema, who lives, and what the dead held."""

from __future__ import annotations

import os
from collections.abc import Iterable

import structlog

from firstread.agent import clock
from firstread.agent.audit import Audit
from firstread.agent.config import Settings
from firstread.agent.owner import owner_name, owner_prefix
from firstread.agent.store import deliveries, events, images, watch, work_subscriptions
from firstread.agent.store.engine import Store, StoreError
from firstread.agent.store.migrate import upgrade
from firstread.integration.dicom.ups import ScpStatus

log = structlog.get_logger()

ACTOR = "supervisor"


class RoleBook:
    """Opens the database for the supervisor and brings its schema up to date. Raises StoreError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings.database_url)
        copy = upgrade(self._store)
        if copy:
            log.info("schema upgraded", copy=copy)

    def begin(self, names: Iterable[str]) -> None:
        """Nobody lives yet, whatever an agent that was killed has left; what it held is free."""
        # A database in the spool is ours alone, also where a new container gave this machine another name.
        self._free("" if self._store.is_sqlite else owner_prefix(self._settings))
        self._forget(names, "agent started")
        with self._store.write() as connection:
            Audit(self._settings).application(connection, started=True)
            work_subscriptions.tell_status(connection, ScpStatus.RESTARTED, clock.now())

    def living(self) -> set[str]:
        """The roles that have given a sign of life; none when the database cannot be asked just now."""
        try:
            with self._store.read() as connection:
                return {one.name for one in watch.roles(connection)}
        except StoreError:
            return set()

    def died(self, name: str, process: int, exit_code: int) -> None:
        """What the role held is free at once, and nobody takes it for alive."""
        self._free(owner_name(self._settings, name, process) + "#")
        with self._store.write() as connection:
            watch.forget_role(connection, name)
            events.record(connection, clock.now(), "role died", ACTOR, name=name, exit_code=exit_code)

    def going_down(self) -> None:
        """Subscribers of the worklist are told while the roles that tell them live. What cannot be written is not told:
        it holds up no stop."""
        try:
            with self._store.write() as connection:
                work_subscriptions.tell_status(connection, ScpStatus.GOING_DOWN, clock.now())
        except StoreError as error:
            log.warning("nobody is told that the agent goes down", error=str(error))

    def end(self, names: Iterable[str]) -> None:
        """The agent was stopped on purpose."""
        self._free(owner_prefix(self._settings))
        with self._store.write() as connection:
            Audit(self._settings).application(connection, started=False)
        self._forget(names, "agent stopped")

    def close(self) -> None:
        """Closes the database."""
        self._store.close()

    def _forget(self, names: Iterable[str], event: str) -> None:
        with self._store.write() as connection:
            for name in names:
                watch.forget_role(connection, name)
            events.record(connection, clock.now(), event, ACTOR, process=os.getpid())

    def _free(self, prefix: str) -> None:
        now, most = clock.now(), self._settings.analysis.max_attempts
        with self._store.write() as connection:
            images.free_leases(connection, dead_prefix=prefix, max_attempts=most, actor=ACTOR, now=now)
            deliveries.free_leases(connection, dead_prefix=prefix, actor=ACTOR, now=now)
