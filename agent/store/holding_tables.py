"""The tables of what is held: one row for each study, series and instance whose bytes can be handed out."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from firstread.agent.store.tables import metadata

held_study = Table(
    "held_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", String(128), nullable=False, unique=True),
    Column("study_date", String(16), nullable=False),
    Column("study_time", String(32), nullable=False),
    Column("accession_number", String(256), nullable=False),
    Column("study_id", String(256), nullable=False),
    Column("study_description", String(256), nullable=False),
    Column("referring_physician_name", String(256), nullable=False),
    Column("referring_physician_key", String(256), nullable=False),
    Column("patient_name", String(256), nullable=False),
    Column("patient_name_key", String(256), nullable=False),
    Column("patient_name_words", String(512), nullable=False),
    Column("patient_id", String(256), nullable=False),
    Column("issuer_of_patient_id", String(256), nullable=False),
    Column("patient_birth_date", String(16), nullable=False),
    Column("patient_sex", String(16), nullable=False),
    Column("timezone_offset_from_utc", String(16), nullable=False),
    Index(None, "study_date", "id"),
    Index(None, "accession_number"),
    Index(None, "patient_id"),
    Index(None, "patient_name_key"),
)

held_series = Table(
    "held_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("held_study_id", ForeignKey("held_study.id"), nullable=False),
    Column("series_instance_uid", String(128), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("series_number", String(32), nullable=False),
    Column("series_description", String(256), nullable=False),
    Column("body_part_examined", String(64), nullable=False),
    Column("performed_procedure_step_start_date", String(16), nullable=False),
    Column("performed_procedure_step_start_time", String(32), nullable=False),
    Column("scheduled_procedure_step_id", String(256), nullable=False),
    Column("requested_procedure_id", String(256), nullable=False),
    UniqueConstraint("held_study_id", "series_instance_uid"),
    Index(None, "series_instance_uid"),
    Index("ix_held_series_modality", "modality", "id", "held_study_id"),
)

held_instance = Table(
    "held_instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("held_series_id", ForeignKey("held_series.id"), nullable=False),
    Column("sop_instance_uid", String(128), nullable=False, unique=True),
    Column("sop_class_uid", String(128), nullable=False),
    Column("transfer_syntax_uid", String(128), nullable=False),
    Column("instance_number", String(32), nullable=False),
    Column("number_of_frames", Integer),
    Column("rows", Integer),
    Column("columns", Integer),
    Column("bits_allocated", Integer),
    Column("instance_id", ForeignKey("instance.id")),
    Column("artifact_id", ForeignKey("artifact.id")),
    Index(None, "held_series_id"),
    Index(None, "instance_id"),
    Index(None, "artifact_id"),
)
"""Of every SOP instance the newest version. Its bytes lie where the row of ``instance`` (received) or ``artifact``
(made here) says."""
