"""The system view as values: links, queues, refusals with their remedy, and the last 24 hours as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from firstread.agent.store.events import Event
from firstread.agent.store.overview import Hour, Overview
from firstread.agent.store.watch import Alarm
from firstread.agent.web.links import Link
from firstread.agent.web.words import clock_words, seconds_words

PLOT_HEIGHT, BAR_WIDTH = 60, 12

REMEDIES: Mapping[str, str] = {
    "A700": "free disk space or raise [storage] path's disk; the PACS sends the film again",
    "A900": "the film is not what its SOP class says: look at the device's or the PACS's conversion",
    "C000": "the film's header cannot be read: send it again; if it stays so, the file is damaged at the sender",
    "0122": "the sender offers a kind of object that was not agreed: look at its list of SOP classes",
    "0117": "the film has no valid SOP Instance UID: look at what made it",
}


@dataclass(frozen=True)
class Refusal:
    """A film or an association that was not taken, and what to do about it."""

    at: str
    who: str
    status: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Bar:
    """One hour in a plot; heights in percent of the plot."""

    x: float
    height: float
    words: str


@dataclass(frozen=True)
class Plot:
    """Hours as bars. ``summary``: the plot in a sentence, for those who do not see it."""

    title: str
    bars: tuple[Bar, ...]
    highest: str
    summary: str


@dataclass(frozen=True)
class SystemView:
    """Everything that the system view shows."""

    links: tuple[Link, ...]
    queues: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    alarms: tuple[Alarm, ...]
    roles: tuple[tuple[str, bool, str], ...]
    refusals: tuple[Refusal, ...]
    plots: tuple[Plot, ...]


def system_view(
    facts: Overview, found: tuple[Link, ...], refused: Sequence[Event], hours: Sequence[Hour], now: datetime
) -> SystemView:
    """The view at ``now``."""
    queues = [
        ("films", _counts(facts.images)),
        ("studies", _counts(facts.studies)),
        ("reading list", _counts(facts.entries)),
    ]
    queues += [(f"to {one.name}", _counts(one.counts)) for one in facts.destinations]
    roles = tuple(
        (one.name, one.alive, f"beat {one.beat_age_s:.0f} s ago" if one.alive else f"silent for {one.beat_age_s:.0f} s")
        for one in facts.roles
    )
    return SystemView(
        links=found,
        queues=tuple(queues),
        alarms=facts.alarms,
        roles=roles,
        refusals=tuple(_refusal(one, now) for one in refused),
        plots=(
            _plot("films received an hour", [(one, float(one.films)) for one in hours], "films"),
            _plot("results made an hour", [(one, float(one.results)) for one in hours], "results"),
            _plot("median from film to result", [(one, one.latency_s) for one in hours], "s"),
        ),
    )


def _counts(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((state.replace("_", " "), count) for state, count in counts.items())


def _refusal(one: Event, now: datetime) -> Refusal:
    status = str(one.detail.get("status") or "")
    who = str(one.detail.get("calling_ae_title") or "unknown sender")
    address = one.detail.get("address")
    remedy = REMEDIES.get(status, "")
    if one.kind != "refused":
        remedy = "check AE titles and [dicom] allowed_calling_ae, allowed_addresses, maximum_associations"
    return Refusal(
        at=clock_words(one.at, now),
        who=f"{who} ({address})" if address else who,
        status=status or "association",
        why=str(one.detail.get("why") or ""),
        remedy=remedy or "see the PACS's own log for what it did next",
    )


def _plot(title: str, hours: Sequence[tuple[Hour, float | None]], unit: str) -> Plot:
    highest = max((value for _, value in hours if value is not None), default=0.0)
    bars = tuple(
        Bar(
            x=number * BAR_WIDTH,
            height=round(PLOT_HEIGHT * value / highest, 1) if highest else 0.0,
            words=f"{one.start.astimezone():%H:%M}: {_amount(value, unit)}",
        )
        for number, (one, value) in enumerate(hours)
        if value is not None
    )
    top = _amount(highest, unit)
    newest = hours[-1][1] if hours else None
    last = "nothing" if newest is None else _amount(newest, unit)
    return Plot(title, bars, top, f"{title}, last 24 hours: highest {top}, last hour {last}")


def _amount(value: float, unit: str) -> str:
    return seconds_words(value) if unit == "s" else f"{value:.0f} {unit}"
