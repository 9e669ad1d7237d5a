"""How values read to people: names, ages, times, durations. Pure functions, no markup."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from firstread.models.findings import FINDING_BY_LABEL
from firstread.models.prediction import StudyIdentity, years_between


def person_names(patient_name: str) -> tuple[str, str]:
    """(main, other) writing of a DICOM PN: ``YAMADA, Tarou`` and ``山田 太郎``; other is empty for one writing."""
    groups = [_group(part) for part in patient_name.split("=")[:3]]
    alphabetic, ideographic = groups[0], groups[1] if len(groups) > 1 else ""
    phonetic = groups[2] if len(groups) > 2 else ""
    written = [name for name in (ideographic, alphabetic or phonetic) if name]
    if not written:
        return "no name", ""
    return written[0], written[1] if len(written) > 1 else ""


def _group(part: str) -> str:
    family, given, middle, prefix, suffix = (*(piece.strip() for piece in part.split("^")), "", "", "", "", "")[:5]
    first = " ".join(piece for piece in (prefix, given, middle) if piece)
    wide = any(ord(character) > 0x2E80 for character in family)
    name = (f"{family} {first}" if wide else f"{family}, {first}") if family and first else family or first
    return f"{name} {suffix}".strip() if suffix else name


def age_words(identity: StudyIdentity) -> str:
    """``64``, ``18 mo``, or nothing when neither age nor birth date can be read."""
    years = identity.patient_age_years
    born, seen = _day(identity.birth_date), _day(identity.study_date)
    if years is None and born and seen:
        years = years_between(born, seen)
    if years is None or years < 0:
        return ""
    return f"{int(years * 12)} mo" if years < 2 else f"{int(years)}"


def _day(text: str) -> date | None:
    digits = text.strip().replace("-", "").replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) if len(digits) == 8 else None
    except ValueError:
        return None


def view_words(identity: StudyIdentity) -> str:
    """``Chest PA``, or what the sender calls the study."""
    part = identity.body_part.strip().upper()
    if part in ("CHEST", "THORAX", "LUNG", "LUNGS") or (not part and not identity.study_description):
        name = "Chest" if part else ""
    else:
        name = identity.study_description.strip() or identity.body_part.strip().capitalize()
    return f"{name} {identity.view_position.strip().upper()}".strip()


def date_words(text: str) -> str:
    """``2026-03-02`` of a DICOM date; as received when it is none."""
    day = _day(text)
    return day.isoformat() if day else text


def wait_words(wait: timedelta) -> str:
    """``07 min``, ``99 min``, ``2 h 05``, ``3 d 04 h``: the same width for most rows."""
    minutes = max(0, int(wait.total_seconds() // 60))
    if minutes < 100:
        return f"{minutes:02d} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d}" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


def clock_words(at: datetime, now: datetime) -> str:
    """Local time of day, with the day when it is not today."""
    local, today = at.astimezone(), now.astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"


def ago_words(at: datetime | None, now: datetime) -> str:
    """``12 s ago``, ``5 min ago``, ``3 h ago``, ``never``."""
    if at is None:
        return "never"
    seconds = max(0, int((now - at).total_seconds()))
    for limit, size, unit in ((60, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size} {unit} ago"
    return f"{seconds // 86400} days ago"


def seconds_words(seconds: float | None) -> str:
    """``0.8 s``, ``12 s``, ``3 min``; a dash for nothing."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def finding_name(label: str) -> str:
    """The finding as a radiologist reads it, in lower case."""
    known = FINDING_BY_LABEL.get(label)
    return known.display if known else label.replace("_", " ").lower()


def count_words(count: int, one: str, many: str = "") -> str:
    """``1 film``, ``3 films``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
