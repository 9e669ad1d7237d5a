"""Which work items a query means: attribute matching on DICOM JSON (PS3.4 C.2.2.2, PS3.18 8.3.4.1)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from fnmatch import translate
from functools import lru_cache
from typing import Any

from firstread.integration.dicom.ups import Json

_WILD = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_OFFSET = r"[+-](?:0\d|1[0-4])[0-5]\d"
_DT = re.compile(rf"(\d{{4}})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{{1,6}}))?({_OFFSET})?")
_RANGE = re.compile(
    rf"(?P<low>\d{{4,14}}(?:\.\d{{1,6}})?(?:{_OFFSET})?)?\s*-\s*(?P<high>\d{{4,14}}(?:\.\d{{1,6}})?(?:{_OFFSET})?)?"
)


def matches(attributes: Json, keys: Json) -> bool:
    """True when the attributes match every key. A key without a value matches everything (universal matching)."""
    return all(_matches(attributes.get(tag, {}), key) for tag, key in keys.items())


def is_moment(text: str) -> bool:
    """Whether a text is a DT value (PS3.5 6.2)."""
    try:
        return span(text) is not None
    except ValueError:
        return False


def is_moment_key(text: str) -> bool:
    """Whether a text is a DT value or a range of them, as a key may be."""
    if is_moment(text):
        return True
    found = _RANGE.fullmatch(text.strip())
    return found is not None and all(is_moment(end) for end in found.groups() if end) and any(found.groups())


def span(text: str) -> tuple[datetime, datetime] | None:
    """The first and the last instant that a DT value may mean; without an offset it is this machine's local time.

    None when it is no DT value; ValueError when it is no day or time.
    """
    found = _DT.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    low = datetime(
        int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), min(int(second or 0), 59),
        int((fraction or "0").ljust(6, "0")),
    )  # fmt: skip
    if fraction:
        high = low + timedelta(microseconds=10 ** (6 - len(fraction)))
    elif second:
        high = low + timedelta(seconds=1)
    elif minute:
        high = low + timedelta(minutes=1)
    elif hour:
        high = low + timedelta(hours=1)
    elif day:
        high = low + timedelta(days=1)
    elif month:
        high = low.replace(year=low.year + low.month // 12, month=low.month % 12 + 1)
    else:
        high = low.replace(year=low.year + 1)
    high -= timedelta(microseconds=1)
    return _aware(low, offset), _aware(high, offset)


def _aware(moment: datetime, offset: str | None) -> datetime:
    if offset is None:
        return moment.astimezone(UTC)
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return moment.replace(tzinfo=timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))


def _matches(element: Json, key: Json) -> bool:
    wanted = [value for value in key.get("Value") or [] if value not in (None, "", {})]
    if not wanted:
        return True
    vr = key.get("vr", "")
    present = element.get("Value") or []
    if vr == "SQ":
        return any(matches(item, wanted[0]) for item in present if isinstance(item, dict))
    return any(_equal(vr, value, one) for one in wanted for value in present if value is not None)


def _equal(vr: str, value: Any, key: Any) -> bool:
    if vr == "PN":
        groups = value.values() if isinstance(value, dict) else [value]
        word = next(iter(key.values())) if isinstance(key, dict) else key
        return any(_like(str(group).rstrip("^").lower(), str(word).rstrip("^").lower()) for group in groups)
    value, key = str(value), str(key)
    if vr in ("DA", "TM", "DT"):
        return _within(vr, value, key)
    if vr in _WILD:
        return _like(value.strip(), key.strip())
    return bool(value.strip() == key.strip())


def _like(value: str, key: str) -> bool:
    return _pattern(key).fullmatch(value) is not None if "*" in key or "?" in key else value == key


@lru_cache(maxsize=256)
def _pattern(key: str) -> re.Pattern[str]:
    return re.compile(translate(key.replace("[", "[[]")))


def _within(vr: str, value: str, key: str) -> bool:
    if vr != "DT":
        low, dash, high = key.partition("-")
        if not dash:
            return value == key
        return (not low or value >= low) and (not high or value <= high or value.startswith(high))
    try:
        mine, exactly = span(value), span(key)
        if mine is None:
            return False
        if exactly is not None:
            return exactly[0] <= mine[0] <= exactly[1]
        found = _RANGE.fullmatch(key.strip())
        if found is None:
            return False
        low_end = span(found["low"]) if found["low"] else None
        high_end = span(found["high"]) if found["high"] else None
    except ValueError:
        return False
    return (low_end is None or mine[0] >= low_end[0]) and (high_end is None or mine[0] <= high_end[1])
