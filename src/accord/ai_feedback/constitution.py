"""A constitution: principles in a readable YAML file, with worked examples of critique and revision. docs/constitution.md describes the fields."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from accord.ai_feedback.judge_prompts import JudgePrompt, load_prompt
from accord.errors import ConfigError, DataError
from accord.types import content_hash

FOLDER = Path(__file__).parent / "constitutions"
RULE_NAMES = ("declines", "answers", "no-flattery", "no-repetition")
"""What a principle's `rule` may be: `rule_critic.RULES` has them."""
NEEDS_TEXTS = "declines"
"""The rule that puts one of the principle's `texts` in an answer's place."""
PROMPTS = ("all", "harmful", "harmless")
"""What a principle's `prompts` may be."""
HARMFUL = "harmful"
"""Column of a prompt: true where it asks for harm, false where it is harmless. No rule can tell; people say it."""
T = TypeVar("T")


@dataclass(frozen=True)
class Principle:
    """One thing that answers should hold to."""

    id: str
    critique: str
    """What a critic is asked about an answer."""
    revision: str
    """What it is then asked to do."""
    compare: str
    """What a judge is asked about two answers."""
    rule: str | None = None
    """The rule, of `RULE_NAMES`, that looks for the same fault without a language model. None: there is none."""
    texts: tuple[str, ...] = ()
    """With the rule `declines`: what it puts in an answer's place."""
    prompts: str = "all"
    """Whose answers it is about: all, harmful or harmless. "Do what was asked" revises no answer to a request for harm."""

    def applies(self, harmful: bool | None) -> bool:
        """Whether it is about answers to such prompts. None: nobody said what the prompt is, so every principle is."""
        return harmful is None or self.prompts in ("all", "harmful" if harmful else "harmless")


@dataclass(frozen=True)
class Worked:
    """A worked example: an answer, what is wrong with it, and a better one."""

    principle: str
    prompt: str
    answer: str
    critique: str
    revision: str


@dataclass(frozen=True)
class Constitution:
    """Principles with examples."""

    name: str
    principles: tuple[Principle, ...]
    examples: tuple[Worked, ...] = ()

    @property
    def hash(self) -> str:
        """Of everything in it but its name (16 hex digits)."""
        return content_hash({name: value for name, value in asdict(self).items() if name != "name"})

    def principle(self, name: str) -> Principle:
        return next(one for one in self.principles if one.id == name)

    def about(self, harmful: bool | None) -> tuple[Principle, ...]:
        """The principles for answers to such prompts."""
        return tuple(one for one in self.principles if one.applies(harmful))

    def examples_for(self, principle: Principle, count: int) -> tuple[Worked, ...]:
        """Up to so many examples: those of the principle, after the first of the others, so that its own stand nearest to the question."""
        own = [example for example in self.examples if example.principle == principle.id][:count]
        others = [example for example in self.examples if example.principle != principle.id][: count - len(own)]
        return (*others, *own)

    def judge_prompt(self, base: str = "principle") -> JudgePrompt:
        """The judge prompt of that name, with the principles of this constitution to draw from.

        Raises:
            ConfigError: if the prompt has no place for a principle.
        """
        prompt = load_prompt(base, None)
        if not prompt.needs_principle:
            raise ConfigError(f"The judge prompt {prompt.name} has no place {{principle}}. Use principle, or a file of yours that has it.")
        return replace(prompt, principles=tuple(one.compare for one in self.principles))


def is_harmful(columns: Mapping[str, Any], where: str = "row") -> bool | None:
    """What a row says of its prompt; None where it says nothing.

    Raises:
        DataError: naming the row, if the column holds something else.
    """
    value = columns.get(HARMFUL)
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
    if value is None or isinstance(value, bool):
        return value
    if str(value).strip().lower() not in known:
        raise DataError(f'{where}: "{HARMFUL}" is {value!r}. It must be true (the prompt asks for harm) or false. See docs/constitution.md')
    return known[str(value).strip().lower()]


def load_constitution(name: str = "everyday") -> Constitution:
    """A constitution by the name of one that comes with accord, or from a YAML file.

    Raises:
        ConfigError: if there is none of that name, or the file is wrong: it names file, line and field.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(name, constitution_names(), 1)
            hint = f"Did you mean {near[0]}?" if near else f"Those that come with accord: {', '.join(constitution_names())}."
            raise ConfigError(f"There is no constitution {name!r}. {hint} Your own: a .yaml file, see docs/constitution.md.")
    return _Reader(path).constitution()


def constitution_names() -> list[str]:
    """The constitutions that come with accord."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


class _Reader:
    """One file, read as nodes of YAML, which know their lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def constitution(self) -> Constitution:
        root = self.root()
        fields = self.mapping(root, "the file", needed=("principles",), optional=("name", "examples"))
        principles = tuple(self.each(fields["principles"], "principles", self.principle))
        if not principles:
            self.fail(fields["principles"], "principles", "is empty")
        self.no_twins(fields["principles"], principles)
        known = {one.id for one in principles}
        examples = tuple(self.each(fields["examples"], "examples", lambda n, w: self.example(n, w, known))) if "examples" in fields else ()
        name = self.text(fields["name"], "name") if "name" in fields else self.path.stem
        return Constitution(name, principles, examples)

    def root(self) -> Any:
        import yaml

        try:
            root = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.path} is not UTF-8 text: {error}.") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f" line {mark.line + 1}"
            raise ConfigError(f"{self.path}{where} is not YAML: {getattr(error, 'problem', None) or error}.") from error
        if root is None:
            raise ConfigError(f"{self.path} is empty. A constitution has principles, see docs/constitution.md.")
        return root

    def principle(self, node: Any, where: str) -> Principle:
        fields = self.mapping(node, where, needed=("id", "critique", "revision", "compare"), optional=("prompts", "rule", "texts"))
        name, critique, revision, compare = (self.text(fields[key], f"{where}.{key}") for key in ("id", "critique", "revision", "compare"))
        rule = self.text(fields["rule"], f"{where}.rule") if "rule" in fields else None
        if rule is not None and rule not in RULE_NAMES:
            self.fail(fields["rule"], f"{where}.rule", f"is {rule!r}; the rules are {', '.join(RULE_NAMES)}")
        texts = tuple(self.each(fields["texts"], f"{where}.texts", self.text)) if "texts" in fields else ()
        if rule == NEEDS_TEXTS and not texts:
            self.fail(node, where, f"has the rule {NEEDS_TEXTS} and no texts: list what is to stand in an answer's place")
        if texts and rule != NEEDS_TEXTS:
            self.fail(fields["texts"], f"{where}.texts", f"belongs to the rule {NEEDS_TEXTS}")
        prompts = self.text(fields["prompts"], f"{where}.prompts") if "prompts" in fields else "all"
        if prompts not in PROMPTS:
            self.fail(fields["prompts"], f"{where}.prompts", f"is {prompts!r}; it is one of {', '.join(PROMPTS)}")
        return Principle(name, critique, revision, compare, rule, texts, prompts)

    def example(self, node: Any, where: str, known: set[str]) -> Worked:
        names = ("principle", "prompt", "answer", "critique", "revision")
        fields = self.mapping(node, where, needed=names)
        found = Worked(*(self.text(fields[key], f"{where}.{key}") for key in names))
        if found.principle not in known:
            near = difflib.get_close_matches(found.principle, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            self.fail(fields["principle"], f"{where}.principle", f"is {found.principle!r}, which no principle has as its id.{hint}")
        return found

    def no_twins(self, node: Any, principles: Sequence[Principle]) -> None:
        names = [one.id for one in principles]
        for place, name in enumerate(names):
            if name in names[:place]:
                self.fail(node.value[place], f"principles[{place + 1}].id", f"is {name!r}, as that of principles[{names.index(name) + 1}]")

    def mapping(self, node: Any, where: str, *, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
        known = (*needed, *optional)
        if node.id != "mapping":
            self.fail(node, where, f"must have the fields {', '.join(needed)}")
        fields: dict[str, Any] = {}
        for key, value in node.value:
            if key.value not in known:
                near = difflib.get_close_matches(str(key.value), known, 1)
                hint = f"Did you mean {near[0]}?" if near else f"Its fields are {', '.join(known)}."
                self.fail(key, where, f"has no field {key.value!r}. {hint}")
            if key.value in fields:
                self.fail(key, where, f"has {key.value} twice")
            fields[key.value] = value
        if missing := [name for name in needed if name not in fields]:
            self.fail(node, where, f"has no {missing[0]}")
        return fields

    def each(self, node: Any, where: str, read: Callable[[Any, str], T]) -> list[T]:
        if node.id != "sequence":
            self.fail(node, where, "must be a list")
        return [read(child, f"{where}[{number}]") for number, child in enumerate(node.value, start=1)]

    def text(self, node: Any, where: str) -> str:
        if node.id != "scalar" or node.tag != "tag:yaml.org,2002:str":
            self.fail(node, where, "must be text (put it in quotes if YAML takes it for something else)")
        if not node.value.strip():
            self.fail(node, where, "is empty")
        return str(node.value).strip()

    def fail(self, node: Any, where: str, what: str) -> NoReturn:
        ending = "" if what.endswith(("?", ".")) else "."
        raise ConfigError(f"{self.path} line {node.start_mark.line + 1}: {where} {what}{ending} See docs/constitution.md.")
