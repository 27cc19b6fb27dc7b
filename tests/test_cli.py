"""The command line as a user meets it: right exit codes, one clear line, nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from accord.arguments import parse
from accord.cli import COMMANDS, main
from accord.config.dpo import DPOConfig
from accord.config.options import TrainOptions
from accord.errors import ConfigError
from accord.training.setup import read_rows


def read(*given: str) -> tuple[TrainOptions, DPOConfig]:
    found = parse(COMMANDS["dpo"], list(given))
    assert found is not None
    return found[0], found[1]


def test_flags_yaml_and_aliases(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("beta: 0.3\nlearning_rate: 1e-5\nmodel_name_or_path: some/model\nbf16: true\n", encoding="utf-8")
    options, config = read(
        "pairs.jsonl", "--config", str(recipe), "--beta", "0.2", "--num-train-epochs=2", "--columns", "prompt=q", "chosen=a"
    )
    assert (options.data, options.model, options.columns) == ("pairs.jsonl", "some/model", {"prompt": "q", "chosen": "a"})
    assert (config.beta, config.learning_rate, config.num_train_epochs) == (0.2, 1e-5, 2.0)


def test_types_follow_the_fields() -> None:
    options, config = read(
        "--dataset_name",
        "x.jsonl",
        "--dry-run",
        "--max_length",
        "none",
        "--loss-type",
        "ipo",
        "--resume_from_checkpoint",
        "true",
        "--lora-r",
        "8",
    )
    assert (
        options.dry_run is True
        and config.max_length is None
        and config.loss_type == "ipo"
        and config.resume_from_checkpoint is True
        and options.lora_r == 8
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--betta", "1"], "Did you mean beta?"),
        (["--beta", "much"], "--beta 'much' is not float"),
        (["--beta", "-1"], "beta=-1.0 must be above 0"),
        (["--loss-type", "sigmod"], "must be one of sigmoid"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--max-steps", "1.5"], "--max-steps '1.5' is not int".replace("max-steps", "max_steps")),
        (["--lr_scheduler_type", "cosin"], "Did you mean 'cosine'?"),
        (["--columns", "prompt"], "name=value pairs"),
        (["--disable_dropout", "false"], "dropout"),
        (["--lora-dropout", "0.1"], "lora_dropout must be 0"),
        (["--lora-layers", "0"], "lora_layers=0.0 must be above 0"),
        (["--rpo_alpha", "1"], "sft_coefficient"),
        (["--use_vllm", "true"], "Use instead: the local sampler"),
        (["--config", "no-such.yaml"], "there is no such file"),
        (["--config", "."], "cannot be read: Is a directory"),
        (["a.jsonl", "b.jsonl"], "belongs to no option"),
    ],
)
def test_bad_usage_is_one_line(given: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dpo", *given]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1 and "Traceback" not in error


def test_yaml_that_is_not_yaml(tmp_path: Path) -> None:
    for text in ("beta: [1", "- just\n- a list\n"):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="recipe.yaml"):
            read("--config", str(path))
    path.write_text("betta: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Did you mean beta\?"):
        read("--config", str(path))


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *(("sft", *given) for given in (("max_grad_norm", "-1"), ("save_total_limit", "0"), ("max_steps", "-5"))),
        *(("ppo", *given) for given in (("kl_target", "0"), ("kl_horizon", "0"), ("vf_coef", "-1"), ("stop_kl", "-1"))),
        *(("ppo", *given) for given in (("truncated_importance_cap", "-1"), ("missing_eos_penalty", "-1"), ("cliprange_value", "0"))),
        ("reward", "head_learning_rate_scale", "-1"),
        *(("sample", *given) for given in (("max_new_tokens", "0"), ("num_samples", "0"), ("temperature", "-1"), ("top_p", "0"))),
    ],
)
def test_values_out_of_range(command: str, option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}.* must be "):
        parse(COMMANDS[command], [f"--{option}", value])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("overfit: [1]", r"overfit \[1\] is no single value"),
        ("columns: 3", "columns takes name=value pairs"),
        ("seed:", "seed 'none' is not int"),
        ("lora_r: 2.5", "lora_r '2.5' is not int"),
        ("max_steps: true", "max_steps 'True' is not int"),
        ("beta: {a: 1}", "beta .* is no single value"),
    ],
)
def test_yaml_values_are_held_to_their_type(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"recipe.yaml: .*{words}"):
        read("--config", str(path))


def test_yaml_values_of_every_type(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "columns: {prompt: q, chosen: a}\nreward_model: [runs/a, runs/b*0.5]\nmax_length:\nlora_layers: 1\noutput_dir: 2024\n"
        "resume_from_checkpoint: true\ngradient_checkpointing: no\n",
        encoding="utf-8",
    )
    options, config = read("--config", str(path))
    assert options.columns == {"prompt": "q", "chosen": "a"} and options.reward_model == ["runs/a", "runs/b*0.5"]
    assert (config.max_length, options.lora_layers, config.output_dir) == (None, 1.0, "2024")
    assert config.resume_from_checkpoint is True and config.gradient_checkpointing is False


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (["frobnicate"], 2, "There is no command 'frobnicate'"),
        (["dop"], 2, "Did you mean dpo?"),
        (["dpo"], 2, "needs data"),
        (["dpo", "--data", "missing.jsonl"], 3, "missing.jsonl"),
        (["demo", "everything"], 2, "rlhf, dpo, base, reasoning, hacking and constitution"),
        (["align", "--data", "missing.csv"], 3, "missing.csv"),
        (["align", "--method", "sft", "--data", "x.csv"], 2, "ppo and dpo"),
        (["export", "runs/nowhere"], 2, "--to"),
        (["export", "runs/nowhere", "--to", __file__], 2, "is a file"),
        (["data", "check", "missing.jsonl"], 3, "missing.jsonl"),
        (["data", "juggle"], 2, "juggle"),
        (["sample", "smollm2-135m"], 2, "--prompt"),
    ],
)
def test_mistakes_have_their_exit_code(
    given: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_model_names_the_nearest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n", encoding="utf-8")
    assert main(["dpo", "--data", str(rows), "--model", "smollm2-135"]) in (2, 4)
    assert "smollm2-135m" in capsys.readouterr().err


def test_data_template_check_and_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, copy = tmp_path / "pairs.jsonl", tmp_path / "pairs.csv"
    assert main(["data", "template", "preference", str(path)]) == 0
    assert main(["data", "check", str(path)]) == 0
    assert "preference" in capsys.readouterr().out
    assert main(["data", "convert", str(path), str(copy)]) == 0
    assert copy.stat().st_size > 0


def test_version_and_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0 and main([]) == 0
    assert "accord COMMAND" in capsys.readouterr().out


def test_python_minus_m_is_the_command() -> None:
    """For where no script is on the path, and for torchrun."""
    done = subprocess.run([sys.executable, "-m", "accord", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("accord "), done.stderr
    assert subprocess.run([sys.executable, "-m", "accord", "dop"], capture_output=True, check=False).returncode == 2


@pytest.mark.skipif("sys.platform == 'win32'", reason="pipes break there in other ways")
def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    """`accord data check bad.jsonl --json | head -1`, with more to say than a pipe holds."""
    rows = tmp_path / "bad.jsonl"
    rows.write_text("broken\n" * 5000, encoding="utf-8")
    command = [sys.executable, "-m", "accord", "data", "check", str(rows), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "{\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_two_files_without_weights_are_every_row_once(tmp_path: Path) -> None:
    for name, words in (("a.jsonl", ("one", "two")), ("b.jsonl", ("three",))):
        (tmp_path / name).write_text("".join(json.dumps({"prompt": word}) + "\n" for word in words), encoding="utf-8")
    rows = read_rows(f"{tmp_path}/a.jsonl,{tmp_path}/b.jsonl", None, 0)
    assert sorted(row.prompt[-1].content for row in rows) == ["one", "three", "two"]
    weighted = read_rows(f"{tmp_path}/a.jsonl:0.01,{tmp_path}/b.jsonl:0.99", None, 0)
    assert [row.prompt[-1].content for row in weighted].count("three") >= 2
