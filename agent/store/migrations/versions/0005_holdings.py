"""What is held, by study, series and instance, so that it can be searched and handed out"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def upgrade() -> None:
    """Forward. What was received and made before is entered later, by the agent as it runs: its headers are on disk."""
    op.create_table(
        "held_study",
        sa.Column("id", sa.Integer(), nullable=False),
        _text("study_instance_uid", 128),
        _text("study_date", 16),
        _text("study_time", 32),
        _text("accession_number", 256),
        _text("study_id", 256),
        _text("study_description", 256),
        _text("referring_physician_name", 256),
        _text("referring_physician_key", 256),
        _text("patient_name", 256),
        _text("patient_name_key", 256),
        _text("patient_name_words", 512),
        _text("patient_id", 256),
        _text("issuer_of_patient_id", 256),
        _text("patient_birth_date", 16),
        _text("patient_sex", 16),
        _text("timezone_offset_from_utc", 16),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_study")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_held_study_study_instance_uid")),
    )
    op.create_index(op.f("ix_held_study_study_date_held_study_id"), "held_study", ["study_date", "id"])
    for name in ("accession_number", "patient_id", "patient_name_key"):
        op.create_index(op.f(f"ix_held_study_{name}"), "held_study", [name])
    op.create_table(
        "held_series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("held_study_id", sa.Integer(), nullable=False),
        _text("series_instance_uid", 128),
        _text("modality", 16),
        _text("series_number", 32),
        _text("series_description", 256),
        _text("body_part_examined", 64),
        _text("performed_procedure_step_start_date", 16),
        _text("performed_procedure_step_start_time", 32),
        _text("scheduled_procedure_step_id", 256),
        _text("requested_procedure_id", 256),
        sa.ForeignKeyConstraint(["held_study_id"], ["held_study.id"], name=op.f("fk_held_series_held_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_series")),
        sa.UniqueConstraint(
            "held_study_id", "series_instance_uid", name=op.f("uq_held_series_held_study_id_series_instance_uid")
        ),
    )
    op.create_index(op.f("ix_held_series_series_instance_uid"), "held_series", ["series_instance_uid"])
    op.create_index(op.f("ix_held_series_modality"), "held_series", ["modality", "id", "held_study_id"])
    op.create_table(
        "held_instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("held_series_id", sa.Integer(), nullable=False),
        _text("sop_instance_uid", 128),
        _text("sop_class_uid", 128),
        _text("transfer_syntax_uid", 128),
        _text("instance_number", 32),
        sa.Column("number_of_frames", sa.Integer(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=True),
        sa.Column("columns", sa.Integer(), nullable=True),
        sa.Column("bits_allocated", sa.Integer(), nullable=True),
        sa.Column("instance_id", sa.Integer(), nullable=True),
        sa.Column("artifact_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["held_series_id"], ["held_series.id"], name=op.f("fk_held_instance_held_series_id")),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_held_instance_instance_id")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name=op.f("fk_held_instance_artifact_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_instance")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_held_instance_sop_instance_uid")),
    )
    for name in ("held_series_id", "instance_id", "artifact_id"):
        op.create_index(op.f(f"ix_held_instance_{name}"), "held_instance", [name])
    # How far the agent has to go back: rows above these are entered as they come.
    site = sa.table("site", sa.column("key"), sa.column("value"))
    for name in ("instance", "artifact"):
        newest = op.get_bind().execute(sa.select(sa.func.max(sa.table(name, sa.column("id")).c.id))).scalar()
        if newest is not None:
            op.execute(sa.insert(site).values(key=f"holdings/{name}", value=str(newest)))


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
