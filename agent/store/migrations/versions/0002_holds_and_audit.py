"""Films that must be kept whatever retention says, and audit messages on their way out"""

import sqlalchemy as sa
from alembic import op

from firstread.agent.store.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("legal_hold", sa.Text(), nullable=True))
    op.create_table(
        "audit_message",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_message")),
    )


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
