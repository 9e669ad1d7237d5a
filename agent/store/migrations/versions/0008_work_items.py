"""Work items of the reading list (Unified Procedure Steps), who subscribed to them, and what they were told"""

import sqlalchemy as sa
from alembic import op

from firstread.agent.store.tables import UtcDateTime

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "work_item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("urgency", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_work_item_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_item")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_work_item_sop_instance_uid")),
        sa.UniqueConstraint("study_id", "number", name=op.f("uq_work_item_study_id_number")),
    )
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_item_patient_id"), ["patient_id"], unique=False)
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_item_state_work_item_ended_at"), ["state", "ended_at"], unique=False)
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_item_study_instance_uid"), ["study_instance_uid"], unique=False)
    with op.batch_alter_table("work_item", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_item_urgency_work_item_id"), ["urgency", "id"], unique=False)
    op.create_table(
        "work_subscription",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("work_item_id", sa.Integer(), nullable=True),
        sa.Column("keys", sa.JSON(), nullable=True),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["work_item_id"], ["work_item.id"], name=op.f("fk_work_subscription_work_item_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_subscription")),
        sa.UniqueConstraint("ae_title", "work_item_id", name=op.f("uq_work_subscription_ae_title_work_item_id")),
    )
    with op.batch_alter_table("work_subscription", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_subscription_work_item_id"), ["work_item_id"], unique=False)
    op.create_table(
        "work_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("type", sa.Integer(), nullable=False),
        sa.Column("information", sa.JSON(), nullable=False),
        sa.Column("receivers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_event")),
    )
    with op.batch_alter_table("work_event", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_work_event_at"), ["at"], unique=False)
    op.create_table(
        "work_receiver",
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("told_event_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name=op.f("pk_work_receiver")),
    )


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
