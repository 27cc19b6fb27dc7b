"""SmolLM2 and Gemma-3-270m after DPO on real pairs, taken home in every form: 50 greedy answers, log-probs, a second reader, and llama.cpp
where the package xllamacpp is installed.

`ACCORD_TAKE_HOME=FILE` keeps the numbers that docs/export.md shows.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from accord.cli import main
from accord.config.export import EXPORT_FORMS
from accord.evaluation.same_answers import greedy_answers
from accord.models.opened import open_model
from accord.recipes.demo_rows import pairs
from accord.recipes.take_home import questions, take_home
from llama_server import INSTALLED, greedy_chat, serving

PROMPTS, FEW, TOKENS = 50, 12, 32


def trained(folder: Path, model: str) -> Path:
    rows = [
        {"prompt": row.prompt[0].content, "chosen": row.completions[0].text, "rejected": row.completions[1].text} for row in pairs("train")
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::8]), encoding="utf-8")
    run = folder / "runs" / f"{model}-dpo"
    given = ["--model", model, "--data", str(folder / "pairs.jsonl"), "--output_dir", str(run)]
    assert main(["dpo", *given, "--max_steps", "12", "--learning_rate", "2e-4"]) == 0
    return run


@torch.no_grad()
def greedy_text(folder: Path, file: str, ends: list[int]) -> list[str]:
    """Answers of transformers alone, from a GGUF file and nothing else."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    answers = []
    for question in questions(PROMPTS):
        text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        out = model.generate(ids, do_sample=False, max_new_tokens=TOKENS, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
        answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smollm2-135m", "gemma3-270m"])
def test_a_real_model_goes_home_in_every_form(model: str, tmp_path: Path, users_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_CACHE", str(users_cache))
    monkeypatch.setenv("ACCORD_ACCEPT_LICENCE", model)
    run = trained(tmp_path, model)
    opened = open_model(str(run), dtype="float32")
    before = greedy_answers(opened.policy, opened.stack, opened.renderer, questions(PROMPTS), max_new_tokens=TOKENS)
    for question in questions(FEW):
        trained_one, untrained = (greedy_answers(opened.policy, stack, opened.renderer, [question]) for stack in (opened.stack, ()))
        if trained_one.answers != untrained.answers:
            break
    else:
        pytest.fail("DPO changed no answer, so a form that forgets it would pass")
    expected = [opened.tokenizer.decode(answer, skip_special_tokens=True) for answer in before.answers]
    ends = opened.renderer.end_ids
    del opened
    found: dict[str, Any] = {}
    for form in EXPORT_FORMS[:-1]:  # the last is one of the others by another name
        taken = take_home(str(run), form, tmp_path / form, prompts=PROMPTS if form in ("merged", "gguf-f16") else FEW)
        found[form] = {"size": sum(path.stat().st_size for path in (tmp_path / form).rglob("*.gguf")), **vars(taken.difference)}
    (half,) = (tmp_path / "gguf-f16").glob("*.gguf")
    theirs = greedy_text(tmp_path / "gguf-f16", half.name, ends)
    monkeypatch.setenv("ACCORD_CACHE", str(tmp_path / "cache"))
    opened = open_model(str(half), dtype="float32")
    ours = greedy_answers(opened.policy, (), opened.renderer, questions(PROMPTS), max_new_tokens=TOKENS)
    texts = [opened.tokenizer.decode(answer, skip_special_tokens=True) for answer in ours.answers]
    found["transformers"] = {
        "as the run": sum(one == other for one, other in zip(theirs, expected, strict=True)),
        "as accord from the file": sum(one == other for one, other in zip(theirs, texts, strict=True)),
    }
    if INSTALLED:
        with serving(half) as address:
            served = [greedy_chat(address, question, TOKENS) for question in questions(PROMPTS)]
        found["llama.cpp"] = {"as the run": sum(one == other for one, other in zip(served, expected, strict=True))}
    if path := os.environ.get("ACCORD_TAKE_HOME"):
        kept = json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).exists() else {}
        Path(path).write_text(json.dumps({**kept, model: found}, indent=1) + "\n", encoding="utf-8")
    for form in ("merged", "adapter"):
        assert found[form]["largest"] < 1e-4 and found[form]["same"] == found[form]["prompts"], (form, found[form])
    assert found["transformers"]["as accord from the file"] == PROMPTS
    assert found["gguf-f16"]["same_tokens"] > 0.995 and found["gguf-f16"]["largest"] < 0.05
    assert not INSTALLED or found["llama.cpp"]["as the run"] >= 0.9 * PROMPTS  # it multiplies in half precision
    # Four bits are another model: how many tokens pass before an answer parts is by chance (0.67 of twelve answers, 0.73 of fifty).
    assert found["gguf-q8_0"]["same_tokens"] > 0.95 and found["gguf-q4_0"]["same_tokens"] > 0.5
