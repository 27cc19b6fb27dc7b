"""What is learned from a conversation, character by character: the assistant's words and the token that ends them, in six chat templates."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import tiny
from accord.data.read import read_examples
from accord.data.render import Renderer
from accord.errors import DataError
from accord.methods.prompts import as_prompt, prompts_of
from accord.models.tokens import ensure_template, stop_token_ids
from accord.types import Completion, Example, Message


@dataclass(frozen=True)
class Template:
    """One way to write a chat down."""

    text: str | None
    """None is accord's own fallback."""
    end: str
    specials: tuple[str, ...] = ()
    bos: str | None = None
    system: bool = True


TEMPLATES = {
    "chatml": Template(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
        ("<|im_start|>",),
    ),
    "headers": Template(
        "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}",
        "<|eot|>",
        ("<|head|>", "<|/head|>"),
        "<|begin|>",
    ),
    "instructions": Template(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% elif m.role == 'system' %}[SYS] {{ m.content }} [/SYS]{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
        "</s>",
        (),
        "<s>",
    ),
    "turns": Template(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}",
        "<end>",
        ("<turn>",),
        "<bos>",
        system=False,
    ),
    "names": Template(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "</s>",
        ("<|user|>", "<|assistant|>", "<|system|>"),
    ),
    "accord-plain": Template(None, "<|endoftext|>"),
}

SYSTEM, ASK, AGAIN = Message("system", "Be brief."), Message("user", "Which colour?"), Message("user", "And then?")
BLUE, RED, NOTHING = Message("assistant", "Blue, of course."), Message("assistant", "Red"), Message("assistant", "")


def tokenizer(template: Template, *, pad_is_end: bool = False) -> Any:
    specials = ["<pad>", template.end, *template.specials, *([template.bos] if template.bos else [])]
    vocab = {token: index for index, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(specials)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=template.end, bos_token=template.bos, pad_token=template.end if pad_is_end else "<pad>"
    )
    made.chat_template = template.text
    ensure_template(made)
    return made


def learned(made: Any, prompt: tuple[Message, ...], answer: tuple[Message, ...], *, finished: bool = True) -> tuple[str, str]:
    """The text that counts, and all of it."""
    rendered = Renderer(made, end_ids=stop_token_ids(made)).render(
        Example("demonstration", prompt, (Completion(answer, finished),), where="row 1")
    )
    completion = rendered.completions[0]
    counted = [token for token, is_counted in zip(completion.ids, completion.counted, strict=True) if is_counted]
    return made.decode(counted), made.decode([*rendered.prompt_ids, *completion.ids])


@pytest.mark.parametrize("pad_is_end", [False, True], ids=["own pad", "pad is the end token"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_only_the_assistant_and_its_end_token_count(name: str, pad_is_end: bool) -> None:
    template = TEMPLATES[name]
    made, end = tokenizer(template, pad_is_end=pad_is_end), template.end
    space = " " if name == "instructions" else ""  # this template puts a space before each answer, which the model has to write
    cases: list[tuple[tuple[Message, ...], tuple[Message, ...], str]] = [
        ((ASK,), (BLUE,), f"{space}Blue, of course.{end}"),
        ((ASK,), (RED, AGAIN, BLUE), f"{space}Red{end}{space}Blue, of course.{end}"),
        ((ASK, RED, AGAIN), (BLUE,), f"{space}Blue, of course.{end}"),
        ((ASK,), (NOTHING,), f"{space}{end}"),
    ]
    if template.system:
        cases.append(((SYSTEM, ASK), (BLUE, AGAIN, RED), f"{space}Blue, of course.{end}{space}Red{end}"))
    for prompt, answer, expected in cases:
        counted, whole = learned(made, prompt, answer)
        assert counted == expected
        rows = [{"role": m.role, "content": m.content} for m in (*prompt, *answer)]
        full = made.apply_chat_template(rows, tokenize=False)
        assert full.startswith(whole) and not full[len(whole) :].strip()
        assert template.bos is None or whole.count(template.bos) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_that_was_cut_off_has_no_end_token(name: str) -> None:
    counted, _ = learned(tokenizer(TEMPLATES[name]), (ASK,), (BLUE,), finished=False)
    assert counted.strip() == "Blue, of course."


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_what_the_sampler_sees(name: str) -> None:
    made = tokenizer(TEMPLATES[name])
    renderer = Renderer(made, end_ids=stop_token_ids(made))
    rendered = renderer.render(Example("demonstration", (ASK,), (Completion((BLUE,)),), where="row 1"))
    assert rendered.prompt_ids == renderer.prompt_ids((ASK,))


@pytest.mark.parametrize("name", ["headers", "accord-plain", None])
def test_a_tokenizer_that_adds_a_beginning_adds_no_second_one(name: str | None) -> None:
    """As Llama's and Gemma's do by themselves: with a template that writes it, with the fallback, and without any template."""
    template = Template(TEMPLATES[name].text, "<|eot|>", ("<|head|>", "<|/head|>"), "<|begin|>") if name else TEMPLATES["headers"]
    made = tokenizer(template)
    begin = made.convert_tokens_to_ids(made.bos_token)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{made.bos_token} $A", special_tokens=[(made.bos_token, begin)]
    )
    made.chat_template = template.text if name else None
    if name == "accord-plain":
        ensure_template(made)
    assert made("Hi")["input_ids"].count(begin) == 1
    renderer = Renderer(made)
    rendered = renderer.render(Example("demonstration", (ASK,), (Completion((BLUE,)),), plain=name is None, where="row 1"))
    assert rendered.prompt_ids == renderer.prompt_ids((ASK,))
    assert [begin, *rendered.prompt_ids[1:], *rendered.completions[0].ids].count(begin) == 1 and rendered.prompt_ids[0] == begin


def test_two_ends_behind_an_answer_are_one() -> None:
    """Phi's templates write the turn's end, and the text's where nothing follows: the first is learned, and a cut answer has neither."""
    text = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    )
    made = tokenizer(Template(text, "<|endoftext|>", ("<|user|>", "<|assistant|>", "<|end|>")))
    assert learned(made, (ASK,), (RED,))[0] == "Red<|end|>"
    assert learned(made, (ASK,), (RED,), finished=False)[0] == "Red"
    assert learned(made, (ASK,), (BLUE, AGAIN, RED))[0] == "Blue, of course.<|end|>Red<|end|>"


THINKING = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
ASKS = {"cuts thoughts": "<|assistant|>", "opens thoughts": "<|assistant|><think>\n"}


@pytest.mark.parametrize("name", ASKS)
def test_a_template_that_rewrites_thoughts_is_gone_round(name: str) -> None:
    """DeepSeek's templates drop what stands before </think>, the later ones open <think> in the prompt: what was written is learned."""
    text = f"{THINKING}{{% if add_generation_prompt %}}{ASKS[name]}{{% endif %}}"
    made = tokenizer(Template(text, "<end>", ("<|user|>", "<|assistant|>")))
    thought = Message("assistant", "<think>\nThe sky.\n</think>\nBlue")
    counted, whole = learned(made, (ASK,), (thought,))
    assert whole == "<|user|>Which colour?<|assistant|><think>\nThe sky.\n</think>\nBlue<end>" and counted.endswith("</think>\nBlue<end>")
    if name == "cuts thoughts":
        assert learned(made, (ASK,), (RED,))[0] == "Red<end>"
        return
    with pytest.raises(DataError, match="would be learned as a thought"):
        learned(made, (ASK,), (RED,))
    assert learned(made, (ASK,), (Message("assistant", "The sky"),), finished=False)[0] == "The sky"


def test_a_template_that_opens_thoughts_and_keeps_them_is_used() -> None:
    """Qwen 3's thinking models: the prompt opens <think>, and an answer is written anew behind it, its blanks put right."""
    text = (
        "{% for m in messages %}<|{{ m.role }}|>{% if '</think>' in m.content %}<think>\n{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}\n</think>\n\n"
        "{{ m.content.split('</think>')[-1].strip() }}{% else %}{{ m.content }}{% endif %}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
    )
    made = tokenizer(Template(text, "<end>", ("<|user|>", "<|assistant|>")))
    assert learned(made, (ASK,), (Message("assistant", "<think>why</think>Ans"),))[0] == "why\n</think>\n\nAns<end>"


def test_thoughts_that_a_template_cuts_off_earlier_turns_are_said() -> None:
    text = f"{THINKING}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
    made = tokenizer(Template(text, "<end>", ("<|user|>", "<|assistant|>")))
    with pytest.raises(DataError, match="cuts thoughts off turn 2.*--each-answer"):
        learned(made, (ASK,), (Message("assistant", "<think>a</think>b"), AGAIN, RED))


def test_a_template_that_moves_the_system_text_is_gone_round() -> None:
    """Mistral 0.3 writes it before the last turn, if that is a question: behind an answer it is gone from the prompt."""
    text = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and messages[0].role == 'system' %}"
        "{{ messages[0].content }}\n\n{% endif %}{{ m.content }} [/INST]{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    made = tokenizer(Template(text, "</s>", (), "<s>"))
    assert learned(made, (SYSTEM, ASK), (RED,)) == (" Red</s>", "<s>[INST] Be brief.\n\nWhich colour? [/INST] Red</s>")


def test_a_template_without_the_system_role_says_so() -> None:
    with pytest.raises(DataError, match="row 1.*system"):
        learned(tokenizer(TEMPLATES["turns"]), (SYSTEM, ASK), (BLUE,))


def test_a_plain_prompt_alone_is_the_prompt_of_its_row() -> None:
    """What an online method samples from is what training on the same row reads, chat template included."""
    renderer = Renderer(tiny.tokenizer())
    row = Example("demonstration", (Message("user", "Hi"),), (Completion((Message("assistant", "Yes"),)),), plain=True)
    assert renderer.prompt_ids(row.prompt) == renderer.render(row).prompt_ids
    assert renderer.tokenizer.decode(renderer.prompt_ids(row.prompt)).startswith("<|start|>user\nHi")


def test_empty_answers_are_counted() -> None:
    """They are no error (an answer may be to say nothing), but nobody learns them without being told."""
    made = tokenizer(TEMPLATES["chatml"])
    renderer = Renderer(made)
    empty, blank = (Completion((Message("assistant", text),)) for text in ("", " \n"))
    renderer.render(Example("preference", (ASK,), (Completion((BLUE,)), empty)))
    assert renderer.report == {"empty answers, whose end alone is learned": 1}
    renderer.render(Example("demonstration", (ASK,), (blank,)))
    assert renderer.report["empty answers, whose end alone is learned"] == 2


def test_reasoning_beside_the_content_is_counted() -> None:
    """It is kept with the row and learned by nobody, which is said."""
    renderer = Renderer(tokenizer(TEMPLATES["chatml"]))
    answer = {"role": "assistant", "content": "Blue.", "reasoning_content": "Light scatters."}
    (row,) = read_examples([{"messages": [{"role": "user", "content": "Sky?"}, answer]}])
    assert "Light scatters." not in renderer.decode(renderer.render(row).completions[0].ids)
    assert renderer.report == {"messages whose reasoning is not learned (it stands apart from their content)": 1}


# -- tools ------------------------------------------------------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": {}}}
WITH_TOOLS = Template(
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + str(TEMPLATES["chatml"].text),
    "<|im_end|>",
    ("<|im_start|>",),
)


@pytest.mark.parametrize("column", [[TOOL], json.dumps([TOOL])], ids=["list", "JSON text"])
def test_tools_reach_the_template_and_are_not_learned(column: Any) -> None:
    made = tokenizer(WITH_TOOLS)
    renderer = Renderer(made, end_ids=stop_token_ids(made))
    call, result = Message("assistant", '{"name": "add"}'), Message("tool", "5")
    row = Example("demonstration", (ASK,), (Completion((call, result, BLUE)),), columns={"tools": column}, where="row 1")
    rendered = renderer.render(row)
    assert '"name": "add", "description": "Add two numbers."' in made.decode(rendered.prompt_ids)
    completion = rendered.completions[0]
    counted = [token for token, is_counted in zip(completion.ids, completion.counted, strict=True) if is_counted]
    assert made.decode(counted) == '{"name": "add"}<|im_end|>Blue, of course.<|im_end|>'
    assert as_prompt(row, renderer).ids == tuple(rendered.prompt_ids)
    assert prompts_of([row], renderer, "rows")[0].ids == tuple(rendered.prompt_ids)


@pytest.mark.parametrize(
    ("template", "column", "message"),
    [
        (TEMPLATES["chatml"], [TOOL], "row 1: it has tools and the chat template has no place for them"),
        (WITH_TOOLS, "hammer and saw", "row 1: its column tools is no list of tool descriptions"),
    ],
)
def test_tools_that_would_be_lost_are_refused(template: Template, column: Any, message: str) -> None:
    made = tokenizer(template)
    row = Example("demonstration", (ASK,), (Completion((BLUE,)),), columns={"tools": column}, where="row 1")
    for render in (Renderer(made).render, lambda found: as_prompt(found, Renderer(made))):
        with pytest.raises(DataError, match=message):
            render(row)


@pytest.mark.parametrize("name", ["images", "videos", "audios"])
def test_rows_with_more_than_text_are_refused(name: str) -> None:
    made = tokenizer(TEMPLATES["chatml"])
    row = Example("demonstration", (ASK,), (Completion((BLUE,)),), columns={name: ["a.bin"]}, where="row 1")
    for render in (Renderer(made).render, lambda found: as_prompt(found, Renderer(made))):
        with pytest.raises(DataError, match=f"row 1: it has {name}, and accord learns from text alone"):
            render(row)
    Renderer(made).render(replace(row, columns={name: []}))


def test_tools_of_openai_rows_reach_the_template() -> None:
    """They stand inside `input`; a template without a place for them refuses the row, as everywhere."""
    turns = {"preferred_output": [{"role": "assistant", "content": "5"}], "non_preferred_output": [{"role": "assistant", "content": "6"}]}
    (row,) = read_examples([{"input": {"messages": [{"role": "user", "content": "2 + 3?"}], "tools": [TOOL]}, **turns}])
    made = tokenizer(WITH_TOOLS)
    assert '"name": "add"' in made.decode(Renderer(made).render(row).prompt_ids)
    with pytest.raises(DataError, match="row 1: it has tools and the chat template has no place for them"):
        Renderer(tokenizer(TEMPLATES["chatml"])).render(row)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}], "functions": [TOOL["function"]]},
        {
            "input": {"messages": [{"role": "user", "content": "2 + 3?"}], "functions": [TOOL["function"]]},
            "preferred_output": [{"role": "assistant", "content": "5"}],
            "non_preferred_output": [{"role": "assistant", "content": "6"}],
        },
    ],
    ids=["messages", "preference"],
)
def test_functions_are_tools(row: Any) -> None:
    """The older form of OpenAI's rows gives the same prompt as `tools`, or is refused where there is no place for it."""
    found, made = next(iter(read_examples([row]))), tokenizer(WITH_TOOLS)
    as_tools = replace(found, columns={"tools": [TOOL]})
    assert Renderer(made).render(found).prompt_ids == Renderer(made).render(as_tools).prompt_ids
    with pytest.raises(DataError, match="row 1: it has tools and the chat template has no place for them"):
        Renderer(tokenizer(TEMPLATES["chatml"])).render(found)
    with pytest.raises(DataError, match="its column functions is no list of tool descriptions"):
        Renderer(made).render(replace(found, columns={"functions": "sine"}))


@pytest.mark.parametrize("column", [None, [], "", "[]"])
def test_no_tools_are_no_tools(column: Any) -> None:
    made = tokenizer(TEMPLATES["chatml"])
    row = Example("demonstration", (ASK,), (Completion((BLUE,)),), columns={"tools": column}, where="row 1")
    assert Renderer(made).render(row).prompt_ids == Renderer(made).prompt_ids((ASK,))
