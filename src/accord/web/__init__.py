"""The pages on which people judge, compare and watch: server-rendered, no script or font from elsewhere."""

from __future__ import annotations

from accord.annotation.extras import INSTALL
from accord.errors import MachineError

try:
    import fastapi as fastapi
    import latex2mathml as latex2mathml
    import markdown_it as markdown_it
    import mdit_py_plugins as mdit_py_plugins
    import uvicorn as uvicorn
except ImportError as error:
    raise MachineError(INSTALL) from error
