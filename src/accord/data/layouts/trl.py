"""TRL's row types, plain and conversational, with accord's own optional columns (finished, source, strength, probability)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accord.data.fields import Fields, Row, common_turns, describe, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.types import Completion, Example, Message


def parse_text(fields: Fields) -> list[Example]:
    """{"text"}: plain text to continue."""
    if fields.has("message_tree_id") and fields.has("role"):
        fields.fail(
            "is one message of a conversation tree (OASST), without what it answers. Take the dataset's file of whole trees, ..._ready.trees.jsonl.gz."
        )
    text = fields.text("text")
    completion = Completion((Message("assistant", text),), fields.optional_flag("finished", default=True), fields.source("source"))
    return [Example("text", (), (completion,), plain=True, columns=fields.rest(), where=fields.where)]


def write_text(example: Example) -> Row:
    """The inverse of `parse_text`."""
    return with_columns({"text": example.completions[0].text, **_single_extras(example.completions[0])}, example)


def parse_messages(fields: Fields) -> list[Example]:
    """{"messages"}: a conversation."""
    return [demonstration(fields, fields.messages("messages"), "messages")]


def demonstration(fields: Fields, messages: tuple[Message, ...], name: str) -> Example:
    """A conversation as an example: the prompt is everything before the first assistant turn, the completion all that follows."""
    start = next((index for index, message in enumerate(messages) if message.role == "assistant"), None)
    if start is None:
        fields.fail(f'field "{name}" has no assistant turn, so there is nothing to learn. For prompts alone name the column "prompt".')
    completion = Completion(messages[start:], fields.optional_flag("finished", default=True), fields.source("source"))
    return Example("demonstration", messages[:start], (completion,), columns=fields.rest(), where=fields.where)


def write_messages(example: Example) -> Row:
    """The inverse of `parse_messages`."""
    messages = (*example.prompt, *example.completions[0].messages)
    return with_columns(
        {"messages": message_rows(messages, "messages", example.columns), **_single_extras(example.completions[0])}, example
    )


def parse_prompt(fields: Fields) -> list[Example]:
    """{"prompt"}: a question without an answer."""
    plain = fields.is_text("prompt")
    return [Example("prompt", fields.turns("prompt", "user"), plain=plain, columns=fields.rest(), where=fields.where)]


def write_prompt(example: Example) -> Row:
    """The inverse of `parse_prompt`."""
    return with_columns(_prompt_field(example), example)


def parse_prompt_completion(fields: Fields) -> list[Example]:
    """{"prompt", "completion"}: a demonstration."""
    prompt, completion = fields.turns("prompt", "user"), _answer(fields, "completion", "finished", "source")
    return [Example("demonstration", prompt, (completion,), plain=_plain(fields, "completion"), columns=fields.rest(), where=fields.where)]


def write_prompt_completion(example: Example) -> Row:
    """The inverse of `parse_prompt_completion`."""
    completion = example.completions[0]
    fields = {**_prompt_field(example), "completion": answer_value(example, completion, "completion"), **_single_extras(completion)}
    return with_columns(fields, example)


def parse_labelled(fields: Fields) -> list[Example]:
    """{"prompt", "completion", "label"}: one answer marked desirable or not (KTO)."""
    prompt, completion, label = fields.turns("prompt", "user"), _answer(fields, "completion", "finished", "source"), fields.flag("label")
    plain = _plain(fields, "completion")
    return [Example("labelled", prompt, (completion,), label=label, plain=plain, columns=fields.rest(), where=fields.where)]


def write_labelled(example: Example) -> Row:
    """The inverse of `parse_labelled`."""
    return {**write_prompt_completion(example), "label": example.label}


def parse_preference(fields: Fields) -> list[Example]:
    """{"prompt", "chosen", "rejected"}; `margin` or `strength`, `probability`, and who wrote each answer are optional."""
    prompt = fields.turns("prompt", "user")
    completions = (
        _answer(fields, "chosen", "chosen_finished", "chosen_source", prompt),
        _answer(fields, "rejected", "rejected_finished", "rejected_source", prompt),
    )
    return [_preference(fields, prompt, completions, plain=_plain(fields, "chosen", "rejected"))]


def write_preference(example: Example) -> Row:
    """The inverse of `parse_preference`."""
    values = [answer_value(example, c, name) for c, name in zip(example.completions, ("chosen", "rejected"), strict=True)]
    return with_columns({**_prompt_field(example), "chosen": values[0], "rejected": values[1], **_pair_extras(example)}, example)


def parse_implicit(fields: Fields) -> list[Example]:
    """{"chosen", "rejected"} whose common beginning is the prompt: whole turns of a chat, whole words of plain text."""
    if fields.is_text("chosen") and fields.is_text("rejected"):
        (first,), (second,) = (fields.turns(name, "assistant") for name in ("chosen", "rejected"))
        prompt, answers = _split_words(first.content, second.content)
        _check_prompt(fields, prompt)
        turns = (Message("user", prompt),) if prompt else ()
        completions = tuple(
            _completion(fields, (Message("assistant", a),), side) for a, side in zip(answers, ("chosen", "rejected"), strict=True)
        )
        return [_preference(fields, turns, completions, plain=True)]
    chosen, rejected = fields.messages("chosen"), fields.messages("rejected")
    prompt, answers = split_turns(fields, chosen, rejected)
    completions = tuple(_completion(fields, a, side) for a, side in zip(answers, ("chosen", "rejected"), strict=True))
    return [_preference(fields, prompt, completions, plain=False)]


def _check_prompt(fields: Fields, prompt: str) -> None:
    """Two answers may begin alike by chance, and their question be in a column of its own."""
    shared = "".join(prompt.split())
    for name in QUESTIONS:
        column = fields.row.get(name)
        if isinstance(column, str) and len(column.split()) > 1 and "".join(column.split()) not in shared:
            fields.fail(
                f'has no "prompt", and its column "{name}" ({describe(column)}) is no part of what its answers share. '
                f"Say --columns prompt={name}, or remove that column."
            )


def write_implicit(example: Example) -> Row:
    """The inverse of `parse_implicit`."""
    row: Row = {}
    for completion, name in zip(example.completions, ("chosen", "rejected"), strict=True):
        messages = (*example.prompt, *completion.messages)
        row[name] = "".join(m.content for m in messages) if example.plain else message_rows(messages, name, example.columns)
    return with_columns({**row, **_pair_extras(example)}, example)


def parse_ranking(fields: Fields) -> list[Example]:
    """{"prompt", "completions", "ranks"}: 1 is best, equal ranks are ties; `finished` and `sources` are optional lists."""
    prompt, values = fields.turns("prompt", "user"), fields.items("completions")
    stated = fields.entries("ranks")
    ranks = [stated.integer(index) for index in stated.row]
    ended = fields.entries("finished") if fields.has("finished") else None
    finished = [True] * len(values) if ended is None else [ended.flag(index) for index in ended.row]
    sources: list[Row] = [dict(r.row) for r in fields.records("sources")] if fields.has("sources") else [Row() for _ in values]
    if len(values) < 2:
        fields.fail(f'field "completions" has {len(values)}; a ranking needs at least 2.')
    for name, given in (("ranks", len(ranks)), ("finished", len(finished)), ("sources", len(sources))):
        if given != len(values):
            fields.fail(f'field "{name}" has {given} entries for {len(values)} completions.')
    if min(ranks) < 1:
        fields.fail(f'field "ranks" has {min(ranks)}; ranks begin at 1, the best.')
    plain = fields.is_text("prompt") and all(isinstance(value, str) for value in values)
    completions: list[Completion] = []
    for index, value in enumerate(values):
        name = f"completions[{index}]"
        messages = (Message("assistant", value),) if isinstance(value, str) else fields.as_messages(value, name)
        completions.append(Completion(messages, finished[index], sources[index]))
    for name, says_nothing in (("finished", all(finished)), ("sources", not any(sources))):
        if says_nothing:
            fields.keep(name)
    return [Example("ranking", prompt, tuple(completions), ranks=tuple(ranks), plain=plain, columns=fields.rest(), where=fields.where)]


def write_ranking(example: Example) -> Row:
    """The inverse of `parse_ranking`."""
    row: Row = {**_prompt_field(example), "ranks": list(example.ranks or ())}
    row["completions"] = [answer_value(example, c, f"completions[{index}]") for index, c in enumerate(example.completions)]
    if not all(c.finished for c in example.completions):
        row["finished"] = [c.finished for c in example.completions]
    if any(c.source for c in example.completions):
        row["sources"] = [c.source for c in example.completions]
    return with_columns(row, example)


def split_turns(
    fields: Fields, chosen: Sequence[Message], rejected: Sequence[Message], names: tuple[str, str] = ("chosen", "rejected")
) -> tuple[tuple[Message, ...], tuple[tuple[Message, ...], tuple[Message, ...]]]:
    """Prompt and two answers of two conversations that begin alike, by whole turns."""
    for name, turns in zip(names, (chosen, rejected), strict=True):
        if turns[-1].role != "assistant":
            fields.fail(f'field "{name}" ends with a {turns[-1].role} turn; it must end with the answer (an assistant turn).')
    shared = common_turns(chosen, rejected)
    if shared == 0:
        fields.fail(f'fields "{names[0]}" and "{names[1]}" begin with different prompts; a pair compares two answers to the same prompt.')
    return tuple(chosen[:shared]), (tuple(chosen[shared:]), tuple(rejected[shared:]))


def answer_value(example: Example, completion: Completion, name: str) -> object:
    """A completion as the row shows it: text for plain rows, chat messages otherwise."""
    if example.plain and len(completion.messages) == 1:
        return completion.text
    return message_rows(completion.messages, name, example.columns)


def pair(prompt: tuple[Message, ...], chosen: Completion, rejected: Completion, fields: Fields) -> Example:
    """A preference between two answers to a chat prompt, with the row's other columns."""
    return Example("preference", prompt, (chosen, rejected), columns=fields.rest(), where=fields.where)


def _split_words(first: str, second: str) -> tuple[str, tuple[str, str]]:
    shared = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    if shared == min(len(first), len(second)) or not (first[shared].isspace() and second[shared].isspace()):
        while shared > 0 and not first[shared - 1].isspace():
            shared -= 1
        shared = max(shared - 1, 0)
    return first[:shared], (first[shared:], second[shared:])


def _answer(fields: Fields, name: str, finished: str, source: str, prompt: tuple[Message, ...] = ()) -> Completion:
    messages = fields.turns(name, "assistant")
    if prompt and len(messages) > len(prompt) and messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if messages[-1].role != "assistant":
        fields.fail(f'field "{name}" ends with a {messages[-1].role} turn; it must end with the answer (an assistant turn).')
    if messages[0].role in ("user", "system"):
        fields.fail(
            f'field "{name}" begins with a {messages[0].role} turn that is not the prompt; an answer begins with an assistant turn.'
        )
    return Completion(messages, fields.optional_flag(finished, default=True), fields.source(source))


def _completion(fields: Fields, messages: tuple[Message, ...], side: str) -> Completion:
    return Completion(messages, fields.optional_flag(f"{side}_finished", default=True), fields.source(f"{side}_source"))


def _preference(fields: Fields, prompt: tuple[Message, ...], completions: tuple[Completion, ...], *, plain: bool) -> Example:
    probability = fields.optional_number("probability")
    if probability is not None and not 0 <= probability <= 1:
        fields.fail(f'field "probability" is {probability}; it must lie between 0 and 1.')
    strength = fields.optional_number("strength")
    margin = fields.optional_number("margin")
    columns = fields.rest() if margin is None else {**fields.rest(), "margin": fields.row["margin"]}
    strength = margin if strength is None else strength
    where = fields.where
    return Example("preference", prompt, completions, probability=probability, strength=strength, plain=plain, columns=columns, where=where)


def _plain(fields: Fields, *names: str) -> bool:
    return all(fields.is_text(name) for name in ("prompt", *names))


def _prompt_field(example: Example) -> Row:
    if example.plain and len(example.prompt) <= 1:
        return {"prompt": example.prompt[0].content if example.prompt else ""}
    return {"prompt": message_rows(example.prompt, "prompt", example.columns)}


def _single_extras(completion: Completion) -> Row:
    row: Row = {} if completion.finished else {"finished": False}
    if completion.source:
        row["source"] = completion.source
    return row


def _pair_extras(example: Example) -> Row:
    row: Row = {}
    for completion, side in zip(example.completions, ("chosen", "rejected"), strict=True):
        if not completion.finished:
            row[f"{side}_finished"] = False
        if completion.source:
            row[f"{side}_source"] = completion.source
    if example.probability is not None:
        row["probability"] = example.probability
    if example.strength is not None and example.columns.get("margin") != example.strength:
        row["strength"] = example.strength
    return row


def _implicit(row: Mapping[str, object]) -> bool:
    return "chosen" in row and "rejected" in row and "prompt" not in row


QUESTIONS = ("question", "query", "instruction", "input", "user_input", "problem")
"""Columns that hold a prompt elsewhere."""
PAIR_NEEDS = "Preference rows need prompt, chosen, rejected."

FORMATS = [
    Format(
        "labelled",
        "labelled",
        "Labelled rows need prompt, completion, label.",
        has("prompt", "completion", "label"),
        parse_labelled,
        single(write_labelled),
    ),
    Format(
        "ranking",
        "ranking",
        "Ranking rows need prompt, completions, ranks.",
        has("prompt", "completions", "ranks"),
        parse_ranking,
        single(write_ranking),
    ),
    Format("preference", "preference", PAIR_NEEDS, has("prompt", "chosen", "rejected"), parse_preference, single(write_preference)),
    Format(
        "implicit_preference", "preference", "Preference rows need chosen and rejected.", _implicit, parse_implicit, single(write_implicit)
    ),
    Format(
        "prompt_completion",
        "demonstration",
        "Demonstration rows need prompt, completion.",
        has("prompt", "completion"),
        parse_prompt_completion,
        single(write_prompt_completion),
    ),
    Format("messages", "demonstration", "Demonstration rows need messages.", has("messages"), parse_messages, single(write_messages)),
    Format("prompt", "prompt", "Prompt rows need prompt.", has("prompt"), parse_prompt, single(write_prompt)),
    Format("text", "text", "Text rows need text.", has("text"), parse_text, single(write_text)),
]
"""From the most demanding to the least: the first that is recognised is taken."""
