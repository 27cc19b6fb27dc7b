"""GGUF files that accord writes: read back by its own reader and by transformers', by hand where hands can, refused where they would be wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
import tiny_gguf
from accord.errors import ConfigError, MachineError
from accord.models.gguf import convert, open_gguf, read_tokenizer, unpermute
from accord.models.gguf_vocabulary import UNUSED, token_fields
from accord.models.gguf_write import check_gguf, load_written, permute, write_gguf
from accord.models.load import load_tokenizer, resolve
from accord.models.tokenizer_files import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED
from accord.recipes.take_home import take_home

gguf = pytest.importorskip("gguf")

IDS = torch.tensor([[5, 17, 99, 200, 31, 7, 64, 128, 9, 250, 11, 12]])
TEXTS = ("The other in there", "<|start|>user\nhé 1234\n<|end|>", "  two  spaces\n\n", "it's theirs")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama with its own head": ("llama", {"tie_word_embeddings": False}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3 with narrow heads": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {}),
    "gemma3 with narrow heads": ("gemma3_text", {"head_dim": 8, "query_pre_attn_scalar": 8, "tie_word_embeddings": False}),
}
BEYOND_TRANSFORMERS = ("llama with biases", "qwen3 with narrow heads", "gemma3 with narrow heads")
"""What transformers' reader takes from its own defaults instead of from the file (integrations/ggml.py: GGUF_CONFIG_MAPPING)."""


def written(tmp_path: Path, case: str, kind: str = "f16") -> tuple[Path, Path, Any]:
    architecture, changes = CASES[case]
    folder, model = tiny_gguf.saved(tmp_path / "folder", architecture, **changes)
    write_gguf(folder, tmp_path / "model.gguf", kind, title="tiny", licence="apache-2.0")
    return tmp_path / "model.gguf", folder, model


def gap(found: Any, model: Any) -> float:
    with torch.no_grad():
        return float((found(IDS).logits.log_softmax(-1) - model(IDS).logits.log_softmax(-1)).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_a_reader_that_knows_nothing_of_the_folder_finds_the_model(case: str, tmp_path: Path) -> None:
    path, folder, model = written(tmp_path, case)
    (tmp_path / "back").mkdir()
    convert(path, tmp_path / "back")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32)
    assert gap(back, model) < 0.02  # weights rounded to half precision
    assert gap(load_written(path, folder), back) < 1e-6
    for key in ("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "vocab_size", "rope_parameters"):
        assert getattr(back.config, key) == getattr(model.config, key, 8 if key == "head_dim" else None), key


@pytest.mark.parametrize("case", [case for case in CASES if case not in BEYOND_TRANSFORMERS])
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_transformers_reader_finds_the_same_model(case: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    path, folder, _ = written(tmp_path, case, kind)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    assert gap(theirs, load_written(path, folder)) < 1e-4
    tokenizer, before = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name), AutoTokenizer.from_pretrained(folder)
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [before(text)["input_ids"] for text in TEXTS]
    assert tokenizer.chat_template == tiny.TEMPLATE and tokenizer.eos_token_id == 2


@pytest.mark.parametrize("case", ["llama with its own head", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("kind, most", [("f16", 1e-3), ("q8_0", 0.01), ("q4_0", 0.15)])
def test_every_tensor_is_what_it_was_within_its_rounding(case: str, kind: str, most: float, tmp_path: Path) -> None:
    path, folder, model = written(tmp_path, case, kind)
    assert 0 < check_gguf(path, folder) < most
    kinds = {tensor.name: tensor.tensor_type.name for tensor in open_gguf(path).tensors}
    assert kinds["blk.0.ffn_up.weight"] == {"f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}[kind]
    assert kinds["token_embd.weight"] == ("F16" if kind == "f16" else "Q8_0") and kinds["output_norm.weight"] == "F32"
    assert ("output.weight" in kinds) == (not model.config.tie_word_embeddings)
    # What is loaded for the comparison is exactly what the gguf package reads from the file.
    made = load_written(path, folder)
    by_name = {tensor.name: tensor for tensor in open_gguf(path).tensors}
    up = gguf.quants.dequantize(by_name["blk.1.ffn_up.weight"].data, by_name["blk.1.ffn_up.weight"].tensor_type)
    assert np.array_equal(made.model.layers[1].mlp.up_proj.weight.detach().numpy(), up)


def test_gemmas_norms_have_their_1_and_a_step_of_q4_0_is_by_hand(tmp_path: Path) -> None:
    """llama.cpp multiplies by the norm as it stands, transformers by 1 + w. A block of Q4_0 has the step -8th of its largest weight."""
    path, _, model = written(tmp_path, "gemma3", "q4_0")
    found = {tensor.name: tensor for tensor in open_gguf(path).tensors}
    assert np.allclose(found["output_norm.weight"].data, 1 + model.model.norm.weight.detach().numpy())
    assert found["blk.0.attn_q_norm.weight"].data.shape == (256,)
    row = model.model.layers[0].mlp.up_proj.weight.detach()[0, :32].numpy()
    step = row[np.abs(row).argmax()] / -8
    back = gguf.quants.dequantize(found["blk.0.ffn_up.weight"].data, found["blk.0.ffn_up.weight"].tensor_type)[0, :32]
    assert np.abs(back - row).max() <= abs(step) * 1.01  # half a step, and a whole one at the end that has no level
    assert np.abs(back / step - np.round(back / step)).max() < 0.01


def test_halves_become_pairs_and_back() -> None:
    """A head of four rows: 0 1 | 2 3 in halves is 0 2 1 3 in pairs."""
    rows = np.arange(8)[:, None]
    assert permute(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(unpermute(permute(rows, 2), 2), rows)


def test_the_scaling_of_llama_3_is_written_as_factors(tmp_path: Path) -> None:
    """By hand for 8 dimensions at base 10,000, lengths stretched 8 times from 64: waves of 6.3 and 62.8 tokens, 628 and 6,283. Shorter than
    64 / 4 = 16 keep their frequency, longer than 64 / 1 have an eighth of it, and the second lies between: (64 / 62.8 - 1) / 3 of the way."""
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    folder, model = tiny_gguf.saved(tmp_path / "folder", "llama", rope_parameters=scaling)
    write_gguf(folder, tmp_path / "model.gguf", "f16", title="tiny")
    (found,) = [tensor.data for tensor in open_gguf(tmp_path / "model.gguf").tensors if tensor.name == "rope_freqs.weight"]
    way = (64 / (2 * math.pi * 10) - 1) / 3
    assert np.allclose(found, [1.0, 1 / ((1 - way) / 8 + way), 8.0, 8.0])
    # And they are what transformers divides its own frequencies by.
    plain = 1.0 / 10000.0 ** (torch.arange(0, 8, 2) / 8)
    assert torch.allclose(plain / model.model.rotary_emb.inv_freq, torch.from_numpy(np.array(found)), rtol=1e-5)
    assert check_gguf(tmp_path / "model.gguf", folder) < 1e-3
    assert gap(load_written(tmp_path / "model.gguf", folder), model) < 0.02
    with pytest.raises(MachineError, match="scales its rotary positions"):
        convert(tmp_path / "model.gguf", tmp_path / "folder")


def test_linear_scaling_is_a_key(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    folder, model = tiny_gguf.saved(tmp_path / "folder", "qwen2", rope_parameters=scaling)
    write_gguf(folder, tmp_path / "model.gguf", "f16", title="tiny")
    fields = open_gguf(tmp_path / "model.gguf").fields
    assert fields["qwen2.rope.scaling.type"].contents() == "linear" and fields["qwen2.rope.scaling.factor"].contents() == 4.0
    assert gap(load_written(tmp_path / "model.gguf", folder), model) < 0.02


# -- tokenizers -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2", "smollm", "llama-bpe"])
def test_tokens_their_types_and_the_template_come_back(pre: str, tmp_path: Path) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "folder", "llama")
    tiny_gguf.tokenizer(pre).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf", "f16", title="tiny")
    before = AutoTokenizer.from_pretrained(folder)
    fields = token_fields(before, tiny.VOCAB)
    assert fields.model == "gpt2" and fields.pre == pre and len(fields.tokens) == tiny.VOCAB and fields.merges == tiny_gguf.MERGES
    assert fields.types[:4] == [CONTROL] * 4 and fields.types[10] == NORMAL and fields.types[tiny.VOCAB - 1] == UNUSED
    assert (fields.eos, fields.eot, fields.bos, fields.pad, fields.add_bos) == (2, None, None, 0, False)
    back = read_tokenizer(tmp_path / "model.gguf")
    assert [back(text)["input_ids"] for text in TEXTS] == [before(text)["input_ids"] for text in TEXTS]
    assert back.chat_template == tiny.TEMPLATE and back.eos_token == "<|end|>"


def test_the_end_of_a_turn_has_its_own_id_and_added_tokens_their_type() -> None:
    tokenizer = tiny_gguf.tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.add_tokens(["<think>"])
    fields = token_fields(tokenizer, tiny.VOCAB)
    assert (fields.eos, fields.eot) == (3, 2)
    assert fields.types[tokenizer.convert_tokens_to_ids("<think>")] == USER_DEFINED


def test_sentencepiece_tokens_have_scores_by_their_merges(shared_data: Path, tmp_path: Path) -> None:
    """stories260k: the vocabulary of llama2.c, whose own scores are in its file; only their order matters."""
    folder = Path(resolve("stories260k", cache=tmp_path / "cache", files=shared_data / "stories260k", quiet=True).folder)
    tokenizer = load_tokenizer(resolve(folder, quiet=True))
    fields = token_fields(tokenizer, 512)
    assert fields.model == "llama" and fields.merges is None and fields.scores is not None and fields.space_prefix and fields.add_bos
    assert fields.types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    write_gguf(folder, tmp_path / "stories.gguf", "q8_0", title="stories")
    back = read_tokenizer(tmp_path / "stories.gguf")
    for text in ("Once upon a time, there was a little girl named Lily.", "Tim  saw a big ball", "café 12\n"):
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert check_gguf(tmp_path / "stories.gguf", folder) < 0.01


def test_a_tokenizer_that_a_file_cannot_hold_is_refused() -> None:
    from tokenizers import normalizers, pre_tokenizers

    def refused(changed: Any) -> str:
        with pytest.raises(MachineError) as raised:
            token_fields(changed, tiny.VOCAB)
        return str(raised.value)

    other = tiny_gguf.tokenizer()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel()])
    assert "no GGUF name for" in refused(other)
    lower = tiny_gguf.tokenizer()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert "changes text first (Lowercase)" in refused(lower)
    large = tiny_gguf.tokenizer()
    large.add_tokens([f"word{index}" for index in range(10)])
    assert "one token a row" in refused(large)
    ends = tiny_gguf.tokenizer()
    ends.add_special_tokens({"additional_special_tokens": [f"<mark{index}>" for index in range(10)]})
    ends.eos_token = "<mark9>"
    assert "one token a row" in refused(ends)


def test_a_special_token_that_the_model_does_not_embed_is_left_out(tmp_path: Path) -> None:
    """Gemma 3's tokenizer has <image_soft_token> one past the embeddings of the models that read text alone."""
    folder, _ = tiny_gguf.saved(tmp_path / "folder", "llama")
    more = tiny_gguf.tokenizer()
    while len(more) <= tiny.VOCAB:
        more.add_special_tokens({"additional_special_tokens": [f"<mark{len(more)}>"]}, replace_extra_special_tokens=False)
    assert max(more.get_vocab().values()) == tiny.VOCAB
    more.save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf", "f16", title="tiny")
    back = read_tokenizer(tmp_path / "model.gguf")
    assert f"<mark{tiny.VOCAB}>" not in back.get_vocab() and f"<mark{tiny.VOCAB - 1}>" in back.get_vocab()
    assert [back(text)["input_ids"] for text in TEXTS] == [more(text)["input_ids"] for text in TEXTS]


# -- what is refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture, changes, words",
    [
        ("phi3", {}, "this one is phi3"),
        ("llama", {"hidden_act": "gelu"}, "the activation gelu"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "scaled as yarn"),
        ("qwen3", {"attention_bias": True}, "biases in its attention"),
        ("qwen2", {"use_sliding_window": True}, "a window of the text"),
        ("gemma3_text", {"layer_types": ["full_attention"] * 7}, "every sixth"),
        ("gemma3_text", {"query_pre_attn_scalar": 64}, "queries scaled by 64 instead of 256"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(architecture: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "folder", architecture, **changes)
    with pytest.raises(ConfigError, match=words):
        write_gguf(folder, tmp_path / "model.gguf", "f16", title="tiny")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize("wrong", ["another tensor", "missing"])
def test_a_file_that_does_not_hold_the_model_is_found_out(wrong: str, tmp_path: Path) -> None:
    path, folder, _ = written(tmp_path, "llama")
    for shard in folder.glob("*.safetensors"):
        tensors = load_file(shard)
        name = next((name for name in tensors if name.endswith("0.mlp.up_proj.weight")), None)
        if name is not None:
            if wrong == "missing":
                tensors["model.layers.9.mlp.up_proj.weight"] = tensors[name].clone()
            else:
                tensors[name] = tensors[name].flip(0).contiguous()
            save_file(tensors, shard)
    if wrong == "missing":
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 12}), encoding="utf-8")
    with pytest.raises(MachineError, match="blk.0.ffn_up.weight is not the" if wrong != "missing" else "has no blk.9.ffn_up.weight"):
        check_gguf(path, folder)


BLANKS = ["\n", "▁▁", "▁▁▁"]


def pieces(*, first_only: bool) -> Any:
    """A sentencepiece tokenizer. first_only: a blank before the first word of the whole text, as transformers makes Llama 2's; else none, and blanks
    in rows are tokens that a user defined, as Gemma has them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [
        *specials,
        *BLANKS,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *letters,
        "[",
        "]",
        "/",
        "th",
        "the",
        "▁t",
        "▁th",
        "▁the",
    ]
    merges = [("▁", "▁"), ("▁▁", "▁"), ("▁", "▁▁"), ("t", "h"), ("th", "e"), ("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "the")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if first_only:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in BLANKS])
    made = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    made.chat_template = "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endfor %}"
    return made


def written_with(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer as a GGUF file gives it back."""
    tiny.model(vocab_size=320).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_gguf(folder, folder / "model.gguf", "f16", title="tiny")
    return read_tokenizer(folder / "model.gguf")


def test_blanks_that_a_user_defined_are_written_as_blanks(tmp_path: Path) -> None:
    """llama.cpp cuts them out of the text as it was written, and prints them as they stand in the file."""
    before = pieces(first_only=False)
    fields = token_fields(before, 320)
    assert [fields.tokens[index] for index in range(4, 7)] == ["\n", "  ", "   "] and fields.types[4:7] == [USER_DEFINED] * 3
    assert not fields.space_prefix
    back = written_with(before, tmp_path)
    for text in ("the  the", "a   b", "  the\nb", "a the"):
        assert back(text, add_special_tokens=False)["input_ids"] == before(text, add_special_tokens=False)["input_ids"]


def test_a_blank_before_the_first_word_alone(tmp_path: Path) -> None:
    """Chats begin with a token, so there is none in them; a file that asked for a blank after every token would have them begin otherwise."""
    before = pieces(first_only=True)
    assert before("the", add_special_tokens=False)["input_ids"] == [before.convert_tokens_to_ids("▁the")]
    assert not token_fields(before, 320).space_prefix
    back = written_with(before, tmp_path)
    text = before.apply_chat_template([{"role": "user", "content": "the a the"}], tokenize=False)
    assert back(text, add_special_tokens=False)["input_ids"] == before(text, add_special_tokens=False)["input_ids"]
    before.chat_template = "the {{ messages[0]['content'] }}"  # this one begins with a word
    assert token_fields(before, 320).space_prefix


def test_of_templates_with_names_the_default_is_written(tmp_path: Path) -> None:
    folder, _ = tiny_gguf.saved(tmp_path / "folder", "llama")
    several = tiny_gguf.tokenizer()
    several.chat_template = {"default": tiny.TEMPLATE, "tool_use": "tools"}
    several.save_pretrained(folder)
    taken = take_home(str(folder), "gguf-f16", tmp_path / "out", prompts=1)
    (file,) = (tmp_path / "out").glob("*.gguf")
    assert read_tokenizer(file).chat_template == tiny.TEMPLATE and taken.difference.largest < 0.02
