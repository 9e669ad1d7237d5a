"""What years of studies need to be found quickly: indexes, and columns for what was looked for inside JSON"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

AT_ONCE = 10_000

INDEXES: dict[str, list[tuple[str, ...]]] = {
    "study": [("state", "received_at"), ("study_date",), ("station", "received_at")],
    "instance": [("state", "current", "id"), ("received_at",), ("ended_at",)],
    "worklist_entry": [("placer_order_number",), ("filler_order_number",), ("ended_at",)],
    "worklist_accession": [("accession_number",)],
    "worklist_message": [("received_at",)],
}
"""Their names are the naming convention's (agent/store/tables.py)."""

PARTIAL = {
    "ix_instance_with_file": ("instance", ("received_at", "id"), "path != ''"),
    "ix_event_of_entry": ("event", ("entry_id",), "entry_id IS NOT NULL"),
}

study = sa.table("study", sa.column("id"), sa.column("identity", sa.JSON), sa.column("station"))
entry = sa.table("worklist_entry", sa.column("id"), sa.column("identity", sa.JSON))
entry_accession = sa.table("worklist_accession", sa.column("entry_id"), sa.column("accession_number"))
event = sa.table("event", sa.column("id"), sa.column("kind"), sa.column("detail", sa.JSON), sa.column("entry_id"))
delivery = sa.table("delivery", sa.column("released", sa.Boolean), sa.column("kept_back", sa.Boolean))


def upgrade() -> None:
    """Forward."""
    op.add_column("study", sa.Column("station", sa.String(256), nullable=False, server_default=""))
    op.add_column("event", sa.Column("entry_id", sa.Integer(), nullable=True))
    op.create_table(
        "worklist_accession",
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("accession_number", sa.String(256), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"], ["worklist_entry.id"], name="fk_worklist_accession_entry_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("entry_id", "accession_number", name="pk_worklist_accession"),
    )
    _fill()
    op.drop_index("ix_instance_state_instance_id", "instance")
    op.drop_index("ix_delivery_destination_delivery_state_delivery_id", "delivery")
    for table, wanted in INDEXES.items():
        for columns in wanted:
            # The convention's way: the first column by itself, every other one with its table.
            name = "ix_" + "_".join(f"{table}_{column}" for column in columns)
            op.create_index(name, table, list(columns))
    for name, last in {"kept_back": "id", "released": "id", "ended_at": "kind"}.items():
        op.create_index(f"ix_delivery_{name}", "delivery", ["state", "destination", name, last])
    for name, (table, columns, where) in PARTIAL.items():
        op.create_index(name, table, list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _fill() -> None:
    """Copies what stands in JSON into the columns that are looked up."""
    connection = op.get_bind()
    for rows in _in_parts(study, study.c.identity):
        values = [{"key": row.id, "found": str((row.identity or {}).get("station") or "")[:256]} for row in rows]
        values = [one for one in values if one["found"]]
        if values:
            connection.execute(
                sa.update(study).where(study.c.id == sa.bindparam("key")).values(station=sa.bindparam("found")), values
            )
    for rows in _in_parts(entry, entry.c.identity):
        numbers = [
            {"entry_id": row.id, "accession_number": number} for row in rows for number in _numbers(row.identity or {})
        ]
        if numbers:
            connection.execute(sa.insert(entry_accession), numbers)
    for rows in _in_parts(event, event.c.detail, event.c.kind.like("list %")):
        values = [{"key": row.id, "found": (row.detail or {}).get("entry_id")} for row in rows]
        values = [one for one in values if one["found"] is not None]
        if values:
            connection.execute(
                sa.update(event).where(event.c.id == sa.bindparam("key")).values(entry_id=sa.bindparam("found")), values
            )
    # What was released by hand stays sent when a hold is taken off: one column says so now.
    connection.execute(sa.update(delivery).where(delivery.c.released).values(kept_back=False))


def _in_parts(table: Any, column: Any, *where: Any) -> Iterator[Sequence[sa.Row[Any]]]:
    """Rows with id and ``column``, some thousand at once."""
    connection, last = op.get_bind(), 0
    while rows := connection.execute(
        sa.select(table.c.id, column).where(table.c.id > last, *where).order_by(table.c.id).limit(AT_ONCE)
    ).all():
        yield rows
        last = rows[-1].id


def _numbers(identity: Mapping[str, Any]) -> list[str]:
    """Every accession number of an entry that has several, as agent/store/worklist_match.py keeps them."""
    numbers = [identity.get("accession_number") or "", *(identity.get("accession_numbers") or ())]
    found = list(dict.fromkeys(number[:256] for number in numbers if number))
    return found if len(found) > 1 else []


def downgrade() -> None:
    """Never: the copy made before the upgrade is the way back."""
    raise NotImplementedError
