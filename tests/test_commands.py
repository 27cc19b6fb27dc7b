"""Every command once, to its end, as a user types it: a tiny model in a folder, a few rows in files, seconds in all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import accord as accord_package
import tiny
from accord import SFTConfig, SFTTrainer
from accord.cli import main
from accord.models.heads import RewardHeads
from accord.models.opened import open_model
from accord.models.size import model_size
from accord.planning.memory import count_lora

FEW = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--lora_r", "2"]
ROUNDS = ["--num_iterations", "2", "--prompts_per_iteration", "2", "--num_generations", "2", "--max_new_tokens", "4", "--lora_r", "2"]
GROUPS = [
    "--max_steps",
    "4",
    "--per_device_train_batch_size",
    "4",
    "--num_generations",
    "2",
    "--max_completion_length",
    "4",
    "--lora_r",
    "2",
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "demonstrations": [{"prompt": f"Say {i}", "completion": f"It is {i}."} for i in range(6)],
    "pairs": [{"prompt": f"Pick {i}", "chosen": f"Blue {i}.", "rejected": "No idea."} for i in range(6)],
    "labelled": [{"prompt": f"Judge {i}", "completion": f"Answer {i}.", "label": i % 2 == 0} for i in range(6)],
    "prompts": [{"prompt": f"Tell me about {i}"} for i in range(4)],
    "steps": [{"prompt": f"Add {i}", "completions": [f"{i}+1={i + 1}", f"{i}+2={i}"], "labels": [True, i % 2 == 0]} for i in range(6)],
}
FUNCTION = "def size(completions):\n    return [len(c[0]['content']) for c in completions]\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data files and a reward function."""
    folder = tmp_path_factory.mktemp("place")
    tiny.model().save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "reward.py").write_text(FUNCTION, encoding="utf-8")
    return folder


Runner = Callable[..., None]


@pytest.fixture
def accord(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    monkeypatch.chdir(place)

    def run(*given: str, code: int = 0) -> None:
        found = main([*given])
        assert found == code, capsys.readouterr().err

    return run


def trained(accord: Runner, method: str, run: str) -> Path:
    """Train a method into a folder, once a module."""
    if not Path(run).exists():
        data = {
            "sft": "demonstrations",
            "reward": "pairs",
            "prm": "steps",
            "dpo": "pairs",
            "kto": "labelled",
            "ppo": "prompts",
            "grpo": "prompts",
        }[method]
        options = {"ppo": [*ROUNDS, "--reward", "reward.py:size"], "grpo": [*GROUPS, "--reward", "reward.py:size"]}.get(method, FEW)
        accord(method, f"{data}.jsonl", "--model", "model", "--eval_data", f"{data}.jsonl", "--output_dir", run, *options)
    return Path(run)


@pytest.mark.parametrize(
    ("method", "learned", "evaluated"),
    [
        ("sft", "entropy", "eval_loss"),
        ("reward", "accuracy", "eval_accuracy"),
        ("prm", "accuracy_error_steps", "eval_accuracy_right_steps"),
        ("dpo", "rewards/margins", "eval_rewards/margins"),
        ("kto", "kl", "eval_rewards/margins"),
        ("ppo", "objective/scores", "eval_objective/scores"),
        ("grpo", "reward", "eval_reward"),
    ],
)
def test_training(method: str, learned: str, evaluated: str, accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(accord, method, f"runs/{method}")
    said = capsys.readouterr().err
    assert f"{evaluated} " in said.split("held out: ")[1].splitlines()[0] and f"Saved in {folder}" in said
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 5 if method in ("ppo", "grpo") else 3)) and learned in rows[-1]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["finished"] and (folder / "adapter_model.safetensors").exists()
    if method in ("ppo", "grpo"):
        rollouts = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(rollouts) == (8 if method == "ppo" else 16) and all(row["score"]["value"] == len(row["text"]) for row in rollouts)


def test_ppo_on_a_reward_model_and_a_function(accord: Runner) -> None:
    reward = trained(accord, "reward", "runs/reward")
    accord("ppo", "prompts.jsonl", "--model", "model", "--reward_model", f"{reward}*0.5", "--reward", "reward.py:size", "--output_dir", "runs/both", *ROUNDS)  # fmt: skip
    row = json.loads(Path("runs/both/metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert row["objective/scores"] == pytest.approx(0.5 * row["rewards/reward/mean"] + row["rewards/size/mean"], abs=1e-4)
    assert len(open_model("runs/both").stack) == 1  # the reward model's adapter is on the same base and no part of the policy


def test_mixtures_wherever_data_is_named(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """In demonstrations beside PPO, and in Python, as in --data; what is drawn of each is said."""
    mixture = "demonstrations.jsonl:0.75,pairs.jsonl:0.25"
    accord("ppo", mixture, "--model", "model", "--reward", "reward.py:size", "--ptx_data", "demonstrations.jsonl,demonstrations.jsonl", "--ptx_coef", "0.1", "--output_dir", "runs/ptx", *ROUNDS)  # fmt: skip
    said = capsys.readouterr().err
    told = re.search(r"A mixture of 12 rows: demonstrations\.jsonl (\d+) of its 6 rows, pairs\.jsonl (\d+) of its 6 rows", said)
    assert told and int(told[1]) + int(told[2]) == 12 and int(told[1]) > int(told[2]) > 0
    assert "loss/ptx" in Path("runs/ptx/metrics.jsonl").read_text(encoding="utf-8")
    trainer = SFTTrainer("model", SFTConfig(max_steps=1, output_dir="runs/python"), "demonstrations.jsonl:0.5,demonstrations.jsonl:0.5")
    assert len(trainer.train_units) == 12


def test_sample(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(accord, "sft", "runs/sft")
    capsys.readouterr()
    for name in ("model", str(folder)):
        accord("sample", name, "--prompt", "Say 1", "--num_samples", "2", "--max_new_tokens", "3")
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 2
        for row in rows:
            assert 1 <= len(row["completion_ids"]) == len(row["sampler_logprobs"]) <= 3 and max(row["sampler_logprobs"]) <= 0


def test_a_chat_forgets_what_the_model_has_no_positions_for(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny model has 512: two turns of 300 tokens do not fit, and one of 600 fits nowhere."""
    turn = "x" * 300
    accord("chat", "model", "--prompt", turn, turn, "short", "--max_new_tokens", "2")
    said = capsys.readouterr()
    assert len(said.out.splitlines()) >= 3 and said.err.count("(The oldest turn is forgotten: the model has 512 positions.)") == 1
    for command in ("chat", "sample"):
        accord(command, "model", "--prompt", turn * 2, "--max_new_tokens", "2", code=2)
        assert "the model has 512 positions. Shorten" in capsys.readouterr().err


def test_export_is_the_trained_policy(accord: Runner) -> None:
    """The merged folder loads without accord and gives the logits of base and adapter together."""
    from peft import PeftModel

    folder = trained(accord, "dpo", "runs/dpo")
    accord("export", str(folder), "--to", "exported")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained("exported")(ids).logits
        base = AutoModelForCausalLM.from_pretrained("model")
        before = base(ids).logits
        expected = PeftModel.from_pretrained(base, str(folder))(ids).logits
    assert torch.allclose(merged, expected, atol=1e-5) and not torch.allclose(merged, before, atol=1e-5)
    accord("export", str(folder), "--to", "exported", code=2)


@pytest.mark.parametrize(("method", "names"), [("reward", {"all"}), ("dpo", {"eval_rewards/accuracies", "eval_rewards/margins"})])
def test_evaluate(method: str, names: set[str], accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(accord, method, f"runs/{method}")
    capsys.readouterr()
    accord("evaluate", str(folder), "--data", "pairs.jsonl")
    found = {line[:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()}
    assert names <= found.keys()
    for name in names - {"eval_rewards/margins"}:
        assert 0 <= float(found[name][0]) <= 1


def test_evaluate_a_run_of_all_weights(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """It is measured against the model that it started from, not against itself; a bare model has learned nothing to measure."""
    accord("dpo", "pairs.jsonl", "--model", "model", "--output_dir", "runs/full", "--max_steps", "2", "--learning_rate", "1e-3", "--lora_r", "0")  # fmt: skip
    said = capsys.readouterr().err.split("Load it:\n")[1]
    found: dict[str, Any] = {}
    exec(said, found)
    assert type(found["model"]).__name__ == "LlamaForCausalLM" and found["tokenizer"].chat_template
    accord("evaluate", "runs/full", "--data", "pairs.jsonl")
    margins = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("eval_rewards/margins"))
    assert abs(float(margins.split()[1])) > 1e-3
    accord("evaluate", "model", "--data", "pairs.jsonl", code=2)
    assert "nothing it learned to measure" in capsys.readouterr().err


def test_a_reward_run_is_no_policy(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    reward = trained(accord, "reward", "runs/reward")
    accord("dpo", "pairs.jsonl", "--model", str(reward), "--output_dir", "runs/nothing", code=2)
    assert f"--reward_model {reward}" in capsys.readouterr().err
    accord("reward", "pairs.jsonl", "--model", str(reward), "--backbone", "heads", "--max_steps", "2", "--output_dir", "runs/heads")
    assert "normalise_on training" in capsys.readouterr().err
    stacks = [json.loads((Path(folder) / "reward.json").read_text(encoding="utf-8"))["stack"] for folder in (reward, "runs/heads")]
    assert stacks == [["reward"], ["reward"]]


def test_a_process_reward_run(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """What it finds is measured, and it is no policy, no causal model and no reward model; heads on a bare base open too."""
    run = str(trained(accord, "prm", "runs/prm"))
    accord("prm", "steps.jsonl", "--model", "model", "--output_dir", "runs/step-head", "--backbone", "heads", "--max_steps", "2")
    for folder in (run, "runs/step-head"):
        capsys.readouterr()
        accord("evaluate", folder, "--data", "steps.jsonl")
        said = capsys.readouterr().out
        assert "accuracy_erroneous" in said and said.count("(3 solutions)") == 2 and re.search(r"^f1 +[01]\.\d+$", said, re.MULTILINE)
    accord("evaluate", run, "--data", "pairs.jsonl", code=3)
    assert "needs steps rows" in capsys.readouterr().err
    accord("dpo", "pairs.jsonl", "--model", run, "--output_dir", "runs/nothing", code=2)
    assert "is a process reward model, not a policy" in capsys.readouterr().err
    accord("export", run, "--to", "exported-prm", code=2)
    assert "--merged false" in capsys.readouterr().err
    accord("ppo", "prompts.jsonl", "--model", "model", "--reward_model", run, "--output_dir", "runs/nothing", *ROUNDS, code=3)
    assert "holds no reward model" in capsys.readouterr().err


def test_dry_run_of_prm_from_a_recipe(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prm.yaml").write_text(
        'data: steps.jsonl\nstep_separator: "\\n\\n"\nneutral: class\nmask_after_first_error: no\n', encoding="utf-8"
    )
    options, text = dry(accord, capsys, "prm", "--config", "prm.yaml", "--backbone", "heads")
    assert (options["step_separator"], options["neutral"], options["mask_after_first_error"]) == ("\n\n", "class", False)
    assert r"[1] '0+1=1\n\n0+2=0\n\n' (2 tokens counted)" in text and f" {3 * 32 + 3:,} trained" in text


def test_doctor(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    accord("doctor")
    said = capsys.readouterr().out
    assert f"torch {torch.__version__.split('+')[0]}" in said and "Ready: accord demo" in said


# -- --dry-run --------------------------------------------------------------------------------------------------------------------------


def dry(accord: Runner, capsys: pytest.CaptureFixture[str], *given: str) -> tuple[dict[str, Any], str]:
    """The resolved options, and the text after them."""
    capsys.readouterr()
    accord(*given, "--model", "model", "--dry-run", "--output_dir", "runs/nothing")
    text = capsys.readouterr().out
    assert not Path("runs/nothing").exists()
    head, _, rest = text.partition("---")
    return yaml.safe_load(head), rest


def test_dry_run_tells_what_the_run_would_do(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    options, text = dry(accord, capsys, "dpo", "pairs.jsonl", "--lora_r", "2", "--eval_data", "pairs.jsonl", "--num_train_epochs", "3")
    assert options["learning_rate"] == 1e-5 and options["output_dir"] == "runs/nothing"  # the LoRA value of DPO, chosen and told
    assert "<|start|>user\nPick 0<|end|>\n<|start|>assistant\n" in text and "[1] 'Blue 0.<|end|>'" in text
    size = model_size(tiny.model().config)
    assert f"{count_lora(size, 2):,} trained" in text and f"{size.parameters / 1e6:.2f} M in the model" in text
    assert "6 rows, " in text and "held out 6" in text and "8 rows a step, 3 optimizer steps in all" in text


def test_dry_run_predicts_memory_as_the_planner_does(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    from accord.planning.memory import predict

    given = ["sft", "demonstrations.jsonl", "--lora_r", "2", "--tokens_per_microbatch", "512", "--dtype", "float32", "--max_length", "64"]
    _, text = dry(accord, capsys, *given)
    assert f"memory about {predict(model_size(tiny.model().config), rank=2, token_budget=512, context=64)}" in text


def test_dry_run_of_heads_counts_heads(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    options, text = dry(accord, capsys, "reward", "pairs.jsonl", "--backbone", "heads", "--num_heads", "3")
    assert options["learning_rate"] == 2e-3
    expected = sum(parameter.numel() for parameter in RewardHeads(32, 3).parameters())
    assert expected >= 3 * 32 and f" {expected:,} trained" in text


def test_dry_run_of_ppo_speaks_of_rounds(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = dry(accord, capsys, "ppo", "prompts.jsonl", "--reward", "reward.py:size", "--num_iterations", "3", "--num_generations", "5")
    assert "Tell me about 0<|end|>" in text and "4 prompts, " in text
    assert "a round: 4 prompts, 5 answers of at most 48 tokens to each, 2 optimizer steps; 3 rounds, 6 optimizer steps in all" in text


def test_dry_run_of_a_whole_recipe(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    Path("many.jsonl").write_text("".join(json.dumps({"prompt": f"Pick {i}", "chosen": f"Blue {i}.", "rejected": "No."}) + "\n" for i in range(20)))  # fmt: skip
    options, text = dry(accord, capsys, "align", "many.jsonl", "--iterations", "5")
    assert options["settings"]["ppo"]["num_iterations"] == 5 and options["settings"]["max_new_tokens"] == 96
    assert "<|start|>assistant\n" in text and re.search(r"\[1\] 'Blue \d+\.<\|end\|>' \(\d+ tokens counted\)", text)
    assert "16 demonstrations, " in text and re.search(r"16 comparisons, .*; held out 4", text)
    assert f"{model_size(tiny.model().config).parameters / 1e6:.2f} M in the model" in text and "memory about " in text


def test_dry_run_refuses_what_the_run_would_refuse(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    accord("dpo", "demonstrations.jsonl", "--model", "model", "--dry-run", code=3)
    assert "demonstrations.jsonl" in capsys.readouterr().err
    accord("ppo", "prompts.jsonl", "--model", "model", "--dry-run", code=2)
    assert "needs a reward" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["ppo", "prompts.jsonl", "--reward", "reward.py:size", "--lora_r", "0"], "--lora_r 0, all weights, is not offered"),
        (["ppo", "prompts.jsonl", "--reward", "reward.py:size", "--num_train_epochs", "2"], "Use instead: num_iterations"),
        (["ppo", "prompts.jsonl", "--reward", "reward.py:size", "--ptx_coef", "0.1"], "ptx_data"),
        (["sft", "demonstrations.jsonl", "--reward", "reward.py:size"], "accord sft has no --reward"),
        (["sft", "demonstrations.jsonl", "--eval_steps", "2"], "eval_steps=2 needs held-out rows"),
        (["sft", "demonstrations.jsonl", "--early_stopping_patience", "2"], "needs eval_steps above 0"),
        (["sft", "demonstrations.jsonl", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["sft", "demonstrations.jsonl", "--lora_target", "nosuch"], "this model has no module 'nosuch'"),
        (["ppo", "prompts.jsonl", "--reward", "reward.py:size*nan"], "'nan' is not a weight"),
    ],
)
def test_options_that_would_do_nothing(given: list[str], words: str, accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    accord(*given, "--model", "model", "--output_dir", "runs/nothing", code=2)
    assert words in capsys.readouterr().err and not Path("runs/nothing").exists()


# -- help -------------------------------------------------------------------------------------------------------------------------------

HELP = """
import contextlib, io, json, sys
from accord.cli import COMMANDS, main
found = {}
for given in [[], *([name] for name in COMMANDS), *(["data", verb] for verb in ("check", "convert", "template", "demo"))]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*given, "--help"])
    heavy = [name for name in ("torch", "transformers", "peft", "datasets", "numpy") if name in sys.modules]
    found[" ".join(given)] = [code, heavy, out.getvalue()]
print(json.dumps(found))
"""


def test_help_of_every_command_is_light_and_short() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, encoding="utf-8", check=True)
    found = json.loads(done.stdout)
    assert {"", "sft", "ppo", "data", "data check", "doctor"} <= found.keys()
    for name, (code, heavy, text) in found.items():
        assert (code, heavy) == (0, []), f"accord {name} --help"
        assert 3 <= len(text.splitlines()) <= 40, f"accord {name} --help"
        assert sum(line.lstrip().startswith("-") for line in text.splitlines()) <= 15, f"accord {name} --help"
    assert all(verb in found["data"][2] for verb in ("check", "convert", "template", "demo"))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_pp", "dapo", "gspo", "cispo"])
def test_methods_by_name(name: str, accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file that comes with accord grpo is read, is another method, and flags stand above it."""
    accord(
        "grpo", "prompts.jsonl", "--model", "model", "--config", name, "--reward", "reward.py:size", "--num_generations", "3", "--dry-run"
    )
    settings = yaml.safe_load(capsys.readouterr().out.split("--- prompt 1")[0])
    given = yaml.safe_load(
        (Path(accord_package.__file__).parent / "config" / "files" / "grpo" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    assert settings["num_generations"] == 3 and len(given) >= 4
    assert all(settings[key] == value for key, value in given.items() if key != "num_generations")


def test_an_unknown_method_name_lists_those_there_are(accord: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    accord("grpo", "prompts.jsonl", "--config", "ppo", "--reward", "reward.py:size", code=2)
    assert "accord grpo comes with cispo, dapo, dr_grpo, grpo, gspo, reinforce_pp, rloo" in capsys.readouterr().err
