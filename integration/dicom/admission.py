"""Who may associate: a pure decision, with the rejection the standard gives (PS3.8 9.3.4)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

PERMANENT, TRANSIENT = 1, 2
_USER, _PRESENTATION = 1, 3
_NO_REASON, _CALLING_AE, _CALLED_AE = 1, 3, 7
_CONGESTION, _LOCAL_LIMIT = 1, 2


@dataclass(frozen=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), and why in words for our own log."""

    result: int
    source: int
    reason: int
    why: str


@dataclass(frozen=True)
class Rules:
    """What the site allows. Empty tuples allow anybody; a limit of 0 is none."""

    ae_title: str
    check_called_ae: bool = True
    allowed_calling_ae: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    maximum_associations: int = 0
    maximum_per_calling_ae: int = 0

    def __post_init__(self) -> None:
        """Raises ``ValueError`` for an address or network that is none."""
        for allowed in self.allowed_addresses:
            ipaddress.ip_network(allowed, strict=False)


def decide(
    rules: Rules,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    address: str,
    active: int,
    active_of_calling_ae: int,
    closed_because: str | None = None,
) -> Rejection | None:
    """None when the association may be accepted.

    ``active`` counts associations without this one. Titles are compared without padding, in upper and lower case as
    they are (PS3.5 6.2, AE).
    """
    called, calling = called_ae_title.strip(), calling_ae_title.strip()
    if rules.allowed_addresses and not _within(address, rules.allowed_addresses):
        return Rejection(PERMANENT, _USER, _NO_REASON, f"address {address} is not in the list of allowed addresses")
    if rules.check_called_ae and called != rules.ae_title.strip():
        return Rejection(PERMANENT, _USER, _CALLED_AE, f"called AE title {called!r}, we are {rules.ae_title!r}")
    if rules.allowed_calling_ae and calling not in {title.strip() for title in rules.allowed_calling_ae}:
        return Rejection(PERMANENT, _USER, _CALLING_AE, f"calling AE title {calling!r} is not in the list")
    if closed_because is not None:
        return Rejection(TRANSIENT, _PRESENTATION, _CONGESTION, closed_because)
    if rules.maximum_associations and active >= rules.maximum_associations:
        why = f"{active} associations are open, {rules.maximum_associations} are allowed"
        return Rejection(TRANSIENT, _PRESENTATION, _LOCAL_LIMIT, why)
    if rules.maximum_per_calling_ae and active_of_calling_ae >= rules.maximum_per_calling_ae:
        why = f"{active_of_calling_ae} associations of {calling!r} are open, {rules.maximum_per_calling_ae} are allowed"
        return Rejection(TRANSIENT, _PRESENTATION, _LOCAL_LIMIT, why)
    return None


def _within(address: str, allowed: tuple[str, ...]) -> bool:
    try:
        peer = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in ipaddress.ip_network(network, strict=False) for network in allowed)
