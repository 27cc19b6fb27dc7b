"""The first tables, and triggers that keep the record of annotations append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MESSAGE = "annotations are append-only: a correction is a new row that supersedes"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tasks",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("wanted", sa.Integer, nullable=False),
        sa.Column("given", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_tasks_next", "tasks", ["round", "role", "state", "position"])
    op.create_table(
        "annotators",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.Float(53), nullable=False),
        sa.Column("erased", sa.Float(53)),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "annotations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("submission", sa.String(64), nullable=False, unique=True),
        sa.Column("task", sa.Integer, sa.ForeignKey("tasks.number"), nullable=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("strength", sa.Integer),
        sa.Column("probability", sa.Float(53)),
        sa.Column("shown_order", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53)),
        sa.Column("guideline_version", sa.Integer),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("supersedes", sa.String(64), unique=True),
        sa.Column("created", sa.String(40), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("arm", sa.String(16), nullable=False),
    )
    op.create_index("ix_annotations_task", "annotations", ["task"])
    op.create_index("ix_annotations_annotator", "annotations", ["annotator", "number"])
    op.create_table(
        "annotation_texts",
        sa.Column("annotation", sa.Integer, sa.ForeignKey("annotations.number"), primary_key=True, autoincrement=False),
        sa.Column("body", sa.Text),
    )
    op.create_table(
        "standing",
        sa.Column("annotation", sa.Integer, sa.ForeignKey("annotations.number"), primary_key=True, autoincrement=False),
        sa.Column("task", sa.Integer, sa.ForeignKey("tasks.number"), nullable=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("counts", sa.Integer, nullable=False),
        sa.Column("closes", sa.Integer, nullable=False),
    )
    once = sa.text("closes = 1")
    op.create_index("ux_standing_once", "standing", ["task", "annotator", "purpose"], unique=True, sqlite_where=once, postgresql_where=once)
    op.create_index("ix_standing_annotator", "standing", ["annotator", "purpose", "annotation"])
    op.create_index("ix_standing_task", "standing", ["task"])
    op.create_table(
        "leases",
        sa.Column("task", sa.Integer, sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("arm", sa.String(16), nullable=False),
        sa.Column("shown_order", sa.Text, nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
        sa.Column("created", sa.Float(53), nullable=False),
    )
    op.create_index("ix_leases_annotator", "leases", ["annotator", "expires"])
    op.create_table(
        "drafts",
        sa.Column("task", sa.Integer, sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
        sa.Column("annotator", sa.Integer, sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("saved", sa.Float(53), nullable=False),
    )
    op.create_table(
        "guidelines",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("old_labels", sa.String(16), nullable=False),
        sa.Column("created", sa.Float(53), nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("phase", sa.String(16), nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("annotator", sa.String(64), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("annotations", sa.Integer, nullable=False),
        sa.Column("texts", sa.Integer, nullable=False),
    )
    op.create_table("facts", sa.Column("key", sa.String(32), primary_key=True), sa.Column("value", sa.Text, nullable=False))
    _append_only()


def _append_only() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER annotations_no_{event.lower()} BEFORE {event} ON annotations BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
            )
        return
    op.execute(f"CREATE FUNCTION annotations_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{MESSAGE}'; END $$")
    op.execute(
        "CREATE TRIGGER annotations_no_change BEFORE UPDATE OR DELETE ON annotations FOR EACH ROW EXECUTE FUNCTION annotations_refuse()"
    )
    op.execute(
        "CREATE TRIGGER annotations_no_truncate BEFORE TRUNCATE ON annotations FOR EACH STATEMENT EXECUTE FUNCTION annotations_refuse()"
    )
