"""`accord export`: every form is written, loaded again and compared; what answers as another model is not kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

import tiny
import tiny_gguf
from accord.cli import main
from accord.config.export import EXPORT_FORMS
from accord.data.render import Renderer
from accord.errors import MachineError
from accord.evaluation.same_answers import difference, greedy_answers
from accord.models.adapters import PolicyModel
from accord.models.load import resolve
from accord.models.opened import open_model
from accord.models.save import save_policy
from accord.recipes import take_home as module
from accord.recipes.take_home import serving_lines, take_home

IDS = torch.tensor([[5, 6, 7, 8, 90, 31]])
FORMS: dict[str, tuple[str, ...]] = {
    "llama": EXPORT_FORMS,
    "qwen2": ("merged", "gguf-f16"),
    "qwen3": ("adapter", "gguf-q8_0"),
    "gemma3_text": ("merged", "gguf-f16", "gguf-q4_0"),
}
"""All forms, and all families, without every pair of them."""


def trained(tmp_path: Path, architecture: str = "llama", *flags: str, stored: torch.dtype = torch.float32) -> Path:
    """A DPO run of a few steps at a rate that changes answers."""
    tiny_gguf.saved(tmp_path / "base", architecture)[1].to(stored).save_pretrained(tmp_path / "base", max_shard_size="60KB")
    run = tmp_path / "runs" / "dpo"
    given = ["--model", str(tmp_path / "base"), "--data", str(tiny.pairs_file(tmp_path)), "--output_dir", str(run)]
    assert main(["dpo", *given, "--max_steps", "4", "--learning_rate", "5e-3", *flags]) == 0
    return run


def exported(capsys: pytest.CaptureFixture[str], source: Path, form: str, target: Path, *more: str) -> str:
    """What the command says."""
    capsys.readouterr()
    assert main(["export", str(source), "--to", form, "--output_dir", str(target), "--prompts", "3", *more]) == 0, form
    return capsys.readouterr().out


@pytest.mark.parametrize("architecture", FORMS)
def test_every_form_and_every_family(architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, architecture)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")(IDS).logits.log_softmax(-1)
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(run))(IDS).logits.log_softmax(-1)
    assert float((plain - expected).abs().max()) > 0.1  # or a form that forgets the adapter would pass
    for form in FORMS[architecture]:
        target = tmp_path / "out" / form
        said = exported(capsys, run, form, target)
        assert "of 3 greedy answers and" in said and "log-probs of these tokens differ by" in said and "Serve it with:" in said
        card = (target / "README.md").read_text(encoding="utf-8")
        assert "# DPO on base" in card and f"Written as {form}, loaded again and compared" in card and str(tmp_path) not in card
        assert "8 rows, content hash" in card and (target / "run.json").is_file()
        assert not (target / "merged").exists() and not list(tmp_path.rglob("*.partial"))
        if form in ("merged", "adapter"):
            whole = AutoModelForCausalLM.from_pretrained(target if form == "merged" else tmp_path / "base")
            model = whole if form == "merged" else PeftModel.from_pretrained(whole, str(target))
            assert "3 of 3 greedy answers and 100.0% of their tokens are the same" in said and "vllm serve" in said
        else:
            (file,) = target.glob("*.gguf")
            model = AutoModelForCausalLM.from_pretrained(target, gguf_file=file.name, dtype=torch.float32)
            assert f"llama-server -m {target.as_posix()}/{file.name} --jinja" in said and "ollama create" in said
            modelfile = (target / "Modelfile").read_text(encoding="utf-8")
            if form == "gguf-q4_0":
                share = re.search(r"and ([\d.]+)% of their tokens", said)
                assert share is not None and ("--to gguf-q8_0 stays nearer" in said) == (float(share[1]) < 90)
            assert modelfile.startswith(f'FROM ./{file.name}\nTEMPLATE """') and 'PARAMETER stop "<|end|>"' in modelfile
        with torch.no_grad():
            gap = float((model(IDS).logits.log_softmax(-1) - expected).abs().max())
        assert gap < {"merged": 1e-4, "adapter": 1e-4, "gguf-f16": 0.02, "gguf-q4_0": 3.0}.get(form, 0.3), (form, gap)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_a_run_on_a_held_base_goes_home_as_it_was_trained(stored: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Merged in float32 onto what the base computed with, so the comparison holds to 1e-3; the adapter alone says what it lies on."""
    run = trained(tmp_path, "llama", "--weights", "nf4", stored=stored)
    said = "".join(exported(capsys, run, form, tmp_path / form) for form in ("merged", "adapter", "gguf-f16"))
    assert said.count("The adapter was trained on its base held in nf4") == 1
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert type(merged.model.layers[0].mlp.up_proj) is torch.nn.Linear and {value.dtype for value in merged.parameters()} == {torch.float32}
    cards = {form: (tmp_path / form / "README.md").read_text(encoding="utf-8") for form in ("merged", "adapter", "gguf-f16")}
    assert all("The base was held in nf4 in training" in card for card in cards.values())
    assert {form for form, card in cards.items() if "on the base in full precision the adapter's log-probs differ" in card} == {"adapter"}
    assert {form for form, card in cards.items() if "merged onto the numbers that it was trained on" in card} == {"merged", "gguf-f16"}
    assert "log-probs differ by that rounding" in (run / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_run_that_bitsandbytes_held_says_what_it_was_merged_onto(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a GPU the base is bitsandbytes', and the adapter is saved for the base as it was released: its record alone knows."""
    run = trained(tmp_path)
    assert "by bitsandbytes" not in exported(capsys, run, form, tmp_path / "before")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    record["config"]["weights"] = "nf4"
    (run / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert exported(capsys, run, form, tmp_path / "after").count("nf4 by bitsandbytes") == 1


def test_an_adapter_on_a_shared_head_leaves_the_embeddings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Merged, the head has weights of its own: written back onto the embeddings they would change what the model reads."""
    tiny_gguf.saved(tmp_path / "base", "llama", tie_word_embeddings=True)
    opened = open_model(str(tmp_path / "base"), dtype="float32")
    stack = opened.policy.add_adapter("sft", LoraConfig(r=4, target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM"))
    tiny.shake(opened.policy, "sft")
    save_policy(opened.policy, stack, opened.tokenizer, tmp_path / "run")
    with torch.no_grad(), opened.policy.using(stack, packed=False):
        expected = opened.policy.model(IDS).logits.log_softmax(-1)
    for form in ("merged", "gguf-f16"):
        exported(capsys, tmp_path / "run", form, tmp_path / form)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    (file,) = (tmp_path / "gguf-f16").glob("*.gguf")
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf-f16", gguf_file=file.name, dtype=torch.float32)
    assert not merged.config.tie_word_embeddings and not half.config.tie_word_embeddings
    with torch.no_grad():
        for model, most in ((merged, 1e-4), (half, 0.02)):
            assert float((model(IDS).logits.log_softmax(-1) - expected).abs().max()) < most


def test_stories260k_goes_home(shared_data: Path, tmp_path: Path) -> None:
    """A real model with a sentencepiece tokenizer: nearly the same stories from half precision and from eight bits."""
    folder = resolve("stories260k", cache=tmp_path / "cache", files=shared_data / "stories260k", quiet=True).folder
    half = take_home(folder, "gguf-f16", tmp_path / "half", prompts=6)
    assert half.difference.same >= 4 and half.difference.same_tokens > 0.98 and half.difference.largest < 0.02
    rounded = take_home(folder, "ollama", tmp_path / "ollama", prompts=6)
    assert rounded.difference.same_tokens > 0.9 and rounded.difference.mean < 0.05
    assert any("ollama create" in line for line in rounded.lines)
    assert "Only exported by accord, not trained" in (tmp_path / "ollama" / "README.md").read_text(encoding="utf-8")


def test_what_answers_as_another_model_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in writing (here: the adapters are forgotten) is found by the comparison, and nothing is left."""
    run = trained(tmp_path)
    export = module.export_merged
    monkeypatch.setattr(module, "export_merged", lambda policy, stack, tokenizer, folder: export(policy, (), tokenizer, folder))
    with pytest.raises(MachineError, match=r"answers as another model: \d of 2 greedy answers"):
        take_home(str(run), "merged", tmp_path / "out", prompts=2)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_what_a_licence_wants_beside_every_copy_goes_along(tmp_path: Path) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "base", "llama")
    (folder / "NOTICE.txt").write_text("Provided under terms.\n", encoding="utf-8")
    take_home(str(folder), "gguf-q4_0", tmp_path / "out", prompts=1)
    assert (tmp_path / "out" / "NOTICE.txt").read_text(encoding="utf-8") == "Provided under terms.\n"


def test_a_merged_folder_has_what_llama_cpps_converter_reads_a_tokenizer_from(tmp_path: Path) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "base", "gemma3_text")
    (folder / "tokenizer.model").write_bytes(b"pieces")
    for form, kept in (("merged", True), ("gguf-f16", False)):
        take_home(str(folder), form, tmp_path / form, prompts=1)
        assert (tmp_path / form / "tokenizer.model").exists() == kept


@pytest.mark.parametrize(
    "changes, room",
    [
        ({"r": 4}, 8),
        ({"r": 300}, 320),
        ({"r": 384}, 512),
        ({"r": 16, "rank_pattern": {"q_proj": 40}}, 64),
        ({"r": 600}, None),
        ({"r": 8, "use_dora": True}, None),
        ({"r": 8, "bias": "lora_only"}, None),
        ({"peft_type": "IA3"}, None),
    ],
)
def test_vllm_is_told_what_it_reads(changes: dict[str, Any], room: int | None, tmp_path: Path) -> None:
    """vLLM knows these ranks, neither DoRA nor biases, and of tokenizer, template and stops the base's, unless it is told."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", **changes}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    at = tmp_path.as_posix()
    lines = list(serving_lines("adapter", tmp_path, "mine"))
    assert lines == ([] if room is None else [f"vllm serve org/base --enable-lora --max-lora-rank {room} --lora-modules mine={at}"])
    for name in ("tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    own = f"vllm serve org/base --tokenizer {at} --generation-config {at} --enable-lora"
    assert all(line.startswith(own) for line in serving_lines("adapter", tmp_path, "mine"))


def test_an_adapter_on_a_model_of_the_hub_names_it_as_other_machines_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tmp_path / "models--org--tiny" / "snapshots" / "abc123"
    tiny_gguf.saved(base, "llama")
    run, _ = saved_run(tmp_path / "run", base, tiny.lora(), tiny.lora())
    said = exported(capsys, run, "adapter", tmp_path / "out")
    for path in (tmp_path / "out").rglob("adapter_config.json"):
        its = json.loads(path.read_text(encoding="utf-8"))
        assert (its["base_model_name_or_path"], its["revision"]) == ("org/tiny", "abc123")
    assert json.loads((tmp_path / "out" / "stack.json").read_text(encoding="utf-8"))["base"] == "org/tiny@abc123"
    assert "vllm serve org/tiny --tokenizer" in said and "--revision abc123" in said and "folder of this machine" not in said
    assert "base_model: org/tiny\n" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    local = trained(tmp_path)
    assert "Its base is a folder of this machine" in exported(capsys, local, "adapter", tmp_path / "local")


def test_an_adapter_that_vllm_does_not_read_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_gguf.saved(tmp_path / "base", "llama")
    run, _ = saved_run(tmp_path / "run", tmp_path / "base", tiny.lora(use_dora=True))
    said = exported(capsys, run, "adapter", tmp_path / "out")
    assert "vLLM does not read an adapter of this kind" in said and "vllm serve" not in said


def test_differences_are_counted_on_the_first_models_answers() -> None:
    """Known answers: the same model differs by nothing; one whose head is scaled by 2 does by what its logits say."""
    policy = tiny.policy(tie_word_embeddings=False)
    renderer = Renderer(tiny.tokenizer(), end_ids=[2])
    before = greedy_answers(policy, (), renderer, ["Why?", "How?"], max_new_tokens=5)
    same = difference(before, policy, (), renderer)
    assert (same.prompts, same.same, same.same_tokens) == (2, 2, 1.0) and same.largest < 1e-5
    other = PolicyModel(tiny.model(tie_word_embeddings=False), packed=True)
    gaps = []
    with torch.no_grad():
        other.model.lm_head.weight *= 2
        for prompt, answer in zip(before.prompts, before.answers, strict=True):
            logits = policy.model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            gaps += ((2 * logits).log_softmax(-1) - logits.log_softmax(-1))[range(len(answer)), list(answer)].abs().tolist()
    found = difference(before, other, (), renderer)
    assert (found.same, found.same_tokens) == (2, 1.0)  # greedy answers do not change, their probabilities do
    assert found.largest == pytest.approx(max(gaps), abs=1e-4) and found.mean == pytest.approx(sum(gaps) / len(gaps), abs=1e-4)


def test_a_question_longer_than_the_model_loses_its_beginning() -> None:
    policy = tiny.policy(max_position_embeddings=40)
    before = greedy_answers(policy, (), Renderer(tiny.tokenizer(), end_ids=[2]), ["x" * 100], max_new_tokens=8)
    assert len(before.prompts[0]) == 32 and before.prompts[0][-10:] == tuple(tiny.tokenizer()("assistant\n")["input_ids"])


@pytest.mark.parametrize(
    "given, said",
    [
        (["--to", "gguf-f16", "--merged", "false"], "says what is written"),
        (["--to", "folder", "--output_dir", "other"], "is a folder already"),
        (["--to", "merged", "--prompts", "0"], "must be 1 to 200"),
        (["--to", "adapter", "--output_dir", "out"], "nowhere has no adapter_config.json"),
        (["--to", "gguf-q8_0", "--output_dir", "taken"], "Name a new folder: --output_dir FOLDER"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    given: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("there", encoding="utf-8")
    assert main(["export", "nowhere", *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_what_has_no_form_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_gguf.saved(tmp_path / "phi", "phi3")

    def refused(source: Path, form: str) -> str:
        capsys.readouterr()
        assert main(["export", str(source), "--to", form, "--output_dir", str(tmp_path / "out"), "--prompts", "1"]) == 2
        assert not (tmp_path / "out").exists()
        return [line for line in capsys.readouterr().err.splitlines() if "Error" in line][-1]

    assert "this one is phi3" in refused(tmp_path / "phi", "ollama")
    opened = open_model(str(tmp_path / "phi"), dtype="float32")
    opened.policy.add_adapter("sft", tiny.lora())
    stack = opened.policy.add_adapter("dpo", tiny.lora(use_dora=True))
    save_policy(opened.policy, stack, opened.tokenizer, tmp_path / "dora")
    assert "carries 2 adapters, and one of them is of a kind that reads the layer's own weight" in refused(tmp_path / "dora", "merged")
    assert main(["export", "nowhere", "--to", "gguf-q4_k_m"]) == 2 and "the forms are merged, adapter" in capsys.readouterr().err


def saved_run(folder: Path, base: Path, *adapters: Any) -> tuple[Path, torch.Tensor]:
    """A run of these adapters, each shaken, and its log-probs."""
    opened = open_model(str(base), dtype="float32")
    stack: tuple[str, ...] = ()
    for number, config in enumerate(adapters):
        stack = opened.policy.add_adapter(f"step{number}", config)
        tiny.shake(opened.policy, f"step{number}")
    save_policy(opened.policy, stack, opened.tokenizer, folder)
    with torch.no_grad(), opened.policy.using(stack, packed=False):
        return folder, opened.policy.model(IDS).logits.log_softmax(-1)


def gap_of(folder: Path, expected: torch.Tensor) -> float:
    with torch.no_grad():
        return float((AutoModelForCausalLM.from_pretrained(folder)(IDS).logits.log_softmax(-1) - expected).abs().max())


@pytest.mark.parametrize(
    ("architecture", "adapters"),
    [
        (
            "llama",
            ({}, {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]}),
        ),  # SFT on all layers, then DPO on the upper half
        ("llama", ({"use_dora": True},)),
        ("llama", ({"use_rslora": True, "lora_alpha": 3}, {"target_modules": ["q_proj"]})),
        ("llama", ({"target_modules": ["embed_tokens", "q_proj"]},)),
        ("gpt2", ({"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},)),
    ],
    ids=["upper half", "dora", "two scalings", "embeddings", "conv1d"],
)
def test_whatever_was_trained_is_merged(architecture: str, adapters: tuple[dict[str, Any], ...], tmp_path: Path) -> None:
    tiny_gguf.saved(tmp_path / "base", architecture, tie_word_embeddings=True)
    made = [LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **given}) for given in adapters]
    run, expected = saved_run(tmp_path / "run", tmp_path / "base", *made)
    taken = take_home(str(run), "merged", tmp_path / "out", prompts=2)
    assert taken.difference.largest < 1e-4 and gap_of(tmp_path / "out", expected) < 1e-4
    assert gap_of(tmp_path / "base", expected) > 0.01


def test_merging_leaves_the_policy_as_it_was(tmp_path: Path) -> None:
    tiny_gguf.saved(tmp_path / "base", "llama", tie_word_embeddings=True)
    opened = open_model(str(tmp_path / "base"), dtype="float32")
    config = LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], use_dora=True, task_type="CAUSAL_LM")
    stack = opened.policy.add_adapter("sft", config)
    tiny.shake(opened.policy, "sft")
    weights = {name: value.clone() for name, value in opened.policy.model.state_dict().items()}

    def answer() -> torch.Tensor:
        with torch.no_grad(), opened.policy.using(stack, packed=False):
            return opened.policy.model(IDS).logits

    before = answer()
    module.export_merged(opened.policy, stack, opened.tokenizer, tmp_path / "out")
    assert all(torch.equal(value, weights[name]) for name, value in opened.policy.model.state_dict().items())
    assert torch.equal(answer(), before)
    assert opened.policy.model.lm_head.weight is opened.policy.model.get_input_embeddings().weight


def test_an_adapter_goes_without_what_a_run_keeps_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels have the names of people, and a database's address may have a password."""
    run = trained(tmp_path)
    (tmp_path / "base" / "LICENSE").write_text("Terms.\n", encoding="utf-8")
    (tmp_path / "base" / "LICENSES").mkdir()
    for name in ("labels/annotations.sqlite", "labels/project.yaml", "checkpoint-2/model.bin", "report.html", "rows.jsonl"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("secret", encoding="utf-8")
    run = run.rename(run.with_name("stack"))  # as the folder of its adapters is called
    exported(capsys, run, "adapter", tmp_path / "out")
    assert main(["export", str(run), "--to", str(tmp_path / "copy"), "--merged", "false"]) == 0
    for folder in (tmp_path / "out", tmp_path / "copy"):
        assert not [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"secret"]
        assert (folder / "stack" / "0-dpo").is_dir() and (folder / "tokenizer.json").is_file()
    assert (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8") == "Terms.\n" and not (tmp_path / "out" / "LICENSES").exists()


def test_a_run_of_all_weights_keeps_its_bases_licence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "llama", "--lora_r", "0")
    (tmp_path / "base" / "NOTICE").write_text("Notice.\n", encoding="utf-8")
    exported(capsys, run, "merged", tmp_path / "out")
    assert (tmp_path / "out" / "NOTICE").read_text(encoding="utf-8") == "Notice.\n"


def test_memory_for_the_copies_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model = tiny_gguf.saved(tmp_path / "base", "llama")
    weights = sum(parameter.numel() for parameter in model.parameters())
    monkeypatch.setattr(module, "available_memory", lambda _: 8 * weights - 1)
    with pytest.raises(MachineError, match="of memory"):
        take_home(str(folder), "merged", tmp_path / "out", prompts=1)
    assert not (tmp_path / "out").exists()
    take_home(str(folder), "merged", tmp_path / "out", prompts=1, force=True)


def test_a_base_in_four_bits_asks_for_the_memory_of_all_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is half a byte a weight, and what is written four, three times."""
    run = trained(tmp_path, "llama", "--weights", "nf4")
    weights = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_pretrained(tmp_path / "base").parameters())
    monkeypatch.setattr(module, "available_memory", lambda _: 12 * weights - 1)
    with pytest.raises(MachineError, match="of memory"):
        take_home(str(run), "merged", tmp_path / "out", prompts=1)
    monkeypatch.setattr(module, "available_memory", lambda _: 12 * weights)
    take_home(str(run), "merged", tmp_path / "out", prompts=1)


def test_where_ollama_has_no_words_it_is_not_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "base", "llama")
    tokenizer = tiny_gguf.tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    said = exported(capsys, folder, "ollama", tmp_path / "out")
    assert "it would send plain text. Serve the file with llama-server --jinja." in said and "ollama create" not in said
