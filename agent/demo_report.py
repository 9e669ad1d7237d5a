"""What the demo prints of the reading list, and whether it did what it promises."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from firstread.agent import clock
from firstread.agent.config import load_settings
from firstread.agent.standin_pacs import StandInPacs
from firstread.agent.store import deliveries, reading_list, results, studies
from firstread.agent.store.engine import Store
from firstread.agent.store.reading_list import ListedStudy
from firstread.agent.store.studies import StudyFilter
from firstread.agent.store.tables import DeliveryState, StudyState
from firstread.agent.web.rows import ordering_entry
from firstread.agent.worklist.ordering import Placed, in_order_of_arrival, order
from firstread.models.findings import FINDING_BY_LABEL
from firstread.models.phantoms.cohort import DemoFilm
from firstread.models.prediction import Priority


@dataclass(frozen=True)
class Example:
    """One raised study, to look at."""

    study_instance_uid: str
    accession_number: str
    message: bytes


class DemoList:
    """The reading list of the demo's agent, read from its database."""

    def __init__(self, config: Path) -> None:
        self.settings = load_settings(config)
        self.store = Store(self.settings.database_url)
        wait = self.settings.worklist.longest_wait_min
        self._longest_wait = {
            Priority.STAT: timedelta(minutes=wait.STAT),
            Priority.URGENT: timedelta(minutes=wait.URGENT),
            Priority.ROUTINE: timedelta(minutes=wait.ROUTINE),
        }
        self.films: Sequence[DemoFilm] = ()

    @property
    def studies(self) -> int:
        """How many studies were sent."""
        return len({film.study_instance_uid for film in self.films})

    def wait_until_ended(self, films: Sequence[DemoFilm], stop: threading.Event, timeout_s: float) -> bool:
        """True once every study has its result, and every delivery and list entry has followed."""
        self.films = films
        deadline = clock.boot_seconds() + timeout_s
        while clock.boot_seconds() < deadline:
            if not self.unfinished():
                return True
            if stop.wait(0.25):
                return False
        return False

    def unfinished(self) -> list[str]:
        """What has not come to its end, a sentence each."""
        missing = []
        with self.store.read() as connection:
            listed = {one.identity.study_instance_uid: one for one in reading_list.open_entries(connection)}
            for uid in {film.study_instance_uid for film in self.films}:
                row = studies.find(connection, uid)
                if row is None or row.state == StudyState.RECEIVING:
                    missing.append(f"study {uid} has no result")
                    continue
                states = set(deliveries.states_of(connection, [row.id]).get(row.id, ()))
                if not states <= {DeliveryState.DELIVERED, DeliveryState.SUPERSEDED}:
                    missing.append(f"study {uid} has deliveries that are {', '.join(sorted(states))}")
                entry = listed.get(uid)
                newest = results.newest_sent(connection, row.id)
                if entry is None or entry.result is None or newest is None or entry.result.revision < newest.revision:
                    missing.append(f"the list has no newest result of study {uid}")
        return missing

    def entries(self) -> dict[int, ListedStudy]:
        """Open entries of the list by their key."""
        with self.store.read() as connection:
            return {one.id: one for one in reading_list.open_entries(connection)}

    def placed(self) -> list[tuple[Placed, ListedStudy]]:
        """The list as it is ordered now."""
        entries = self.entries()
        ordered = order([ordering_entry(one) for one in entries.values()], clock.now().at, self._longest_wait)
        return [(one, entries[one.entry.key]) for one in ordered]

    def arrivals(self) -> list[ListedStudy]:
        """The list as it would stand by arrival."""
        entries = self.entries()
        return [entries[one.key] for one in in_order_of_arrival([ordering_entry(one) for one in entries.values()])]

    def by_arrival(self) -> str:
        """The list by arrival, a line each."""
        return "\n".join(
            f"{rank:3d}  {one.arrived_at.astimezone():%H:%M:%S}  {one.identity.accession_number:<16} {_patient(one)}"
            for rank, one in enumerate(self.arrivals(), 1)
        )

    def in_order(self) -> str:
        """The list in its order, a line each, with the reason."""
        was = {one.id: rank for rank, one in enumerate(self.arrivals(), 1)}
        lines = []
        for placed, one in self.placed():
            findings = [finding for finding in (one.result.findings if one.result else ()) if finding.present]
            words = ", ".join(
                f"{FINDING_BY_LABEL[f.label].display} {f.probability:.2f}"
                for f in findings
                if f.probability is not None and f.label in FINDING_BY_LABEL
            )
            if one.result is not None and one.result.reason:
                words = f"not analysed: {one.result.reason.text}"
            words = words or "none of the assessed findings above threshold"
            lines.append(
                f"{placed.rank:3d}  was {was[one.id]:2d}  {placed.priority.name:<8} "
                f"{one.identity.accession_number:<16} {_patient(one):<24} {words}"
            )
        return "\n".join(lines)

    def example(self) -> Example | None:
        """The study at the top of the list, with its message."""
        for _, one in self.placed():
            if one.result is None or not one.result.priority or one.result.priority is Priority.ROUTINE:
                continue
            with self.store.read() as connection:
                rows = studies.selected(connection, StudyFilter(study_instance_uid=one.identity.study_instance_uid), 1)
                message = results.newest_artifact(connection, rows[0].id, "oru") if rows else None
            if message is not None and message.message is not None:
                return Example(one.identity.study_instance_uid, one.identity.accession_number, bytes(message.message))
        return None


def verdict(shown: DemoList, pacs: StandInPacs, ended: bool) -> list[str]:
    """What the demo promises and did not keep; empty when all is well."""
    problems = [] if ended else (shown.unfinished() or ["the demo was stopped before its end"])
    films = shown.films
    if len(films) < 24:
        problems.append(f"only {len(films)} films were taken")
    placed = shown.placed()
    arrival = [one.id for one in shown.arrivals()]
    if [one.id for _, one in placed] == arrival:
        problems.append("the list stands as it came: nothing was reordered")
    raised = [placing for placing, one in placed if placing.priority is not Priority.ROUTINE]
    if not raised:
        problems.append("no study was raised")
    levels = [placing.level for placing, _ in placed]
    if levels != sorted(levels):
        problems.append("a study stands before one of a higher priority")
    with shown.store.read() as connection:
        for film in films:
            row = studies.find(connection, film.study_instance_uid)
            images = studies.images_of(connection, row.id) if row is not None else []
            image = next((one for one in images if one.sop_instance_uid == film.sop_instance_uid), None)
            if image is None:
                problems.append(f"film {film.number} is not in the database")
            elif (image.reason and image.reason.code) != film.reason:
                problems.append(
                    f"film {film.number} ({film.what}): expected {film.reason or 'analysed'}, "
                    f"got {image.reason.text if image.reason else 'analysed'}"
                )
    for uid in {film.study_instance_uid for film in films}:
        sr, _ = pacs.objects_of(uid)
        if sr is None:
            problems.append(f"the stand-in PACS holds no report of study {uid}")
    return problems


def _patient(one: ListedStudy) -> str:
    return one.identity.patient_name.split("=")[0].replace("^", " ").strip()
