"""Tables of the annotation database. `migrations/` makes them; a test holds that both say the same.

`annotations` is the record: rows are added, and triggers refuse to change or remove one. `standing` is derived from it: which annotations count now.
What an annotator wrote in words lies in `annotation_texts`, so that it can be erased on request without touching the record.
"""

from __future__ import annotations

from accord.annotation.extras import sa

HEAD = "0003"
"""The newest migration."""

metadata = sa.MetaData()

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("role", sa.String(16), nullable=False),  # work | gold | calibration
    sa.Column("state", sa.String(16), nullable=False),  # open | closed (as many annotators as wanted) | retired
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("given", sa.Integer, nullable=False),  # standing answers that count, by different annotators
    sa.Column("position", sa.BigInteger, nullable=False),  # random order, by seed and id
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("ix_tasks_next", "round", "role", "state", "position"),
)

annotators = sa.Table(
    "annotators",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("erased", sa.Float(53)),
    sa.Column("asked", sa.Integer, nullable=False),  # leases ever given: the counter that gold and repeats are drawn by
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),  # up to here, nothing is left for this annotator in that round
    sa.Column("role", sa.String(16), nullable=False, server_default="annotator"),  # admin | annotator | viewer | program
    sa.Column("secret_hash", sa.String(64)),
    sa.Index("ux_annotators_secret", "secret_hash", unique=True),
)

annotations = sa.Table(
    "annotations",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("submission", sa.String(64), nullable=False, unique=True),
    sa.Column("task", sa.ForeignKey("tasks.number"), nullable=False),
    sa.Column("annotator", sa.ForeignKey("annotators.number"), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("value", sa.Text),  # NULL: it holds words, and lies in annotation_texts
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
    sa.Index("ix_annotations_task", "task"),
    sa.Index("ix_annotations_annotator", "annotator", "number"),
)

annotation_texts = sa.Table(
    "annotation_texts",
    metadata,
    sa.Column("annotation", sa.ForeignKey("annotations.number"), primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text),  # {"rationale": ..., "value": ..., "columns": ...}; NULL once erased
)

standing = sa.Table(
    "standing",
    metadata,
    sa.Column("annotation", sa.ForeignKey("annotations.number"), primary_key=True, autoincrement=False),
    sa.Column("task", sa.ForeignKey("tasks.number"), nullable=False),
    sa.Column("annotator", sa.ForeignKey("annotators.number"), nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("counts", sa.Integer, nullable=False),  # 1: one of the answers that the task wants
    sa.Column("closes", sa.Integer, nullable=False),  # 1: the annotator is done with the task
    sa.Index(
        "ux_standing_once",
        "task",
        "annotator",
        "purpose",
        unique=True,
        sqlite_where=sa.text("closes = 1"),
        postgresql_where=sa.text("closes = 1"),
    ),
    sa.Index("ix_standing_annotator", "annotator", "purpose", "annotation"),
    sa.Index("ix_standing_task", "task"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
    sa.Column("annotator", sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
    sa.Column("token", sa.String(64), nullable=False),
    sa.Column("purpose", sa.String(16), nullable=False),
    sa.Column("arm", sa.String(16), nullable=False),
    sa.Column("shown_order", sa.Text, nullable=False),
    sa.Column("expires", sa.Float(53), nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Index("ix_leases_annotator", "annotator", "expires"),
)

drafts = sa.Table(
    "drafts",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
    sa.Column("annotator", sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("saved", sa.Float(53), nullable=False),
)

readings = sa.Table(
    "readings",
    metadata,
    sa.Column("task", sa.ForeignKey("tasks.number"), primary_key=True, autoincrement=False),
    sa.Column("annotator", sa.ForeignKey("annotators.number"), primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float(53), nullable=False),
)
"""Who has read what others said of a task, and since when: they are not asked about it."""

guidelines = sa.Table(
    "guidelines",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("old_labels", sa.String(16), nullable=False),  # kept | flagged | relabel
    sa.Column("created", sa.Float(53), nullable=False),
)

rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("phase", sa.String(16), nullable=False),  # calibration | work | ended
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("annotator", sa.String(64), nullable=False),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("annotations", sa.Integer, nullable=False),
    sa.Column("texts", sa.Integer, nullable=False),
)

facts = sa.Table("facts", metadata, sa.Column("key", sa.String(32), primary_key=True), sa.Column("value", sa.Text, nullable=False))
"""Single values: the key that pseudonyms are made with."""
