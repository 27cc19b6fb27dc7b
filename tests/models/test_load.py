"""What the user may name, what is refused in one line, and what a tokenizer is given when something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny
from accord.cli import main
from accord.errors import AccordError, ConfigError, MachineError
from accord.models import folders
from accord.models.cache import RECORD, build_once, cache_folder, read_record
from accord.models.load import load_model, load_tokenizer, pick_device, pick_dtype, resolve
from accord.models.opened import open_model
from accord.models.tokens import PLAIN_TEMPLATE_NAME, cuts_as_written, ensure_pad, ensure_template, set_stops, stop_token_ids

IDS = torch.tensor([[5, 17, 99, 200, 31]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder."""
    path = tmp_path / "model"
    tiny.model("llama").save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def fails(what: Any, kind: type[AccordError], code: int) -> str:
    with pytest.raises(kind) as caught:
        what()
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what works -------------------------------------------------------------------------------------------------------------------


def test_a_local_folder_is_loaded_whole_and_still(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# Card\n", encoding="utf-8")
    found = resolve(folder)
    assert capsys.readouterr().err == f"{found}\n"
    assert (found.folder, found.licence, found.source) == (str(folder), "mit", "local folder")
    model = load_model(found, dtype="float32", device="cpu")
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, tiny.model("llama")(IDS).logits)
    assert load_tokenizer(found).pad_token == "<|pad|>"


def test_the_hash_is_of_the_weights(folder: Path) -> None:
    import hashlib

    raw = (folder / "model.safetensors").read_bytes()
    assert resolve(folder).sha256 == hashlib.sha256(raw).hexdigest()
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert resolve(folder).sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_shards_are_loaded_and_hashed_together(folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    tiny.model("llama").save_pretrained(sharded, max_shard_size="20KB")
    assert len(folders.weight_files(sharded)) > 1
    found = resolve(sharded)
    assert len(found.sha256) == 64
    with torch.no_grad():
        assert torch.equal(load_model(found, dtype="float32", device="cpu")(IDS).logits, tiny.model("llama")(IDS).logits)


def test_half_weights_are_upcast_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tiny.model("llama").to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    model = load_model(resolve(tmp_path / "half"), dtype="float32", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.model.norm.weight, half.model.norm.weight.float())
    assert "stored in bfloat16, computed in float32" in capsys.readouterr().err


def test_dtype_follows_the_hardware() -> None:
    assert pick_device() in ("cuda", "mps", "cpu")
    assert pick_dtype("mps") == torch.float32
    assert pick_dtype("cpu") == torch.float32, "also where the CPU has instructions for bfloat16: what is around them is slower"


# -- bad names and damaged folders --------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest() -> None:
    assert "Did you mean smollm2-135m?" in fails(lambda: resolve("smolm2-135"), ConfigError, 2)
    assert "smollm2-135m" in fails(lambda: resolve("qqqq"), ConfigError, 2)
    for name in ("./run", "../run", "runs/demo/sft", "/no/such"):  # folders that are not there, never asked of the hub
        assert f'no model, folder or file called "{name}"' in fails(lambda name=name: resolve(name), ConfigError, 2)


def test_a_hub_id_offline_is_one_line() -> None:
    message = fails(lambda: resolve("nobody-xyz/no-such-model"), MachineError, 4)
    assert "nobody-xyz/no-such-model" in message


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub's own cache looks like after ORG/NAME was downloaded once; the folder of its one revision."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    revision = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "hub" / "models--ORG--NAME"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(revision, encoding="utf-8")
    return model / "snapshots" / revision


def test_a_hub_id_that_was_downloaded_before_works_offline(hub: Path) -> None:
    tiny.model("llama").save_pretrained(hub)
    tiny.tokenizer().save_pretrained(hub)
    found = resolve("ORG/NAME")
    assert (found.name, found.source) == ("ORG/NAME", "the hub, revision 0123456789ab")
    with torch.no_grad():
        assert torch.equal(load_model(found, dtype="float32", device="cpu")(IDS).logits, tiny.model("llama")(IDS).logits)


def test_a_hub_model_of_pickles_is_refused(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "config.json").write_text("{}", encoding="utf-8")
    (hub / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pickled" in fails(lambda: resolve("ORG/NAME"), MachineError, 4)


def test_a_local_folder_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.model("llama").save_pretrained(tmp_path / "runs" / "mine")
    assert resolve("runs/mine").source == "local folder"


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "config.json" in fails(lambda: resolve(folder), MachineError, 4)


def test_a_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla', encoding="utf-8")
    assert "not JSON" in fails(lambda: resolve(folder), MachineError, 4)


def test_a_config_that_describes_no_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change in ({"num_attention_heads": 0}, {"hidden_size": "large"}):
        (folder / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
        for opening in (lambda: load_model(resolve(folder)), lambda: open_model(str(folder), before_loading=lambda found: None)):
            assert "config.json describes no model" in fails(opening, MachineError, 4)


def test_a_folder_of_adapters_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "ORG/BASE"}), encoding="utf-8")
    assert "ORG/BASE" in fails(lambda: resolve(tmp_path), MachineError, 4)


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_cut_safetensors(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "cut" in fails(lambda: resolve(folder), MachineError, 4)


def test_a_missing_shard(tmp_path: Path) -> None:
    tiny.model("llama").save_pretrained(tmp_path, max_shard_size="20KB")
    gone = folders.weight_files(tmp_path)[1]
    gone.unlink()
    assert gone.name in fails(lambda: resolve(tmp_path), MachineError, 4)


def test_a_folder_of_pickles_is_refused(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin" in fails(lambda: resolve(folder), MachineError, 4)


def test_a_weight_left_out_is_refused_not_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    message = fails(lambda: load_model(resolve(folder), device="cpu"), MachineError, 4)
    assert "model.layers.1.mlp.up_proj.weight" in message


def test_a_weight_of_another_shape_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight" in fails(lambda: load_model(resolve(folder), device="cpu"), MachineError, 4)


def test_a_model_with_its_own_code_needs_consent(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    assert "trust_remote_code" in fails(lambda: load_model(resolve(folder)), ConfigError, 2)


def test_a_quantised_checkpoint_is_refused_with_what_to_take(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}}), encoding="utf-8"
    )
    assert "gptq" in fails(lambda: load_model(resolve(folder)), MachineError, 4)


def test_a_missing_gguf_file_and_a_damaged_tokenizer(folder: Path, tmp_path: Path) -> None:
    assert "gone.gguf" in fails(lambda: resolve(tmp_path / "gone.gguf"), MachineError, 4)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    fails(lambda: load_tokenizer(resolve(folder)), MachineError, 4)


# -- pad, template, stops ---------------------------------------------------------------------------------------------------------


def wordy(*tokens: str, **named: str) -> Any:
    """A tokenizer with exactly these tokens; those in angle brackets are special."""
    backend = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=tokens[0]))
    backend.add_special_tokens([token for token in tokens if token.startswith("<")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


@pytest.mark.parametrize(
    ("tokens", "named", "expected"),
    [
        (("<unk>", "</s>", "<pad>", "<unused0>"), {"eos_token": "</s>"}, "<pad>"),
        (("<|endoftext|>", "<|im_end|>", "<|reserved_special_token_0|>"), {"eos_token": "<|im_end|>"}, "<|reserved_special_token_0|>"),
        (("<unk>", "<s>", "</s>"), {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}, "<unk>"),
        (
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"},
            "<|endoftext|>",
        ),
        (("<|endoftext|>", "<|im_end|>", "<|vision_pad|>"), {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, "<|vision_pad|>"),
        (("a", "ÿ", "<|endoftext|>"), {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}, "ÿ"),
    ],
)
def test_the_pad_is_an_existing_token_that_is_not_the_end(tokens: tuple[str, ...], named: dict[str, str], expected: str) -> None:
    tokenizer = wordy(*tokens, **named)
    before = len(tokenizer)
    assert expected in ensure_pad(tokenizer)
    assert tokenizer.pad_token == expected
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == before
    assert ensure_pad(tokenizer) is None


def test_no_end_token_and_no_possible_pad_are_errors() -> None:
    assert "end-of-sequence" in fails(lambda: ensure_pad(wordy("a", "<b>")), ConfigError, 2)
    assert "pad" in fails(lambda: ensure_pad(wordy("a", "</s>", eos_token="</s>")), ConfigError, 2)


def test_the_fallback_template_uses_existing_tokens_and_is_saved(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer(template=False)
    before = len(tokenizer)
    assert PLAIN_TEMPLATE_NAME in ensure_template(tokenizer)
    assert ensure_template(tokenizer) is None
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "Why"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == "### User:\nHi\n\n### Assistant:\nYes<|end|>\n\n### User:\nWhy\n\n### Assistant:\n"
    assert tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": "So"}], tokenize=False).startswith(prompt)
    assert len(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template


def test_stops_are_the_end_of_turn_the_end_and_the_generation_configs() -> None:
    tokenizer, model = tiny.tokenizer(), tiny.model("llama")
    tokenizer.eos_token = "<|pad|>"  # a base model's end token, with a template that ends turns by another one
    model.generation_config.eos_token_id = [2, 7]
    assert stop_token_ids(tokenizer) == [2, 0]
    assert stop_token_ids(tokenizer, model.generation_config) == [2, 0, 7]
    tokenizer.pad_token = "<|start|>"
    set_stops(model, tokenizer)
    assert model.generation_config.eos_token_id == [2, 0, 7]
    assert model.generation_config.pad_token_id == 1


def test_a_start_token_that_is_the_end_token_too_is_the_end(tmp_path: Path) -> None:
    """GPT-2, GPT-NeoX, Pythia: one token for both. Such a model is opened, trained and saved, and answers end with it."""
    tokenizer = tiny.tokenizer(template=False)
    tokenizer.bos_token = tokenizer.eos_token
    assert stop_token_ids(tokenizer) == [tokenizer.eos_token_id]
    tiny.model("gpt2").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    run = tmp_path / "run"
    given = ["--model", str(tmp_path / "base"), "--data", str(tiny.pairs_file(tmp_path)), "--output_dir", str(run), "--max_steps", "1"]
    assert main(["dpo", *given]) == 0
    assert open_model(str(run)).renderer.end_ids == [tokenizer.eos_token_id]


def test_text_is_cut_as_the_folder_says(folder: Path) -> None:
    """SmolLM2's folder on the hub names GPT-2's class, whose rule transformers 5 puts in place of the folder's own, which splits digits."""
    written = tiny.tokenizer()
    written.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    written.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "GPT2Tokenizer"}), encoding="utf-8")
    found = load_tokenizer(resolve(folder))
    rule = json.loads(found.backend_tokenizer.to_str())["pre_tokenizer"]
    assert "Digits" in json.dumps(rule) and cuts_as_written(found, folder)
    text = "Steps:\n\n1. the  12 of\n    3"
    assert found.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text) == written.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert (found.eos_token, found.pad_token, found.chat_template) == (written.eos_token, written.pad_token, written.chat_template)


def test_gpt2s_folder_says_little_and_is_read(tmp_path: Path) -> None:
    """An old tokenizer.json without `use_regex`, and settings that name no token: the class knows them."""
    tiny.model("gpt2").save_pretrained(tmp_path)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate([*tokens, "<|endoftext|>"])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<|endoftext|>"])
    file = json.loads(backend.to_str())
    file["pre_tokenizer"].pop("use_regex")
    (tmp_path / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}), encoding="utf-8")
    found = load_tokenizer(resolve(tmp_path))
    assert (found.eos_token, found.bos_token, found.pad_token) == ("<|endoftext|>", "<|endoftext|>", "ÿ") and cuts_as_written(
        found, tmp_path
    )
    assert stop_token_ids(found) == [256]


def test_published_settings_of_sampling_stop_no_save(tmp_path: Path) -> None:
    """Llama 2's have a temperature and no `do_sample`: transformers warns of it, and refuses to save it once anything else is changed."""
    tokenizer, model = tiny.tokenizer(), tiny.model("llama")
    model.generation_config.eos_token_id = 0
    model.generation_config.temperature, model.generation_config.top_p = 0.9, 0.6
    set_stops(model, tokenizer)
    model.save_pretrained(tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    assert kept["eos_token_id"] == [2, 0] and (kept["do_sample"], kept["temperature"], kept["top_p"]) == (True, 0.9, 0.6)
    greedy = tiny.model("llama")
    set_stops(greedy, tokenizer)
    assert greedy.generation_config.do_sample is not True


# -- the cache ----------------------------------------------------------------------------------------------------------------------


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise MachineError("stopped")

    with pytest.raises(MachineError, match="stopped"):
        build_once(tmp_path / "models" / "m", broken, {"name": "m"})
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.endswith(".lock")] == []
    build_once(tmp_path / "models" / "m", lambda folder: None, {"name": "m"})
    assert read_record(tmp_path / "models" / "m") == {"name": "m"}


def test_a_folder_that_was_never_finished_is_built_anew(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "half").write_text("x", encoding="utf-8")
    build_once(tmp_path / "m", lambda folder: (folder / "whole").touch(), {"name": "m"})
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [RECORD, "whole"]


BUILDER = """
import sys, time
from pathlib import Path
from accord.models.cache import build_once
target, log = Path(sys.argv[1]), Path(sys.argv[2])
def build(folder):
    with log.open("a", encoding="utf-8") as counter:
        counter.write("built\\n")
    time.sleep(0.3)
    (folder / "weights").write_text("whole", encoding="utf-8")
build_once(target, build, {"name": "m"})
assert (target / "weights").read_text(encoding="utf-8") == "whole"
"""


def test_processes_that_come_together_build_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "m"), str(tmp_path / "log")]
    assert [process.wait() for process in [subprocess.Popen(command) for _ in range(3)]] == [0, 0, 0]
    assert (tmp_path / "log").read_text(encoding="utf-8") == "built\n"


def test_a_record_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"schema": 99, "model": {}}', encoding="utf-8")
    assert "newer" in fails(lambda: read_record(tmp_path), MachineError, 4)
    (tmp_path / RECORD).write_text("{", encoding="utf-8")
    assert "damaged" in fails(lambda: read_record(tmp_path), MachineError, 4)


def test_the_cache_moves_with_its_variable(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == own_cache
    monkeypatch.delenv("ACCORD_CACHE")
    assert cache_folder().name == "accord"
    assert cache_folder().is_relative_to(Path.home()) or "XDG_CACHE_HOME" in os.environ
