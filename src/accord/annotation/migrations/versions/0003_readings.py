"""Who has read what others said of a task."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; nothing is known of what was read before."""
    op.create_table(
        "readings",
        sa.Column("task", sa.Integer, sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
