"""Each link to the outside (PACS in, model, PACS out, RIS, reading list) in one word, one sentence and a remedy."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from firstread.agent.config import WORKLIST_DESTINATION, Settings
from firstread.agent.store.overview import DestinationFacts, Overview
from firstread.agent.web.words import ago_words, count_words

WAITS_TOO_LONG_S = 120.0
"""A film or a result that waits longer than this says that nobody works on it."""


class LinkState(enum.IntEnum):
    """How a link stands, the worst last. Told by word and mark, never by colour alone."""

    UP = 0
    UNUSED = 1
    HELD = 2
    TROUBLE = 3
    DOWN = 4

    @property
    def mark(self) -> str:
        """The sign beside the word."""
        return {0: "●", 1: "○", 2: "Ⅱ", 3: "▲", 4: "✕"}[int(self)]


@dataclass(frozen=True)
class Link:
    """``last``: its last success. ``remedy``: what to do, empty while nothing is to be done."""

    name: str
    what: str
    state: LinkState
    words: str
    last: datetime | None
    remedy: str = ""
    command: str = ""

    @property
    def releases(self) -> bool:
        """True where something is kept back that can be released."""
        return self.state is LinkState.HELD


def links(facts: Overview, settings: Settings, now: datetime) -> tuple[Link, ...]:
    """Every link, in the order in which a study passes them."""
    known = {one.name: one for one in settings.all_destinations}
    found = [_pacs_in(facts, settings, now), _model(facts, now)]
    for one in facts.destinations:
        destination = known.get(one.name)
        if destination is None:
            what = "no longer in the settings"
        elif one.name == WORKLIST_DESTINATION:
            what = "built-in reading list (HL7)"
        else:
            what = "PACS out" if destination.type == "dicom" else "RIS"
        found.append(_destination(one, what, facts, known=destination is not None, now=now))
    return tuple(found)


def worst(found: Sequence[Link]) -> Link | None:
    """The link that needs somebody most; None when none does."""
    bad = [one for one in found if one.state >= LinkState.TROUBLE]
    return max(bad, key=lambda one: one.state, default=None)


def _pacs_in(facts: Overview, settings: Settings, now: datetime) -> Link:
    name, what = "PACS in", f"{settings.dicom.ae_title} on port {settings.dicom.port}"
    role = facts.role("receive")
    if role is None or not role.alive:
        since = "was not started" if role is None else f"gave no sign of life for {role.beat_age_s:.0f} s"
        return Link(
            name, what, LinkState.DOWN, f"the receiver {since}", facts.last_received,
            "films wait at the PACS: look at the agent's log and start it again", "firstread run",
        )  # fmt: skip
    if not role.status.get("listening"):
        return Link(name, what, LinkState.DOWN, "the receiver does not listen yet", facts.last_received)
    full = next((one for one in facts.alarms if one.key == "disk"), None)
    if full is not None:
        return Link(name, what, LinkState.DOWN, f"films are refused: {full.text}", facts.last_received, full.remedy)
    return Link(
        name, what, LinkState.UP, f"listening, last film {ago_words(facts.last_received, now)}", facts.last_received
    )


def _model(facts: Overview, now: datetime) -> Link:
    role = facts.role("analyse")
    name, last = "model", facts.last_analysed
    if role is None or not role.alive:
        since = "was not started" if role is None else f"gave no sign of life for {role.beat_age_s:.0f} s"
        return Link(
            name, "analyser", LinkState.DOWN, f"the analyser {since}", last,
            "films are kept and will be analysed: look at the agent's log", "firstread run",
        )  # fmt: skip
    engine = str(role.status.get("engine") or "")
    alarm = next((one for one in facts.alarms if one.key.startswith(("model", "bundle", "canary", "gpu"))), None)
    if alarm is not None:
        return Link(name, engine, LinkState.DOWN, alarm.text, last, alarm.remedy)
    oldest = facts.oldest_waiting_image
    if oldest is not None and now - oldest > timedelta(seconds=WAITS_TOO_LONG_S):
        waiting = count_words(facts.images.get("waiting", 0), "film")
        words = f"{waiting} waiting, the oldest since {ago_words(oldest, now)}"
        return Link(
            name, engine, LinkState.TROUBLE, words, last, "films come faster than they are read, or the analyser hangs"
        )
    words = f"last film analysed {ago_words(last, now)}" if last else "ready, no film analysed yet"
    return Link(name, engine, LinkState.UP, words, last)


def _destination(one: DestinationFacts, what: str, facts: Overview, *, known: bool, now: datetime) -> Link:
    last, pending = one.last_delivered, one.counts.get("pending", 0) - one.kept_back
    waiting = f"{count_words(pending, 'result')} waiting" if pending else ""
    if not known:
        return Link(
            one.name, what, LinkState.TROUBLE, waiting or "deliveries are open", last,
            "put the destination back into the settings, or cancel its deliveries",
            f"firstread deliveries list --destination {one.name}",
        )  # fmt: skip
    if one.failing_since is not None:
        said = " ".join(part for part in (one.failing_status, one.failing_detail) if part)
        words = f"{waiting or 'a result waits'} since {ago_words(one.failing_since, now)}: {said}"
        return Link(
            one.name, what, LinkState.DOWN, words, last,
            "results are kept and sent when it answers; ask it now with the command", "firstread config check",
        )  # fmt: skip
    role = facts.role("deliver")
    due = one.oldest_pending is not None and now - one.oldest_pending > timedelta(seconds=WAITS_TOO_LONG_S)
    if role is None or not role.alive or due:
        why = (
            "nobody sends: the role 'deliver' gives no sign of life"
            if not due
            else "results wait longer than they should"
        )
        return Link(
            one.name, what, LinkState.DOWN, why, last, "look at the agent's log and start it again", "firstread run"
        )
    if one.rejected_last_day:
        words = f"{count_words(one.rejected_last_day, 'result')} rejected in the last 24 h"
        command = f"firstread deliveries list --destination {one.name} --state rejected"
        return Link(
            one.name, what, LinkState.TROUBLE, words, last, "mend the cause, then retry or cancel each", command
        )
    if one.kept_back:
        words = f"on hold, {count_words(one.kept_back, 'result')} kept back"
        return Link(
            one.name,
            what,
            LinkState.HELD,
            words,
            last,
            "release them when the site is ready",
            f"firstread deliveries release {one.name}",
        )
    if last is None:
        return Link(one.name, what, LinkState.UNUSED, "nothing to send yet", None)
    return Link(one.name, what, LinkState.UP, f"last delivered {ago_words(last, now)}", last)
