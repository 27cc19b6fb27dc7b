"""Messages to token ids through the chat template, knowing at every token whether the objective counts it.

The token ids of the prompt are always a prefix of the ids of prompt + completion, so that what is trained is what is sampled.
The end token is counted once, nothing after it is kept, and a completion that was cut off gets none.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import TemplateError

from accord.data.fields import MESSAGE_FIELDS
from accord.data.packing import Branch, Unit
from accord.data.system_column import NAME as SYSTEM
from accord.errors import ConfigError, DataError
from accord.types import Completion, Example, Message

Tools = list[dict[str, Any]] | None
"""Tool descriptions for a chat template; None: there are none."""
_OTHER_THAN_TEXT = ("images", "videos", "audios")
"""Columns of TRL's rows for models that see and hear."""
_THINK, _THOUGHT = "<think>", "</think>"
"""What reasoning models write around their thoughts."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where chat APIs put what a model thought, beside the content of its message."""


@dataclass(frozen=True)
class RenderedCompletion:
    """Token ids of a completion and which of them the objective counts."""

    ids: list[int]
    counted: list[bool]
    ends: bool
    """True: the last counted token is an end token. False: the completion was cut off."""


@dataclass(frozen=True)
class RenderedExample:
    prompt_ids: list[int]
    completions: list[RenderedCompletion]
    whole: int
    """Tokens of the prompt and its longest completion before anything was cut."""


class Renderer:
    """Turns `Example`s into token ids for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer; its chat template is applied when it has one (to plain-string rows too).
        end_ids: ids that end an answer; the first is appended where the template writes none. None: the tokenizer's eos.
        max_length: longest prompt + completion in tokens. The prompt loses tokens on the left first, then the completion on the
            right (and with them its end token); both are counted in `report`. None keeps everything.
        max_prompt_length: longest prompt in tokens, cut on the left. None keeps everything.
    """

    def __init__(
        self, tokenizer: Any, *, end_ids: Sequence[int] | None = None, max_length: int | None = None, max_prompt_length: int | None = None
    ) -> None:
        if end_ids is None:
            end_ids = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        if not end_ids:
            raise ConfigError(
                "The tokenizer has no end-of-sequence token: a model trained with it would never stop. Set tokenizer.eos_token."
            )
        self.tokenizer = tokenizer
        self.end_ids = list(end_ids)
        self.max_length = max_length
        self.max_prompt_length = max_prompt_length
        self.report: Counter[str] = Counter()

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def prompt_ids(self, prompt: Sequence[Message], columns: Mapping[str, object] | None = None) -> list[int]:
        """Token ids of a prompt as the sampler sees it, ready for the assistant to answer.

        Args:
            columns: the row's other columns: `tools`, descriptions of the tools the model may call, goes to the chat template.
        """
        return self._cut_prompt(self._ids(self._prompt_text(prompt, self._tools(columns or {}))))

    def beginnings(self, prompt: Sequence[Message], texts: Sequence[str], *, said: str = "") -> tuple[list[int], list[list[int]]]:
        """Token ids of a prompt, uncut, and of texts that an answer may begin with, each as it is tokenized behind the prompt.

        Args:
            said: what the answer has said before; its ids stand at the end of the prompt's.
        """
        before = self._prompt_text(prompt) + said
        ids = self._ids(before)
        return ids, [self._suffix_ids(before, ids, text)[0] for text in texts]

    def render(self, example: Example) -> RenderedExample:
        """Token ids of one example.

        Raises:
            DataError: if a completion is empty, or the chat template refuses the turns or does not keep the prompt as a prefix.
        """
        try:
            return self._render_text(example) if example.kind == "text" else self._render(example)
        except DataError as error:
            raise DataError(f"{example.where or 'row'}: {error}") from error

    def _render(self, example: Example) -> RenderedExample:
        if thoughts := _thoughts(example.columns):
            self.report["messages whose reasoning is not learned (it stands apart from their content)"] += thoughts
        if example.prompt and example.prompt[0].role == "system" and example.prompt[0].content == example.columns.get(SYSTEM):
            self.report["prompts that begin with the text of their column system"] += 1
        tools = self._tools(example.columns)
        prompt_text = self._prompt_text(example.prompt, tools)
        prompt_ids = self._ids(prompt_text)
        completions = [self._completion(example, completion, prompt_text, prompt_ids, tools) for completion in example.completions]
        whole = len(prompt_ids) + max((len(completion.ids) for completion in completions), default=0)
        prompt_ids = self._cut_prompt(prompt_ids)
        if self.max_length is not None and completions:
            longest = max(len(completion.ids) for completion in completions)
            room = max(1, self.max_length - longest)
            if len(prompt_ids) > room:
                self.report["prompts cut on the left"] += 1
                prompt_ids = prompt_ids[-room:]
            completions = [self._cut_completion(completion, self.max_length - len(prompt_ids)) for completion in completions]
        if any(not any(completion.counted) for completion in completions):
            raise DataError("a completion has no tokens to learn from. Remove the row or fix its text.")
        return RenderedExample(prompt_ids, completions, whole)

    def unit(self, example: Example, **data: Any) -> Unit:
        """One example as the unit that packing takes; `data` is kept on it."""
        rendered = self.render(example)
        branches = tuple(Branch(tuple(c.ids), None if all(c.counted) else tuple(c.counted)) for c in rendered.completions)
        return Unit(tuple(rendered.prompt_ids), branches, example.id, {"example": example, **data})

    def units(self, examples: Iterable[Example]) -> list[Unit]:
        return [self.unit(example) for example in examples]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    # -- prompts ------------------------------------------------------------------------------------------------------------

    def _tools(self, columns: Mapping[str, object]) -> Tools:
        """The column `tools`, or its older form `functions`: a list of descriptions, or the same as JSON text (as tables keep it).

        Raises:
            DataError: if it is something else, or the chat template has no place for tools; or if the row has more than text.
        """
        for name in _OTHER_THAN_TEXT:
            if columns.get(name):
                raise DataError(
                    f"it has {name}, and accord learns from text alone. Leave the row out, or drop the column if the text says all."
                )
        tools = [
            *_descriptions(columns, "tools"),
            *({"type": "function", "function": each} for each in _descriptions(columns, "functions")),
        ]
        if not tools:
            return None
        question = [Message("user", "?")]
        if not self.has_template or self._template(question, add_generation_prompt=True, tools=tools) == self._template(
            question, add_generation_prompt=True
        ):
            raise DataError("it has tools and the chat template has no place for them. Use a model whose template has, or drop the column.")
        return tools

    def _prompt_text(self, prompt: Sequence[Message], tools: Tools = None) -> str:
        if not self.has_template:
            return "".join(message.content for message in prompt)
        return self._template(prompt, add_generation_prompt=True, tools=tools)

    def _template(self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: Tools = None) -> str:
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self.tokenizer.apply_chat_template(rows, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt)
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(
                f"the chat template refuses turns of {roles}: {error}. Change the roles, or set another template (tokenizer.chat_template)."
            ) from error

    def _ids(self, text: str) -> list[int]:
        # A template writes its own BOS; asking the tokenizer for another one would double it.
        ids = list(self.tokenizer(text, add_special_tokens=not self.has_template)["input_ids"])
        if not self.has_template and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _cut_prompt(self, ids: list[int]) -> list[int]:
        if self.max_prompt_length is not None and len(ids) > self.max_prompt_length:
            self.report["prompts cut on the left"] += 1
            return ids[-self.max_prompt_length :]
        return ids

    # -- completions ----------------------------------------------------------------------------------------------------------

    def _completion(
        self, example: Example, completion: Completion, prompt_text: str, prompt_ids: list[int], tools: Tools
    ) -> RenderedCompletion:
        if not self.has_template:
            text = "".join(message.content for message in completion.messages)
            spans = [(0, len(text))]
            rest = text
        else:
            rest, spans = self._templated(example, completion, prompt_text, tools)
        if not completion.text.strip():
            self.report["empty answers, whose end alone is learned"] += 1
        ids, offsets = self._suffix_ids(prompt_text, prompt_ids, rest)
        return self._ended(ids, self._counted(ids, offsets, spans), completion.finished)

    def _counted(self, ids: list[int], offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
        """Which tokens the assistant wrote: those inside a span, up to its end token; the blanks that a template puts after that are not its.

        Zero-width tokens carry no text; a special token at the end of a span has a width, so nothing that must be learned is lost.
        """
        where = [
            next((i for i, (first, last) in enumerate(spans) if start < stop and start < last and stop > first), None)
            for start, stop in offsets
        ]
        counted: list[bool] = []
        ended: int | None = None
        for token, span in zip(ids, where, strict=True):
            counted.append(span is not None and not (span == ended and self._blank(token) and token not in self.end_ids))
            ended = span if span is not None and token in self.end_ids else ended
        return counted

    def _templated(self, example: Example, completion: Completion, prompt_text: str, tools: Tools) -> tuple[str, list[tuple[int, int]]]:
        """Text after the prompt, and the character spans in it that the assistant wrote (turn terminator included)."""
        messages = [*example.prompt, *completion.messages]
        full = self._template(messages, add_generation_prompt=False, tools=tools)
        kept = full.startswith(prompt_text)
        opened = prompt_text.rstrip().endswith(_THINK)
        moved = not kept and (opened or any(message.role == "system" for message in example.prompt))
        cut = kept and not _keeps_thoughts(completion.text, prompt_text, full)
        if len(completion.messages) == 1 and (moved or cut):
            return self._as_it_is(completion, prompt_text)
        if not kept:
            raise DataError(
                "the chat template does not keep the prompt as a prefix of prompt + answer, so training and sampling would see different text. "
                "Use a prefix-stable template (tokenizer.chat_template)."
            )
        spans: list[tuple[int, int]] = []
        for index in range(len(example.prompt), len(messages)):
            if messages[index].role != "assistant":
                continue
            before = self._template(messages[:index], add_generation_prompt=True, tools=tools)
            after = self._template(messages[: index + 1], add_generation_prompt=False, tools=tools)
            if not full.startswith(after) and self.tokenizer.eos_token:  # written where the conversation ends alone (Phi)
                after = after.removesuffix(self.tokenizer.eos_token)
            if not (full.startswith(before) and (full.startswith(after) or index == len(messages) - 1)):
                raise DataError(
                    f"the chat template rewrites turn {index + 1} when later turns follow, so its tokens cannot be marked. "
                    "Make a row of each answer: accord data convert FILE NEW --each-answer."
                )
            if not _keeps_thoughts(messages[index].content, before, after):
                raise DataError(
                    f"the chat template cuts thoughts off turn {index + 1}. Make a row of each answer: accord data convert FILE NEW --each-answer."
                )
            spans.append((len(before) - len(prompt_text), len(after) - len(prompt_text)))
        return full[len(prompt_text) :], spans

    def _as_it_is(self, completion: Completion, prompt_text: str) -> tuple[str, list[tuple[int, int]]]:
        """An answer behind the prompt without the template, which would cut its thoughts off, or write the prompt anew once there is an answer."""
        text = completion.text
        if prompt_text.rstrip().endswith(_THINK):
            text = text.strip().removeprefix(_THINK).lstrip()
            if completion.finished and _THOUGHT not in text:
                raise DataError(
                    f"the chat template opens {_THINK} in the prompt, and an answer has no {_THOUGHT}: all of it would be learned as a thought. "
                    f"Write its reasoning and {_THOUGHT} before it, or use a template that does not (tokenizer.chat_template)."
                )
        else:
            text = self._blanks_before_answers() + text
        self.report["answers learned as they are written, because the chat template rewrites them"] += 1
        return text, [(0, len(text))]

    def _blanks_before_answers(self) -> str:
        """What the template puts between its prompt and an answer, if that is blank."""
        question, answer = Message("user", "?"), "Blue."
        before = self._template([question], add_generation_prompt=True)
        both = self._template([question, Message("assistant", answer)], add_generation_prompt=False)
        found = both[len(before) :].partition(answer)[0] if both.startswith(before) else ""
        return found if found.isspace() else ""

    def _suffix_ids(self, prompt_text: str, prompt_ids: list[int], rest: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of `rest` after the prompt with character offsets into `rest`; joint tokenization where it keeps the prompt's ids."""
        joint = self.tokenizer(prompt_text + rest, add_special_tokens=not self.has_template, return_offsets_mapping=True)
        ids, offsets = list(joint["input_ids"]), list(joint["offset_mapping"])
        if ids[: len(prompt_ids)] == prompt_ids:
            shift = len(prompt_text)
            return ids[len(prompt_ids) :], [(start - shift, stop - shift) for start, stop in offsets[len(prompt_ids) :]]
        self.report["answers tokenized apart from their prompt"] += 1
        apart = self.tokenizer(rest, add_special_tokens=False, return_offsets_mapping=True)
        return list(apart["input_ids"]), list(apart["offset_mapping"])

    def _ended(self, ids: list[int], counted: list[bool], finished: bool) -> RenderedCompletion:
        """Cut after the last counted token; make sure of exactly one end token, or of none where the answer was cut off."""
        last = max((index for index, is_counted in enumerate(counted) if is_counted), default=-1)
        ends = [index for index in range(last + 1) if counted[index] and ids[index] in self.end_ids]
        closing = last + 1  # where ends and blanks begin that nothing follows: a template may write an end of the turn and one of the text
        while closing > 0 and (ids[closing - 1] in self.end_ids or self._blank(ids[closing - 1])):
            closing -= 1
        final = next((index for index in ends if index >= closing), None)
        if final is not None:
            stop = final + 1 if finished else final
        else:
            stop = last + 1
        ids, counted = ids[:stop], counted[:stop]
        if finished and final is None:
            ids, counted = [*ids, self.end_ids[0]], [*counted, True]
        return RenderedCompletion(ids, counted, finished)

    def _blank(self, token: int) -> bool:
        return not self.tokenizer.decode([token]).strip()

    def _cut_completion(self, completion: RenderedCompletion, room: int) -> RenderedCompletion:
        if len(completion.ids) <= room:
            return completion
        self.report["completions cut on the right"] += 1
        return RenderedCompletion(completion.ids[:room], completion.counted[:room], False)

    def _render_text(self, example: Example) -> RenderedExample:
        """Plain text: its first token (or BOS) is the prompt, the rest is the completion."""
        text = example.completions[0].text
        ids = list(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        if ids and ids[-1] != self.end_ids[0] and example.completions[0].finished:
            ids.append(self.end_ids[0])
        whole = len(ids)
        if self.max_length is not None and len(ids) > self.max_length:
            self.report["completions cut on the right"] += 1
            ids = ids[: self.max_length]
        if len(ids) < 2:
            raise DataError("the text has no tokens to learn from. Remove the row or fix its text.")
        return RenderedExample(ids[:1], [RenderedCompletion(ids[1:], [True] * (len(ids) - 1), ids[-1] in self.end_ids)], whole)


def _descriptions(columns: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    found = columns.get(name)
    if isinstance(found, str) and found.strip():
        with contextlib.suppress(ValueError):
            found = json.loads(found)
    if not found:
        return []
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in cast("list[object]", found)):
        raise DataError(f"its column {name} is no list of tool descriptions. Rename the column if it means something else.")
    return cast("list[dict[str, Any]]", found)


def _keeps_thoughts(answer: str, before: str, full: str) -> bool:
    """Whether a template writes an answer with its thoughts as it is, blanks aside; the prompt before it may open them. True where it has none."""
    if _THOUGHT not in answer and not answer.lstrip().startswith(_THINK):
        return True
    opened = _THINK if before.rstrip().endswith(_THINK) else ""
    return "".join((opened + full[len(before) :]).split()).startswith("".join(answer.split()))


def _thoughts(columns: Mapping[str, object]) -> int:
    """Messages of the row with a text of reasoning beside their content, where chat APIs put it."""
    kept = cast("Mapping[str, Mapping[str, object]]", columns.get(MESSAGE_FIELDS) or {})
    return sum(any(fields.get(name) for name in _REASONING) for fields in kept.values())
