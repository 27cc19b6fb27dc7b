"""What a judge is asked: a readable YAML file, one that comes with accord or the user's own. docs/judges.md describes the fields."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from accord.ai_feedback.asking import Question
from accord.ai_feedback.reading import verdict_pattern
from accord.errors import ConfigError
from accord.types import Message, content_hash

FOLDER = Path(__file__).parent / "prompts"
KINDS = ("pairwise", "rating", "rubric")
_PLACES = {
    "pairwise": {"conversation", "first", "second", "principle"},
    "rating": {"conversation", "answer"},
    "rubric": {"conversation", "answer", "item"},
}
_NEEDED = {"pairwise": {"first", "second"}, "rating": {"answer"}, "rubric": {"answer", "item"}}
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Item:
    """One question of a checklist."""

    ask: str
    weight: int = 1
    want: str = "yes"
    """The option that speaks for the answer."""


@dataclass(frozen=True)
class JudgePrompt:
    """A judge's question with places for what is judged, and how its answer is read."""

    name: str
    kind: Literal["pairwise", "rating", "rubric"]
    messages: tuple[Message, ...]
    options: dict[str, tuple[str, ...]]
    """Spellings of each option, added up. pairwise: the answer shown first, then the other. rating: numbers. rubric: yes and no."""
    max_new_tokens: int = 0
    """Longest reasoning before the verdict, in tokens. 0: the verdict is the first thing said."""
    verdict: str = "Answer: {option}"
    """The line that states the verdict in what a judge writes."""
    clamp: tuple[float, float] | None = None
    """pairwise: the probability of each order is kept inside. None: as it is."""
    items: tuple[Item, ...] = ()
    principles: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Of everything in it but its name (16 hex digits)."""
        return content_hash({name: value for name, value in asdict(self).items() if name != "name"})

    @property
    def needs_principle(self) -> bool:
        return any("{principle}" in message.content for message in self.messages)

    def question(self, *, seed: int = 0, **places: str) -> Question:
        """The question with its places filled. What is filled in is never searched for places itself.

        Args:
            seed: of the sampling of what a judge reasons.
            places: text for each of conversation, first, second, answer, item, principle that the prompt has.
        """
        filled = tuple(
            Message(message.role, _PLACE.sub(lambda found: places.get(found[1], found[0]), message.content)) for message in self.messages
        )
        return Question(filled, self.options, self.max_new_tokens, self.verdict, seed=seed if self.max_new_tokens else 0)


def load_prompt(name: str, principles: str | None = None) -> JudgePrompt:
    """A judge prompt by the name of one that comes with accord, or from a YAML file.

    Args:
        principles: a YAML file with a list of principles (or with one under `principles`) in place of the prompt's own.
    Raises:
        ConfigError: if there is none of that name, or a file is wrong; it names file and field.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(name, prompt_names(), 1)
            hint = f"Did you mean {near[0]}?" if near else f"Those that come with accord: {', '.join(prompt_names())}."
            raise ConfigError(f"There is no judge prompt {name!r}. {hint} Your own: a .yaml file, see docs/judges.md.")
    fields = _yaml(path)
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} must hold the fields of a judge prompt (kind, messages, options), see docs/judges.md.")
    if principles is not None:
        fields = {**fields, "principles": _principles(Path(principles))}
    return _Reader(path, fields).prompt()


def prompt_names() -> list[str]:
    """The judge prompts that come with accord."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error


def _principles(path: Path) -> Any:
    loaded = _yaml(path)
    return cast("dict[str, Any]", loaded).get("principles") if isinstance(loaded, dict) else loaded


class _Reader:
    """The fields of one file, with messages that name it."""

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path, self.fields = path, fields

    def prompt(self) -> JudgePrompt:
        known = {"kind", "messages", "options", "max_new_tokens", "verdict", "clamp", "items", "principles"}
        if unknown := sorted(set(map(str, self.fields)) - known):
            self.fail(f"has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}")
        kind = self.fields.get("kind")
        if kind not in KINDS:
            self.fail(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        found = JudgePrompt(
            self.path.stem,
            kind,
            self.messages(),
            self.options(kind),
            self.number("max_new_tokens"),
            self.verdict(),
            self.clamp(kind),
            self.items() if kind == "rubric" else (),
            self.principles(),
        )
        self.check_places(found)
        return found

    def messages(self) -> tuple[Message, ...]:
        given = self.fields.get("messages")
        if not isinstance(given, list) or not given:
            self.fail("messages must be a list of role and content")
        found: list[Message] = []
        for message in cast("list[Any]", given):
            if not isinstance(message, dict) or set(message) != {"role", "content"}:
                self.fail("each of messages needs role and content, and nothing else")
            if message["role"] not in ("system", "user", "assistant"):
                self.fail(f"the role {message['role']!r} must be system, user or assistant")
            found.append(Message(message["role"], str(message["content"])))
        return tuple(found)

    def options(self, kind: str) -> dict[str, tuple[str, ...]]:
        given = self.fields.get("options")
        if not isinstance(given, dict) or not all(isinstance(spellings, list) and spellings for spellings in given.values()):
            self.fail("options must name each option with a list of its spellings")
        stated = cast("dict[Any, list[Any]]", given)
        if any(isinstance(spelling, bool) for spellings in stated.values() for spelling in spellings):
            self.fail('options has a spelling that YAML takes for true or false: write "Yes" and "No" in quotes')
        found = {_word(name): tuple(map(str, spellings)) for name, spellings in stated.items()}
        if kind == "pairwise" and len(found) != 2:
            self.fail(f"options has {len(found)}; pairwise needs two: the answer shown first, then the other")
        if kind == "rubric" and set(found) != {"yes", "no"}:
            self.fail("options must be yes and no")
        if kind == "rating" and (len(found) < 2 or not all(_is_number(name) for name in found)):
            self.fail("options must be two numbers or more")
        spelled = [spelling for spellings in found.values() for spelling in spellings]
        if twice := sorted({spelling for spelling in spelled if spelled.count(spelling) > 1}):
            self.fail(f"the spelling {twice[0]!r} stands twice in options")
        return found

    def verdict(self) -> str:
        given = str(self.fields.get("verdict", "Answer: {option}"))
        if given.count("{option}") != 1 or not verdict_pattern(given, {"A": ("A",)}).search(given.replace("{option}", "A")):
            self.fail("verdict must be a line with one {option} in it")
        return given

    def clamp(self, kind: str) -> tuple[float, float] | None:
        given = self.fields.get("clamp")
        if given is None:
            return None
        if kind != "pairwise":
            self.fail("clamp belongs to pairwise prompts")
        if not isinstance(given, list) or len(given) != 2 or not all(isinstance(end, (int, float)) for end in given):
            self.fail("clamp must be two numbers, such as [0.4, 0.6]")
        low, high = (float(end) for end in cast("list[float]", given))
        if not 0 <= low < 0.5 < high <= 1 or abs(low + high - 1) > 1e-9:
            self.fail("clamp must lie around 0.5, as far below it as above: [0.4, 0.6]")
        return low, high

    def items(self) -> tuple[Item, ...]:
        given = self.fields.get("items")
        if not isinstance(given, list) or not given:
            self.fail("items must be a list of questions")
        return tuple(self.item(one) for one in cast("list[Any]", given))

    def item(self, given: Any) -> Item:
        if isinstance(given, str):
            return Item(given)
        if not isinstance(given, dict) or "ask" not in given or set(given) - {"ask", "weight", "want"}:
            self.fail("each of items is a question, or has ask and perhaps weight and want")
        weight, want = given.get("weight", 1), _word(given.get("want", "yes"))
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
            self.fail(f"the weight {weight!r} of an item must be a whole number, 1 or more")
        if want not in ("yes", "no"):
            self.fail(f"want is {want!r}; it must be yes or no")
        return Item(str(given["ask"]), weight, want)

    def principles(self) -> tuple[str, ...]:
        given = self.fields.get("principles", [])
        if not isinstance(given, list) or not all(isinstance(one, str) and one.strip() for one in given):
            self.fail("principles must be a list of texts")
        return tuple(cast("list[str]", given))

    def number(self, name: str) -> int:
        given = self.fields.get(name, 0)
        if not isinstance(given, int) or isinstance(given, bool) or given < 0:
            self.fail(f"{name} must be a whole number, 0 or more")
        return cast("int", given)

    def check_places(self, prompt: JudgePrompt) -> None:
        found = {name for message in prompt.messages for name in _PLACE.findall(message.content)}
        known = _PLACES[prompt.kind]
        if strange := sorted(found - known):
            self.fail(f"messages has the place {{{strange[0]}}}; {prompt.kind} prompts have {', '.join(sorted(known))}")
        if missing := sorted(_NEEDED[prompt.kind] - found):
            self.fail(f"messages has no place {{{missing[0]}}}")
        if prompt.needs_principle and not prompt.principles:
            self.fail("messages has {principle} and there are no principles. List some, or name a file: --principles mine.yaml")
        if prompt.principles and not prompt.needs_principle:
            self.fail("there are principles and messages has no place {principle}. Use --prompt principle")

    def fail(self, what: str) -> NoReturn:
        raise ConfigError(f"{self.path}: {what}. See docs/judges.md.")


def _word(value: Any) -> str:
    """Text, with what YAML makes of a bare yes or no put back."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
