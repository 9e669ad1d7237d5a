"""Whether new associations may come in: not below the disk's reserve, nor while too many films wait already."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import structlog

from firstread.agent.config import Settings
from firstread.agent.store import overdue
from firstread.agent.store.engine import Store, StoreError

log = structlog.get_logger()


class Admission:
    """Looked after by the receiver. Senders that are refused for the moment come back by themselves."""

    def __init__(self, settings: Settings, store: Store, refuse_new: Callable[[str | None], None]) -> None:
        self._settings = settings
        self._store = store
        self._refuse_new = refuse_new
        self.closed_because: str | None = None
        """Why new associations are refused now, None when they are not."""

    def look(self) -> None:
        """Closes or opens the door; care raises the alarms that say what to do."""
        reason = self._reason()
        if reason != self.closed_because:
            self.closed_because = reason
            self._refuse_new(reason)
            log.warning("new associations are refused" if reason else "new associations are accepted", why=reason or "")

    def _reason(self) -> str | None:
        free = shutil.disk_usage(self._settings.spool).free >> 20
        if free < self._settings.storage.reserve_mb:
            return f"disk: {free} MB free, {self._settings.storage.reserve_mb} MB in reserve"
        most = self._settings.analysis.max_waiting
        try:
            with self._store.read() as connection:
                waiting = overdue.waiting(connection, most)
        except StoreError:
            return self.closed_because
        return f"queue: {waiting} films wait, {most} may" if waiting >= most else None
