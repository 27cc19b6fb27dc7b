"""What the store refuses, apart from values that are wrong (a plain DataError)."""

from __future__ import annotations

from accord.errors import DataError


class Unknown(DataError):
    """There is no such task, annotator or annotation, or it is not this annotator's."""


class Conflict(DataError):
    """It contradicts what is stored: answered already, taken back already, a submission id used for something else."""


class LeaseLost(DataError):
    """The task is not, or no longer, this annotator's to answer: nothing was stored."""
