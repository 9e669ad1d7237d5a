"""A patient's name, number, birth date and sex between DICOM (PN, LO, DA, CS) and HL7 (XPN, CX, TS, IS)."""

from __future__ import annotations

import re
from datetime import date, datetime

from firstread.integration.hl7.er7 import Segment, component, compose, field
from firstread.integration.hl7.escape import escape, tidy

_REPRESENTATIONS = "AIP"
"""Table 0465 in the order of DICOM's component groups: alphabetic, ideographic, phonetic (PS3.5 6.2.1.1)."""

_TEXT_LIMIT = 199
"""Longest text component that receivers take (hl7apy holds ST and IS to it)."""


def xpn(patient_name: str) -> str:
    """DICOM PN to XPN repetitions, one per component group.

    DICOM orders family, given, middle, prefix, suffix; XPN family, given, middle, suffix, prefix. The type is L (legal)
    for the first group and D (display) is not claimed. No name at all is ``U``, unspecified (table 0200).
    """
    repetitions = []
    groups = patient_name.split("=")[:3]
    several = sum(1 for group in groups if group.strip("^ ")) > 1
    for representation, group in zip(_REPRESENTATIONS, groups, strict=False):
        parts = [tidy(part) for part in group.split("^")]
        if not any(parts):
            continue
        family, given, middle, prefix, suffix = [*parts, "", "", "", ""][:5]
        suffix = " ".join([suffix, *parts[5:]]).strip()
        code = representation if several or representation != "A" else ""
        repetitions.append(field(*map(_cut, (family, given, middle, suffix, prefix)), "", "L", code))
    return "~".join(repetitions) or field("", "", "", "", "", "", "U")


def _cut(text: str) -> str:
    while len(escape(text)) > _TEXT_LIMIT:
        text = text[: min(len(text) - 1, _TEXT_LIMIT)]
    return text


def person_name(pid: Segment, number: int = 5) -> str:
    """XPN repetitions to DICOM PN, component groups by XPN-8 (A where it says nothing), the first of each."""
    groups: dict[str, str] = {}
    for repetition in range(1, len(pid.repetitions(number)) + 1):
        family, given, middle, suffix, prefix = (
            pid.value(number, part, 1, repetition).replace("^", " ").replace("=", " ").replace("\n", " ")
            for part in range(1, 6)
        )
        text = "^".join((family, given, middle, prefix, suffix)).rstrip("^")
        if text:
            groups.setdefault(pid.value(number, 8, 1, repetition) or "A", text)
    return "=".join(groups.get(representation, "") for representation in _REPRESENTATIONS).rstrip("=")


def hd(text: str) -> tuple[str, ...]:
    """A hierarchic designator as people write it in settings, ``RIS``, ``RIS^1.2.3^ISO`` or ``RIS&1.2.3&ISO``."""
    return tuple(part.strip() for part in re.split(r"[\^&]", text))[:3]


def cx(number: str, authority: str, type_code: str) -> str:
    """An identifier with its assigning authority (CX-4) and type (CX-5); empty without a number."""
    number = tidy(number)
    if not number:
        return ""
    return compose(escape(number), "", "", component(*hd(authority)), escape(type_code))


def birth_date(text: str) -> str:
    """A birth date as DT, empty where the source holds no date (real films carry hashes there)."""
    digits = text.strip().replace(".", "").replace("-", "")
    if not re.fullmatch(r"[0-9]{8}", digits):
        return ""
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return ""
    return digits


def sex(text: str) -> str:
    """Administrative sex (table 0001) for DICOM's M, F, O; empty for anything else."""
    letter = text.strip().upper()[:1]
    return letter if text.strip().upper() in ("M", "F", "O") else ""


def study_time(study_date: str, study_time: str) -> str:
    """StudyDate and StudyTime as DTM in the sender's local time (DICOM gives no offset), empty without a date."""
    day = birth_date(study_date)
    digits = re.match(r"[0-9]*", study_time.strip().replace(":", ""))
    clock = digits.group()[:6] if digits else ""
    clock = clock[: len(clock) // 2 * 2]
    if not day:
        return ""
    try:
        datetime.strptime("000000"[len(clock) :] + clock, "%H%M%S")
    except ValueError:
        return day
    return day + (clock if len(clock) >= 4 else "")


def dtm(moment: datetime) -> str:
    """A moment to the second, with its offset from UTC where it is known."""
    return moment.strftime("%Y%m%d%H%M%S") + (moment.strftime("%z")[:5] if moment.tzinfo else "")


def read_dtm(text: str) -> datetime | None:
    """A DTM as sent, without an offset where it had none; None where it is no time."""
    match = re.fullmatch(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\.\d{1,4})?([+-]\d{4})?", text, re.ASCII)
    if not match:
        return None
    year, month, day, hour, minute, second, _, offset = match.groups()
    whole = f"{year}{month or '01'}{day or '01'}{hour or '00'}{minute or '00'}{second or '00'}"
    try:
        return datetime.strptime(whole + (offset or ""), "%Y%m%d%H%M%S" + ("%z" if offset else ""))
    except ValueError:
        return None
