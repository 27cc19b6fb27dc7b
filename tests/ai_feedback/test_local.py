"""A judge in this process: probabilities equal to those of plain forward passes, spelled in every way that is declared (science T6.4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from accord.ai_feedback.asking import Answer, Question
from accord.ai_feedback.judges import PairwiseJudge
from accord.ai_feedback.local import LocalModel, exclusive
from accord.ai_feedback.reading import read
from accord.ai_feedback.store import Spent
from accord.models.opened import Opened, open_model
from accord.types import Message
from ai_feedback.scripted import comparison, short_prompt

AB = {"A": ("A", " A", "(A"), "B": ("B", " B", "(B")}


def asked(text: str, options: dict[str, tuple[str, ...]] | None = None, tokens: int = 0) -> Question:
    return Question((Message("user", text),), AB if options is None else options, tokens)


def answers(model: LocalModel, *questions: Question) -> list[Answer]:
    kept: dict[int, Answer] = {}
    found = model.answer(questions, kept.__setitem__, Spent())
    assert kept == {index: answer for index, answer in enumerate(found) if answer.error is None}
    return found


def plain_probability(opened: Opened, text: str, spelling: str) -> float:
    """P(spelling | question) by the model's own forward pass, a token at a time."""
    tokenizer = opened.tokenizer
    rows = [{"role": "user", "content": text}]
    prompt = tokenizer(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True), add_special_tokens=False)[
        "input_ids"
    ]
    ids = tokenizer(spelling, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logprobs = opened.policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].float().log_softmax(-1)
    return float(sum(logprobs[len(prompt) - 1 + place, token] for place, token in enumerate(ids)).exp())


def test_spellings_are_summed_from_one_pass(tiny_model: Opened) -> None:
    """The tiny tokenizer writes " A" and "(A" as two tokens each."""
    texts = ["Which?", "Which of the two is better, A or B? Think of the end of it."]
    found = answers(LocalModel(tiny_model, "tiny"), *map(asked, texts))
    for text, answer in zip(texts, found, strict=True):
        assert answer.masses is not None
        for option, spellings in AB.items():
            assert answer.masses[option] == pytest.approx(sum(plain_probability(tiny_model, text, one) for one in spellings), rel=1e-4)
        assert answer.prompt_tokens == len(tiny_model.renderer.prompt_ids((Message("user", text),)))


def test_one_forward_pass_reads_both_options_and_both_orders(tiny_model: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = tiny_model.policy.forward

    def counted(batch: Any, *rest: Any, **more: Any) -> Any:
        passes.append(batch.num_tokens)
        return forward(batch, *rest, **more)

    monkeypatch.setattr(tiny_model.policy, "forward", counted)
    judge = PairwiseJudge(LocalModel(tiny_model, "tiny"), short_prompt())
    (verdict,) = judge.compare([comparison("one", "two")])
    assert verdict.probability is not None and len(passes) == 1
    assert passes[0] < sum(reading.prompt_tokens for reading in verdict.readings)  # what both orders begin with is read once


def test_neighbours_and_budget_change_nothing(tiny_model: Opened) -> None:
    questions = [asked(f"Say {'x' * length}") for length in (1, 60, 3, 200, 40)]
    together = answers(LocalModel(tiny_model, "tiny"), *questions)
    apart = [answers(LocalModel(tiny_model, "tiny", token_budget=16), question)[0] for question in questions]
    for one, other in zip(together, apart, strict=True):
        assert one.masses is not None and other.masses is not None
        assert one.masses == pytest.approx(other.masses, rel=1e-4)


def merging_tokenizer(normalizer: Any = None) -> Any:
    """Byte-level, where "(A" and "(B" are one token each and " A" is too, but " B" is two."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*tiny.SPECIALS, *alphabet, "(A", "(B", "ĠA"])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("(", "A"), ("(", "B"), ("Ġ", "A")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(tiny.SPECIALS)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    made.chat_template = tiny.TEMPLATE
    return made


def test_a_tokenizer_that_merges_the_bracket(tmp_path: Path) -> None:
    tiny.model().save_pretrained(tmp_path)
    merging_tokenizer().save_pretrained(tmp_path)
    opened = open_model(str(tmp_path), dtype="float32")
    assert [len(opened.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("(A", " A", " B", "A")] == [1, 1, 2, 1]
    (answer,) = answers(LocalModel(opened, "merging"), asked("Which?"))
    assert answer.masses is not None
    for option, spellings in AB.items():
        assert answer.masses[option] == pytest.approx(sum(plain_probability(opened, "Which?", one) for one in spellings), rel=1e-4)


def test_one_and_ten_begin_alike(tiny_model: Opened) -> None:
    """Digits are tokens of their own here: what goes on to 10 is not 1."""
    options = {"1": ("1",), "10": ("10",), "2": ("2",)}
    (answer,) = answers(LocalModel(tiny_model, "tiny"), asked("Rate.", options))
    one, ten = (plain_probability(tiny_model, "Rate.", text) for text in ("1", "10"))
    assert answer.masses is not None and answer.masses["10"] == pytest.approx(ten, rel=1e-4)
    assert answer.masses["1"] == pytest.approx(one - ten, rel=1e-4)


def test_what_goes_on_into_another_option_is_taken_off_once() -> None:
    """1 has 0.5; behind it 10 has 0.2, and 100 has 0.05 of that: one 0.3, ten 0.15, a hundred 0.05."""
    found = exclusive({"1": {(1,): 0.5}, "10": {(1, 0): 0.2}, "100": {(1, 0, 0): 0.05}})
    assert found == pytest.approx({"1": 0.3, "10": 0.15, "100": 0.05})


def test_spellings_that_begin_alike_count_once(tiny_model: Opened) -> None:
    """ "A" holds what goes on to "A)"."""
    (short,) = answers(LocalModel(tiny_model, "tiny"), asked("Which?", {"A": ("A",), "B": ("B",)}))
    (both,) = answers(LocalModel(tiny_model, "tiny"), asked("Which?", {"A": ("A", "A)"), "B": ("B",)}))
    assert short.masses is not None and both.masses is not None and both.masses["A"] == pytest.approx(short.masses["A"], rel=1e-5)


def test_options_that_are_the_same_tokens_are_refused(tmp_path: Path) -> None:
    """A tokenizer that knows no capitals."""
    tiny.model().save_pretrained(tmp_path)
    merging_tokenizer(normalizers.Lowercase()).save_pretrained(tmp_path)
    question = asked("Which?", {"A": ("A",), "a": ("a",)})
    (answer,) = answers(LocalModel(open_model(str(tmp_path), dtype="float32"), "small"), question)
    assert answer.error == "two options are spelled by the same tokens" and read(question, answer)[0] is None


def test_a_question_beyond_the_model_is_an_error_and_is_never_cut(tiny_model: Opened) -> None:
    long, short = answers(LocalModel(tiny_model, "tiny"), asked("x" * 3000), asked("Which?"))
    assert long.error is not None and "tokens and the model reads 2046" in long.error and short.masses is not None


def test_a_text_without_a_verdict_has_no_probabilities(tiny_model: Opened) -> None:
    question = asked("Which?", tokens=6)
    (answer,) = answers(LocalModel(tiny_model, "tiny"), question)
    assert answer.masses is None and answer.error is None and 0 < answer.completion_tokens <= 6
    assert read(question, answer)[0] is None


def test_keys_depend_on_weights_tokenizer_and_question(tiny_model: Opened, tmp_path: Path) -> None:
    model = LocalModel(tiny_model, "tiny")
    other = tmp_path / "other"
    tiny.model(seed=1, max_position_embeddings=2048).save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    keys = {
        model.key(asked("Which?")),
        model.key(asked("Who?")),
        LocalModel(open_model(str(other), dtype="float32"), "tiny").key(asked("Which?")),
    }
    assert len(keys) == 3 and model.key(asked("Which?")) in keys
