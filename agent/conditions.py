"""Everything that becomes an alarm, in one list: what it is, how bad it is, and whether its words may name a patient.

An alarm's key is a condition's kind, or the kind, ``/`` and what it is about (``destination/PACS``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

CRITICAL, WARNING = "critical", "warning"


@dataclass(frozen=True)
class Condition:
    """``severity``: the worst it gets. ``what``: in words that name nobody, fit for e-mail."""

    kind: str
    severity: str
    what: str
    names_patient: bool = False
    """Its alarm's own words may name a patient: they stay on the page and the command line."""


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        one.kind: one
        for one in (
            # Films do not come in, or not through
            Condition("silence", WARNING, "no study has come for too long in working time"),
            Condition("disk", CRITICAL, "free disk is below the reserve: films are refused"),
            Condition("queue", CRITICAL, "too many films wait: new associations are refused"),
            Condition("waiting", WARNING, "a film has waited too long to be analysed"),
            Condition("model", CRITICAL, "the model does not report: its bundle or its canaries failed"),
            Condition("device", CRITICAL, "the GPU was passed over or lost; the processor works on, slower"),
            Condition("summing-up", CRITICAL, "a study has no result yet", names_patient=True),
            Condition("object", CRITICAL, "a report, heat map or message could not be built", names_patient=True),
            # Results do not go out
            Condition("destination", WARNING, "a destination does not take results; they wait", names_patient=True),
            Condition("delivery", CRITICAL, "a destination rejected a result", names_patient=True),
            Condition("uncommitted", WARNING, "a PACS has not committed to keep what it stored"),
            Condition("commitment", WARNING, "a sender that asked for storage commitment cannot be told"),
            # What arrived is not what it should be
            Condition("identity", WARNING, "a study came under another patient", names_patient=True),
            Condition("conflict", CRITICAL, "films of several patients came under one study", names_patient=True),
            Condition("burst", WARNING, "far more studies were raised than usual"),
            # The house itself
            Condition("spool", CRITICAL, "files that are still needed are missing or changed on the disk"),
            Condition("database", WARNING, "the database's log grows: something reads it for very long"),
            Condition("certificate", CRITICAL, "a certificate of ours ends soon, or cannot be read"),
            Condition("clock", WARNING, "the machine's clock was set while films came in"),
            Condition("audit", WARNING, "audit messages wait for their repository"),
            Condition("notices", WARNING, "notices of alarms cannot be sent"),
            Condition("test", WARNING, "a test notice: nothing is wrong"),
        )
    }
)


def condition_of(key: str) -> Condition:
    """The condition that an alarm's key stands for; one that this release does not know is taken for critical."""
    kind = key.split("/")[0]
    return CONDITIONS.get(kind) or Condition(kind, CRITICAL, kind.replace("-", " "), names_patient=True)
