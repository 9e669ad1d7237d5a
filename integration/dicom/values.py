"""One value of a header made valid for its VR (PS3.5 6.2): kept, mended, cut or emptied, and what was wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

MAXIMUM_LENGTH = {"SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240, "CS": 16}
"""Characters, per value; for PN per component group (PS3.5 Table 6.2-1)."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROLS_BUT_LINES = re.compile(r"[\x00-\x09\x0b\x0e-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_DATE = re.compile(r"(\d{4})([-./]?)(\d{2})\2(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6}))?)?)?")
_AGE = re.compile(r"\d{3}[DWMY]")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


@dataclass(frozen=True)
class Mended:
    """A value that fits its VR, and in words what had to be done for it: empty when nothing."""

    value: str
    done: str = ""


def mend(vr: str, text: str, *, may_cut: bool = True) -> Mended:
    """Make one value valid for its VR; values of VR ``DS`` and ``IS`` too. Never raises, for any text.

    ``may_cut``: a text that is too long is cut; False leaves it empty instead, for identifiers: a cut accession
    number is the number of another study.
    """
    return _MENDERS[vr](text, vr, may_cut)


def is_uid(text: str) -> bool:
    """True for a well-formed UID (PS3.5 9.1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _date(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped:
        return Mended("")
    match = _DATE.fullmatch(stripped) if stripped.isascii() else None
    if match:
        year, separator, month, day = match.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            return Mended("", "is no day of the calendar: left empty")
        return Mended(f"{year}{month}{day}", "was written with separators: mended" if separator else "")
    return Mended("", f"is not a date ({len(stripped)} characters): left empty")


def _time(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped:
        return Mended("")
    match = _TIME.fullmatch(stripped) if stripped.isascii() else None
    if match:
        hour, minute, second, fraction = match.groups()
        if int(hour) < 24 and int(minute or 0) < 60 and int(second or 0) <= 60:
            value = hour + (minute or "") + (second or "") + (f".{fraction}" if fraction else "")
            return Mended(value, "was written with separators: mended" if ":" in stripped else "")
    return Mended("", f"is not a time ({len(stripped)} characters): left empty")


def _age(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped or (stripped.isascii() and _AGE.fullmatch(stripped)):
        return Mended(stripped)
    return Mended("", "is not an age as 000Y: left empty")


def _code_string(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped or _CODE_STRING.fullmatch(stripped):
        return Mended(stripped)
    if stripped.isascii() and _CODE_STRING.fullmatch(stripped.upper()):
        return Mended(stripped.upper(), "was in lower case: mended")
    return Mended("", "is not a code string: left empty")


def _uid(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped or is_uid(stripped):
        return Mended(stripped)
    return Mended("", "is not a UID: left empty")


def _decimal(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped:
        return Mended("")
    number = number_in(stripped)
    if number is None:
        return Mended("", "is not a number: left empty")
    return (
        Mended(stripped) if len(stripped) <= 16 else Mended(f"{number:.10g}", "is longer than 16 characters: rounded")
    )


def _integer(text: str, _vr: str, _may_cut: bool) -> Mended:
    stripped = text.strip(" \0")
    if not stripped or re.fullmatch(r"[+-]?[0-9]{1,10}", stripped):
        return Mended(stripped)
    return Mended("", "is not an integer: left empty")


def _text(text: str, vr: str, may_cut: bool) -> Mended:
    """SH, LO, ST and LT of one value: no control characters, no backslash where it would part two values."""
    paragraph = vr in ("ST", "LT")
    value, done = _without_controls(text, paragraph=paragraph)
    value = value.rstrip() if paragraph else value.strip()
    if not paragraph and "\\" in value:
        if not may_cut:
            return Mended("", "holds several values where one is allowed: left empty")
        value, done = value.replace("\\", "/"), "holds several values where one is allowed: joined by a slash"
    limit = MAXIMUM_LENGTH[vr]
    if len(value) > limit:
        if not may_cut:
            return Mended("", f"has {len(value)} characters where {limit} are allowed: left empty")
        done = f"has {len(value)} characters where {limit} are allowed: cut"
        value = value[:limit].rstrip()
    return Mended(value, done)


def _person_name(text: str, _vr: str, _may_cut: bool) -> Mended:
    """PN (PS3.5 6.2.1): at most three component groups of five components and 64 characters each."""
    value, done = _without_controls(text, paragraph=False)
    if "\\" in value:
        value, done = value.partition("\\")[0], "holds several names where one is allowed: the first kept"
    groups = value.strip(" ").split("=")
    if len(groups) > 3:
        groups, done = groups[:3], "has more than three component groups: the first three kept"
    kept = []
    for group in groups:
        components = group.split("^")
        if len(components) > 5:
            components = [*components[:4], " ".join(components[4:])]
            done = "has more than five components: the last ones joined"
        name = "^".join(component.strip() for component in components)
        if len(name) > MAXIMUM_LENGTH["PN"]:
            done = f"has {len(name)} characters where {MAXIMUM_LENGTH['PN']} are allowed: cut"
            name = name[: MAXIMUM_LENGTH["PN"]].rstrip()
        kept.append(name.rstrip("^"))
    return Mended("=".join(kept).rstrip("="), done)


def _without_controls(text: str, *, paragraph: bool) -> tuple[str, str]:
    done = "has characters outside its character set: replaced" if "\ufffd" in text or _SURROGATES.search(text) else ""
    text = _SURROGATES.sub("\ufffd", text).strip("\0")
    value = (_CONTROLS_BUT_LINES if paragraph else _CONTROLS).sub(" ", text)
    if value != text and not done:
        done = "has control characters: replaced by spaces"
    return value, done


def number_in(text: str) -> float | None:
    """The finite number that a DS or IS value says, None where it says none."""
    if not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


_MENDERS: dict[str, Callable[[str, str, bool], Mended]] = {
    "DA": _date,
    "TM": _time,
    "AS": _age,
    "CS": _code_string,
    "UI": _uid,
    "DS": _decimal,
    "IS": _integer,
    "PN": _person_name,
    "SH": _text,
    "LO": _text,
    "ST": _text,
    "LT": _text,
}
