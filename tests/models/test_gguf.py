"""GGUF files written from tiny random models, and read back: the logits must be those of the model that was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from accord.errors import MachineError
from accord.models.free_memory import available_memory
from accord.models.gguf import convert, unpermute
from accord.models.load import load_model, load_tokenizer, resolve
from accord.models.tokenizer_files import CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary, byte_level, sentencepiece_bpe

gguf = pytest.importorskip("gguf")

BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def pairwise(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows in the order where the pairs that rotate together are neighbours: row i of a head's first half, then row i of its second."""
    order = []
    width = weight.shape[0] // heads
    for head in range(heads):
        for i in range(width // 2):
            order += [head * width + i, head * width + width // 2 + i]
    return weight[order]


def write(path: Path, model: Any, architecture: str, *, leave_out: str = "", pre: str = "gpt-2", quantise: bool = False) -> None:
    """The model as llama.cpp's converter writes it."""
    config, tokenizer = model.config, tiny.tokenizer()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_license("apache-2.0")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim if hasattr(config, "head_dim") else config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    theta = config.rope_parameters.get("full_attention", config.rope_parameters)["rope_theta"]
    writer.add_rope_freq_base(theta)
    if architecture == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    tokens = [f"<unused{i}>" for i in range(config.vocab_size)]
    for token, index in tokenizer.get_vocab().items():
        tokens[index] = token
    merges = [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in tiny.SPECIALS or token.startswith("<unused") else NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)  # as SmolLM2's file does: the pad is the end token
    writer.add_chat_template(tiny.TEMPLATE)
    for name, parameter in model.named_parameters():
        stem, _, kind = name.rpartition(".")
        value = parameter.detach().numpy()
        if stem in TOP:
            theirs = TOP[stem]
        else:
            _, _, layer, rest = stem.split(".", 3)
            theirs = f"blk.{layer}.{(BLOCK | (GEMMA if architecture == 'gemma3' else {}))[rest]}"
            if architecture == "llama" and rest in ("self_attn.q_proj", "self_attn.k_proj"):
                value = pairwise(value, config.num_attention_heads if "q_proj" in rest else config.num_key_value_heads)
        if architecture == "gemma3" and stem.endswith("norm"):
            value = value + 1
        if leave_out and leave_out in theirs:
            continue
        if quantise and value.ndim == 2:
            packed = gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{theirs}.{kind}", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{theirs}.{kind}", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def converted(tmp_path: Path, model: Any, architecture: str, **options: Any) -> Path:
    write(tmp_path / "model.gguf", model, architecture, **options)
    folder = tmp_path / "folder"
    folder.mkdir()
    convert(tmp_path / "model.gguf", folder)
    return folder


IDS = torch.tensor([[5, 17, 99, 200, 31, 7, 64, 128, 9, 250, 11, 12]])
CASES = {
    "llama": ("llama", "llama", {}),
    "llama with its own head": (
        "llama",
        "llama",
        {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}},
    ),
    "qwen2": ("qwen2", "qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", "qwen3", {}),
    "gemma3": ("gemma3_text", "gemma3", {"num_hidden_layers": 7}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_converted_model_has_the_logits_it_was_written_with(case: str, tmp_path: Path) -> None:
    kind, architecture, changes = CASES[case]
    model = tiny.model(kind, **changes)
    folder = converted(tmp_path, model, architecture)
    back = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert type(back) is type(model)
    with torch.no_grad():
        assert torch.allclose(back(IDS).logits, model(IDS).logits, atol=1e-5)


def test_quantised_weights_come_back_within_their_step(tmp_path: Path) -> None:
    model = tiny.model("llama")
    back = AutoModelForCausalLM.from_pretrained(converted(tmp_path, model, "llama", quantise=True), dtype=torch.float32)
    for (name, before), after in zip(model.named_parameters(), back.parameters(), strict=True):
        step = before.abs().max() / 127 if before.dim() == 2 else 0.0  # its own rounding to half precision adds 2^-11 of the value
        assert (before - after).abs().max() <= step / 2 + 127 * step / 2048 + 1e-7, name


def test_one_q4_1_block_by_hand(tmp_path: Path) -> None:
    """32 weights: half-precision step 0.5 and offset -3, then nibbles; byte k holds weight k (low) and weight k + 16 (high)."""
    from gguf.quants import dequantize

    nibbles = bytes((k % 16) | ((15 - k % 16) << 4) for k in range(16))
    block = np.frombuffer(np.array([0.5, -3.0], dtype=np.float16).tobytes() + nibbles, dtype=np.uint8)[None]
    expected = [k * 0.5 - 3 for k in range(16)] + [(15 - k) * 0.5 - 3 for k in range(16)]
    assert dequantize(block, gguf.GGMLQuantizationType.Q4_1)[0].tolist() == expected


def test_unpermute_undoes_the_pairwise_order() -> None:
    rows = np.arange(24.0).reshape(24, 1)
    assert (unpermute(pairwise(rows, 3), 3) == rows).all()


def test_tokenizer_template_and_ends_survive(tmp_path: Path) -> None:
    folder = converted(tmp_path, tiny.model("llama"), "llama")
    back, before = AutoTokenizer.from_pretrained(folder), tiny.tokenizer()
    for text in ("the other thing is in", "two  spaces\n\n\ttab", "naïve 你好 🙂", "<|start|>user\nhi<|end|>\n", ""):
        assert back(text)["input_ids"] == before(text)["input_ids"]
        assert back.decode(back(text)["input_ids"]) == text
    assert back.chat_template == tiny.TEMPLATE
    assert back.eos_token_id == 2
    assert back.pad_token_id != 2
    assert json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"] == 2


def test_digits_stand_alone_where_the_model_was_trained_so() -> None:
    """SmolLM's cut: digits one by one, so two spaces before a number stay together; GPT-2's cut gives the number the second space."""
    tokens = ["<e>", "Ġ", "ĠĠ", "1", "2", "a"]
    vocabulary = Vocabulary(tokens=tokens, types=[CONTROL] + [NORMAL] * 5, bos=None, eos=0, unknown=None)
    assert byte_level(vocabulary, ["Ġ Ġ"], "smollm").tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert byte_level(vocabulary, ["Ġ Ġ"], "gpt-2").tokenize("a  12") == ["a", "Ġ", "Ġ", "1", "2"]


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes() -> None:
    tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "c", "ab", "bc", "▁ab", "▁▁"]
    scores = [0.0] * 9 + [-2.0, -1.0, -3.0, -9.0]
    types = [UNKNOWN, CONTROL, CONTROL, 6, 6, *[NORMAL] * 7, USER_DEFINED]
    made = sentencepiece_bpe(Vocabulary(tokens=tokens, types=types, bos=1, eos=2, unknown=0, add_bos=True), scores, prefix_space=True)
    assert made.tokenize("abc") == ["▁", "a", "bc"]  # bc scores above ab
    assert made.tokenize("ab") == ["▁ab"]
    assert made.tokenize("é") == ["▁", "<0xC3>", "<0xA9>"]
    assert made.tokenize(" ab") == ["▁▁", "ab"]  # user-defined pieces come first
    assert made("ab")["input_ids"] == [1, 11]
    assert made.decode(made("ab é a")["input_ids"], skip_special_tokens=True) == "ab é a"


def fails(tmp_path: Path, path: Path) -> str:
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    with pytest.raises(MachineError) as caught:
        convert(path, folder)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir())
    return str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 100, 5_000, 30_000, -2_000, -1])
def test_a_cut_file_is_named(tmp_path: Path, kept: int) -> None:
    write(tmp_path / "whole.gguf", tiny.model("llama"), "llama")
    raw = (tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(raw[:kept])
    assert "cut.gguf" in fails(tmp_path, cut)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_bytes(b"<html>not found</html>" * 50)
    assert "not a whole GGUF file" in fails(tmp_path, path)


@pytest.mark.skipif("sys.platform == 'win32'", reason="files have no holes there")
def test_what_does_not_fit_in_memory_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose one tensor is a hole of four times the free memory, as fp32."""
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large.gguf"
    rows = int(available_memory() / 1024)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor_info("token_embd.weight", (rows, 1024), np.dtype(np.float16), rows * 2048)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as file:
        file.truncate(file.tell() + rows * 2048 + 64)
    found = fails(tmp_path, path)
    assert "Converting large.gguf needs" in found and "What would fit: a model of at most" in found
    assert not list(tmp_path.rglob("model.safetensors"))


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", tiny.model("llama"), "llama", leave_out="blk.1.ffn_up")
    assert "model.layers.1.mlp.up_proj.weight" in fails(tmp_path, tmp_path / "model.gguf")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", tiny.model("llama"), "falcon")
    assert "falcon" in fails(tmp_path, tmp_path / "model.gguf")


def test_an_unknown_cut_of_words_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", tiny.model("llama"), "llama", pre="somebody-new")
    assert "somebody-new" in fails(tmp_path, tmp_path / "model.gguf")


def test_a_gguf_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "mine.gguf", tiny.model("llama"), "llama")
    found = resolve(tmp_path / "mine.gguf")
    assert found.licence == "apache-2.0"
    record = Path(found.folder) / "accord.json"
    assert record.is_relative_to(tmp_path / "cache")
    written = record.stat().st_mtime_ns
    assert resolve(tmp_path / "mine.gguf") == found
    assert record.stat().st_mtime_ns == written
    assert resolve(found.folder) == found  # the converted folder remembers where it came from
    with torch.no_grad():
        assert torch.allclose(load_model(found, dtype="float32", device="cpu")(IDS).logits, tiny.model("llama")(IDS).logits, atol=1e-5)
    assert load_tokenizer(found).pad_token_id != 2
