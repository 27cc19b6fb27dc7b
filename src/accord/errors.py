"""Errors that a user can act on. Each message is one line: what is wrong, where, what to do."""

from __future__ import annotations


class AccordError(Exception):
    """A mistake in what the user gave us. The command line prints one line and exits with `exit_code`; bugs raise other errors."""

    exit_code = 2


class ConfigError(AccordError):
    """An option, a config file or a combination of options is wrong (exit code 2)."""


class DataError(AccordError):
    """A file or a row is wrong (exit code 3). The message names file, row and field."""

    exit_code = 3


class MachineError(AccordError):
    """The machine cannot do it: memory, disk, a missing extra, a model that cannot be found (exit code 4)."""

    exit_code = 4


class DivergedError(AccordError):
    """Training left the range where its result means anything: NaN, infinite loss, step-0 identity broken (exit code 5)."""

    exit_code = 5


class ShapeError(AccordError, ValueError):
    """Tensors that must agree in shape do not."""
