"""The tables of the worklist: work items, who subscribed to them, and what there is to tell."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from firstread.agent.store.tables import UtcDateTime, metadata

work_item = Table(
    "work_item",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sop_instance_uid", String(64), nullable=False, unique=True),
    Column("study_id", ForeignKey("study.id")),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("urgency", Integer, nullable=False),
    Column("transaction_uid", String(64)),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("patient_id", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("version", Integer, nullable=False),
    UniqueConstraint("study_id", "number"),
    Index(None, "urgency", "id"),
    Index(None, "state", "ended_at"),
    Index(None, "study_instance_uid"),
    Index(None, "patient_id"),
)

work_subscription = Table(
    "work_subscription",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ae_title", String(16), nullable=False),
    Column("work_item_id", ForeignKey("work_item.id")),
    Column("keys", JSON),
    Column("deletion_lock", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("ae_title", "work_item_id"),
    Index(None, "work_item_id"),
)

work_event = Table(
    "work_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("type", Integer, nullable=False),
    Column("information", JSON, nullable=False),
    Column("receivers", JSON, nullable=False),
    Index(None, "at"),
)

work_receiver = Table(
    "work_receiver",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    Column("told_event_id", Integer, nullable=False),
)
