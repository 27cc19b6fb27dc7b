"""Ollama's Modelfiles: chat templates taken apart and put together again, their Go text by hand, stops quoted."""

from __future__ import annotations

import re
from typing import Any

import pytest

import tiny
import tiny_gguf
from accord.models.modelfile import go_template, modelfile, turn_parts

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|start|>system\nBe brief.<|end|>\n' }}{% endif %}"
    "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
"""As SmolLM2's and Qwen2.5's: a default system message."""
FOLDED = (
    "{{ '<|pad|>' }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{{ '<|start|>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + (first if loop.first else '')"
    " + message['content'] + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>model\n' }}{% endif %}"
)
"""As Gemma's: the system message stands in the first user turn, and the text begins with its own token."""
HEADED = (
    "{% for message in messages %}{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)


def with_template(template: str, **changes: Any) -> Any:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def run_go(template: str, messages: list[dict[str, str]]) -> str:
    """The few things of Go's templates that these use: range, if, else if, end, a variable, eq, ne, .Role, .Content."""
    tokens = re.split(r"(\{\{.*?\}\})", template, flags=re.DOTALL)
    variables: dict[str, str] = {}

    def value(text: str, dot: Any) -> str:
        text = text.strip()
        if text.startswith('"'):
            return text.strip('"')
        if text == "(index .Messages 0).Role":
            return messages[0]["role"]
        return variables[text] if text.startswith("$") else str(dot[text[1:].lower()])

    def true(condition: str, dot: Any) -> bool:
        if (found := re.fullmatch(r"(eq|ne) (\S+|\(.*?\)\S+) (\"\w+\")", condition)) is None:
            return bool(value(condition, dot))
        return (value(found[2], dot) == value(found[3], dot)) == (found[1] == "eq")

    def block(place: int, dot: Any, write: bool) -> tuple[str, int]:
        out = ""
        while place < len(tokens):
            token = tokens[place]
            if not token.startswith("{{"):
                out, place = out + (token if write else ""), place + 1
                continue
            action = token[2:-2].strip()
            if action == "end" or action.startswith("else"):
                return out, place
            if action == "range .Messages":
                start = place + 1
                for message in messages:
                    text, place = block(start, message, write)
                    out += text
                place += 1
            elif action.startswith("if "):
                done, condition = False, action[3:]
                while True:
                    take = write and not done and true(condition, dot)
                    text, place = block(place + 1, dot, take)
                    out, done = out + text, done or take
                    following = tokens[place][2:-2].strip()
                    if following == "end":
                        break
                    condition = following.removeprefix("else if ")
                place += 1
            else:
                if found := re.fullmatch(r"(\$\w+) :?= (.+)", action):
                    if write:
                        variables[found[1]] = value(found[2], dot)
                elif write:
                    out += value(action, dot)
                place += 1
        return out, place

    return block(0, None, True)[0]


TALKS = [
    [("user", "Why?")],
    [("system", "Be kind."), ("user", "Why?")],
    [("user", "Why?"), ("assistant", "Because."), ("user", "And?")],
    [("system", "Be kind."), ("user", "Why?"), ("assistant", "Because."), ("user", "And?")],
]


@pytest.mark.parametrize("template", [tiny.TEMPLATE, CHATML, FOLDED, HEADED], ids=["plain", "default system", "folded", "headings"])
@pytest.mark.parametrize("talk", TALKS, ids=str)
def test_the_go_template_writes_what_the_chat_template_writes(template: str, talk: list[tuple[str, str]]) -> None:
    tokenizer = with_template(template, **({"bos_token": "<|pad|>"} if template is FOLDED else {}))
    messages = [{"role": role, "content": text} for role, text in talk]
    parts = turn_parts(tokenizer)
    assert parts is not None
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert parts.render(messages) == expected
    go = go_template(parts, add_bos=False)
    assert go is not None and run_go(go, messages) == expected
    assert run_go(go_template(parts, add_bos=True) or "", messages) == expected.removeprefix(parts.start)


def test_a_token_that_begins_every_turn_is_a_part_of_it() -> None:
    """As SmolLM2's, whose beginning token is <|im_start|>."""
    parts = turn_parts(with_template(CHATML, bos_token="<|start|>"))
    assert parts is not None and parts.start == "" and parts.default == "<|start|>system\nBe brief.<|end|>\n"
    assert parts.around["system"] == ("<|start|>system\n", "<|end|>\n")


def test_the_text_by_hand() -> None:
    parts = turn_parts(with_template(HEADED))
    assert parts is not None and go_template(parts, add_bos=False) == (
        '{{ range .Messages }}{{ if eq .Role "system" }}### System:\n{{ .Content }}\n\n{{ else if eq .Role "user" }}### User:\n{{ .Content }}\n\n'
        '{{ else if eq .Role "assistant" }}### Assistant:\n{{ .Content }}\n\n{{ end }}{{ end }}### Assistant:\n'
    )


def parsed(text: str) -> list[tuple[str, str]]:
    """A Modelfile as Ollama's parser reads it: a command, a space, a value, which ends with its line, or where the quotes (one or three) that
    it begins with are closed at the end of a line. No escapes; what cannot be printed is dropped."""
    found, name, value = [], "", None
    for line in text.splitlines(keepends=True):
        if value is None:
            if not line.strip() or line.startswith("#"):
                continue
            name, _, value = line.partition(" ")
            assert name.isalpha() and name.lower() in ("from", "template", "parameter", "system", "license", "adapter", "message"), line
            if name.lower() == "parameter":
                name, _, value = value.partition(" ")
        else:
            value += line
        shown = "".join(letter for letter in value if letter.isprintable() or letter in "\n\t").strip()
        quotes = next((quotes for quotes in ('"""', '"') if shown.startswith(quotes)), "")
        if len(shown) >= 2 * len(quotes) and shown.endswith(quotes):
            found.append((name.lower(), shown[len(quotes) : len(shown) - len(quotes)]))
            value = None
    assert value is None, "a quote is not closed"
    return found


@pytest.mark.parametrize("template", [tiny.TEMPLATE, CHATML, FOLDED, HEADED], ids=["plain", "default system", "folded", "headings"])
def test_a_modelfile_parses_and_names_weights_template_and_stops(template: str) -> None:
    tokenizer = with_template(template, **({"bos_token": "<|pad|>"} if template is FOLDED else {}))
    text, own = modelfile(tokenizer, "ppo-q8_0.gguf", [2, 0, 2])
    parts = turn_parts(tokenizer)
    assert own and parts is not None
    assert parsed(text) == [
        ("from", "./ppo-q8_0.gguf"),
        ("template", go_template(parts, add_bos=False)),
        ("stop", "<|end|>"),
        ("stop", "<|pad|>"),
    ]


def test_stops_with_quotes_and_lines_parse() -> None:
    tokenizer = tiny_gguf.tokenizer()
    tokenizer.add_tokens(['say "end"', "### User:\n"], special_tokens=True)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ('say "end"', "### User:\n")]
    text, _ = modelfile(tokenizer, "a.gguf", ids)
    assert parsed(text)[2:] == [("stop", 'say "end"'), ("stop", "### User:\n")]


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0]['content'] }}{% for message in messages[1:] %}{{ message['content'] | upper }}{% endfor %}",
        "{% for message in messages %}{{ '{{' + message['role'] + '}} ' + message['content'] + '\n' }}{% endfor %}",
        "{% for message in messages %}{{ loop.index ~ message['content'] + '\n' }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ strftime_now('%d %b %Y') }}\n{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}",
        "{% for message in messages %}{{ '\u200b' + message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}",
        "{% for message in messages %}{{ '\"\"\"' + message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}",
        "{% for message in messages %}{{ message['role'] + '{' + message['content'] + '}\n' }}{% endfor %}",
    ],
    ids=["content changed", "braces", "turns numbered", "refuses", "today", "not printed", "three quotes", "a brace before the text"],
)
def test_a_template_of_another_kind_is_left_out(template: str) -> None:
    text, own = modelfile(with_template(template), "a.gguf", [2])
    assert not own and "TEMPLATE" not in text and 'PARAMETER stop "<|end|>"' in text
