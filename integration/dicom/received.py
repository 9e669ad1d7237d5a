"""What crosses from the receiver to its owner: settings in; instances, refusals and association events out."""

from __future__ import annotations

import enum
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class ReceiveSettings:
    """How the receiver listens, whom it takes films from, and what it allows a peer."""

    ae_title: str
    host: str
    port: int
    spool: Path
    """Folder for films that are coming in; on the file system of the spool, so that they move by rename."""
    allowed_calling_ae: tuple[str, ...] = ()
    """Calling AE titles that may send; empty: any."""
    allowed_addresses: tuple[str, ...] = ()
    """Addresses or CIDR networks (``10.1.2.0/24``) that may send; empty: any."""
    check_called_ae: bool = True
    maximum_associations: int = 40
    maximum_per_calling_ae: int = 16
    """0: no limit of its own."""
    maximum_pdu_length: int = 131072
    """Bytes, announced to the peer (PS3.8 D.1) and enforced."""
    acse_timeout_s: float = 30.0
    """From the connection to the association request."""
    dimse_timeout_s: float = 900.0
    """From the first to the last fragment of one film."""
    network_idle_timeout_s: float = 300.0
    """Between two PDUs."""
    pdu_deadline_s: float = 60.0
    """From the first to the last byte of one PDU."""
    disk_reserve_bytes: int = 2 * 1024**3
    """Below this free space on the spool's file system films are refused with A700."""
    max_film_bytes: int = 4 * 1024**3 - 1
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class ReceivedInstance:
    """One instance, complete and on disk (fsync done), not yet acknowledged.

    ``path`` lies in the incoming folder: its owner moves it to its place, or deletes it when it is not wanted (an
    identical resend); what is left there is not acknowledged. ``sha256`` and ``size_bytes`` are those of the data set's
    bytes as they came, without our meta header. ``header`` is the data set up to its pixel data, without
    values over 64 KiB, in the encoding it came in; values are not validated.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    sha256: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association_id: str
    message_id: int
    priority: int
    """PS3.7 C-STORE: 0 medium, 1 high, 2 low."""
    move_originator_ae_title: str
    move_originator_message_id: int | None
    header: Dataset = field(repr=False, compare=False)


@dataclass(frozen=True)
class Refusal:
    """An instance that was not kept, and the status its sender got."""

    status: int
    comment: str
    calling_ae_title: str
    peer_address: str
    association_id: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""


class AssociationOutcome(enum.Enum):
    """What happened to an association."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    ABORTED = "aborted"
    """By the peer, by us (timeout, protocol error), or the connection broke; ``why`` says which."""


@dataclass(frozen=True)
class AssociationEvent:
    """The beginning or the end of an association.

    ``result``, ``source`` and ``reason`` are those of the A-ASSOCIATE-RJ (PS3.8 9.3.4), 0 otherwise. ``films`` and
    ``refused`` count what was acknowledged and refused, ``duration_s`` is the life of the association; all three are
    0 for a beginning.
    """

    outcome: AssociationOutcome
    association_id: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    why: str = ""
    result: int = 0
    source: int = 0
    reason: int = 0
    films: int = 0
    refused: int = 0
    duration_s: float = 0.0
