"""Text of models and strangers on a terminal: shown, never obeyed."""

from __future__ import annotations

import re

from accord.data.fields import one_line


def printable(text: str) -> str:
    """The text with what does not print shown as escapes, all but line breaks, tabs and the joiners of scripts and of emoji: what somebody
    wrote neither commands a terminal nor turns its text round."""
    return re.sub("[^\n\t\u200c\u200d]+", lambda found: one_line(found[0]), text)
