"""What a RIS sends about an order: ORM^O01, OMI^O23, OMG^O19 (HL7 v2.5.1 chapter 4). Results are in ``reported``."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from firstread.integration.hl7 import incoming
from firstread.integration.hl7.er7 import Message, Segment, read
from firstread.integration.hl7.errors import ErrorLocation, UnreadableMessage
from firstread.integration.hl7.incoming import Group
from firstread.integration.hl7.person import read_dtm
from firstread.integration.hl7.reported import IncomingResult, parse_result, parse_results
from firstread.models.prediction import Priority, StudyIdentity

__all__ = [
    "IncomingResult",
    "Order",
    "OrderKind",
    "UnreadableMessage",
    "message_code",
    "parse_order",
    "parse_orders",
    "parse_result",
    "parse_results",
]

ORDER_KINDS = {"ORM": "O01", "OMI": "O23", "OMG": "O19"}


class OrderKind(enum.StrEnum):
    """What a message does to an order."""

    NEW = "new"
    CHANGE = "change"
    CANCEL = "cancel"
    """It will not be carried out."""
    DISCONTINUE = "discontinue"
    """It was begun and is ended."""
    STATUS = "status"
    """News of it, nothing to do."""


CONTROLS: Mapping[str, OrderKind] = {
    **dict.fromkeys(("NW", "SN", "PA", "CH", "RO"), OrderKind.NEW),
    **dict.fromkeys(("XO", "XX", "XR", "AF"), OrderKind.CHANGE),
    **dict.fromkeys(("CA", "OC", "CR", "RP", "RU", "RQ"), OrderKind.CANCEL),
    **dict.fromkeys(("DC", "OD", "DR"), OrderKind.DISCONTINUE),
    **dict.fromkeys(
        "SC SS SR NA OK OE OF OR OH HD HR RL RE RR DE PR CN UA UC UD UF UH UM UN UR UX DF FU LI NC PY RF IP".split(),  # noqa: SIM905 - one line to read
        OrderKind.STATUS,
    ),
}
"""ORC-1, table 0119. A replacement is the end of the replaced order (RP, RU, RQ) and a new one (RO)."""

_ENDED = {"CA": OrderKind.CANCEL, "DC": OrderKind.DISCONTINUE, "RP": OrderKind.CANCEL}
"""ORC-5, table 0038: a status that ends the order, whatever ORC-1 calls the message."""


@dataclass(frozen=True)
class Order:
    """One order as the RIS tells it; ``patient`` holds PID and PV1, and the keys once more as a study has them.

    ``ordered_priority``: the highest that any place says, None when none does. ``unknown_priorities``: values that
    no table holds: to be shown, never to be guessed.
    ``control``: ORC-1 as sent; ``order_status``: ORC-5.
    ``ordered_at``: ORC-9 or else OBR-6, as sent: without a zone where it had none.
    """

    kind: OrderKind
    control: str
    message_control_id: str
    placer_order_number: str = ""
    filler_order_number: str = ""
    accession_numbers: tuple[str, ...] = ()
    study_instance_uid: str = ""
    patient: StudyIdentity = StudyIdentity("")  # noqa: RUF009 - frozen
    ordered_priority: Priority | None = None
    unknown_priorities: tuple[str, ...] = ()
    procedure_code: str = ""
    procedure_text: str = ""
    procedure_scheme: str = ""
    order_status: str = ""
    ordered_at: datetime | None = None
    remark: str = ""

    @property
    def accession_number(self) -> str:
        """The first accession number, empty when there is none."""
        return self.accession_numbers[0] if self.accession_numbers else ""


def message_code(message: bytes) -> str:
    """MSH-9.1 (``ORM``, ``ORU``), to choose the parser by. Raises ``UnreadableMessage`` without a header."""
    return read(message).header.value(9, 1)


def parse_orders(
    message: bytes,
    *,
    priority_values: Mapping[str, Priority] | None = None,
    accession_places: Sequence[str] = incoming.ACCESSION_PLACES,
) -> tuple[Order, ...]:
    """All orders of a message, at least one. A message may carry several (one ORC group each).

    ``priority_values``: a site's own words for priorities, asked before the tables.
    Raises ``UnreadableMessage``: 100 no ORC; 101 no ORC-1, or no key by which an order could be found again; 103 an
    ORC-1 that table 0119 does not hold; 200, 201, 203 not an order message.
    """
    taken = read(message)
    incoming.check_kind(taken, ORDER_KINDS)
    found = incoming.groups(taken)
    orcs = [orc for orc in (group.first("ORC") for group in found) if orc]
    if not found or len(orcs) < len(found):
        raise UnreadableMessage(100, ErrorLocation("ORC"), "an order without ORC: begin each order with an ORC segment")
    uids = {uid for uid in (incoming.study_instance_uid(group.segments) for group in found) if uid}
    shared_uid = next(iter(uids)) if len(uids) == 1 else ""
    return tuple(
        _order(taken, group, orc, shared_uid, priority_values, accession_places)
        for group, orc in zip(found, orcs, strict=True)
    )


def parse_order(
    message: bytes,
    *,
    priority_values: Mapping[str, Priority] | None = None,
    accession_places: Sequence[str] = incoming.ACCESSION_PLACES,
) -> Order:
    """The one order of a message, as ``parse_orders``; several are refused (100), so that none is lost."""
    orders = parse_orders(message, priority_values=priority_values, accession_places=accession_places)
    if len(orders) > 1:
        raise UnreadableMessage(100, ErrorLocation("ORC", 2), "several orders in one message: send one a message")
    return orders[0]


def _order(
    message: Message,
    group: Group,
    orc: Segment,
    shared_uid: str,
    priority_values: Mapping[str, Priority] | None,
    accession_places: Sequence[str],
) -> Order:
    control = orc.value(1).upper()
    if not control:
        raise UnreadableMessage(101, orc.at(1), "ORC-1 is empty: say what is to be done with the order")
    if control not in CONTROLS:
        raise UnreadableMessage(103, orc.at(1), "ORC-1 is not in table 0119: send NW, XO, CA, DC or SC")
    placer, filler = incoming.order_numbers(group)
    accessions = incoming.accession_numbers(group, accession_places)
    uid = incoming.study_instance_uid(group.segments) or shared_uid
    if not (placer or filler or accessions or uid):
        raise UnreadableMessage(
            101,
            orc.at(2),
            "the order has no key: send a placer or filler order number, an accession number or a Study UID",
        )
    priority, unknown = incoming.read_priority(group, priority_values)
    status = orc.value(5).upper()
    procedure = 4 if group.value("OBR", 4) or group.value("OBR", 4, 2) else 44
    code, text, scheme = (group.value("OBR", procedure, part) for part in (1, 2, 3))
    study = StudyIdentity(
        uid,
        accession_number=accessions[0] if accessions else "",
        accession_numbers=accessions,
        placer_order_number=placer,
        filler_order_number=filler,
        procedure_code=code,
        procedure_scheme=scheme,
        procedure_meaning=text,
        modality=group.value("IPC", 5) or group.value("OBR", 24),
    )
    return Order(
        kind=_ENDED.get(status, CONTROLS[control]),
        control=control,
        message_control_id=message.header.value(10),
        placer_order_number=placer,
        filler_order_number=filler,
        accession_numbers=accessions,
        study_instance_uid=uid,
        patient=incoming.read_patient(message, study),
        ordered_priority=priority,
        unknown_priorities=unknown,
        procedure_code=code,
        procedure_text=text,
        procedure_scheme=scheme,
        order_status=status,
        ordered_at=read_dtm(orc.value(9)) or read_dtm(group.value("OBR", 6)),
        remark=message.remark,
    )
