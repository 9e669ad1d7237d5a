"""Whether an instance says who it is: its four UIDs, and that they are those announced (PS3.4 B.2.3, PS3.18 10.5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firstread.integration.dicom.header import text_of
from firstread.integration.dicom.status import CannotUnderstand, DoesNotMatch

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
"""Digits and dots, no empty component. Leading zeros (against PS3.5 9.1) come from real devices and harm nobody."""

SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E


@dataclass(frozen=True)
class InstanceUids:
    """Who an instance is. ``series_instance_uid`` may be empty."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def checked_uids(header: Dataset, *, sop_class_uid: str, sop_instance_uid: str) -> InstanceUids:
    """The UIDs of a header. Raises CannotUnderstand for missing or malformed ones and for another SOP instance than the
    one announced, DoesNotMatch for another SOP class."""
    study, series = text_of(header, STUDY), text_of(header, SERIES)
    sop_class, sop_instance = text_of(header, SOP_CLASS), text_of(header, SOP_INSTANCE)
    for uid, name in (
        (sop_class, "SOP Class UID (0008,0016)"),
        (sop_instance, "SOP Instance UID (0008,0018)"),
        (study, "Study Instance UID (0020,000D)"),
    ):
        if not is_uid(uid):
            raise CannotUnderstand(f"{name} is {'malformed' if uid else 'missing'}")
    if series and not is_uid(series):
        raise CannotUnderstand("Series Instance UID (0020,000E) is malformed")
    if sop_class != sop_class_uid:
        raise DoesNotMatch("SOP Class UID differs from the one in the command")
    if sop_instance != sop_instance_uid:
        raise CannotUnderstand("SOP Instance UID differs from the one in the command")
    return InstanceUids(sop_class, sop_instance, study, series)


def is_uid(text: str) -> bool:
    """Whether a text can stand as UID (PS3.5 9.1): at most 64 characters, components of digits."""
    return 0 < len(text) <= 64 and text.isascii() and _UID.fullmatch(text) is not None
