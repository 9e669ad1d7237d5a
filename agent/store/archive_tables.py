"""The tables of runs over an archive: what was asked for, each study of it, and what a trial found."""

from __future__ import annotations

import enum

from sqlalchemy import JSON, Column, ForeignKey, Index, Integer, String, Table, Text, UniqueConstraint

from firstread.agent.store.tables import UtcDateTime, metadata


class ArchiveState(enum.StrEnum):
    """Where a study of a run stands."""

    WAITING = "waiting"
    """The archive named it; it was not asked for yet."""
    FETCHED = "fetched"
    """All that the archive has of it lies here, as a trial."""
    HERE = "here"
    """It was really sent to us, and was left as it is."""
    SKIPPED = "skipped"
    """It has no series of the body part that was asked for."""
    FAILED = "failed"
    """It did not come, or not in full; the reason stands beside it."""


archive_run = Table(
    "archive_run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("date_from", String(8), nullable=False),
    Column("date_until", String(8), nullable=False),
    Column("modalities", JSON, nullable=False),
    Column("body_part", String(64), nullable=False),
    Column("most", Integer),
    Column("bundle", Text),
    Column("listed_until", String(8), nullable=False),
)
"""``listed_until``: the last day whose studies are all listed; empty before the first."""

archive_study = Table(
    "archive_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("archive_run.id"), nullable=False),
    Column("study_instance_uid", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("films", Integer, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("run_id", "study_instance_uid"),
    Index(None, "run_id", "state", "id"),
)

trial_result = Table(
    "trial_result",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("run_id", ForeignKey("archive_run.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("assessment", JSON, nullable=False),
    Column("images", JSON, nullable=False),
    UniqueConstraint("study_id", "run_id"),
    Index(None, "run_id"),
)
"""What a run made of a study: never a row of ``result``, from which all that leaves the house is made."""
