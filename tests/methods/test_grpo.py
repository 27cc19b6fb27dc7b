"""GRPO's own options: each changes what it says by a known amount, or is refused with a reason."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from accord import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, DataError, DivergedError
from accord.methods.group_rewards import compared
from accord.methods.prompts import PromptQueue
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.rollouts.turns import TurnSampler
from accord.types import Rollout, Score

SIZES: dict[str, Any] = {
    "num_generations": 2,
    "per_device_train_batch_size": 6,
    "max_completion_length": 5,
    "max_steps": 2,
    "learning_rate": 1e-3,
}


def size(completions: list[Any], **columns: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def build(folder: Path, reward: Any = size, rows: Any = None, policy: Any = None, sampler: Any = None, **options: Any) -> GRPOTrainer:
    args = GRPOConfig(**{"output_dir": str(folder), **SIZES, **options})
    rows = tiny.prompts() if rows is None else rows
    return GRPOTrainer(
        policy or tiny.policy(), reward, args, rows, processing_class=tiny.tokenizer(), peft_config=tiny.lora(), sampler=sampler
    )


# -- advantages by hand -------------------------------------------------------------------------------------------------------------------


def scored_unit(scores: list[float], lengths: list[int], old: list[float], ref: list[float], name: str = "u") -> Unit:
    """One prompt whose answers have these scores and lengths."""
    branches = tuple(Branch(tuple(range(5, 5 + n))) for n in lengths)
    rollouts = [Rollout(name, (), (1,), branch.ids, "", (0.0,) * len(branch.ids), "stop", index) for index, branch in enumerate(branches)]
    data = {
        "scores": [Score(s) for s in scores],
        "rollouts": rollouts,
        "old_logprobs": torch.tensor(old),
        "ref_logprobs": torch.tensor(ref),
    }
    return Unit((1,), branches, name, data)


UNIT = scored_unit([1.0, 0.0], [1, 2], [-1.0, -1.0, -1.0], [-1.5, -1.0, -2.0])
"""KL (k1) of the first answer 0.5, of the second 0 + 1."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, -0.5, -0.5]),  # r - mean
        ({"advantage": "leave_one_out"}, [1.0, -1.0, -1.0]),
        ({"scale_rewards": "group"}, [0.7070068, -0.7070068, -0.7070068]),  # 0.5 / (0.70710678 + 1e-4)
        ({"beta": 0.2}, [0.55, -0.55, -0.55]),  # rewards 1 - 0.1 and 0 - 0.2: difference 1.1
        ({"beta": 0.2, "kl_in": "loss_k3"}, [0.5, -0.5, -0.5]),
        # returns token by token: 1 - 0.2 * 0.5 = 0.9; -0.2 (0 + 1), -0.2 * 1; mean (0.9 - 0.2 - 0.2) / 3 = 1/6
        ({"advantage": "batch_mean", "beta": 0.2}, [0.9 - 1 / 6, -0.2 - 1 / 6, -0.2 - 1 / 6]),
    ],
)
def test_advantages_by_hand(options: dict[str, Any], expected: list[float]) -> None:
    config = GRPOConfig(**options)
    assert compared([UNIT], config).tolist() == pytest.approx(expected, abs=1e-6)


def test_batch_scale_by_hand() -> None:
    """Rewards 1, 0, 3, 0: deviation sqrt(2) with n - 1; leave-one-out differences 1, -1, 3, -3 divided by it."""
    units = [scored_unit([1.0, 0.0], [1, 1], [0, 0], [0, 0], "a"), scored_unit([3.0, 0.0], [1, 1], [0, 0], [0, 0], "b")]
    config = GRPOConfig(advantage="leave_one_out", scale_rewards="batch")
    expected = [value / (2**0.5 + 1e-4) for value in (1, -1, 3, -3)]
    assert compared(units, config).tolist() == pytest.approx(expected, abs=1e-5)


def test_step_credits_by_hand() -> None:
    """Steps of .9 and .1 after one and three tokens, outcome 1; one step of .5 after two, outcome 0; share .2, the worst step alone counting.

    Tokens earn .8 (.9, 0, -.8) + .2 (0, 0, 1) = (.72, 0, -.44) and .8 (0, .5) = (0, .4): returns (.28, -.44, -.44) and (.4, .4), each minus
    the other's at the same place, 0 after its end.
    """
    scores = [
        Score(1.1, {"outcome": 1.0}, steps=(0.9, 0.1), step_ends=(1, 3)),
        Score(0.5, {"outcome": 0.0}, steps=(0.5,), step_ends=(2,)),
    ]
    unit = scored_unit([0, 0], [3, 2], [0.0] * 5, [0.0] * 5)
    unit.data["scores"] = scores
    config = GRPOConfig(advantage="leave_one_out", verifiable_share=0.2, softmin_temperature=1e-3)
    assert compared([unit], config).tolist() == pytest.approx([-0.12, -0.84, -0.44, 0.12, 0.84], abs=1e-5)
    steps = GRPOConfig(advantage="leave_one_out", verifiable_share=0.0, softmin_temperature=1e-3)
    assert compared([unit], steps).tolist() == pytest.approx([0.1 - 0.5, -0.8 - 0.5, -0.8, 0.5 - 0.1, 0.5 + 0.8], abs=1e-5)
    with pytest.raises(ConfigError, match="none judges steps"):
        compared([UNIT], config)


def test_tokens_that_write_filler_gain_nothing() -> None:
    """The same three good steps, once with ten more that look as good: no token of the filler is made likelier by its scores, and the plain
    answer is no worse than the padded one anywhere."""
    plain, padded = (0.9,) * 3, (0.9,) * 13
    unit = scored_unit([0, 0], [3, 13], [0.0] * 16, [0.0] * 16)
    unit.data["scores"] = [Score(0.0, {"outcome": 0.0}, steps=s, step_ends=tuple(range(1, len(s) + 1))) for s in (plain, padded)]
    found = compared([unit], GRPOConfig(advantage="leave_one_out", verifiable_share=0.1))
    first, second = found.split([3, 13])
    assert bool((second[3:] < 0).all()) and bool((first > second[:3]).all())


def test_process_rewards_credit_steps_where_they_end(tmp_path: Path) -> None:
    """A process reward model on the policy's own base: each answer's steps, their places in its tokens, and the other rewards as its outcome."""
    from accord.data.render_steps import StepRenderer
    from accord.models.heads import StepHead
    from accord.rewards.process import ProcessReward, ProcessRewardModel

    policy = tiny.policy()
    policy.model.generation_config.eos_token_id = list(range(2, 12))
    first = build(tmp_path / "plain", policy=policy)
    head = StepHead(policy.hidden_size, ("wrong", "right"), width=0, layer=None)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    judge = ProcessRewardModel(policy, (), head, StepRenderer(first.renderer, "e"))
    trainer = build(
        tmp_path / "steps",
        [ProcessReward(judge), size],
        policy=policy,
        advantage="leave_one_out",
        verifiable_share=0.1,
        max_completion_length=16,
    )
    trainer.train()
    many = 0
    for row in rollouts(tmp_path / "steps"):
        score = row["score"]
        if score["value"] is None:
            continue
        assert len(score["steps"]) == len(score["step_ends"]) and score["parts"]["outcome"] == pytest.approx(len(row["text"]), abs=1e-4)
        assert score["step_ends"][-1] == len(row["completion_ids"]) and score["step_ends"] == sorted(score["step_ends"])
        for end in score["step_ends"][:-1]:
            assert "e" in first.renderer.decode(row["completion_ids"][end - 1 : end])
        many += len(score["steps"]) > 1
    assert many
    with pytest.raises(ConfigError, match="verifiable_share needs advantage='leave_one_out'"):
        GRPOConfig(verifiable_share=0.1)


# -- names and refusals -----------------------------------------------------------------------------------------------------------------------


def test_names_of_trl_are_taken() -> None:
    config = GRPOConfig(loss_type="dapo", scale_rewards=True)
    assert (config.loss_type, config.scale_rewards) == ("token_mean", "group")
    assert GRPOConfig(loss_type="grpo", scale_rewards=False).loss_type == "sequence_mean"
    assert GRPOConfig(loss_type="dr_grpo").loss_type == "constant" and GRPOConfig(loss_type="bnpo").loss_type == "token_mean"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "cispo"}, "Use instead: clip='cispo'"),
        ({"num_generations": 1}, "2 or more: an answer is compared with its siblings"),
        ({"clip": "cispo"}, "needs epsilon_high"),
        ({"clip": "cispo", "epsilon_high": 5.0, "importance_sampling_level": "sequence"}, "does not go with"),
        ({"clip": "cispo", "epsilon_high": 5.0, "delta": 9.0}, "does not go with delta"),
        ({"clip": "none", "delta": 3.0}, "nothing is clipped"),
        ({"clip": "none", "epsilon_high": 0.3}, "nothing is clipped"),
        ({"clip": "none", "num_iterations": 2}, "unbounded ratios"),
        ({"advantage": "batch_mean", "scale_rewards": "group"}, "compares with the round"),
        ({"advantage": "leave_one_out", "scale_rewards": "group"}, "would undo it"),
        ({"advantage": "batch_mean", "dynamic_sampling": 1}, "compared with the round too"),
        ({"control": "random", "verifiable_share": 0.1, "advantage": "leave_one_out"}, "credits of steps would stay true"),
        ({"importance_weights": "mask", "truncated_importance_cap": 1.0}, "above 1 where importance_weights masks"),
        ({"importance_weights": "drop"}, "must be one of truncate, mask, sequence"),
        ({"max_not_scored": 1.5}, "0 to 1"),
        ({"delta": 1.1}, "above 1 . epsilon_high"),
        ({"epsilon": 0.0}, "above 0"),
        ({"beta": -1.0}, "0 or more"),
        ({"advantage": "mean"}, "must be one of group_mean, leave_one_out, batch_mean"),
        ({"kl_in": "loss_k1"}, "must be one of reward, loss_k2, loss_k3"),
        ({"use_vllm": True}, "Use instead: the local sampler"),
        ({"max_new_tokens": 5}, "Its name here is max_completion_length"),
        ({"max_completion_length": 2000}, "below max_length=1024"),
        ({"temperature": 0.0}, "greedy policy has no gradient"),
    ],
)
def test_what_has_no_meaning_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GRPOConfig(**options)


def test_rewards_and_weights_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No reward: give GRPOTrainer"):
        build(tmp_path, None)
    with pytest.raises(ConfigError, match="2 numbers for 1 rewards"):
        build(tmp_path, reward_weights=[1.0, 2.0])
    trainer = build(tmp_path, [size, size], reward_weights=[1.0, -1.0])
    row = trainer.train()
    assert row["reward"] == 0 and row["frac_reward_zero_std"] == 1


# -- rounds -----------------------------------------------------------------------------------------------------------------------------------


def test_a_round_is_whole_groups_and_an_epoch_all_prompts(tmp_path: Path) -> None:
    """6 prompts, 2 answers each, 6 answers a step: 3 prompts a step, 2 steps an epoch; one pass of two steps when sampled for two."""
    assert build(tmp_path, max_steps=-1).total_steps() == 2
    assert build(tmp_path, max_steps=-1, num_train_epochs=2.0).total_steps() == 4
    trainer = build(tmp_path, max_steps=-1, steps_per_generation=2, num_iterations=2)
    assert (trainer.config.prompts_a_round, trainer.steps_per_iteration, trainer.total_steps()) == (6, 4, 4)


def rollouts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]


def by_prompt(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Only prompts that end in an even number are worth anything, then by length."""
    even = [int(prompt[-1]["content"].split()[-1]) % 2 == 0 for prompt in prompts]
    return [len(c[0]["content"]) * 1.0 if good else 0.0 for good, c in zip(even, completions, strict=True)]


def test_dynamic_sampling_replaces_groups_that_agree(tmp_path: Path) -> None:
    plain = build(tmp_path / "plain", by_prompt, max_steps=1)
    row = plain.train()
    assert row["frac_reward_zero_std"] > 0
    trainer = build(tmp_path / "dynamic", by_prompt, max_steps=1, dynamic_sampling=3)
    row = trainer.train()
    assert row["frac_reward_zero_std"] == 0
    asked = {r["prompt_id"] for r in rollouts(tmp_path / "dynamic")}
    assert len(asked) > 3 and len(rollouts(tmp_path / "dynamic")) == 2 * len(asked)  # all that was sampled is on disk
    nothing = build(tmp_path / "nothing", lambda completions: [1.0] * len(completions), max_steps=1, dynamic_sampling=9)
    assert nothing.train()["frac_reward_zero_std"] == 1  # every prompt once, then no more


def test_no_signal_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not where answers are compared with the whole round: there a group that agrees teaches too."""
    build(tmp_path / "group", lambda completions: [1.0] * len(completions)).train()
    assert capsys.readouterr().err.count("all answers earned the same, so they teach nothing") == 1
    build(tmp_path / "round", lambda completions: [1.0] * len(completions), advantage="batch_mean").train()
    assert "teach nothing" not in capsys.readouterr().err


def test_masked_answers_teach_nothing_and_still_are_compared_with(tmp_path: Path) -> None:
    policy = tiny.policy()
    policy.model.generation_config.eos_token_id = list(range(2, 40))  # some answers end by themselves, some do not
    trainer = build(tmp_path, size, policy=policy, mask_truncated_completions=True, num_generations=4, per_device_train_batch_size=24)
    units = trainer._answer(trainer.prompts, trainer._sampling(0))
    learned, metrics = trainer.learn_from(units)
    assert 0 < metrics["completions/clipped_ratio"] < 1
    assert all(rollout.finish_reason == "stop" for unit in learned for rollout in unit.data["rollouts"])
    for unit in learned:
        whole = next(other for other in units if other.id == unit.id)
        mean = sum(score.value for score in whole.data["scores"]) / 4
        expected = [score.value - mean for score in unit.data["scores"] for _ in range(1)]
        first = [part[0] for part in unit.data["advantages"].split([branch.num_counted for branch in unit.branches])]
        assert [float(value) for value in first] == pytest.approx(expected, abs=1e-5)


def test_curriculum_prefers_prompts_of_middling_difficulty() -> None:
    prompts = [Prompt(f"p{i}", (1,)) for i in range(40)]
    queue = PromptQueue(prompts, 0, adaptive=True)
    for i in range(40):
        queue.observe(f"p{i}", 0.5 if i < 20 else 1.0)
    counts = [sum(int(prompt.id[1:]) < 20 for prompt in queue.take(10, step)) for step in range(50)]
    # Weights 0.25 and 0.01: ten draws without replacement from 20 of each take 9.2 of the first on average.
    assert 8.7 < sum(counts) / 50 < 9.7
    again = PromptQueue(prompts, 0, adaptive=True)
    again.load(json.loads(json.dumps(queue.state())))
    assert [p.id for p in again.take(10, 51)] == [p.id for p in queue.take(10, 51)]
    plain = PromptQueue(prompts, 0)
    assert sorted(int(p.id[1:]) for _ in range(4) for p in plain.take(10, 0)) == list(range(40))  # each once an epoch


@settings(max_examples=60)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 5))
def test_rounds_over_the_edge_of_an_epoch_ask_nothing_twice(size: int, count: int, seed: int) -> None:
    """Not within a round, and not within an epoch."""
    queue, rounds = PromptQueue([Prompt(f"p{i}", (1,)) for i in range(size)], seed), 12
    asked = [[prompt.id for prompt in queue.take(count, number)] for number in range(rounds)]
    assert all(len(set(ids)) == len(ids) == min(count, size) for ids in asked)
    counts = [sum(ids.count(prompt.id) for ids in asked) for prompt in queue.prompts]
    assert max(counts) <= math.ceil(queue.epochs) and sum(counts) == rounds * min(count, size)


def test_a_prompt_whose_grading_failed_is_no_harder_for_it(tmp_path: Path) -> None:
    """A pass rate of 0 would have it hardly ever asked again; a prompt that nobody could answer is."""

    def flaky(prompts: list[Any], completions: list[Any]) -> list[float | None]:
        numbers = [int(prompt[-1]["content"].split()[-1]) for prompt in prompts]
        return [None if number == 0 else 0.0 if number == 1 else 0.5 for number in numbers]

    trainer = build(tmp_path, flaky, per_device_train_batch_size=12, curriculum=True)
    trainer.answered_round()
    ids = [prompt.id for prompt in trainer.prompts]
    assert len(trainer.queue.rates) == 5 and ids[0] not in trainer.queue.rates and trainer.queue.rates[ids[1]] == 0.0


class Mixed:
    """A sampler that hands the answers of two prompts over the wrong way round."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def sample(self, prompts: Any, config: SamplingConfig) -> list[Rollout]:
        return self.inner.sample(prompts, config)[::-1]


def test_answers_of_another_prompt_are_refused(tmp_path: Path) -> None:
    """One id from the prompt through the answer, its reward and its ground truth to the unit that is learned from."""
    policy = tiny.policy()
    honest = build(tmp_path / "honest", policy=policy)
    units = honest._answer(honest.prompts, honest._sampling(0))
    assert [unit.id for unit in units] == [prompt.id for prompt in honest.prompts]
    assert all(r.prompt_id == unit.id and r.completion_ids == b.ids for unit in units for r, b in zip(unit.data["rollouts"], unit.branches, strict=True))  # fmt: skip
    trainer = build(tmp_path / "mixed", sampler=Mixed(LocalSampler(policy, honest.renderer, ())))
    with pytest.raises(ConfigError, match="The sampler's answer 0 is number 1 to prompt"):
        trainer.train()


def test_scores_go_to_the_answers_they_were_given(tmp_path: Path) -> None:
    """The reward of each answer as written to disk is that of its own prompt's column and text."""
    rows = [replace(row, columns={"gold": float(i)}) for i, row in enumerate(tiny.prompts())]

    def gold(completions: list[Any], gold: list[float]) -> list[float]:
        return [g * 100 + len(c[0]["content"]) for g, c in zip(gold, completions, strict=True)]

    build(tmp_path, gold, rows).train()
    found = rollouts(tmp_path)
    assert len(found) == 12 and all(r["score"]["value"] == r["columns"]["gold"] * 100 + len(r["text"]) for r in found)


# -- all weights, other rewards, several turns ------------------------------------------------------------------------------------------------


def test_all_weights_train_and_the_reference_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = GRPOConfig(**{**SIZES, "output_dir": str(tmp_path), "beta": 0.1})
    trainer = GRPOTrainer(tiny.model(), size, args, tiny.prompts(), tiny.prompts(2), processing_class=tiny.tokenizer())
    first = {name: value.clone() for name, value in trainer.policy.model.state_dict().items()}
    trainer.train()
    assert "The reference is a copy of the model" in capsys.readouterr().err
    reference = trainer.experience.reference_model
    assert reference is not None and all(torch.equal(value, first[name]) for name, value in reference.model.state_dict().items())
    assert any(not torch.equal(value, first[name]) for name, value in trainer.policy.model.state_dict().items())
    assert trainer.evaluate()["eval_objective/kl"] != 0


def test_a_classifier_is_a_reward(tmp_path: Path) -> None:
    """The score is the logit of the model itself on prompt and answer through its template."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    judge = LlamaForSequenceClassification(LlamaConfig(**{**tiny._SHAPE, "num_labels": 1})).eval()
    args = GRPOConfig(**{**SIZES, "output_dir": str(tmp_path)})
    trainer = GRPOTrainer(tiny.policy(), judge, args, tiny.prompts(), processing_class=tiny.tokenizer(), reward_processing_classes=tiny.tokenizer(), peft_config=tiny.lora())  # fmt: skip
    trainer.train()
    row = rollouts(tmp_path)[0]
    text = tiny.tokenizer().apply_chat_template([*row["prompt"], {"role": "assistant", "content": row["text"]}], tokenize=False)
    ids = torch.tensor([tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        assert row["score"]["value"] == pytest.approx(float(judge(ids).logits[0, 0]), abs=1e-5)
    judge.save_pretrained(tmp_path / "judge")
    tiny.tokenizer().save_pretrained(tmp_path / "judge")
    named = build(tmp_path / "named", str(tmp_path / "judge"), policy=tiny.policy())
    named.train()  # the same policy, the same draws, the same judge by its name and with its own tokenizer
    assert [r["score"]["value"] for r in rollouts(tmp_path / "named")] == pytest.approx([r["score"]["value"] for r in rollouts(tmp_path)])
    with pytest.raises(DataError, match="Reward model .*nowhere cannot be loaded"):
        build(tmp_path / "none", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="has 3 outputs"):
        build(tmp_path, LlamaForSequenceClassification(LlamaConfig(**{**tiny._SHAPE, "num_labels": 3})))


def calculator(text: str, prompt: Prompt) -> str | None:
    """A tool: answers once, then leaves the policy the last word."""
    return None if "=" in text else f"={len(text)}"


def test_a_tools_words_are_read_and_not_learned_from(tmp_path: Path) -> None:
    policy = tiny.policy()
    policy.model.generation_config.eos_token_id = list(range(2, 60))  # turns end soon
    plain = build(tmp_path / "plain", policy=policy, max_completion_length=12)
    sampler = TurnSampler(LocalSampler(policy, plain.renderer, plain.stack), plain.renderer, calculator)
    found = sampler.sample(plain.prompts, SamplingConfig(12, 2))
    used = [rollout for rollout in found if rollout.sampled_mask is not None]
    assert used and all("=" in rollout.text for rollout in used)
    for rollout in used:
        said = [i for i, (t, m) in enumerate(zip(rollout.completion_ids, rollout.sampled_mask or (), strict=True)) if not m]
        text = plain.renderer.decode([rollout.completion_ids[i] for i in said])
        assert text.startswith("=") and len(rollout.completion_ids) <= 12
        # What was sampled has the log-probs of teacher forcing over the whole, the tool's words included.
        unit = Unit(rollout.prompt_ids, (Branch(rollout.completion_ids, rollout.sampled_mask),))
        with torch.no_grad():
            logprobs = policy.forward(pack([unit]), plain.stack).logprobs
        assert torch.allclose(logprobs, torch.tensor(rollout.counted_logprobs), atol=1e-4)
    policy = tiny.policy()
    policy.model.generation_config.eos_token_id = list(range(2, 60))
    trainer = build(tmp_path / "tool", policy=policy, max_completion_length=12)
    trainer.sampler = TurnSampler(LocalSampler(policy, trainer.renderer, trainer.stack), trainer.renderer, calculator)
    row = trainer.train()
    assert row["sampling/logprob_difference_max"] < 1e-3
    assert any(r["sampled_mask"] for r in rollouts(tmp_path / "tool"))


def test_rloo_is_leave_one_out_with_kl_in_the_reward(tmp_path: Path) -> None:
    args = RLOOConfig(**{**SIZES, "output_dir": str(tmp_path)})
    trainer = RLOOTrainer(tiny.policy(), size, args, tiny.prompts(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    assert (args.advantage, args.beta, args.kl_in, trainer.prepared.stack) == ("leave_one_out", 0.05, "reward", ("rloo",))
    assert "objective/kl" in trainer.train()


def test_rewards_that_fail_are_left_out_and_counted(tmp_path: Path) -> None:
    row = build(
        tmp_path / "some", lambda completions: [None, *[1.0, 2.0, 3.0] * 3][: len(completions)], num_generations=3, max_steps=1
    ).train()
    assert row["completions/not_scored"] == 1
    with pytest.raises(DivergedError, match="no answer could be scored .*None"):
        build(tmp_path / "none", lambda completions: [None] * len(completions)).train()


def test_too_many_answers_without_a_score_stop_the_run(tmp_path: Path) -> None:
    """Two of three answers have none; half of them may. Nothing is judged before twenty answers."""

    def often(completions: list[Any]) -> list[float | None]:
        return [None if i % 6 > 1 else float(i) for i in range(len(completions))]

    sizes = {"num_generations": 6, "per_device_train_batch_size": 12, "max_steps": 4}
    with pytest.raises(
        ConfigError, match=r"The reward failed on \d+ of the last 2\d answers, more than max_not_scored=0.5 allows.*often returned None"
    ):
        build(tmp_path / "half", often, **sizes).train()
    assert build(tmp_path / "all", often, max_not_scored=1.0, **sizes).train()["completions/not_scored"] == 8


def test_overlong_answers_are_penalised_and_controls_leave_the_penalty(tmp_path: Path) -> None:
    """Longest 5, buffer 4: an answer of n tokens loses (n - 1) / 4, whatever else it earns; what it earns is a coin here."""
    build(tmp_path, overlong_buffer=4, control="random").train()
    for row in rollouts(tmp_path):
        score = row["score"]
        assert score["parts"]["overlong"] == -(len(row["completion_ids"]) - 1) / 4
        assert score["value"] - score["parts"]["overlong"] == pytest.approx(score["parts"]["random"]) and score["parts"]["random"] in (0, 1)
        assert score["parts"]["random/true"] == len(row["text"])


def test_reward_rises_and_inverted_falls(tmp_path: Path) -> None:
    """Token ids below 60 are wanted, which a random model gives a quarter of the time: after 40 steps clearly more, for the opposite less."""

    def wants(completions: list[Any], completion_ids: list[list[int]]) -> list[float]:
        return [sum(token < 60 for token in ids) / len(ids) for ids in completion_ids]

    ends = []
    for sign in (1.0, -1.0):
        sizes = {"max_steps": 40, "num_generations": 8, "per_device_train_batch_size": 48, "max_completion_length": 6}
        trainer = build(tmp_path / str(sign), wants, **sizes, learning_rate=1e-2, lr_scheduler_type="constant", reward_weights=[sign])
        trainer.train()
        rewards = [sign * row["reward"] for row in trainer.log_history]
        ends.append((sum(rewards[:5]) / 5, sum(rewards[-5:]) / 5))
    (start, risen), (_, fallen) = ends
    assert risen > start + 0.1 and fallen < start - 0.1


# -- what reward functions say besides scores -----------------------------------------------------------------------------------------------


def test_a_reward_function_reads_the_run_and_notes_columns_and_metrics(tmp_path: Path) -> None:
    steps: list[int] = []

    def noting(completions: list[Any], trainer_state: Any, log_extra: Any, log_metric: Any, **columns: Any) -> list[float]:
        steps.append(trainer_state.global_step)
        texts = [completion[0]["content"] for completion in completions]
        log_extra("backwards", [text[::-1] for text in texts])
        log_metric("letters", sum(map(len, texts)))
        return [float(len(text)) for text in texts]

    trainer = build(tmp_path, noting)
    trainer.train()
    assert steps == [0, 1]
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows and all(row["columns"]["backwards"] == row["text"][::-1] for row in rows)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    sums = [sum(len(row["text"]) for row in rows if row["policy_step"] == step) for step in (0, 1)]
    assert [row["letters"] for row in logged if "letters" in row] == sums


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (lambda extra, metric: extra("a", [1]), r"log_extra\('a'\) got 1 values for 6 answers"),
        (lambda extra, metric: extra("answer", [1] * 6), r"the data have a column of that name"),
        (lambda extra, metric: [extra("a", [1] * 6) for _ in range(2)], r"called twice"),
        (lambda extra, metric: metric("a", float("nan")), r"log_metric\('a'\) got nan"),
        (lambda extra, metric: metric("reward", 1.0), r"the trainer logs something else by that name"),
    ],
)
def test_notes_that_cannot_be_kept_are_refused(tmp_path: Path, note: Any, said: str) -> None:
    def noting(completions: list[Any], log_extra: Any, log_metric: Any, **columns: Any) -> list[float]:
        note(log_extra, log_metric)
        return size(completions)

    rows = [replace(row, columns={**row.columns, "answer": "5"}) for row in tiny.prompts()]
    with pytest.raises(ConfigError, match=said):
        build(tmp_path, noting, rows).train()


def test_outside_a_run_notes_go_nowhere() -> None:
    from accord.rewards.combine import FunctionReward

    def noting(completions: list[Any], trainer_state: Any, log_metric: Any) -> list[float]:
        log_metric("a", 1.0)
        return [1.0 if trainer_state is None else 0.0] * len(completions)

    rollout = Rollout("u", (), (1,), (5,), "a", (0.0,), "stop")
    assert [score.value for score in FunctionReward(noting).score([rollout])] == [1.0]
