"""When silence is an alarm: how long nobody sent a study, counted in working time alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time, timedelta

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def working_seconds(start: datetime, end: datetime, days: Iterable[str], begins: time, ends: time) -> float:
    """Seconds of working time in [start, end); both carry the zone in which days and hours are meant.

    ``begins`` == ``ends`` means the whole day; an end before the beginning lies on the next day (a night shift).
    """
    wanted = {DAYS.index(day) for day in days}
    total = 0.0
    day = start.date() - timedelta(days=1)  # a shift that began yesterday may still go on
    while day <= end.date():
        if day.weekday() in wanted:
            opens = datetime.combine(day, begins, start.tzinfo)
            closes = datetime.combine(day + timedelta(days=1) if ends <= begins else day, ends, start.tzinfo)
            total += max(0.0, (min(end, closes) - max(start, opens)).total_seconds())
        day += timedelta(days=1)
    return total


def silence_words(sender: str, since: datetime, silent_h: float) -> str:
    """The alarm in a sentence; ``sender`` is empty for all of them together."""
    who = f"{sender} has sent no study" if sender else "no study has come"
    return f"{who} for {silent_h:.1f} hours of working time (since {since:%Y-%m-%d %H:%M})"
