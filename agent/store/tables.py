"""The tables, and the states that rows of them can have."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class ImageState(enum.StrEnum):
    """Where an instance stands on its way."""

    WAITING = "waiting"
    """Durably stored, nobody has claimed it."""
    ANALYSING = "analysing"
    """Claimed by lease."""
    ANALYSED = "analysed"
    """Ended with a prediction."""
    NOT_ANALYSED = "not_analysed"
    """Ended with a coded reason."""
    KEPT = "kept"
    """Not an image to be judged (presentation state, report, our own result): kept and left alone."""


class StudyState(enum.StrEnum):
    """Where a study stands; there is no third end."""

    RECEIVING = "receiving"
    """Images may still arrive, or are being analysed."""
    ANALYSED = "analysed"
    """The newest revision has a result."""
    NOT_ANALYSED = "not_analysed"
    """The newest revision has a reason instead."""


class DeliveryState(enum.StrEnum):
    """Where one delivery stands. Retry is back to pending, later."""

    PENDING = "pending"
    SENDING = "sending"
    """Claimed by lease."""
    STORED = "stored"
    """The receiver has stored it, and did not commit to keep it yet (destinations with ``commit = true``)."""
    DELIVERED = "delivered"
    """The receiver's own status said so, or its commitment."""
    REJECTED = "rejected"
    """The receiver said no for good, with its words."""
    SUPERSEDED = "superseded"
    """A newer revision took its place before it was sent."""
    CANCELLED = "cancelled"
    """An administrator said so, with a reason."""


class CommitmentState(enum.StrEnum):
    """Where a sender's request for storage commitment stands. Retry is back to verified, later."""

    ASKED = "asked"
    """Durably kept; its instances were not looked at yet."""
    VERIFIED = "verified"
    """What is kept is known; its requester was not told yet."""
    REPORTING = "reporting"
    """Claimed by lease."""
    REPORTED = "reported"
    """The requester's own status said that it knows."""
    GIVEN_UP = "given_up"
    """It could not be told for days."""


class EntryState(enum.StrEnum):
    """Where a row of the reading list stands."""

    OPEN = "open"
    REPORTED = "reported"
    """A final report was received."""
    CANCELLED = "cancelled"
    """The order was cancelled."""
    REMOVED = "removed"
    """Taken off by hand."""


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC datetimes on every database."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """To naive UTC, as it is stored."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        """Back to aware UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def moment_columns(name: str, nullable: bool = True) -> list[Column[Any]]:
    """The three columns that keep a clock.Moment: ``<name>_at``, ``<name>_boot_id``, ``<name>_boot_s``."""
    return [
        Column(f"{name}_at", UtcDateTime, nullable=nullable),
        Column(f"{name}_boot_id", String(64), nullable=nullable),
        Column(f"{name}_boot_s", Float(53), nullable=nullable),
    ]


site = Table(
    "site",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", String(128), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("changes", Integer, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("patient_id", String(256), nullable=False),
    Column("accession_number", String(256), nullable=False),
    Column("study_date", String(16), nullable=False),
    Column("station", String(256), nullable=False, server_default=""),
    Column("calling_ae_title", String(16), nullable=False),
    Column("ordered_priority", Integer),
    Column("reason_code", String(32)),
    Column("bundle", Text),
    Column("cause", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("legal_hold", Text),
    Column("trial_run_id", Integer),
    *moment_columns("opened", nullable=False),
    *moment_columns("touched", nullable=False),
    Index(None, "state", "touched_at"),
    Index(None, "state", "received_at"),
    Index(None, "received_at"),
    Index(None, "calling_ae_title", "received_at"),
    Index(None, "trial_run_id", "received_at"),
    Index(None, "study_date"),
    Index(None, "station", "received_at"),
    Index(None, "accession_number"),
    Index(None, "patient_id"),
)

instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id")),
    Column("sop_instance_uid", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("series_instance_uid", String(128), nullable=False),
    Column("sop_class_uid", String(128), nullable=False),
    Column("transfer_syntax_uid", String(128), nullable=False),
    Column("patient_key", String(300), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason_code", String(32)),
    Column("reason_detail", Text),
    Column("path", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("association", JSON, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", String(128)),
    *moment_columns("lease"),
    Column("prediction", JSON),
    Column("preview_path", Text),
    Column("saliency", LargeBinary),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("sop_instance_uid", "version"),
    Index(None, "state", "current", "id"),
    Index(None, "study_id"),
    Index(None, "received_at"),
    Index(None, "ended_at"),
    # What retention looks through: without it, every film that went in years before.
    Index(
        "ix_instance_with_file",
        "received_at",
        "id",
        sqlite_where=text("path != ''"),
        postgresql_where=text("path != ''"),
    ),
)

result = Table(
    "result",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("reason_code", String(32)),
    Column("model_version", String(128)),
    Column("assessment", JSON, nullable=False),
    Column("identity", JSON, nullable=False),
    Column("cause", Text, nullable=False),
    Column("sent", Boolean, nullable=False),
    UniqueConstraint("study_id", "revision"),
    Index(None, "created_at"),
)

artifact = Table(
    "artifact",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_id", ForeignKey("result.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("identity", String(128), nullable=False),
    Column("sop_class_uid", String(128)),
    Column("series_instance_uid", String(128)),
    Column("path", Text),
    Column("message", LargeBinary),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Index(None, "result_id"),
    Index(None, "identity"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("result_id", ForeignKey("result.id"), nullable=False),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("artifact_id", ForeignKey("artifact.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("destination", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("kept_back", Boolean, nullable=False),
    Column("released", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("refusals", Integer, nullable=False),
    *moment_columns("due", nullable=False),
    Column("lease_owner", String(128)),
    *moment_columns("lease"),
    Column("status", String(64)),
    Column("detail", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("stored_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("result_id", "destination", "kind"),
    Index("ix_delivery_kept_back", "state", "destination", "kept_back", "id"),
    Index("ix_delivery_released", "state", "destination", "released", "id"),
    Index("ix_delivery_ended_at", "state", "destination", "ended_at", "kind"),
    Index(None, "study_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(48), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("study_id", Integer),
    Column("instance_id", Integer),
    Column("delivery_id", Integer),
    Column("entry_id", Integer),
    Column("detail", JSON, nullable=False),
    Index(None, "study_id"),
    Index(None, "kind", "at"),
    Index(
        "ix_event_of_entry",
        "entry_id",
        sqlite_where=text("entry_id IS NOT NULL"),
        postgresql_where=text("entry_id IS NOT NULL"),
    ),
)

alarm = Table(
    "alarm",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("severity", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("sightings", Integer, nullable=False),
    Column("cleared_at", UtcDateTime),
)

role = Table(
    "role",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    *moment_columns("beat", nullable=False),
    Column("status", JSON, nullable=False),
)

entry = Table(
    "worklist_entry",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", String(128), unique=True),
    Column("accession_number", String(256), nullable=False),
    Column("placer_order_number", String(256), nullable=False),
    Column("filler_order_number", String(256), nullable=False),
    Column("state", String(16), nullable=False),
    Column("identity", JSON, nullable=False),
    Column("ordered_priority", Integer),
    Column("result_priority", Integer),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("result", JSON),
    Column("result_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("ended_by", Text),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("version", Integer, nullable=False),
    Index(None, "state", "arrived_at"),
    Index(None, "accession_number"),
    Index(None, "placer_order_number"),
    Index(None, "filler_order_number"),
    Index(None, "ended_at"),
)

entry_accession = Table(
    "worklist_accession",
    metadata,
    Column("entry_id", ForeignKey("worklist_entry.id", ondelete="CASCADE"), primary_key=True),
    Column("accession_number", String(256), primary_key=True),
    Index(None, "accession_number"),
)
"""Every accession number of an entry that has several; what is known by one alone has it in its row."""

message = Table(
    "worklist_message",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sender", String(256), nullable=False),
    Column("control_id", String(200), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    UniqueConstraint("sender", "control_id"),
    Index(None, "received_at"),
)

audit_message = Table(
    "audit_message",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("content", LargeBinary, nullable=False),
)

notice = Table(
    "notice",
    metadata,
    Column("channel", String(32), primary_key=True),
    Column("alarm_key", String(128), primary_key=True),
    Column("severity", String(16), nullable=False),
    Column("told_at", UtcDateTime, nullable=False),
)

commitment = Table(
    "commitment",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("transaction_uid", String(64), nullable=False),
    Column("calling_ae_title", String(16), nullable=False),
    Column("association_id", String(32), nullable=False),
    Column("asked_for", JSON, nullable=False),
    Column("failed", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    *moment_columns("due", nullable=False),
    Column("lease_owner", String(128)),
    *moment_columns("lease"),
    Column("detail", Text),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("transaction_uid", "calling_ae_title"),
    Index(None, "state", "id"),
)
"""What others asked us to commit to."""

commitment_request = Table(
    "commitment_request",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("delivery_id", ForeignKey("delivery.id"), primary_key=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Index(None, "delivery_id"),
)
"""What we asked a receiver to commit to: a report names the transaction, and any of them counts."""
