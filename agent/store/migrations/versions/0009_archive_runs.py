"""Runs over an archive, and studies that are trials: what is found of them never leaves"""

import sqlalchemy as sa
from alembic import op

from firstread.agent.store.tables import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("study", sa.Column("trial_run_id", sa.Integer(), nullable=True))
    op.create_index(
        op.f("ix_study_trial_run_id_study_received_at"), "study", ["trial_run_id", "received_at"], unique=False
    )
    op.create_table(
        "archive_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("date_from", sa.String(length=8), nullable=False),
        sa.Column("date_until", sa.String(length=8), nullable=False),
        sa.Column("modalities", sa.JSON(), nullable=False),
        sa.Column("body_part", sa.String(length=64), nullable=False),
        sa.Column("most", sa.Integer(), nullable=True),
        sa.Column("bundle", sa.Text(), nullable=True),
        sa.Column("listed_until", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive_run")),
    )
    op.create_table(
        "archive_study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("films", sa.Integer(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["archive_run.id"], name=op.f("fk_archive_study_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archive_study")),
        sa.UniqueConstraint("run_id", "study_instance_uid", name=op.f("uq_archive_study_run_id_study_instance_uid")),
    )
    op.create_index(
        op.f("ix_archive_study_run_id_archive_study_state_archive_study_id"), "archive_study",
        ["run_id", "state", "id"], unique=False,
    )  # fmt: skip
    op.create_table(
        "trial_result",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("assessment", sa.JSON(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["archive_run.id"], name=op.f("fk_trial_result_run_id")),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_trial_result_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trial_result")),
        sa.UniqueConstraint("study_id", "run_id", name=op.f("uq_trial_result_study_id_run_id")),
    )
    op.create_index(op.f("ix_trial_result_run_id"), "trial_result", ["run_id"], unique=False)


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
