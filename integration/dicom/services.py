"""What a receiver serves beside C-STORE and C-ECHO: callables that its owner hands in; none given, none offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firstread.integration.dicom.acceptor import AcceptedAssociation
    from firstread.integration.dicom.commitment import CommitmentReport, CommitmentRequest
    from firstread.integration.dicom.query import QueryService


@dataclass(frozen=True)
class Caller:
    """Who asks: its titles and address, and the association that it asks on."""

    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    association_id: str


class ServiceBusy(Exception):
    """It cannot be done now; the caller may ask again. The message goes out as Error Comment."""


class ServiceRefused(Exception):
    """It is not done for this caller or this request; the message goes out as Error Comment."""


@dataclass(frozen=True)
class ReportDue:
    """A commitment report that may be sent on the association that it was asked on; ``claim`` is its owner's."""

    claim: object
    report: CommitmentReport


@dataclass(frozen=True)
class CommitmentService:
    """Storage commitment, both ways. Everything is called from the thread of an association.

    ``asked`` keeps a request durably and returns, or raises :class:`ServiceBusy` or :class:`ServiceRefused`.
    ``due`` says which report is ready for an association that still stands, and ``answered`` hears what its requester
    said (None: nothing) as status. ``told`` takes a report about what we asked elsewhere; it may raise as ``asked``.
    """

    asked: Callable[[Caller, CommitmentRequest], None]
    due: Callable[[Caller], ReportDue | None]
    answered: Callable[[ReportDue, int | None], None]
    told: Callable[[Caller, CommitmentReport], None]


Handler = Callable[["AcceptedAssociation", Any, int], None]
"""Serves one request of a SOP class: association, pynetdicom's primitive, presentation context id."""


@dataclass(frozen=True)
class Services:
    """The services of one receiver. ``handlers``: others, by SOP class, each on its own; ``served`` says by its calling
    AE title who is offered them."""

    commitment: CommitmentService | None = None
    query: QueryService | None = None
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    served: Callable[[str], bool] = lambda _: True
