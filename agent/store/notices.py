"""Which alarms were told over which channel: what is due is read off the alarms, so that no notice can be lost.

A condition that comes and goes is told once: a recovery is told only after ``RECOVERED_S`` of quiet, and what comes
back before that was never gone.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from firstread.agent.store.tables import notice
from firstread.agent.store.watch import Alarm, alarms

SETTLED_S = 60.0
"""A warning must stand for so long before it is told; what is critical is told at once."""

RECOVERED_S = 300.0


class What(enum.Enum):
    """Why a notice is sent."""

    RAISED = "raised"
    STILL = "still standing"
    RECOVERED = "recovered"


@dataclass(frozen=True)
class Notice:
    """One alarm to be told."""

    what: What
    alarm: Alarm


def due(
    connection: Connection, channel: str, now: datetime, *, critical_only: bool, repeat_h: float
) -> list[Notice]:  # fmt: skip
    """What is to be told over a channel now, oldest first."""
    told = {row.alarm_key: row for row in connection.execute(select(notice).where(notice.c.channel == channel))}
    found = []
    for alarm in alarms(connection, standing=False):
        row = told.get(alarm.key)
        what = None
        if alarm.cleared_at is not None:
            if row is not None and now - alarm.cleared_at >= timedelta(seconds=RECOVERED_S):
                what = What.RECOVERED
        elif alarm.key == f"notices/{channel}" or (critical_only and alarm.severity != "critical"):
            continue  # a channel cannot tell of itself that it is broken
        elif row is None:
            if alarm.severity == "critical" or now - alarm.since >= timedelta(seconds=SETTLED_S):
                what = What.RAISED
        elif alarm.severity == "critical" and row.severity != "critical":
            what = What.RAISED
        elif now - row.told_at >= timedelta(hours=repeat_h):
            what = What.STILL
        if what is not None:
            found.append(Notice(what, alarm))
    return found


def mark_told(connection: Connection, channel: str, sent: Sequence[Notice], now: datetime) -> None:
    """These went out: they are not told again until something changes."""
    for one in sent:
        connection.execute(delete(notice).where(notice.c.channel == channel, notice.c.alarm_key == one.alarm.key))
        if one.what is not What.RECOVERED:
            connection.execute(
                insert(notice).values(
                    channel=channel, alarm_key=one.alarm.key, severity=one.alarm.severity, told_at=now
                )
            )
