"""Rewards made harder to exploit: each value does what it says, in PPO, in GRPO and in best-of-N."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord import GRPOConfig, GRPOTrainer, PPOConfig, PPOTrainer, RewardConfig, RewardTrainer
from accord.cli import main
from accord.data.packing import Branch, Unit
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel
from accord.models.heads import RewardHeads
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.rewards.averaged import averaged
from accord.rewards.combine import FunctionReward, LearnedReward, combined
from accord.rewards.laplace import LAPLACE, LaplaceUncertainty, last_layer
from accord.rewards.learned import RewardModel
from accord.rewards.mitigated import UNSHAPED, pessimistic, shaped
from accord.types import Rollout, Score


def rollouts(count: int = 6) -> list[Rollout]:
    return [
        Rollout(f"p{i // 3}", (), (3, 4 + i // 3), tuple(range(5, 7 + i)), "x" * i, (0.0,) * (2 + i), "stop", i % 3) for i in range(count)
    ]


def model(num_heads: int = 4, **changes: Any) -> RewardModel:
    policy = tiny.policy()
    return RewardModel(policy, (), RewardHeads(policy.hidden_size, num_heads, seed=3, **changes), None)  # type: ignore[arg-type]


def test_heads_are_combined_as_told() -> None:
    """Against the members' scores by hand: the least; the mean less the weighted variance over K."""
    judge, answers = model(), rollouts()
    heads = judge.score_rollouts(answers)
    expected: dict[str, Tensor] = {
        "mean": heads.mean(1),
        "worst": heads.min(1).values,
        "uncertainty": heads.mean(1) - 0.7 * ((heads - heads.mean(1, keepdim=True)) ** 2).mean(1),
    }
    for ensemble, values in expected.items():
        (source,) = pessimistic([LearnedReward(judge)], ensemble, 0.7)
        scores = source.score(answers)
        torch.testing.assert_close(torch.tensor([score.value for score in scores]), values.detach())
        parts = combined([source], answers)[0].parts
        assert parts["disagreement"] == pytest.approx(float(heads[0].std()), abs=1e-6)
        assert ("reward_model/mean" in parts) is (ensemble != "mean")
    (zero,) = pessimistic([LearnedReward(judge)], "uncertainty", 0.0)
    assert [s.value for s in zero.score(answers)] == [s.value for s in LearnedReward(judge).score(answers)]


def test_several_models_are_members() -> None:
    """Each member's score is the mean of its heads; they are combined as heads are, and their spread is the disagreement."""
    first, second, answers = model(), model(2), rollouts()
    second.heads.weight.data.neg_()
    scores = torch.stack([first.score_rollouts(answers).mean(1), second.score_rollouts(answers).mean(1)], 1)
    (source,) = pessimistic([LearnedReward(first, others=(second,))], "worst", 1.0)
    found = source.score(answers)
    torch.testing.assert_close(torch.tensor([score.value for score in found]), scores.min(1).values.detach())
    assert found[0].parts["disagreement"] == pytest.approx(float(scores[0].std()), abs=1e-6)
    ones = LearnedReward(model(1), others=(model(1),))
    assert pessimistic([ones], "uncertainty", 1.0)[0].num_members == 2
    with pytest.raises(ConfigError, match="has several members, and reward_ensemble='laplace' is for one"):
        pessimistic([ones], "laplace", 1.0)


def test_what_cannot_be_combined_is_refused() -> None:
    function = FunctionReward(lambda completions: [1.0 for _ in completions], name="f")
    with pytest.raises(ConfigError, match="is for reward models .* and there is none"):
        pessimistic([function], "worst", 1.0)
    with pytest.raises(ConfigError, match="has one head: reward_ensemble='worst' needs several"):
        pessimistic([LearnedReward(model(1))], "worst", 1.0)
    with pytest.raises(ConfigError, match="accord reward --laplace"):
        pessimistic([LearnedReward(model())], "laplace", 1.0)
    watched = LearnedReward(model(1), 0.0, "heldout", watched=True)
    assert pessimistic([LearnedReward(model()), watched], "worst", 1.0)[1] is watched


def test_shapes_by_hand() -> None:
    scores = [Score(0.0, {"a": 1.0}), Score(None, error="broken"), Score(2.0)]
    assert shaped(scores, [1, 2, 3], [0, 0, 0], "none") == scores
    sigmoid = shaped(scores, [1, 2, 3], [0, 0, 0], "sigmoid")
    assert [score.value for score in sigmoid] == [0.5, None, pytest.approx(1 / (1 + math.exp(-2)))]
    assert sigmoid[0].parts == {"a": 1.0, UNSHAPED: 0.0} and sigmoid[1] is scores[1]
    assert shaped(scores, [1, 2, 3], [0, 0, 0], "log_sigmoid")[2].value == pytest.approx(-math.log(1 + math.exp(-2)))


def test_residual_takes_the_planted_bonus_out_and_leaves_the_rest() -> None:
    """Quality is the same for every length within a prompt; a bonus of 0.3 a token is added. What is left is the quality, each prompt's mean kept."""
    tokens = [4, 8, 8, 4, 10, 20, 20, 10]
    quality = [1.0, 1.0, -1.0, -1.0, 3.0, 3.0, 2.0, 2.0]
    paid = [Score(q + 0.3 * t) for q, t in zip(quality, tokens, strict=True)]
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    found = [score.value or 0.0 for score in shaped(paid, tokens, groups, "residual")]
    for part in (slice(0, 4), slice(4, 8)):
        own, wanted = found[part], quality[part]
        assert sum(own) / 4 == pytest.approx(sum(score.value or 0.0 for score in paid[part]) / 4)
        centred = [value - sum(own) / 4 for value in own]
        assert centred == pytest.approx([value - sum(wanted) / 4 for value in wanted], abs=1e-9)
    alike = [Score(1.0), Score(2.0), Score(4.0), Score(3.0), Score(0.0)]
    assert [s.value for s in shaped(alike, [5] * 5, [0] * 5, "residual")] == [1.0, 2.0, 4.0, 3.0, 0.0]
    assert [s.value for s in shaped(alike[:3], [1, 2, 3], [0] * 3, "residual")] == [1.0, 2.0, 4.0]  # too few to tell


# -- the last layer's uncertainty ------------------------------------------------------------------------------------------------------


def test_laplace_is_the_inverse_curvature_by_hand() -> None:
    """One head on two features, two comparisons: H = sum p (1 - p) d d' + 3 I, inverted by hand."""
    heads = RewardHeads(2, 1, seed=0)
    with torch.no_grad():
        heads.weight.copy_(torch.tensor([[1.0, -0.5]]))
    heads.spread.fill_(2.0)
    better, worse = torch.tensor([[1.0, 0.0], [0.5, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    found = LaplaceUncertainty.fit(heads, better, worse)
    p = [1 / (1 + math.exp(-1.0)), 0.5]
    a, b = p[0] * (1 - p[0]), 0.25
    h = [[a + 0.25 * b + 3, 0.5 * b], [0.5 * b, b + 3]]
    det = h[0][0] * h[1][1] - h[0][1] ** 2
    center = (1.5 / 4, 1.0 / 4)
    x = (2.0 - center[0], -1.0 - center[1])
    variance = (h[1][1] * x[0] ** 2 - 2 * h[0][1] * x[0] * x[1] + h[0][0] * x[1] ** 2) / det
    assert float(found.deviation(heads, torch.tensor([[2.0, -1.0]]))) == pytest.approx(variance**0.5 / 2.0, rel=1e-5)


@pytest.mark.parametrize("width", [0, 5])
def test_laplace_is_surest_where_comparisons_were(width: int) -> None:
    generator = torch.Generator().manual_seed(1)
    heads = RewardHeads(6, 3, width=width, seed=1)
    seen = torch.randn(400, 6, generator=generator) * torch.tensor([3.0, 3.0, 3.0, 0.01, 0.01, 0.01])
    found = LaplaceUncertainty.fit(heads, seen[:200], seen[200:])
    assert last_layer(heads, seen).shape == ((3, 400, 5) if width else (1, 400, 6))
    inside, outside = torch.randn(50, 6, generator=generator) * torch.tensor([3.0, 3.0, 3.0, 0.01, 0.01, 0.01]), torch.zeros(50, 6)
    outside[:, 3:] = 3.0 * torch.randn(50, 3, generator=generator)
    assert float(found.deviation(heads, outside).mean()) > 1.5 * float(found.deviation(heads, inside).mean())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in a folder; reward runs on it: frozen features (a, b), LoRA (c, d), with a hidden layer (w)."""
    place = tmp_path_factory.mktemp("runs")
    tiny.model().save_pretrained(place / "base")
    tiny.tokenizer().save_pretrained(place / "base")
    for name, seed, more in (
        ("a", 1, {}),
        ("b", 2, {}),
        ("c", 1, {"backbone": "lora"}),
        ("d", 2, {"backbone": "lora"}),
        ("w", 1, {"head_width": 4}),
    ):
        opened = open_model(str(place / "base"))
        options = {
            "backbone": "heads",
            "laplace": True,
            "num_heads": 3,
            "max_steps": 3,
            "learning_rate": 1e-2,
            "normalise_on": "training",
            **more,
        }
        config = RewardConfig(output_dir=str(place / name), seed=seed, **options)
        lora = lora_config(opened.policy, rank=2, alpha=4) if config.backbone == "lora" else None
        trainer = RewardTrainer(opened.policy, config, tiny.pairs(), processing_class=opened.tokenizer, peft_config=lora)
        trainer.train()
        trainer.save_model()
        assert trainer.reward_model.laplace is not None and (place / name / LAPLACE).exists()
    (place / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Say {word} {n}"}) + "\n" for n, word in enumerate(tiny.WORDS)), encoding="utf-8"
    )
    return place


def loaded(runs: Path, name: str) -> tuple[PolicyModel, RewardModel]:
    opened = open_model(str(runs / "base"))
    return opened.policy, RewardModel.load(opened.policy, runs / name, opened.renderer)


def test_laplace_is_saved_and_loaded(runs: Path) -> None:
    _, judge = loaded(runs, "a")
    answers = rollouts()
    assert judge.laplace is not None
    units = [Unit(r.prompt_ids, (Branch(r.completion_ids),)) for r in answers]
    doubt = judge.laplace.deviation(judge.heads, torch.cat(judge.features(units)))
    (source,) = pessimistic([LearnedReward(judge)], "laplace", 0.5)
    plain = LearnedReward(judge).score(answers)
    for score, mean, less in zip(source.score(answers), plain, doubt.tolist(), strict=True):
        assert score.value == pytest.approx((mean.value or 0.0) - 0.5 * less, abs=1e-5) and less > 0


# -- averaged weights --------------------------------------------------------------------------------------------------------------------


def test_averaged_linear_heads_score_the_mean(runs: Path) -> None:
    opened = open_model(str(runs / "base"))
    both = averaged(opened.policy, [runs / "a", runs / "b"], opened.renderer)
    one, other = (RewardModel.load(opened.policy, runs / name, opened.renderer) for name in ("a", "b"))
    answers = rollouts()
    torch.testing.assert_close(
        both.score_rollouts(answers), (one.score_rollouts(answers) + other.score_rollouts(answers)) / 2, atol=1e-5, rtol=1e-5
    )


def test_averaged_adapters_do_the_mean_of_both_updates(runs: Path) -> None:
    opened = open_model(str(runs / "base"))
    policy = opened.policy
    both = averaged(policy, [runs / "c", runs / "d"], opened.renderer)
    names, mean = [RewardModel.load(policy, runs / name, opened.renderer).stack[-1] for name in ("c", "d")], both.stack[-1]
    layer = policy.tuner_layers()[0]

    def update(name: str) -> Tensor:
        return layer.lora_B[name].weight @ layer.lora_A[name].weight * layer.scaling[name]

    torch.testing.assert_close(update(mean), (update(names[0]) + update(names[1])) / 2)
    assert both.stack == (mean,) and mean not in names
    assert not any(p.requires_grad for p in policy.adapter_parameters(mean).values())


def test_what_cannot_be_averaged_is_refused(runs: Path) -> None:
    opened = open_model(str(runs / "base"))
    with pytest.raises(ConfigError, match="hidden layer"):
        averaged(opened.policy, [runs / "a", runs / "w"], opened.renderer)


# -- one config value, everywhere ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ensemble", "shape"), [("mean", "sigmoid"), ("worst", "none"), ("uncertainty", "log_sigmoid"), ("laplace", "residual")]
)
@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_training_maximises_the_careful_reward(method: str, ensemble: str, shape: str, runs: Path, tmp_path: Path) -> None:
    """What a round learns from is what the same values make of the same answers by hand."""
    policy, judge = loaded(runs, "a")
    options: dict[str, Any] = {
        "output_dir": str(tmp_path),
        "reward_ensemble": ensemble,
        "reward_shaping": shape,
        "num_generations": 4,
        "learning_rate": 1e-3,
    }
    common: dict[str, Any] = {"processing_class": tiny.tokenizer(), "train_dataset": tiny.prompts(), "peft_config": tiny.lora()}
    if method == "ppo":
        config = PPOConfig(num_iterations=1, prompts_per_iteration=4, max_new_tokens=6, num_ppo_epochs=1, **options)
        trainer: Any = PPOTrainer(config, model=policy, reward=judge, **common)
    else:
        trainer = GRPOTrainer(
            policy, judge, GRPOConfig(max_steps=1, per_device_train_batch_size=16, max_completion_length=6, **options), **common
        )
    trainer.train()
    answers = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").split("\n") if line]
    again = [Rollout("", (), tuple(row["prompt_ids"]), tuple(row["completion_ids"]), "", (), "stop") for row in answers]
    scores = combined(pessimistic([LearnedReward(judge)], ensemble, 1.0), again)
    assert [row["score"]["value"] for row in answers] == pytest.approx([score.value for score in scores], abs=1e-4)
    groups = [index // 4 for index in range(len(answers))]
    expected = shaped(scores, [len(row["completion_ids"]) for row in answers], groups, shape)
    mean = sum(score.value or 0.0 for score in expected) / len(expected)
    logged = trainer.log_history[0]
    assert logged["objective/scores" if method == "ppo" else "reward"] == pytest.approx(mean, abs=1e-4)
    assert ("rewards/unshaped/mean" in logged) is (shape != "none")


@pytest.mark.parametrize(("ensemble", "shape"), [("worst", "residual"), ("laplace", "sigmoid")])
def test_best_of_n_chooses_by_the_careful_reward(ensemble: str, shape: str, runs: Path, tmp_path: Path) -> None:
    given = [
        "evaluate",
        str(runs / "base"),
        "--data",
        str(runs / "prompts.jsonl"),
        "--best-of",
        "4",
        "--max-new-tokens",
        "100",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert (
        main([*given, "--reward-model", str(runs / "a"), "--reward-ensemble", ensemble, "--reward-shaping", shape, "--force", "true"]) == 0
    )
    rows = [json.loads(line)["proxy"] for line in (tmp_path / "out" / "scores.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert len(rows) == 40 and all("a/mean" in row["parts"] and UNSHAPED in row["parts"] for row in rows)
    assert any(row["value"] != row["parts"][UNSHAPED] for row in rows)
    curve = json.loads((tmp_path / "out" / "best_of.json").read_text(encoding="utf-8"))
    assert (curve["reward_ensemble"], curve["reward_shaping"]) == (ensemble, shape)


@pytest.mark.parametrize("join", ["+", ","])
def test_averaged_runs_and_members_are_a_reward_by_name(runs: Path, tmp_path: Path, join: str) -> None:
    given = [
        "sft",
        str(runs / "prompts.jsonl"),
        "--model",
        str(runs / "base"),
        "--best-of",
        "2",
        "--sample-tokens",
        "100",
        "--max-steps",
        "1",
        "--output-dir",
        str(tmp_path / "out"),
    ]
    assert main([*given, "--reward-model", f"{runs / 'a'}{join}{runs / 'b'}", "--reward-shaping", "residual", "--force", "true"]) == 0
    assert (tmp_path / "out" / "best_of.jsonl").exists()
