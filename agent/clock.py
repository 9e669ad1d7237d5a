"""Time that a wrong clock cannot break: wall time for people, boot time for waiting.

Quiet periods, leases and retries count on CLOCK_BOOTTIME, which no administrator can set back. A moment that was
written before the last boot, or on another machine, falls back to wall time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path


@cache
def boot_id() -> str:
    """Identifier of this boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def boot_seconds() -> float:
    """Seconds since boot, suspended time included; never goes back."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True)
class Moment:
    """One instant, told by both clocks. ``at`` is timezone-aware UTC; ``boot_s`` counts within ``boot_id``."""

    at: datetime
    boot_id: str
    boot_s: float

    def plus(self, seconds: float) -> Moment:
        """The moment ``seconds`` later (or earlier, when negative)."""
        return Moment(self.at + timedelta(seconds=seconds), self.boot_id, self.boot_s + seconds)

    def since(self, earlier: Moment) -> float:
        """Seconds from ``earlier`` to this moment, by boot time where both share the boot."""
        if self.boot_id == earlier.boot_id:
            return self.boot_s - earlier.boot_s
        return (self.at - earlier.at).total_seconds()


def now() -> Moment:
    """This instant. Decisions take it as a value; only the edges call this."""
    return Moment(datetime.now(UTC), boot_id(), boot_seconds())
