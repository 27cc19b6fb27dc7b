"""accord on a GPU: DPO steps and sampling in bfloat16, with each kind of attention, beside TRL's trainer and transformers' generate.

    python benchmarks/gpu.py --data ../shared/data                     # needs a GPU; a few minutes
    python benchmarks/gpu.py --data ../shared/data --device cpu --steps 1 --shapes smollm2-135m      # whether the script runs

Rows are pairs of human labels up to 512 tokens, sixteen a step, LoRA r=16 on every linear layer. `smollm2-135m` are the starter's weights, `1b`
random ones (a Llama of sixteen layers of 2,048). Steps are timed after two that are not, with the device's work waited for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from job import ANSWER, BETA, DECAY, EPSILON, GROUP, PROMPTS, RATE, Job, lora, make, rows_of

ROWS = 16
WARM = 2
SHAPES = ("smollm2-135m", "1b")
RESULTS = Path(__file__).parent / "results" / "gpu.json"


def opened(shape: str, model: str, data: str, device: str) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Model in bfloat16 on the device, tokenizer, rows."""
    job = Job("dpo", data, model)
    made, tokenizer = make(job)
    if shape == "1b":
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
            num_key_value_heads=8, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )  # fmt: skip
        with torch.device(device):
            made = LlamaForCausalLM(config)
    return made.to(device, torch.bfloat16).eval(), tokenizer, rows_of(job, tokenizer)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[], Any], steps: int, device: str) -> list[float]:
    """Seconds of each step after the warm-up."""
    seconds = []
    for index in range(WARM + steps):
        wait(device)
        started = time.perf_counter()
        step()
        wait(device)
        if index >= WARM:
            seconds.append(time.perf_counter() - started)
    return seconds


def peak(device: str, *, matrix: int = 8192) -> float:
    """TFLOP/s of a large product in bfloat16 on random numbers."""
    if device == "cpu":
        return 0.0
    left, right = (torch.randn(matrix, matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * matrix**3 / statistics.median(timed(lambda: left @ right, 10, device)) / 1e12


def ours(shape: str, given: Any, attention: str) -> dict[str, Any]:
    from accord import DPOConfig, DPOTrainer
    from accord.models.adapters import PolicyModel
    from accord.training.loop import StepBatch

    model, tokenizer, rows = opened(shape, given.model, given.data, given.device)
    data = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder, beta=BETA, learning_rate=RATE, weight_decay=DECAY, adam_epsilon=EPSILON, max_length=512, max_steps=1000,
            per_device_train_batch_size=ROWS, lr_scheduler_type="constant", attention=attention,
        )  # fmt: skip
        trainer = DPOTrainer(PolicyModel(model), None, config, data, None, tokenizer, peft_config=lora())
        trainer.prepare_units(trainer.train_units)
        trainer._build_optimizer()
        units = trainer.train_units[:ROWS]
        seconds = timed(lambda: trainer.train_step(StepBatch(units)), given.steps, given.device)
        tokens, counted = sum(unit.num_tokens for unit in units), sum(unit.num_counted for unit in units)
        layers = sum(p.numel() for n, p in model.named_parameters() if ".layers." in n and p.dim() == 2 and "lora" not in n)
        head = model.get_input_embeddings().weight.numel()
        found = {
            "tokens": tokens, "s": statistics.median(seconds), "budget": trainer.token_budget,
            "TFLOP": (4 * tokens * layers + 4 * counted * head) / 1e12,
        }  # fmt: skip
        return found | sampling(trainer.policy, trainer, rows, tokenizer, given)


def sampling(policy: Any, trainer: Any, rows: list[dict[str, Any]], tokenizer: Any, given: Any) -> dict[str, Any]:
    """Answers of full length: eight prompts, eight each; and what transformers' generate takes for the same from merged weights."""
    from accord.rollouts.local import LocalSampler
    from accord.rollouts.sampler import Prompt, SamplingConfig

    ids = [tuple(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)) for row in rows[:PROMPTS]]
    sampler = LocalSampler(policy, trainer.renderer, trainer.prepared.stack)
    kept, trainer.renderer.end_ids = trainer.renderer.end_ids, ()
    prompts = [Prompt(str(i), one) for i, one in enumerate(ids)]
    config = SamplingConfig(max_new_tokens=ANSWER, num_samples=GROUP)
    seconds = timed(lambda: sampler.sample(prompts, config), max(1, given.steps // 2), given.device)
    trainer.renderer.end_ids = kept
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(one)) + list(one) for one in ids], device=given.device)
    seen = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids], device=given.device)
    policy.peft.merge_adapter()
    with torch.no_grad(), policy.using((), packed=False):
        theirs = timed(
            lambda: policy.model.generate(
                input_ids=padded, attention_mask=seen, num_return_sequences=GROUP, do_sample=True, max_new_tokens=ANSWER,
                min_new_tokens=ANSWER, pad_token_id=0,
            ),
            max(1, given.steps // 2),
            given.device,
        )  # fmt: skip
    return {"sampling s": statistics.median(seconds), "generate s": statistics.median(theirs), "sampled": PROMPTS * GROUP * ANSWER}


def theirs(shape: str, given: Any, batch: int) -> dict[str, Any]:
    """TRL's trainer, reference cached, the same rows, `batch` a pass."""
    import trl
    from datasets import Dataset

    model, tokenizer, rows = opened(shape, given.model, given.data, given.device)
    data = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        config = trl.DPOConfig(
            output_dir=folder, beta=BETA, precompute_ref_log_probs=False, per_device_train_batch_size=batch, bf16=True, report_to="none",
            gradient_checkpointing=False, save_strategy="no", learning_rate=RATE, max_length=520, use_cpu=given.device == "cpu",
        )  # fmt: skip
        trainer = trl.DPOTrainer(
            model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer, peft_config=lora()
        )
        trainer.train_dataset = trainer.train_dataset.add_column("ref_chosen_logps", [-100.0] * len(data))
        trainer.train_dataset = trainer.train_dataset.add_column("ref_rejected_logps", [-100.0] * len(data))
        trainer.precompute_ref_logps = True
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY, eps=EPSILON)
        parts = [
            trainer.data_collator([trainer.train_dataset[row] for row in range(i, min(i + batch, ROWS))]) for i in range(0, ROWS, batch)
        ]
        trainer.model.train()

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            for part in parts:
                moved = {name: value.to(given.device) if hasattr(value, "to") else value for name, value in part.items()}
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(trainer.model, moved) / len(parts)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

        return {"s": statistics.median(timed(step, given.steps, given.device))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder that holds hh_harmless_test")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16], help="TRL's rows a pass")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    top = peak(given.device)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    results: dict[str, Any] = {"device": name, "torch": torch.__version__, "bf16 TFLOP/s": round(top)}
    print(json.dumps(results), flush=True)
    for shape in given.shapes:
        runs: dict[str, Callable[[], dict[str, Any]]] = {
            "accord branches": lambda shape=shape: ours(shape, given, "branches"),
            **{f"trl {batch} rows": lambda shape=shape, batch=batch: theirs(shape, given, batch) for batch in given.batches},
        }
        if given.device == "cuda":
            runs["accord flex"] = lambda shape=shape: ours(shape, given, "flex")
        for run, measure in runs.items():
            if given.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                found = measure()
            except Exception as error:
                found = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
            if given.device == "cuda":
                found["peak GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            if top and "TFLOP" in found:
                found["share of peak"] = round(found["TFLOP"] / found["s"] / top, 3)
            results[f"{shape} {run}"] = found
            print(f"{shape} {run}", json.dumps(found), flush=True)
            given.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
