"""What a run over the archive found, as a table: for a data scientist, a spreadsheet, or an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from firstread.agent.store import trials
from firstread.agent.store.archive_tables import ArchiveState
from firstread.agent.store.trials import Found
from firstread.models.findings import LABELS

COLUMNS = (
    "study_instance_uid", "accession_number", "study_date", "sop_instance_uid", "outcome", "priority",
    "priority_reason", "model",
)  # fmt: skip
ANALYSED = "analysed"


def rows_of(connection: Connection, run_id: int) -> Iterator[list[str]]:
    """The heading, then a row for each image. ``outcome`` is ``analysed``, or why there are no probabilities."""
    yield [*COLUMNS, *LABELS]
    tried = set()
    for found in trials.results_of(connection, run_id):
        tried.add(found.study_instance_uid)
        yield from _of_study(found)
    for state, words in (
        (ArchiveState.FETCHED, "no result yet, or sent to us since"),
        (ArchiveState.HERE, "no trial: it was really sent to us"),
        (ArchiveState.SKIPPED, "skipped"),
        (ArchiveState.FAILED, "not fetched"),
        (ArchiveState.WAITING, "not fetched yet"),
    ):
        for uid, reason in trials.reasons(connection, run_id, state):
            if uid not in tried:
                yield _row([uid, "", "", "", f"{words}: {reason}" if reason else words, "", "", ""])


def _of_study(found: Found) -> Iterator[list[str]]:
    said = found.assessment
    identity = found.identity
    whose = [found.study_instance_uid, identity.accession_number, identity.study_date]
    model = f"{said.model.name} {said.model.version}" if said.model else ""
    judged = [said.priority.name, said.priority_reason, model]
    by_image = {one.sop_instance_uid: one for one in found.predictions}
    for image in said.images:
        prediction = by_image.get(image.sop_instance_uid)
        outcome = image.reason.text if image.reason else ANALYSED
        numbers = prediction.probabilities if prediction is not None else {}
        yield _row(
            [*whose, image.sop_instance_uid, outcome, *judged],
            [f"{numbers[label]:.6f}" if label in numbers else "" for label in LABELS],
        )
    if not said.images:
        yield _row([*whose, "", said.reason.text if said.reason else "", *judged])


def _row(values: list[str], numbers: list[str] | None = None) -> list[str]:
    return [*values, *(numbers or [""] * len(LABELS))]
