"""What an online run does about reward hacking: it watches, writes, raises KL, goes back, stops, asks people; and a resumed run does the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import GRPOConfig, GRPOTrainer, PPOConfig, PPOTrainer
from accord.errors import ConfigError
from accord.methods.closed_holes import ClosedHoles
from accord.methods.guard import ALARMS, CLEAN, DRIFT, MOST_ROLLBACKS, TO_LABEL, VERDICTS, dearer
from accord.models.heads import RewardHeads
from accord.models.load import load_model, load_tokenizer, resolve
from accord.rewards.learned import RewardModel
from accord.types import Task, from_json

WORDS = "dog cat sun tree red big little happy park ball".split()


def marks(completions: list[Any], **columns: Any) -> list[float]:
    """A reward with a hole: exclamation marks."""
    return [min(5.0, 1.0 * completion[0]["content"].count("!")) for completion in completions]


def flat(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that nothing can be learned from: noise from the text alone."""
    return [sum(map(ord, completion[0]["content"])) % 7 / 7 for completion in completions]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Any:
    return resolve("stories260k", cache=tmp_path_factory.mktemp("cache"), files=shared_data / "stories260k")


PROMPTS = [{"prompt": f"Once upon a time there was a {a} {b}."} for a in WORDS[4:8] for b in WORDS[:4]]
SIZES: dict[str, Any] = {
    "max_new_tokens": 24,
    "prompts_per_iteration": 10,
    "num_generations": 4,
    "num_ppo_epochs": 2,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
}


def story(resolved: Any, folder: Path, reward: Any = marks, **options: Any) -> PPOTrainer:
    """PPO on stories260K, which writes English."""
    from accord.models.adapters import PolicyModel

    config = PPOConfig(**{"output_dir": str(folder), "kl_coef": 0.0, "missing_eos_penalty": None, "num_iterations": 10, **SIZES, **options})
    return PPOTrainer(
        config, load_tokenizer(resolved), PolicyModel(load_model(resolved, dtype="float32")), reward, PROMPTS, peft_config=tiny.lora(8)
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def alarms(folder: Path) -> list[dict[str, Any]]:
    return lines(folder / ALARMS)


# -- on stories260K: a hole is found, named, and dealt with ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warned(stories: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("warned")
    story(stories, folder, labelling_queue=True).train()
    return folder


def test_the_hole_is_named_with_the_answers_that_show_it(warned: Path) -> None:
    found = alarms(warned)
    explained = next(row for row in found if row["name"] == "explained gain")
    assert explained["cause"] == "formatting" and "exclamation marks" in explained["words"]
    assert explained["value"] > explained["threshold"] and explained["action"] == "none"
    assert any("!" in sample["text"] for sample in explained["samples"]) and len(explained["samples"]) == 3
    verdicts = json.loads((warned / VERDICTS).read_text(encoding="utf-8"))
    assert verdicts["iteration"] == 10
    assert {"value", "baseline", "z", "threshold", "level", "words", "cause"} <= verdicts["verdicts"][0].keys()
    logged = lines(warned / "metrics.jsonl")[-1]
    assert logged["monitors/alarms"] >= 1 and logged["monitors/explained_gain"] == pytest.approx(verdicts["verdicts"][0]["value"])


def test_the_panel_shows_the_same_prompts_then_and_now(warned: Path) -> None:
    rows = lines(warned / DRIFT)
    assert {row["iteration"] for row in rows} >= {5, 10}
    last = [row for row in rows if row["iteration"] == 10]
    assert len(last) == 8 and any(row["start"] != row["now"] for row in last)
    rollouts = lines(warned / "rollouts.jsonl")
    first = {r["prompt_id"]: r["text"] for r in rollouts if r["policy_step"] == 0 and r["sample_index"] == 0}
    assert all(first[row["prompt_id"]] == row["start"] for row in last)


def test_whether_it_agrees_more_is_asked_at_the_start_half_way_and_at_the_end(warned: Path) -> None:
    """Six texts; a reward for exclamation marks need not change it, but the number stands beside the start's."""
    asked = [row for row in lines(warned / "metrics.jsonl") if "monitors/sycophancy" in row]
    assert {row["iteration"] for row in asked} >= {5.0, 10.0}
    last = json.loads((warned / VERDICTS).read_text(encoding="utf-8"))["verdicts"][-1]
    assert last["name"] == "sycophancy" and last["value"] == pytest.approx(asked[-1]["monitors/sycophancy"])
    assert last["threshold"] == pytest.approx(last["baseline"] + 0.1)


def test_people_are_asked_about_the_worst_answers(warned: Path) -> None:
    tasks = [from_json(row, Task) for row in lines(warned / TO_LABEL)]
    assert tasks and all(task.kind == "pair" and len({c.text for c in task.completions}) == 2 for task in tasks)
    assert {task.columns["alarm"] for task in tasks} <= {row["name"] for row in alarms(warned)}


def test_raising_kl_holds_the_policy(stories: Any, warned: Path, tmp_path: Path) -> None:
    """Up to the alarm it is the same run; then KL costs, and the reward's hole is exploited less."""
    trainer = story(stories, tmp_path, on_alarm="raise_kl")
    trainer.train()
    raised, plain = lines(tmp_path / "metrics.jsonl"), lines(warned / "metrics.jsonl")
    prices = [row["objective/kl_coef"] for row in raised if "objective/kl_coef" in row]
    first = alarms(tmp_path)[0]["iteration"]
    assert prices[: first - 1] == [0.0] * (first - 1) and prices[first - 1] == 0.05 and prices == sorted(prices)
    assert "kl_coef raised to 0.05" in alarms(tmp_path)[0]["action"]
    strip = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in raised[: 2 * (first - 1)]]
    assert strip == [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in plain[: 2 * (first - 1)]]
    assert raised[-1]["objective/kl"] < plain[-1]["objective/kl"]


def test_going_back_leaves_no_trace_of_the_hacked_rounds(stories: Any, warned: Path, tmp_path: Path) -> None:
    trainer = story(stories, tmp_path, on_alarm="rollback", save_steps=2)
    trainer.train()
    found = [row for row in alarms(tmp_path) if row.get("rollback")]
    assert found and found[0]["action"].startswith("back to the last clean checkpoint")
    assert trainer.guard.rollbacks == max(row["rollback"] for row in found) <= MOST_ROLLBACKS + 1
    rounds = [row["iteration"] for row in lines(tmp_path / "metrics.jsonl") if "iteration" in row and "grad_norm" in row]
    assert rounds == [float(n + 1) for n in range(trainer.iteration)]  # each once, whatever was done twice
    assert {r["policy_step"] for r in lines(tmp_path / "rollouts.jsonl")} == set(range(trainer.iteration))
    clean = json.loads((tmp_path / CLEAN / "trainer_state.json").read_text(encoding="utf-8"))
    assert clean["method"]["iteration"] < found[0]["iteration"]  # it stays where it was before the first alarm
    # The hole is closed; KL costs what it did.
    assert found[0]["action"] == "back to the last clean checkpoint, and formatting costs from here on what it was paid"
    assert clean["method"]["guard"]["closed"]["causes"][0] == "formatting" == trainer.guard.closed.causes[0]
    marked = [marks([[{"content": row["now"]}]])[0] for row in lines(warned / DRIFT) if row["iteration"] == 10]
    prompts = trainer.prompts[:8]
    left = [
        marks([[{"content": r.text}]])[0] for r in trainer.held_out_sampler.sample(prompts, replace(trainer._sampling(0), num_samples=1))
    ]
    assert sum(left) < 0.2 * sum(marked)


def test_a_closed_hole_is_charged_for_and_what_is_watched_is_the_reward_itself(stories: Any, warned: Path, tmp_path: Path) -> None:
    """With a budget of KL that is never spent, the run goes on after its first rollback; it writes no more marks, and resumes as it was."""
    trainer = story(stories, tmp_path, on_alarm="rollback", kl_alarm=1e6, learning_rate=4e-3, save_steps=2)
    trainer.train()
    rows = [row for row in lines(tmp_path / "metrics.jsonl") if "rewards/unshaped/mean" in row]
    assert rows and trainer.guard.closed.causes[0] == "formatting"
    assert all(row["rewards/unshaped/mean"] >= row["objective/scores"] - 1e-6 for row in rows)  # what is charged is never a gain
    plain = {row["iteration"]: row for row in lines(warned / "metrics.jsonl") if "objective/scores" in row}
    assert rows[-1]["rewards/unshaped/mean"] < 0.5 * plain[rows[-1]["iteration"]]["objective/scores"]
    again = ClosedHoles()
    again.load(json.loads(json.dumps(trainer.guard.state()["closed"])))
    assert again.causes == trainer.guard.closed.causes and again.evidence == trainer.guard.closed.evidence is not None


def test_without_siblings_nothing_says_what_a_form_is_paid_so_kl_is_dearer(stories: Any, tmp_path: Path) -> None:
    trainer = story(stories, tmp_path, on_alarm="rollback", num_generations=1, prompts_per_iteration=16, compare_siblings=False)
    trainer.train()
    found = [row for row in alarms(tmp_path) if row.get("rollback")]
    assert found and found[0]["action"] == "back to the last clean checkpoint, with a dearer KL"
    assert trainer.kl.value >= 0.05 and not trainer.guard.closed.causes


def test_stop_ends_before_the_hacked_answers_are_learned_from(stories: Any, tmp_path: Path) -> None:
    trainer = story(stories, tmp_path, on_alarm="stop")
    trainer.train()
    first = alarms(tmp_path)[0]
    assert trainer.iteration == first["iteration"] - 1 < 10
    assert trainer.global_step == 2 * trainer.iteration and first["action"] == "stop"
    assert lines(tmp_path / "metrics.jsonl")[-1]["monitors/alarms"] >= 1


def test_a_reward_without_a_hole_is_left_alone(stories: Any, tmp_path: Path) -> None:
    """Nothing rises, nothing is done: the run with actions equals the one without, bit for bit."""
    quiet, plain = (
        story(stories, tmp_path / name, flat, num_iterations=5, learning_rate=1e-3, **options)
        for name, options in (("rollback", {"on_alarm": "rollback"}), ("off", {"monitors": False}))
    )
    quiet.train()
    plain.train()
    assert not alarms(tmp_path / "rollback") and not (tmp_path / "off" / VERDICTS).exists()
    for name, parameter in plain.parameters().items():
        assert torch.equal(parameter, quiet.parameters()[name]), name


# -- on tiny models: state, options ------------------------------------------------------------------------------------------------------


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """Easily learned."""
    return [float(sum(map(str.isalpha, completion[0]["content"]))) for completion in completions]


def ppo(folder: Path, reward: Any = letters, policy: Any = None, **options: Any) -> PPOTrainer:
    sizes = {
        "num_iterations": 8,
        "prompts_per_iteration": 8,
        "num_generations": 4,
        "max_new_tokens": 6,
        "learning_rate": 1e-2,
        "missing_eos_penalty": None,
    }
    return PPOTrainer(
        PPOConfig(**{"output_dir": str(folder), **sizes, **options}),
        tiny.tokenizer(),
        policy or tiny.policy(),
        reward,
        tiny.prompts(12),
        peft_config=tiny.lora(),
    )


def grpo(folder: Path, reward: Any = letters, policy: Any = None, **options: Any) -> GRPOTrainer:
    sizes = {"max_steps": 8, "num_generations": 4, "per_device_train_batch_size": 32, "max_completion_length": 6, "learning_rate": 1e-2}
    return GRPOTrainer(
        policy or tiny.policy(),
        reward,
        GRPOConfig(**{"output_dir": str(folder), **sizes, **options}),
        tiny.prompts(12),
        processing_class=tiny.tokenizer(),
        peft_config=tiny.lora(),
    )


@pytest.mark.parametrize("build", [ppo, grpo])
def test_a_run_that_goes_back_resumes_to_the_same_weights(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KL is an alarm at once (a budget of next to nothing), so the run goes back three times, then once more to end at that clean checkpoint;
    killed in between, it ends the same, and asked to go on from where it ended it stays there."""
    options = {"on_alarm": "rollback", "kl_alarm": 1e-4, "save_steps": 1, "tokens_per_microbatch": 256}
    straight = build(tmp_path / "straight", **options)
    straight.train()
    assert straight.guard.over and straight.guard.rollbacks == MOST_ROLLBACKS + 1
    words = f"back to the last clean checkpoint, and stop: {MOST_ROLLBACKS} rollbacks did not help"
    assert alarms(tmp_path / "straight")[-1]["action"] == words
    clean = json.loads((tmp_path / "straight" / CLEAN / "trainer_state.json").read_text(encoding="utf-8"))
    assert straight.global_step == clean["global_step"] < 8
    cut = build(tmp_path / "cut", **options)
    turn_back = type(cut.guard).turn_back

    def dies(guard: Any) -> None:
        turn_back(guard)
        if guard.rollbacks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(type(cut.guard), "turn_back", dies)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    monkeypatch.setattr(type(cut.guard), "turn_back", turn_back)
    resumed = build(tmp_path / "cut", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / CLEAN))
    again = build(tmp_path / "straight", **options)
    said = alarms(tmp_path / "straight")
    again.train(resume_from_checkpoint=str(tmp_path / "straight" / CLEAN))
    for other in (resumed, again):
        assert other.global_step == straight.global_step
        for name, parameter in straight.parameters().items():
            assert torch.equal(parameter, other.parameters()[name]), name
    assert alarms(tmp_path / "cut") == alarms(tmp_path / "straight") == said


def test_grpo_without_a_reference_reads_one_where_kl_may_be_raised(tmp_path: Path) -> None:
    trainer = grpo(tmp_path, on_alarm="raise_kl", kl_alarm=1e-4)
    trainer.train()
    assert trainer.config.beta == 0.0 and trainer.beta >= 0.05
    assert "beta raised to 0.05" in alarms(tmp_path)[0]["action"]
    plain = grpo(tmp_path / "plain")
    plain.train()
    names = {name for row in lines(tmp_path / "plain" / "metrics.jsonl") for name in row}
    assert "monitors/KL" not in names and "monitors/refusal" in names


def test_a_held_out_reward_is_watched_and_changes_nothing(tmp_path: Path) -> None:
    """Its part is logged, its weight is 0, and it comes from the pass that reads the reference."""

    def build(folder: Path, **more: Any) -> PPOTrainer:
        policy = tiny.policy()
        heads = [RewardHeads(policy.hidden_size, 3, seed=seed) for seed in (1, 2)]
        first, other = (RewardModel(policy, (), one, None) for one in heads)  # type: ignore[arg-type]
        return PPOTrainer(
            PPOConfig(
                output_dir=str(folder), num_iterations=4, prompts_per_iteration=8, num_generations=4, max_new_tokens=5, learning_rate=1e-3
            ),
            tiny.tokenizer(),
            policy,
            first,
            tiny.prompts(12),
            peft_config=tiny.lora(),
            **({"heldout_reward": other} if more.pop("watch", False) else {}),
        )

    watched, plain = build(tmp_path / "a", watch=True), build(tmp_path / "b")
    watched.train()
    plain.train()
    for name, parameter in plain.parameters().items():
        assert torch.equal(parameter, watched.parameters()[name]), name
    mine, others = lines(tmp_path / "a" / "metrics.jsonl")[-1], lines(tmp_path / "b" / "metrics.jsonl")[-1]
    assert "rewards/heldout/mean" in mine and "monitors/held-out_reward" in mine and "rewards/heldout/mean" not in others
    assert mine["rewards/disagreement/mean"] == others["rewards/disagreement/mean"]
    assert len(watched.experience._readers()) == 2


def test_prices_of_kl() -> None:
    assert [dearer(price) for price in (0.0, 0.01, 0.04, 0.3, 0.7, 2.0)] == [0.05, 0.05, 0.08, 0.6, 1.0, 2.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_alarm": "panic"}, "on_alarm='panic' must be one of warn, raise_kl, rollback, stop"),
        ({"on_alarm": "stop", "monitors": False}, "on_alarm='stop' must be warn with monitors=False"),
        ({"labelling_queue": True, "monitors": False}, "labelling_queue=True must be False with monitors=False"),
        ({"kl_alarm": 0.0}, "kl_alarm=0.0 must be above 0, or None"),
        ({"reward_ensemble": "median"}, "reward_ensemble='median' must be one of mean, worst, uncertainty, laplace"),
        ({"reward_shaping": "cube"}, "reward_shaping='cube' must be one of none, sigmoid, log_sigmoid, residual"),
        ({"uncertainty_weight": -1.0}, "uncertainty_weight=-1.0 must be 0 or more"),
    ],
)
def test_values_without_meaning_are_refused(options: dict[str, Any], words: str) -> None:
    for config in (PPOConfig, GRPOConfig):
        with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
            config(**options)
