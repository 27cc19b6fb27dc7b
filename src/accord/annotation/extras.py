"""SQLAlchemy, which the store needs and plain training does not: one line with what to install where it is missing."""

from __future__ import annotations

from accord.errors import MachineError

INSTALL = "Collecting labels needs its extra: pip install 'accord[annotate]'"
INSTALL_POSTGRES = "A PostgreSQL database needs its driver: pip install 'accord[annotate,postgres]'"

try:
    import sqlalchemy as sa
    from sqlalchemy import event, exc
except ImportError as error:
    raise MachineError(INSTALL) from error

__all__ = ["INSTALL", "INSTALL_POSTGRES", "event", "exc", "sa"]
