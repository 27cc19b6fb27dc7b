"""Memory is asked for before a weight is read, wherever a model is loaded, and what is refused can be forced.

The model that is too large is a tiny one whose file also holds a tensor of many gigabytes (a hole in the file) that no layer uses: its
size is real to whoever reads the file's header, and loading it all the same works on any machine.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import tiny
from accord import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from accord.cli import main
from accord.errors import MachineError
from accord.models.free_memory import available_memory
from accord.models.load import load_model, resolve
from accord.models.opened import open_model

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="files have no holes there")


@pytest.fixture
def large(tmp_path: Path) -> Callable[[float], Path]:
    """Makes a model folder whose weights in float32 take this share of the free memory."""

    def make(share: float) -> Path:
        folder = tmp_path / "large"
        tiny.model().save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        path = folder / "model.safetensors"
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header, weights = json.loads(data[8 : 8 + length]), data[8 + length :]
        more = int(share * available_memory() / 4)
        header["unused.weight"] = {"dtype": "F8_E4M3", "shape": [more], "data_offsets": [len(weights), len(weights) + more]}
        text = json.dumps(header).encode("utf-8")
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + weights)
            file.truncate(file.tell() + more)
        model = {"name": "large", "folder": str(folder), "source": "a test", "licence": "none", "sha256": "0" * 64}
        (folder / "accord.json").write_text(json.dumps({"schema": 1, "model": model}), encoding="utf-8")  # the file need not be hashed
        return folder

    return make


def rows(path: Path) -> str:
    pairs = [{"prompt": f"Pick {i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    return str(path)


def test_every_command_that_loads_a_model_asks_first(
    large: Callable[[float], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, pairs = str(large(4.0)), rows(tmp_path / "pairs.jsonl")
    monkeypatch.chdir(tmp_path)
    say = ["--prompt", "Hi", "--max_new_tokens", "2"]
    commands = [
        ["chat", folder, *say],
        ["sample", folder, *say],
        ["evaluate", folder, "--data", pairs],
        ["export", folder, "--to", "out"],
    ]
    for command in [*commands, ["align", pairs, "--model", folder]]:
        assert main(command) == 4, command
        errors = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
        assert len(errors) == 1 and "Loading large needs" in errors[0] and "GB are free. What would fit: a model of at most" in errors[0]
    assert not (tmp_path / "out").exists()
    for command in commands:
        code = main([*command, "--force"])
        errors = [line for line in capsys.readouterr().err.splitlines() if "Error" in line]
        if command[0] == "evaluate":  # it gets past the memory, and then finds that this folder has learned nothing
            assert code == 2 and len(errors) == 1 and "is no run of accord" in errors[0]
        else:
            assert code == 0 and not errors, command


def test_the_library_asks_too(large: Callable[[float], Path], tmp_path: Path) -> None:
    found = resolve(large(4.0))
    with pytest.raises(MachineError, match="Loading large needs .* million weights"):
        load_model(found, dtype="float32", device="cpu")
    with pytest.raises(MachineError, match="Loading large needs"):
        open_model(found.folder)
    config = SFTConfig(output_dir=str(tmp_path / "run"))
    with pytest.raises(MachineError, match="Loading large needs"):
        SFTTrainer(found.folder, config, tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    assert not (tmp_path / "run").exists()
    assert load_model(found, dtype="float32", device="cpu", force=True).config.hidden_size == 32
    asked: list[str] = []
    opened = open_model(found.folder, dtype="float32", before_loading=lambda config: asked.append(config.model_type))
    assert asked == ["llama"] and opened.stack == ()  # a stage that planned its own memory is not asked again


def test_all_weights_need_gradients_and_moments_too(large: Callable[[float], Path], tmp_path: Path) -> None:
    """Half of the free memory for the weights: they load, LoRA and heads train on them, Adam on all of them does not fit."""
    folder = str(large(0.5))
    sft = SFTConfig(output_dir=str(tmp_path / "run"), dtype="float32")
    with pytest.raises(MachineError, match=r"Training all weights of large needs .* What would fit: LoRA \(pass a peft_config\)"):
        SFTTrainer(folder, sft, tiny.demonstrations(), processing_class=tiny.tokenizer())
    SFTTrainer(folder, sft, tiny.demonstrations(), processing_class=tiny.tokenizer(), peft_config=tiny.lora())
    heads = RewardConfig(output_dir=str(tmp_path / "heads"), backbone="heads", dtype="float32")
    RewardTrainer(folder, heads, tiny.pairs(), processing_class=tiny.tokenizer())
