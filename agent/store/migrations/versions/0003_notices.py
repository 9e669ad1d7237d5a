"""Which alarms were told over which channel; a sender's newest study without reading them all"""

import sqlalchemy as sa
from alembic import op

from firstread.agent.store.tables import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "notice",
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("alarm_key", sa.String(length=128), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("told_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "alarm_key", name=op.f("pk_notice")),
    )
    op.create_index(
        op.f("ix_study_calling_ae_title_study_received_at"), "study", ["calling_ae_title", "received_at"], unique=False
    )


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
