"""An Ollama Modelfile: where the weights are, the chat template as Ollama writes templates, the texts that end an answer.

Ollama's templates are Go's. The chat template is found by rendering it: what it writes before and after a message of each role, in front of
everything, and where an answer begins. One that cannot be put together from these parts, that writes a date, or that a Modelfile cannot
hold, is left out; Ollama then sends plain text, for it does not read the template inside a GGUF file (`template.Named` in its sources).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accord.models.gguf_vocabulary import chat_template_of

_MARKS = {"system": "\ue000System\ue001", "user": "\ue000User\ue001", "assistant": "\ue000Answer\ue001"}
_TALKS = (("user",), ("user", "assistant", "user"), ("system", "user"), ("system", "user", "assistant", "user"))


@dataclass(frozen=True)
class TurnParts:
    """What a chat template writes around messages."""

    start: str
    """Before everything: the token that begins a text, or nothing."""
    default: str
    """In front of conversations that bring no system message."""
    around: dict[str, tuple[str, str]]
    """For each role what comes before and after its text."""
    folded: str | None
    """What separates a system message from the user's first one, where it stands inside that turn. None: it has a turn of its own."""
    answer: str
    """What an answer begins after."""

    def render(self, messages: list[dict[str, str]]) -> str:
        """A conversation whose answer is still to come."""
        text, system = self.start + ("" if messages[0]["role"] == "system" else self.default), ""
        for message in messages:
            before, after = self.around[message["role"]]
            if message["role"] == "system" and self.folded is not None:
                system = message["content"] + self.folded
                continue
            text += before + (system if message["role"] == "user" else "") + message["content"] + after
            system = "" if message["role"] == "user" else system
        return text + self.answer


def turn_parts(tokenizer: Any) -> TurnParts | None:
    """The parts of a tokenizer's chat template; None where conversations cannot be put together from them."""
    if "strftime_now" in str(chat_template_of(tokenizer)):
        return None  # it writes today's date, which would stay today's
    try:
        parts = _parts(tokenizer)
        found = parts is not None and all(parts.render(_messages(talk)) == _text(tokenizer, talk, ask=True) for talk in _TALKS)
    except Exception:  # a template may refuse a conversation by any error; then it is not of this kind
        return None
    return parts if found else None


def modelfile(tokenizer: Any, weights: str, stops: list[int]) -> tuple[str, bool]:
    """The text of a Modelfile, and whether it has a template of its own.

    Args:
        weights: the GGUF file, relative to the Modelfile.
        stops: token ids that end an answer.
    """
    lines = [f"FROM ./{weights}"]
    parts = turn_parts(tokenizer)
    template = None if parts is None else go_template(parts, add_bos=_adds_bos(tokenizer))
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    for stop in dict.fromkeys(tokenizer.decode([index], skip_special_tokens=False) for index in stops):
        if _holds(stop):
            lines.append("PARAMETER stop " + (f'"""{stop}"""' if '"' in stop else f'"{stop}"'))
    return "\n".join([*lines, ""]), template is not None


def go_template(parts: TurnParts, *, add_bos: bool) -> str | None:
    """The same as a Go template over Ollama's .Messages; None where a part would be read as an action, or a Modelfile would not hold it.

    Args:
        add_bos: True where the tokenizer puts the beginning token before every text, so that the template must not. False writes it.
    """
    pieces = [parts.start, parts.default, parts.answer, parts.folded or "", *(text for pair in parts.around.values() for text in pair)]
    if any("{{" in piece or piece.endswith("{") or not _holds(piece) for piece in pieces):
        return None
    turns = {role: f"{before}{{{{ .Content }}}}{after}" for role, (before, after) in parts.around.items()}
    if parts.folded is not None:
        before, after = parts.around["user"]
        turns["system"] = "{{ $system = .Content }}"
        turns["user"] = (
            f'{before}{{{{ if $system }}}}{{{{ $system }}}}{parts.folded}{{{{ end }}}}{{{{ .Content }}}}{after}{{{{ $system = "" }}}}'
        )
    body = "{{ if " + "{{ else if ".join(f'eq .Role "{role}" }}}}{turns[role]}' for role in ("system", "user", "assistant")) + "{{ end }}"
    default = '{{ if ne (index .Messages 0).Role "system" }}' + parts.default + "{{ end }}" if parts.default else ""
    variable = '{{ $system := "" }}' if parts.folded is not None else ""
    return f"{variable}{'' if add_bos else parts.start}{default}{{{{ range .Messages }}}}{body}{{{{ end }}}}{parts.answer}"


def _holds(text: str) -> bool:
    """Whether a Modelfile can hold a text: its parser knows no escapes and drops what cannot be printed."""
    return '"""' not in text and all(letter.isprintable() or letter in "\n\t" for letter in text)


def _parts(tokenizer: Any) -> TurnParts | None:
    user, asked = _text(tokenizer, ("user",)), _text(tokenizer, ("user",), ask=True)
    front, after_user = user.split(_MARKS["user"])
    _, between, _ = _text(tokenizer, ("user", "assistant", "user")).split(_MARKS["user"])
    to_answer, from_answer = between.split(_MARKS["assistant"])
    after_answer = _text(tokenizer, ("user", "assistant")).split(_MARKS["assistant"])[1]
    # Between two turns stands the end of the one and the beginning of the other.
    before_answer, before_user = to_answer.removeprefix(after_user), from_answer.removeprefix(after_answer)
    head, rest = _text(tokenizer, ("system", "user")).split(_MARKS["system"])
    middle = rest.split(_MARKS["user"])[0]
    bos = tokenizer.bos_token or ""
    everywhere = bool(bos) and before_user.startswith(bos)  # a token that begins each turn is a part of it
    start = bos if bos and front.startswith(bos) and head.startswith(bos) and not everywhere else ""
    folded = middle if head == start + before_user and not (before_user and middle.endswith(before_user)) else None
    around = {
        "system": ("", "") if folded is not None else (head.removeprefix(start), middle.removesuffix(before_user)),
        "user": (before_user, after_user),
        "assistant": (before_answer, after_answer),
    }
    if not front.endswith(before_user) or not asked.startswith(user):
        return None
    default = front.removesuffix(before_user).removeprefix(start)
    return TurnParts(start, default, around, folded, asked.removeprefix(user))


def _messages(roles: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"role": role, "content": _MARKS[role]} for role in roles]


def _text(tokenizer: Any, roles: tuple[str, ...], *, ask: bool = False) -> str:
    return str(tokenizer.apply_chat_template(_messages(roles), tokenize=False, add_generation_prompt=ask))


def _adds_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
