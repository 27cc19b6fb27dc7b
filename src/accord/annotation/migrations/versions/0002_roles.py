"""Roles of annotators, and the hash of the secret in their invitation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns; everybody so far is an annotator without an invitation."""
    op.add_column("annotators", sa.Column("role", sa.String(16), nullable=False, server_default="annotator"))
    op.add_column("annotators", sa.Column("secret_hash", sa.String(64)))
    op.create_index("ux_annotators_secret", "annotators", ["secret_hash"], unique=True)
