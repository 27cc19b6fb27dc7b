"""The alignment tax on models whose answers are known without running them."""

from __future__ import annotations

import pytest
import torch

import tiny
from accord.data.render import Renderer
from accord.evaluation.tax import QUESTIONS, alignment_tax, questions_right
from accord.models.adapters import PolicyModel
from accord.models.tokens import stop_token_ids


def made(policy: PolicyModel) -> Renderer:
    tokenizer = tiny.tokenizer()
    return Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, None))


def uniform() -> PolicyModel:
    """A model whose head is 0: every token has probability 1 / V everywhere."""
    model = tiny.model("llama", tie_word_embeddings=False)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    return PolicyModel(model)


def test_a_uniform_model_s_perplexity_is_its_vocabulary() -> None:
    policy = uniform()
    found = alignment_tax(policy, (), made(policy))
    assert found["perplexity"] == pytest.approx(tiny.VOCAB, rel=1e-5)
    assert found["questions"] == len(QUESTIONS) and found["questions_right"] == 0  # all are ties, and a tie is not right


def test_questions_count_the_likelier_answer_a_token() -> None:
    """Turning right and wrong round turns the count round; each question agrees with the model's own logits, one answer at a time."""
    policy = tiny.policy()
    renderer = made(policy)
    turned = [(question, wrong, right) for question, right, wrong in QUESTIONS]
    right = questions_right(policy, (), renderer)
    assert right + questions_right(policy, (), renderer, turned) == len(QUESTIONS)
    by_hand = 0
    for question, *answers in QUESTIONS:
        means = []
        for answer in answers:
            text = f"<|start|>user\n{question}<|end|>\n<|start|>assistant\n"
            prompt, ids = (renderer.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, f"{answer}.<|end|>"))
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            means.append(float(torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)].mean()))
        by_hand += means[0] > means[1]
    assert right == by_hand


def test_training_shows_in_the_perplexity() -> None:
    """An adapter that is 0 costs nothing; one that is not changes the number."""
    policy = tiny.policy()
    renderer = made(policy)
    before = alignment_tax(policy, (), renderer)["perplexity"]
    stack = policy.add_adapter("new", tiny.lora())
    assert alignment_tax(policy, stack, renderer)["perplexity"] == pytest.approx(before, rel=1e-6)
    tiny.shake(policy, "new", scale=2.0)
    assert abs(alignment_tax(policy, stack, renderer)["perplexity"] - before) > 1e-3 * before
    assert alignment_tax(policy, (), renderer)["perplexity"] == pytest.approx(before, rel=1e-6)
