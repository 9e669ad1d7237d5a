"""What orders and results from others have in common: the kind of message, the patient, the keys, the priority."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from firstread.integration.hl7.er7 import Message, Segment
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from firstread.integration.hl7.person import person_name
from firstread.integration.hl7.vocabulary import STUDY_INSTANCE_UID, ordered_priority
from firstread.models.prediction import Priority, StudyIdentity

ACCESSION_PLACES = ("IPC-1", "OBR-18")
"""Where accession numbers are looked for: OMI^O23's own segment, and the field that IHE's RAD-4 uses in ORM^O01."""


def check_kind(message: Message, accepted: Mapping[str, str]) -> None:
    """Refuse what is not among ``accepted`` (message code to trigger event), and headers without what 2.5.1 requires.

    Raises ``UnreadableMessage``: 200 unsupported type, 201 event, 203 version, 101 missing MSH-9 or MSH-10.
    """
    msh = message.header
    code, trigger = msh.value(9, 1), msh.value(9, 2)
    kinds = ", ".join(f"{kind}^{event}" for kind, event in accepted.items())
    if not code:
        raise UnreadableMessage(101, msh.at(9), f"MSH-9 is empty: say what kind of message it is, one of {kinds}")
    if code not in accepted:
        raise UnreadableMessage(200, msh.at(9, 1), f"this kind of message is not taken here: send {kinds}")
    if trigger and trigger != accepted[code]:
        raise UnreadableMessage(201, msh.at(9, 2), f"this trigger event is not taken here: send {kinds}")
    if not msh.value(10):
        raise UnreadableMessage(101, msh.at(10), "MSH-10 is empty: give each message a control id")
    version = msh.value(12)
    if version and not version.startswith("2."):
        raise UnreadableMessage(203, msh.at(12), "this version is not taken here: send HL7 v2.1 to v2.9")


@dataclass(frozen=True)
class Group:
    """The segments of one order within a message: from one ORC (or OBR without one) to the next."""

    segments: tuple[Segment, ...]

    def first(self, name: str) -> Segment | None:
        """The first segment of this name in the group."""
        return next(self.all(name), None)

    def all(self, *names: str) -> Iterator[Segment]:
        """The segments of these names in the group, in order."""
        return (segment for segment in self.segments if segment.name in names)

    def value(self, name: str, field: int, component: int = 1) -> str:
        """One value of the first segment of this name, empty where there is none."""
        segment = self.first(name)
        return segment.value(field, component) if segment else ""


def groups(message: Message) -> list[Group]:
    """The order groups of a message. Comments and patient segments before the first belong to none."""
    found: list[list[Segment]] = []
    for segment in message.segments:
        begins = segment.name == "ORC" or (
            segment.name == "OBR" and (not found or any(earlier.name == "OBR" for earlier in found[-1]))
        )
        if begins:
            found.append([])
        if found:
            found[-1].append(segment)
    return [Group(tuple(segments)) for segments in found]


def read_patient(message: Message, study: StudyIdentity) -> StudyIdentity:
    """``study`` with the patient of PID and the class of PV1; unchanged where there is no PID."""
    pv1, pid = message.first("PV1"), message.first("PID")
    study = replace(study, patient_class=pv1.value(2)) if pv1 else study
    if pid is None:
        return study
    chosen = _identifier(pid)
    return replace(
        study,
        patient_id=pid.value(3, 1, 1, chosen),
        issuer_of_patient_id=authority(pid, 3, 4, chosen),
        patient_name=person_name(pid),
        birth_date=pid.value(7)[:8],
        sex=pid.value(8),
    )


def _identifier(pid: Segment) -> int:
    """Which repetition of PID-3 is the one that films carry: the medical record number, else the first."""
    types = [pid.value(3, 5, 1, number) for number in range(1, len(pid.repetitions(3)) + 1)]
    return next((types.index(kind) + 1 for kind in ("MR", "PI") if kind in types), 1)


def authority(segment: Segment, field: int, component: int, repetition: int = 1) -> str:
    """An HD inside a component as text: ``HOSP`` or ``HOSP&1.2.3&ISO``."""
    parts = [segment.value(field, component, part, repetition) for part in (1, 2, 3)]
    return "&".join(parts).rstrip("&")


def order_numbers(group: Group) -> tuple[str, str]:
    """Placer and filler order number, from ORC or else OBR."""
    return (
        group.value("ORC", 2) or group.value("OBR", 2),
        group.value("ORC", 3) or group.value("OBR", 3),
    )


def accession_numbers(group: Group, places: Sequence[str]) -> tuple[str, ...]:
    """The accession numbers of a group, from ``places`` such as ``IPC-1``, ``OBR-18``, ``OBR-3``; each once."""
    found: dict[str, None] = {}
    for place in places:
        name, _, number = place.partition("-")
        for segment in group.all(name):
            for repetition in range(1, len(segment.repetitions(int(number))) + 1):
                found.setdefault(segment.value(int(number), 1, 1, repetition))
    return tuple(number for number in found if number)


def study_instance_uid(segments: Iterable[Segment]) -> str:
    """The Study Instance UID: IPC-3, ZDS-1 (IHE), or an OBX with code 113014; empty where none is said."""
    for segment in segments:
        if segment.name == "IPC" and segment.value(3):
            return segment.value(3)
        if segment.name == "ZDS" and segment.value(1):
            return segment.value(1)
        is_uid = segment.name == "OBX" and segment.value(3) == STUDY_INSTANCE_UID.value
        if is_uid and segment.value(5):
            return segment.value(5)
    return ""


def read_priority(
    group: Group, values: Mapping[str, Priority] | None = None, places: Sequence[str] = ()
) -> tuple[Priority | None, tuple[str, ...]]:
    """The highest priority that the group asks for in any place, and the values that could not be understood.

    Asked are TQ1-9, OBR-5, OBR-27.6, ORC-7.6, and ``places`` (``ZFR-1``, ``OBX:CODE``) where a site has its own.
    """
    said = [tq1.value(9, 1, 1, n) for tq1 in group.all("TQ1") for n in range(1, len(tq1.repetitions(9)) + 1)]
    for obr in group.all("OBR"):
        said += [obr.value(5), *(obr.value(27, 6, 1, n) for n in range(1, len(obr.repetitions(27)) + 1))]
    for orc in group.all("ORC"):
        said += [orc.value(7, 6, 1, n) for n in range(1, len(orc.repetitions(7)) + 1)]
    for place in places:
        said += _said_at(group, place)
    words = [word for word in said if word]
    understood = [priority for priority in (ordered_priority(word, values) for word in words) if priority is not None]
    unknown = tuple(dict.fromkeys(word for word in words if ordered_priority(word, values) is None))
    return max(understood, default=None), unknown


def _said_at(group: Group, place: str) -> list[str]:
    if place.startswith("OBX:"):
        code = place[4:].split("^")[0]
        return [obx.value(5) for obx in group.all("OBX") if obx.value(3) == code]
    if place.startswith("Z"):
        name, _, number = place.partition("-")
        return [segment.value(int(number)) for segment in group.all(name)]
    return []


def missing(segment: str, field: int, sentence: str) -> UnreadableMessage:
    """A required field that is not there."""
    return UnreadableMessage(101, ErrorLocation(segment, 1, field), sentence)
