"""Named places between two durable steps, where a test may have this process killed. Unasked, nothing happens.

``FIRSTREAD_CRASH_AT=film-committed`` kills the process the first time it gets there, ``film-committed:3`` the third.
``FIRSTREAD_CRASH_AT=@FILE`` reads the same from a file whenever a place is reached, and deletes it before the kill:
one crash for each file, however often the role is started again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

POINTS: dict[str, str] = {
    "film-synced": "receive",
    "film-renamed": "receive",
    "film-placed": "receive",
    "film-recorded": "receive",
    "film-committed": "receive",
    "image-claimed": "analyse",
    "image-predicted": "analyse",
    "image-ended": "analyse",
    "result-written": "studies",
    "result-synced": "studies",
    "result-renamed": "studies",
    "result-built": "studies",
    "result-recorded": "studies",
    "result-committed": "studies",
    "delivery-claimed": "deliver",
    "delivery-sent": "deliver",
    "delivery-recorded": "deliver",
}
"""Every place, and the role that gets there. ``-recorded`` lies inside a transaction, before its commit (for a
delivery after it)."""

_ASKED = os.environ.get("FIRSTREAD_CRASH_AT", "")
_passed: Counter[str] = Counter()


def reached(point: str) -> None:
    """This process is at ``point`` (a key of :data:`POINTS`)."""
    if _ASKED:
        _crash_if_asked(point)


def _crash_if_asked(point: str) -> None:
    order = Path(_ASKED[1:]) if _ASKED.startswith("@") else None
    try:
        asked = _ASKED if order is None else order.read_text(encoding="utf-8").strip()
    except OSError:
        return
    name, _, count = asked.partition(":")
    if name != point:
        return
    _passed[asked] += 1
    if _passed[asked] < int(count or 1):
        return
    if order is not None:
        order.unlink(missing_ok=True)
    os.kill(os.getpid(), signal.SIGKILL)
