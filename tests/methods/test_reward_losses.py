"""What the reward trainer makes of pairs, ties, soft labels, margins and rankings: the losses it runs, on scores that are given."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError, DataError
from accord.methods.reward import comparison_losses, comparisons
from accord.models.adapters import PolicyModel, Want
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Example


def unit(example: Example) -> Unit:
    return Unit((1,), tuple(Branch((2,)) for _ in example.completions), "", {"example": example})


def pair(probability: float | None = None, strength: float | None = None) -> Example:
    return replace(tiny.pairs(1)[0], probability=probability, strength=strength)


def ranking(*ranks: int) -> Example:
    return replace(tiny.rankings(1)[0], completions=tiny.rankings(1)[0].completions[:1] * len(ranks), ranks=ranks)


def losses(scores: list[float], *rows: Example, log_nu: float = 0.0, **options: Any) -> list[float]:
    column = torch.tensor(scores, dtype=torch.float64)[:, None]
    return comparison_losses(column, comparisons([unit(row) for row in rows]), RewardConfig(**options), torch.tensor(log_nu))[:, 0].tolist()


def nll(gap: float) -> float:
    return math.log1p(math.exp(-gap))


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce", "robust", "davidson"])
def test_every_loss_sees_ties_and_soft_labels(name: str) -> None:
    """Scores 0.8 and 0: a sure win, 0.7 and a tie are three different losses, and the tie pulls the scores together."""
    sure, soft, tie = (losses([0.8, 0.0], pair(p), loss=name)[0] for p in (None, 0.7, 0.5))
    assert sure < soft < tie or name == "davidson"
    assert len({round(value, 6) for value in (sure, soft, tie)}) == 3
    assert losses([0.0, 0.0], pair(0.5), loss=name)[0] < tie
    if name != "davidson":
        assert sure == pytest.approx(nll(0.8)) and soft == pytest.approx(0.7 * nll(0.8) + 0.3 * nll(-0.8), abs=1e-6)
        assert soft == pytest.approx(0.6111007, abs=1e-6)
        assert tie == pytest.approx(0.5 * nll(0.8) + 0.5 * nll(-0.8))


def test_davidson() -> None:
    """a = 1, b = .5, nu = .6: win .4822040, loss .2924715, tie .2253245; 0.7 is 0.7 of a win and 0.3 of a loss, and no tie."""
    win, lost, tie = (-math.log(p) for p in (0.4822040, 0.2924715, 0.2253245))
    for probability, expected in ((None, win), (0.5, tie), (0.7, 0.7 * win + 0.3 * lost)):
        found = losses([1.0, 0.5], pair(probability), loss="davidson", log_nu=math.log(0.6))
        assert found == pytest.approx([expected], abs=1e-6)
    found = losses([1.0, 0.5, 1.0, 0.5], ranking(2, 1), ranking(1, 1), loss="davidson", log_nu=math.log(0.6))
    assert found == pytest.approx([lost, tie], abs=1e-6)


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce", "robust"])
def test_margins(name: str) -> None:
    """Margin 1 with scores (1.2, 0.4): 0.7981389 (0.3711007 without)."""
    assert losses([1.2, 0.4], pair(strength=1.0), loss=name) == pytest.approx([0.7981389], abs=1e-6)
    assert losses([1.2, 0.4], pair(strength=1.0), loss=name, use_margin=False) == pytest.approx([0.3711007], abs=1e-6)


def test_robust_flip_rate() -> None:
    """The goldens of the objective, through the trainer's path: e = 0.1 at D = 1 is 0.1882617."""
    assert losses([1.0, 0.0], pair(), loss="robust", label_smoothing=0.1) == pytest.approx([0.1882617], abs=1e-6)
    assert losses([1.0, 0.0], pair(0.5), loss="robust", label_smoothing=0.1) == pytest.approx([0.5 * nll(1) + 0.5 * nll(-1)])


def test_k_wise_mean_over_pairs() -> None:
    """Scores (1, .5, -.3) in this order: mean pairwise loss 0.3620620, however many rankings stand beside it."""
    scores = [1.0, 0.5, -0.3]
    assert losses(scores, ranking(1, 2, 3)) == pytest.approx([0.3620620], abs=1e-6)
    assert losses([*scores, 0.7, 0.1, *scores], ranking(1, 2, 3), pair(), ranking(1, 2, 3)) == pytest.approx(
        [0.3620620, nll(0.6), 0.3620620], abs=1e-6
    )
    assert losses([0.4, 0.1], ranking(1, 1)) == pytest.approx([0.5 * nll(0.3) + 0.5 * nll(-0.3)])
    turned = losses([-0.3, 1.0, 0.5], ranking(3, 1, 2))
    assert turned == pytest.approx([0.3620620], abs=1e-6)


def test_a_ranking_of_four_weighs_1() -> None:
    found = comparisons([unit(ranking(1, 2, 2, 3)), unit(pair())])
    assert found.weight.tolist() == pytest.approx([1 / 6] * 6 + [1.0])
    assert sorted(found.probability.tolist()) == [0.5] + [1.0] * 6


def test_plackett_luce_ranks_whole_lists() -> None:
    """-log 0.3671908 = 1.0018737; a pair beside it is Bradley-Terry."""
    found = losses([1.0, 0.5, -0.3, 1.0, 0.5], ranking(1, 2, 3), pair(), loss="plackett_luce")
    assert found == pytest.approx([1.0018737, 0.4740770], abs=1e-6)


@pytest.mark.parametrize("name", ["bradley_terry", "plackett_luce", "robust", "davidson"])
def test_centering_is_the_mean_over_the_pairs_of_a_unit(name: str) -> None:
    """c (r_w + r_l)^2 over (1, .5), (1, -.3), (.5, -.3): (2.25 + .49 + .04) / 3."""
    plain, centred = (losses([1.0, 0.5, -0.3], ranking(1, 2, 3), loss=name, center_rewards_coefficient=c) for c in (None, 0.01))
    assert centred[0] - plain[0] == pytest.approx(0.01 * 2.78 / 3, abs=1e-8)


def test_labels_that_a_loss_cannot_use_are_refused(tmp_path: Path) -> None:
    def reward(rows: list[Example], **options: Any) -> RewardTrainer:
        args = RewardConfig(output_dir=str(tmp_path), backbone="heads", **options)
        return RewardTrainer(tiny.policy(), args, rows, processing_class=tiny.tokenizer())

    rows = [pair(), replace(pair(strength=2.0), where="votes.jsonl line 2")]
    with pytest.raises(ConfigError, match=r"votes.jsonl line 2 has a margin \(2\).*bradley_terry"):
        reward(rows, loss="davidson")
    assert len(reward(rows, loss="davidson", use_margin=False).train_units) == 2
    with pytest.raises(ConfigError, match="label_smoothing"):
        RewardConfig(loss="davidson", label_smoothing=0.1)
    with pytest.raises(ConfigError, match="label_smoothing"):
        DPOConfig(loss_type="ipo", label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"votes.jsonl line 2 has a soft label \(probability 0.7\)"):
        rows = [pair(), replace(pair(0.7), where="votes.jsonl line 2")]
        DPOTrainer(tiny.policy(), None, DPOConfig(output_dir=str(tmp_path), loss_type="hinge"), rows, processing_class=tiny.tokenizer())


def test_a_tie_has_no_label_for_kto(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kto(*rows: Example) -> KTOTrainer:
        return KTOTrainer(tiny.policy(), None, KTOConfig(output_dir=str(tmp_path)), list(rows), processing_class=tiny.tokenizer())

    with pytest.raises(DataError, match="votes.jsonl line 2 is a tie"):
        kto(pair(), replace(pair(0.5), where="votes.jsonl line 2"))
    units = kto(pair(), pair(0.7)).train_units
    assert [one.data["example"].label for one in units] == [True, False, True, False]
    assert "1 pairs have soft labels" in capsys.readouterr().err


# -- the scale ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["lora", "heads"])
def test_rewards_are_normalised_on_reference_samples(tmp_path: Path, backbone: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Mean 0 and variance 1 of each head on answers sampled from the policy before the reward adapter, drawn here once more."""

    def trained(**options: Any) -> RewardTrainer:
        args = RewardConfig(output_dir=str(tmp_path), backbone=backbone, max_steps=2, learning_rate=1e-2, max_new_tokens=6, **options)
        lora = tiny.lora() if backbone == "lora" else None
        trainer = RewardTrainer(tiny.policy(), args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=lora)
        trainer.train()
        return trainer

    trainer = trained()
    assert "mean 0 and variance 1 on 9 sampled answers of the reference policy (normalise_on=samples)" in capsys.readouterr().err
    prompts = [Prompt(row.prompt_id, tuple(trainer.renderer.prompt_ids(row.prompt))) for row in tiny.pairs()]
    answers = LocalSampler(tiny.policy(), trainer.renderer, ()).sample(prompts, SamplingConfig(6, seed=trainer.config.seed))
    scores = trainer.reward_model.score_rollouts(answers)
    assert torch.allclose(scores.mean(0), torch.zeros(5), atol=1e-4)
    assert torch.allclose(scores.std(0, unbiased=False), torch.ones(5), atol=1e-3)
    other = trained(normalise_on="training")
    assert "on 18 training answers (normalise_on=training)" in capsys.readouterr().err
    scores = other.reward_model.score(other.train_units)
    assert torch.allclose(scores.mean(0), torch.zeros(5), atol=1e-4)


def test_full_fine_tuning_has_no_reference_to_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def full(**options: Any) -> RewardTrainer:
        args = RewardConfig(output_dir=str(tmp_path), max_steps=1, **options)
        return RewardTrainer(tiny.policy(), args, tiny.pairs(), processing_class=tiny.tokenizer())

    with pytest.raises(ConfigError, match="normalise_on='training'"):
        full(normalise_on="samples")
    full().train()
    assert "normalise_on=training" in capsys.readouterr().err


def test_heads_read_everything_that_the_model_carries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a reward run, its own adapter included: heads alone take no adapter away, and a peft_config adds none."""
    policy = tiny.policy()
    for name in ("sft", "reward"):
        policy.add_adapter(name, tiny.lora())
    tiny.shake(policy, "sft", "reward")
    args = RewardConfig(output_dir=str(tmp_path), backbone="heads", max_steps=1, normalise=False)
    trainer = RewardTrainer(policy, args, tiny.pairs(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    assert "peft_config is not used" in capsys.readouterr().err
    trainer.train()
    unit = trainer.train_units[0]
    with torch.no_grad():
        (expected,) = policy.forward(pack([unit]), ("sft", "reward"), Want(logprobs=False, ends=(trainer.heads.reading,))).ends
    assert torch.allclose(unit.data["features"], expected, atol=1e-5)
    assert trainer.reward_model.stack == ("sft", "reward") == tuple(policy.adapters)


# -- K answers, K forwards --------------------------------------------------------------------------------------------------------------


def test_a_ranking_of_four_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K = 4: one forward pass over one prompt and four answers, not two answers of each of six pairs."""
    seen: list[Any] = []
    forward = PolicyModel.forward

    def counted(self: PolicyModel, batch: Any, *rest: Any, **named: Any) -> Any:
        seen.append(batch)
        return forward(self, batch, *rest, **named)

    trainer = RewardTrainer(
        tiny.policy(),
        RewardConfig(output_dir=str(tmp_path), num_heads=1),
        tiny.rankings(1),
        processing_class=tiny.tokenizer(),
        peft_config=tiny.lora(),
    )
    units = trainer.train_units
    monkeypatch.setattr(PolicyModel, "forward", counted)
    loss, _ = trainer.loss(units, trainer.totals(units))
    assert [batch.num_completions for batch in seen] == [4]
    assert seen[0].num_tokens == len(units[0].prompt_ids) + sum(len(branch.ids) for branch in units[0].branches)
    # and the loss is the mean over its six pairs of the scores of those four answers
    scores: Tensor = trainer.raw(units)[:, 0].detach()
    by_hand = [nll(float(scores[i] - scores[j])) for i, j in ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3))]
    by_hand.append(0.5 * nll(float(scores[1] - scores[2])) + 0.5 * nll(float(scores[2] - scores[1])))
    assert float(loss.detach()) == pytest.approx(sum(by_hand) / 6, rel=1e-5)
