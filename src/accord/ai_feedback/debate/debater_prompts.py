"""What a debater is asked: a readable YAML file, one that comes with accord or the user's own. docs/debate.md describes the fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from accord.errors import ConfigError
from accord.types import Message, content_hash

FOLDER = Path(__file__).parent / "prompts"
PLACES = {"question", "evidence", "answer", "other", "heard", "me", "them", "round", "rounds", "words"}
NAMES = ("debater", "debater_short")
"""Those that come with accord."""
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class DebaterPrompt:
    """A debater's question with places for its assignment."""

    name: str
    messages: tuple[Message, ...]
    alone: tuple[Message, ...]
    """The same for a consultant, whom nobody contradicts."""
    max_new_tokens: int
    """Longest text, hidden thinking included."""
    tagged: bool
    """True: the argument is what stands between <argument> tags. False: all that is not thinking."""

    @property
    def hash(self) -> str:
        """Of everything in it but its name (16 hex digits)."""
        return content_hash({name: value for name, value in asdict(self).items() if name != "name"})

    def filled(self, places: Mapping[str, str], *, alone: bool) -> tuple[Message, ...]:
        """The messages with their places filled. What is filled in is never searched for places itself."""
        given = self.alone if alone else self.messages
        return tuple(Message(message.role, _PLACE.sub(lambda found: places.get(found[1], found[0]), message.content)) for message in given)


def load_debater_prompt(name: str) -> DebaterPrompt:
    """A debater's prompt by the name of one that comes with accord, or from a YAML file.

    Raises:
        ConfigError: if there is none of that name, or a file is wrong; it names file and field.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Those that come with accord: {', '.join(NAMES)}."
            raise ConfigError(f"There is no debater's prompt {name!r}. {hint} Your own: a .yaml file, see docs/debate.md.")
        path = FOLDER / f"{name}.yaml"
    fields = _fields(path)
    known = {"messages", "alone", "max_new_tokens", "tagged"}
    if set(fields) - known or not {"messages", "max_new_tokens"} <= set(fields):
        _fail(path, f"its fields are {', '.join(sorted(known))}, and it needs messages and max_new_tokens")
    tokens, tagged = fields["max_new_tokens"], fields.get("tagged", True)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        _fail(path, "max_new_tokens must be a whole number, 1 or more")
    if not isinstance(tagged, bool):
        _fail(path, "tagged must be true or false")
    messages = _messages(path, fields["messages"])
    alone = _messages(path, fields["alone"]) if "alone" in fields else messages
    return DebaterPrompt(path.stem, messages, alone, tokens, tagged)


def _fields(path: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(loaded, dict):
        _fail(path, "it must hold the fields of a debater's prompt")
    return cast("dict[str, Any]", loaded)


def _messages(path: Path, given: Any) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        _fail(path, "messages must be a list of role and content")
    found: list[Message] = []
    for message in cast("list[Any]", given):
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in ("system", "user", "assistant"):
            _fail(path, "each message needs role (system, user or assistant) and content, and nothing else")
        found.append(Message(message["role"], str(message["content"])))
    places = {place for message in found for place in _PLACE.findall(message.content)}
    if unknown := sorted(places - PLACES):
        _fail(path, f"there is no place {{{unknown[0]}}}; the places are {', '.join(sorted(PLACES))}")
    if missing := sorted({"question", "evidence", "answer"} - places):
        _fail(path, f"messages have no place {{{missing[0]}}}")
    return tuple(found)


def _fail(path: Path, what: str) -> NoReturn:
    raise ConfigError(f"{path}: {what}. See docs/debate.md.")
