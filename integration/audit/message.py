"""What happened, as an audit message of PS3.15 A.5: UTF-8 XML that the schema of A.5.1 accepts."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from xml.etree import ElementTree

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry; received text may hold it."""


class EventKind(Enum):
    """EventID (CID 400, DCM) and EventActionCode."""

    APPLICATION = ("110100", "Application Activity", "E")
    BEGIN_TRANSFERRING = ("110102", "Begin Transferring DICOM Instances", "E")
    INSTANCES_ACCESSED = ("110103", "DICOM Instances Accessed", "R")
    INSTANCES_TRANSFERRED_IN = ("110104", "DICOM Instances Transferred", "C")
    INSTANCES_TRANSFERRED_OUT = ("110104", "DICOM Instances Transferred", "R")
    QUERY = ("110112", "Query", "E")
    SECURITY_ALERT = ("110113", "Security Alert", "E")
    USER_AUTHENTICATION = ("110114", "User Authentication", "E")


class EventType(Enum):
    """EventTypeCode (CID 401, DCM)."""

    APPLICATION_START = ("110120", "Application Start")
    APPLICATION_STOP = ("110121", "Application Stop")
    LOGIN = ("110122", "Login")
    LOGOUT = ("110123", "Logout")
    NODE_AUTHENTICATION = ("110126", "Node Authentication")


class Outcome(Enum):
    """EventOutcomeIndicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"


APPLICATION, LAUNCHER, DESTINATION, SOURCE = (
    ("110150", "Application"),
    ("110151", "Application Launcher"),
    ("110152", "Destination Role ID"),
    ("110153", "Source Role ID"),
)
"""RoleIDCode (CID 402, DCM)."""


@dataclass(frozen=True)
class Participant:
    """Who took part: a node (``user_id`` is ``AETITLES=...``), a process, or a person who logged in."""

    user_id: str
    is_requestor: bool
    role: tuple[str, str] | None = None
    address: str = ""
    alternative_id: str = ""


@dataclass(frozen=True)
class StudyObject:
    """A study that was touched. ``instances``: number by SOP Class UID."""

    study_instance_uid: str
    instances: Mapping[str, int]
    patient_id: str = ""
    accession_number: str = ""


@dataclass(frozen=True)
class AuditEvent:
    """One thing to be told."""

    kind: EventKind
    at: datetime
    participants: Sequence[Participant]
    type: EventType | None = None
    outcome: Outcome = Outcome.SUCCESS
    outcome_text: str = ""
    studies: Sequence[StudyObject] = ()
    details: Mapping[str, str] = field(default_factory=dict)


def write_message(event: AuditEvent, source_id: str, site: str = "") -> bytes:
    """The message as UTF-8 XML. ``source_id``: this agent (AuditSourceID); ``site``: the hospital."""
    root = ElementTree.Element("AuditMessage")
    code, meaning, action = event.kind.value
    about = {
        "EventActionCode": action,
        "EventDateTime": event.at.astimezone().isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": event.outcome.value,
    }
    identification = ElementTree.SubElement(root, "EventIdentification", about)
    _coded(identification, "EventID", code, meaning)
    if event.type is not None:
        _coded(identification, "EventTypeCode", *event.type.value)
    if event.outcome_text:
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = _clean(event.outcome_text)
    for one in event.participants:
        named = {"UserID": _clean(one.user_id), "UserIsRequestor": "true" if one.is_requestor else "false"}
        if one.alternative_id:
            named["AlternativeUserID"] = _clean(one.alternative_id)
        if one.address:
            is_ip = re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", one.address)
            named |= {"NetworkAccessPointID": _clean(one.address), "NetworkAccessPointTypeCode": "2" if is_ip else "1"}
        element = ElementTree.SubElement(root, "ActiveParticipant", named)
        if one.role is not None:
            _coded(element, "RoleIDCode", *one.role)
    source = {"AuditSourceID": _clean(source_id)}
    if site:
        source["AuditEnterpriseSiteID"] = _clean(site)
    ElementTree.SubElement(
        ElementTree.SubElement(root, "AuditSourceIdentification", source), "AuditSourceTypeCode", {"csd-code": "4"}
    )
    for study in event.studies:
        _study(root, study)
    if event.details:
        _alert(root, event)
    return bytes(ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True))


def _study(root: ElementTree.Element, study: StudyObject) -> None:
    element = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _clean(study.study_instance_uid),
            "ParticipantObjectTypeCode": "2",
            "ParticipantObjectTypeCodeRole": "3",
        },
    )
    _coded(element, "ParticipantObjectIDTypeCode", "110180", "Study Instance UID")
    ElementTree.SubElement(element, "ParticipantObjectName").text = _clean(study.study_instance_uid)
    description = ElementTree.SubElement(element, "ParticipantObjectDescription")
    if study.accession_number:
        ElementTree.SubElement(description, "Accession", {"Number": _clean(study.accession_number)})
    for sop_class, count in study.instances.items():
        ElementTree.SubElement(
            description, "SOPClass", {"UID": _clean(sop_class), "NumberOfInstances": str(count)}
        )  # fmt: skip
    patient = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _clean(study.patient_id) or "UNKNOWN",
            "ParticipantObjectTypeCode": "1",
            "ParticipantObjectTypeCodeRole": "1",
        },
    )
    _coded(patient, "ParticipantObjectIDTypeCode", "2", "Patient Number", "RFC-3881")
    # The identifier alone: an audit trail is read by people who need no names.
    ElementTree.SubElement(patient, "ParticipantObjectName").text = _clean(study.patient_id) or "UNKNOWN"


def _alert(root: ElementTree.Element, event: AuditEvent) -> None:
    """What a security alert or a query is about (A.5.3.11, A.5.3.10): values in base64, since strangers wrote them."""
    attributes = {"ParticipantObjectID": "details", "ParticipantObjectTypeCode": "2"}
    if event.kind is EventKind.QUERY:
        attributes["ParticipantObjectTypeCodeRole"] = "24"
    else:
        attributes["ParticipantObjectTypeCodeRole"] = "13"
    element = ElementTree.SubElement(root, "ParticipantObjectIdentification", attributes)
    _coded(element, "ParticipantObjectIDTypeCode", "110182", "Node ID")
    ElementTree.SubElement(element, "ParticipantObjectName").text = "details"
    for name, value in event.details.items():
        ElementTree.SubElement(
            element,
            "ParticipantObjectDetail",
            {"type": name, "value": base64.b64encode(value.encode("utf-8", "replace")).decode()},
        )


def _coded(parent: ElementTree.Element, name: str, code: str, meaning: str, system: str = "DCM") -> None:
    ElementTree.SubElement(
        parent, name, {"csd-code": code, "codeSystemName": system, "originalText": meaning, "displayName": meaning}
    )


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
