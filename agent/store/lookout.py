"""Waiting for work in the database without asking it the same question again and again."""

from __future__ import annotations

import time

from firstread.agent.store.engine import Store

PAUSE_S = 0.05
"""Between two times of asking whether a look is worthwhile, which costs some microseconds."""
UNTOLD_S = 0.2
"""Between two looks that find nothing, in a database that cannot tell whether anybody has committed."""


class Lookout:
    """For a worker that polls: it looks when somebody has committed since it last found nothing, and now and then.

    ``at_least_every_s``: for what becomes due by time alone.
    """

    def __init__(self, store: Store, at_least_every_s: float) -> None:
        self._store = store
        self._at_least_every_s = at_least_every_s
        self._version: int | None = None
        self._empty_at: int | None = None
        self._empty_since = float("-inf")

    def worthwhile(self) -> bool:
        """False while looking would find no more than the last look, which found nothing."""
        self._version = self._store.version()  # before the look: what is committed during it counts as new
        for_s = time.monotonic() - self._empty_since
        if self._version is None:
            return for_s >= UNTOLD_S
        return self._version != self._empty_at or for_s >= self._at_least_every_s

    def found_nothing(self) -> None:
        """The look after the last ``worthwhile`` found nothing."""
        self._empty_at = self._version
        self._empty_since = time.monotonic()
