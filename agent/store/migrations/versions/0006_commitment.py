"""Storage commitment: what others asked of us, and what we asked of receivers"""

import sqlalchemy as sa
from alembic import op

from firstread.agent.store.tables import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("stored_at", UtcDateTime(), nullable=True))
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("association_id", sa.String(length=32), nullable=False),
        sa.Column("asked_for", sa.JSON(), nullable=False),
        sa.Column("failed", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.Column("due_boot_id", sa.String(length=64), nullable=False),
        sa.Column("due_boot_s", sa.Float(precision=53), nullable=False),
        sa.Column("lease_owner", sa.String(length=128), nullable=True),
        sa.Column("lease_at", UtcDateTime(), nullable=True),
        sa.Column("lease_boot_id", sa.String(length=64), nullable=True),
        sa.Column("lease_boot_s", sa.Float(precision=53), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint(
            "transaction_uid", "calling_ae_title", name=op.f("uq_commitment_transaction_uid_calling_ae_title")
        ),
    )
    op.create_index(op.f("ix_commitment_state_commitment_id"), "commitment", ["state", "id"], unique=False)
    op.create_table(
        "commitment_request",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_commitment_request_delivery_id")),
        sa.PrimaryKeyConstraint("transaction_uid", "delivery_id", name=op.f("pk_commitment_request")),
    )
    op.create_index(op.f("ix_commitment_request_delivery_id"), "commitment_request", ["delivery_id"], unique=False)


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
