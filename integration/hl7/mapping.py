"""How one destination wants its messages: names, priority places, statuses. Everything a site settles with its RIS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from firstread.integration.hl7.charset import codec_of
from firstread.integration.hl7.errors import UnbuildableMessage
from firstread.integration.hl7.vocabulary import ABNORMAL_FLAGS, TABLE_0485
from firstread.models.prediction import Priority

PLACES = ("TQ1-9", "OBR-5", "OBR-27.6", "OBX-8")
_OTHER_PLACE = re.compile(r"OBX:[^|~\\]+|Z[A-Z0-9]{2}-[1-9]\d?")
ACCESSION_PLACES = ("OBR-18", "OBR-2", "OBR-3", "OBR-19", "OBR-20", "OBR-21")


def _priority_values() -> Mapping[Priority, str]:
    return {priority: code for priority, (code, _) in TABLE_0485.items()}


@dataclass(frozen=True)
class Hl7Mapping:
    """A destination's conventions. The defaults follow HL7 v2.5.1 and IHE and suit most.

    ``sending_application`` ... ``receiving_facility``: MSH-3 to 6, ``NAME`` or ``NAME^1.2.3^ISO``.
    ``processing_id``: P production, T training (MSH-11).
    ``priority_place``: where a raised priority stands: any of ``TQ1-9``, ``OBR-5``, ``OBR-27.6``, ``OBX-8`` (of the
    triage priority's OBX), ``OBX:CODE`` or ``OBX:CODE^text^scheme`` (one more OBX), ``ZFR-1`` (field of a Z-segment).
    ``priority_values``: the words for STAT and URGENT; OBX-8 takes ``abnormal_flags`` instead.
    ``result_status``, ``obr_25``: OBX-11 and OBR-25, R by default: entered, not verified. ``F`` here makes every later
    revision ``C``, because a correction is how a final result is replaced.
    ``assigning_authority``: of patient identifiers whose issuer the film does not name; ``patient_id_type``: CX-5.
    ``accession_place``: which fields of OBR hold the accession number.
    ``every_accession``: one ORC/OBR group for each accession number of the study; False: the first alone, for
    receivers that refuse several.
    ``character_set``: MSH-18; a message whose identifiers it cannot write goes out in UTF-8.
    """

    sending_application: str = "FIRSTREAD"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    processing_id: str = "P"
    priority_place: tuple[str, ...] = ("TQ1-9",)
    priority_values: Mapping[Priority, str] = field(default_factory=_priority_values)
    abnormal_flags: Mapping[Priority, str] = field(default_factory=lambda: dict(ABNORMAL_FLAGS))
    result_status: str = "R"
    obr_25: str = "R"
    assigning_authority: str = ""
    patient_id_type: str = "MR"
    accession_place: tuple[str, ...] = ("OBR-18",)
    every_accession: bool = True
    character_set: str = "UNICODE UTF-8"

    def __post_init__(self) -> None:
        """Refuse what could not be sent, naming the setting."""
        for place in self.priority_place:
            if place not in PLACES and not _OTHER_PLACE.fullmatch(place):
                raise UnbuildableMessage(
                    f"priority_place {place!r}: use one of {', '.join(PLACES)}, OBX:CODE, or a Z-segment as ZFR-1"
                )
        for place in self.accession_place:
            if place not in ACCESSION_PLACES:
                raise UnbuildableMessage(f"accession_place {place!r}: use one of {', '.join(ACCESSION_PLACES)}")
        if self.processing_id not in ("P", "T"):
            raise UnbuildableMessage(f"processing_id {self.processing_id!r}: use P (production) or T (training)")
        for name, value in (("result_status", self.result_status), ("obr_25", self.obr_25)):
            if value not in ("R", "P", "F"):
                raise UnbuildableMessage(f"{name} {value!r}: use R (not verified), P or F")
        if codec_of(self.character_set) in (None, "utf-16", "utf-32"):
            raise UnbuildableMessage(f"character_set {self.character_set!r}: use UNICODE UTF-8, or 8859/1 and the like")
        for priority in (Priority.STAT, Priority.URGENT):
            if not self.priority_values.get(priority, "").strip():
                raise UnbuildableMessage(f"priority_values: say what {priority.name} is called")
            if not self.abnormal_flags.get(priority, "").strip():
                raise UnbuildableMessage(f"abnormal_flags: say which flag {priority.name} has")
