"""Changes of the annotation database, in order, for alembic."""
