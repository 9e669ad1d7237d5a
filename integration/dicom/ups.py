"""The vocabulary of the Unified Procedure Step: identifiers, states, events and what a refusal is called (PS3.4 CC)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

PUSH = "1.2.840.10008.5.1.4.34.6.1"
WATCH = "1.2.840.10008.5.1.4.34.6.2"
PULL = "1.2.840.10008.5.1.4.34.6.3"
EVENT = "1.2.840.10008.5.1.4.34.6.4"
QUERY = "1.2.840.10008.5.1.4.34.6.5"
SOP_CLASSES = (PUSH, WATCH, PULL, EVENT, QUERY)
"""A UPS is always an instance of the first, whichever class it is spoken of in (PS3.4 CC.3.1)."""

GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED_GLOBAL = "1.2.840.10008.5.1.4.34.5.1"

Json = dict[str, Any]
"""Attributes as DICOM JSON Model Objects (PS3.18 F): tag of eight digits to ``vr`` and ``Value``."""


class State(enum.StrEnum):
    """Procedure Step State (0074,1000); the last two are for good (PS3.4 CC.1.1)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def final(self) -> bool:
        """True when nothing may be changed any more."""
        return self in (State.COMPLETED, State.CANCELED)


class Readiness(enum.StrEnum):
    """Input Readiness State (0040,4041)."""

    INCOMPLETE = "INCOMPLETE"
    """Inputs may still come."""
    UNAVAILABLE = "UNAVAILABLE"
    READY = "READY"


class UpsPriority(enum.StrEnum):
    """Scheduled Procedure Step Priority (0074,1200), PS3.3 C.30.2."""

    HIGH = "HIGH"
    """Urgent or emergent, equivalent to a STAT request."""
    MEDIUM = "MEDIUM"
    LOW = "LOW"
    """Routine or non-urgent."""


class EventType(enum.IntEnum):
    """Event Type ID of an N-EVENT-REPORT (PS3.4 Table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


class ScpStatus(enum.StrEnum):
    """SCP Status (0074,1242) of an SCP Status Change event (PS3.4 Table CC.2.4-1)."""

    RESTARTED = "RESTARTED"
    GOING_DOWN = "GOING DOWN"

    def information(self) -> Json:
        """The event's attributes. After a restart both lists (0074,1244 and 0074,1246) are as they were: WARM START."""
        said = {"00741242": self.value}
        if self is ScpStatus.RESTARTED:
            said |= {"00741244": "WARM START", "00741246": "WARM START"}
        return {tag: {"vr": "CS", "Value": [word]} for tag, word in said.items()}


class Action(enum.IntEnum):
    """Action Type ID of an N-ACTION (PS3.4 CC.2.1 to CC.2.3)."""

    CHANGE_STATE = 1
    REQUEST_CANCEL = 2
    SUBSCRIBE = 3
    UNSUBSCRIBE = 4
    SUSPEND_GLOBAL = 5


class Status(enum.IntEnum):
    """DIMSE statuses of the UPS service (PS3.4 CC.2, PS3.7 C); the Bxxx are warnings: it was done."""

    SUCCESS = 0x0000
    NO_SUCH_ATTRIBUTE = 0x0105
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    NO_SUCH_ACTION = 0x0123
    CREATED_WITH_MODIFICATIONS = 0xB300
    NO_DELETION_LOCK = 0xB301
    ALREADY_CANCELED = 0xB304
    COERCED = 0xB305
    ALREADY_COMPLETED = 0xB306
    NO_LONGER_UPDATED = 0xC300
    WRONG_TRANSACTION_UID = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    SCHEDULED_BY_CREATION_ALONE = 0xC303
    FINAL_STATE_REQUIREMENTS = 0xC304
    UNKNOWN_INSTANCE = 0xC307
    UNKNOWN_RECEIVER = 0xC308
    NOT_CREATED_SCHEDULED = 0xC309
    NOT_IN_PROGRESS = 0xC310
    IS_COMPLETED = 0xC311
    ACTION_NOT_APPROPRIATE = 0xC314


MEANINGS: Mapping[Status, str] = MappingProxyType(
    {
        Status.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
        Status.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
        Status.CREATED_WITH_MODIFICATIONS: "The Workitem was created with modifications.",
        Status.COERCED: "The Workitem was updated with modifications.",
        Status.NO_DELETION_LOCK: "Deletion Lock not granted.",
    }
)
"""The warnings in the words of PS3.18 11."""


class UpsRefusal(Exception):
    """Something of the UPS service that is not done: the standard's status, and why in words."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True)
class Asker:
    """Who asks: for the trail (``ups PACS``), and the AE title where one is known."""

    name: str
    ae_title: str = ""


@dataclass(frozen=True)
class UpsEvent:
    """One event of one work item. ``information``: the event's attributes (PS3.4 Table CC.2.4-1)."""

    id: int
    sop_instance_uid: str
    type: EventType
    information: Json

    def as_json(self) -> Json:
        """The event report as it goes over a notification connection (PS3.18 8.10.5): command and information."""
        return {
            "00000002": {"vr": "UI", "Value": [PUSH]},
            "00000110": {"vr": "US", "Value": [self.id % 65536]},
            "00001000": {"vr": "UI", "Value": [self.sop_instance_uid]},
            "00001002": {"vr": "US", "Value": [int(self.type)]},
            **self.information,
        }


def first(attributes: Json, tag: str, default: Any = None) -> Any:
    """The first value of an attribute; a person's name by its alphabetic group."""
    values = attributes.get(tag, {}).get("Value") or []
    value = values[0] if values else default
    if isinstance(value, dict) and "vr" not in value and "Alphabetic" in value:
        return value["Alphabetic"]
    return default if value is None else value
