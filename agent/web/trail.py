"""The audit trail in sentences: what happened to a study, who did it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from firstread.agent.store.events import Event

_SENTENCES: Mapping[str, str] = {
    "received": "film received from {calling_ae_title}",
    "received again": "the same film again from {calling_ae_title}: kept once",
    "replaced": "a corrected film replaced the one before",
    "own result came back": "our own result came back: noted, left alone",
    "claimed": "analysis began (attempt {attempt})",
    "image analysed": "film analysed by {model} {version}",
    "image not analysed": "film not analysed: {reason}",
    "attempt failed": "analysis failed: {error}",
    "given back": "given back: {why}",
    "reopened": "opened again: {cause}",
    "analysed": "result made, revision {revision}",
    "not_analysed": "result made, revision {revision}: not analysed: {reason}",
    "nothing new to send": "revision {revision} changes nothing that a reader would see: not sent",
    "ordered priority": "ordered as {priority}",
    "delivery delivered": "{object} delivered to {destination} ({status})",
    "delivery stored": "{object} stored by {destination} ({status}), its commitment is awaited",
    "commitment asked": "{destination} was asked to commit to the {object}",
    "delivery committed": "{object} delivered to {destination}, which committed to keep it",
    "delivery not committed": "{object} is sent to {destination} again: {why}",
    "delivery rejected": "{object} rejected by {destination}: {status} {why}",
    "delivery retried": "{object} to {destination} failed, tried again: {status} {why}",
    "delivery superseded": "delivery superseded by revision {by_revision}",
    "delivery cancelled": "delivery cancelled: {why}",
    "delivery released": "delivery released from hold",
    "retrieved": "{objects} objects retrieved by {calling_ae_title} to {receiver}",
    "identity changed": "the patient or accession number was corrected",
    "list added": "entered on the reading list",
    "list order": "order: {words}",
    "list order met its film": "entered on the reading list, its order was there already",
    "list result": "result reached the reading list, revision {revision}",
    "list reported": "off the list: {words}",
    "list cancelled": "off the list: {words}",
    "list removed": "off the list by hand: {words}",
    "list restored": "back on the list by hand",
    "list reopened": "back on the list: {why}",
    "list not ended": "stays on the list: a message {why}",
    "list part ended": "one of several orders ended: {accession_numbers}",
}


@dataclass(frozen=True)
class TrailLine:
    """One thing that happened."""

    at: datetime
    sentence: str
    actor: str


def trail_lines(events: tuple[Event, ...]) -> tuple[TrailLine, ...]:
    """The trail, oldest first."""
    return tuple(TrailLine(one.at, sentence(one), short_actor(one.actor)) for one in events)


def sentence(one: Event) -> str:
    """What happened, in words; an event that has none here is told by its kind and detail."""
    pattern = _SENTENCES.get(one.kind)
    if pattern is None:
        detail = ", ".join(f"{key} {_text(value)}" for key, value in one.detail.items() if value not in (None, "", []))
        return f"{one.kind}: {detail}" if detail else one.kind
    return pattern.format_map(_Told(one.detail)).strip(" :")


def short_actor(actor: str) -> str:
    """``analyse`` of ``host/1a2b/analyse/4711#...``: which role, without the machine."""
    parts = actor.split("#")[0].split("/")
    return parts[-2] if len(parts) >= 4 else actor


class _Told(dict[str, Any]):
    def __init__(self, detail: Mapping[str, Any]) -> None:
        super().__init__({key: _text(value) for key, value in detail.items()})

    def __missing__(self, key: str) -> str:
        return "?"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
