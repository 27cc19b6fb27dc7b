"""PPO against the last TRL that had it (1.12.0), in seconds per 1,000 sampled tokens: whole rounds of sampling, scoring and updating.

    python benchmarks/vs_trl.py --method ppo --data ../shared/data --pairs 2     # about 25 minutes on two cores, kept pair by pair

TRL 1.12.0 goes into a folder of its own (`pip install --no-deps --target`), with the torch, transformers and peft of this environment.
Both sides: the starter in fp32, 8 prompts x 8 answers of exactly 64 tokens a round, 2 passes in one optimizer step each, LoRA r=16 on the
policy and on the critic, a reward model of the same base. Rounds alternate A B A B.

No equality is claimed; the differences:
- TRL samples each row on its own, accord samples the answers to a prompt side by side from one copy of the prompt;
- TRL's reward model, critic and policy are three models, accord's are adapters and heads on one base;
- TRL pads rows to the longest prompt and takes the softmax of every position, accord packs and reads what is counted;
- TRL steps its scheduler once a round and averages over micro-batches, accord over the round;
- accord's own default, the critic as a head on the reference's features, is the second row.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peak import gemm_gflops, machine

TRL = "trl==1.12.0"
PROMPTS, GROUP, ANSWER, EPOCHS, PROMPT_TOKENS = 8, 8, 64, 2, 96
RATE, BATCH = 1e-5, 16
"""BATCH: TRL's rows a micro-batch of the update."""
WORK = Path("runs/vs-trl-ppo")


class Turn:
    """A trainer callback that reports each round and waits until it may go on; `every` optimizer steps make a round."""

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0

    def wait(self) -> None:
        if sys.stdin.readline().strip() != "go":
            sys.exit(0)
        self.started = time.perf_counter()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            from accord.recipes.stages import peak_rss_gb

            tell(seconds=time.perf_counter() - self.started, peak=peak_rss_gb())
            self.wait()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *_, **__: None
        raise AttributeError(name)


def tell(**found: Any) -> None:
    print("ROUND " + json.dumps(found), flush=True)


# -- the two sides, each in a process of its own --------------------------------------------------------------------------------------


def run_accord(job: dict[str, Any], value: str) -> None:
    from accord import PPOConfig, PPOTrainer
    from accord.data.render import Renderer
    from accord.models.adapters import PolicyModel
    from accord.models.heads import RewardHeads
    from accord.models.load import load_model, load_tokenizer, resolve
    from accord.models.lora import lora_config
    from accord.models.tokens import stop_token_ids
    from accord.rewards.learned import RewardModel

    resolved = resolve(job["model"])
    policy, tokenizer = PolicyModel(load_model(resolved, dtype="float32")), load_tokenizer(resolved)
    stack = policy.add_adapter("reward", lora_config(policy), seed=1)
    renderer = Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, policy.model.generation_config))
    reward = RewardModel(policy, stack, RewardHeads(policy.hidden_size, 1), renderer)
    config = PPOConfig(
        output_dir=job["folder"], num_iterations=1000, prompts_per_iteration=PROMPTS, num_generations=GROUP, max_new_tokens=ANSWER,
        max_prompt_length=PROMPT_TOKENS, num_ppo_epochs=EPOCHS, learning_rate=RATE, value=value, save_strategy="no", missing_eos_penalty=None,
    )  # fmt: skip
    rows = [{"prompt": prompt} for prompt in job["prompts"]]
    trainer = PPOTrainer(config, tokenizer, policy, reward, rows, [Turn(EPOCHS)], peft_config=lora_config(policy), start=())
    trainer.sampler.renderer = copy.copy(trainer.renderer)
    trainer.sampler.renderer.end_ids = ()  # every answer has its full length; the trainer's own renderer still knows how one ends
    trainer.train()


def run_trl(job: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from accord.models.allocator import keep_freed_memory

    keep_freed_memory()  # as on the other side
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], padding_side="left")
    lora: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}

    def classifier() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(job["folder"], num_labels=1, dtype=torch.float32)

    class Callback(TrainerCallback):
        turn = Turn(1)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.turn.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.turn.on_step_end()

    # The critic's LoRA layers are put into the model itself: TRL looks for its backbone by name.
    critic = get_peft_model(classifier(), LoraConfig(task_type="SEQ_CLS", exclude_modules=["score"], **lora)).base_model.model
    config = PPOConfig(
        output_dir=job["folder"] + "-trl", per_device_train_batch_size=BATCH, gradient_accumulation_steps=PROMPTS * GROUP // BATCH,
        num_ppo_epochs=EPOCHS, num_mini_batches=1, response_length=ANSWER, local_rollout_forward_batch_size=PROMPTS * GROUP,
        total_episodes=PROMPTS * GROUP * 1000, learning_rate=RATE, temperature=1.0, bf16=False, use_cpu=True, report_to="none",
        save_strategy="no", gradient_checkpointing=False, num_sample_generations=0, logging_steps=1000, disable_tqdm=True,
    )  # fmt: skip
    rows = [{"input_ids": ids} for ids in job["ids"] for _ in range(GROUP)]
    PPOTrainer(
        args=config, processing_class=tokenizer, model=AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32), ref_model=None,
        reward_model=classifier(), value_model=critic, train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows[:1]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora), callbacks=[Callback()],
    ).train()  # fmt: skip


# -- the driver -----------------------------------------------------------------------------------------------------------------------


class Player:
    """A side in a process of its own, one round at a time."""

    def __init__(self, side: str, job: Path, extra: list[str], path: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, __file__, "--side", side, "--job", str(job), *extra]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, encoding="utf-8"
        )
        self.peak = 0.0

    def round(self) -> float:
        """Seconds of one round."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ROUND "):
                found = json.loads(line.removeprefix("ROUND "))
                self.peak = max(self.peak, found["peak"])
                return found["seconds"]
        raise RuntimeError(self.process.stderr.read()[-2000:])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def install_trl(folder: Path) -> Path:
    """The old TRL in a folder of its own."""
    if not (folder / "trl" / "experimental" / "ppo").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), TRL]
        subprocess.run(command, check=True)
    return folder


def write_job(data: str, model: str, folder: Path) -> Path:
    """The starter as a plain folder and eight prompts, as messages and as token ids."""
    from job import Job, make, rows_of

    base, tokenizer = make(Job("ppo", data, model))
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rows = [row["prompt"] for row in rows_of(Job("ppo", data, model, rows=200, max_length=PROMPT_TOKENS + 100), tokenizer)]
    ids = [tokenizer.apply_chat_template(row, add_generation_prompt=True, return_dict=False) for row in rows]
    chosen = [index for index, one in enumerate(ids) if PROMPT_TOKENS // 2 <= len(one) <= PROMPT_TOKENS][:PROMPTS]
    job = folder / "job.json"
    prompts = {"prompts": [rows[i] for i in chosen], "ids": [list(ids[i]) for i in chosen]}
    job.write_text(json.dumps({"model": model, "folder": str(folder), **prompts}), encoding="utf-8")
    return job


def compare(data: str, model: str, pairs: int, keep: Callable[[str, dict[str, Any]], None]) -> None:
    """Rounds of both sides by turns, accord with either critic; `keep` is given each row's name and what was found so far, after every pair."""
    old = install_trl(WORK / TRL.replace("==", "-"))
    with tempfile.TemporaryDirectory() as folder:
        job = write_job(data, model, Path(folder))
        theirs = Player("trl", job, [], [str(old)])
        sides = {value: Player("accord", job, ["--value", value], []) for value in ("adapter", "head")}
        players = {"trl": theirs, **sides}
        try:
            before = gemm_gflops()
            for player in players.values():
                player.round()  # warm-up
            times: dict[str, list[float]] = {name: [] for name in players}
            for number in range(pairs):
                # Who goes first changes from pair to pair.
                for name in list(players) if number % 2 == 0 else list(players)[::-1]:
                    times[name].append(players[name].round())
                    print(f"pair {number + 1}: {name} {times[name][-1]:.1f} s", flush=True)
                peak = max(before, gemm_gflops())
                for value, player in sides.items():
                    keep(f"{model} ppo critic {value}", row(times["trl"], times[value], player.peak, theirs.peak, peak))
        finally:
            for player in players.values():
                player.close()


def row(theirs: list[float], ours: list[float], peak_ours: float, peak_theirs: float, gemm: float) -> dict[str, Any]:
    """What is kept of the rounds so far."""
    sampled = PROMPTS * GROUP * ANSWER / 1000
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {
        **machine(),
        "seconds per 1000 tokens ours": round(statistics.median(ours) / sampled, 2),
        "seconds per 1000 tokens theirs": round(statistics.median(theirs) / sampled, 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in ratios],
        "peak GB ours": round(peak_ours, 2),
        "peak GB theirs": round(peak_theirs, 2),
        "gemm GF/s": round(gemm, 1),
    }


def main() -> None:
    """One side, as the driver starts it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=["accord", "trl"], required=True)
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--value", choices=["head", "adapter"], help="accord's critic")
    given = parser.parse_args()
    job = json.loads(given.job.read_text(encoding="utf-8"))
    if given.side == "trl":
        run_trl(job)
    else:
        run_accord(job, given.value)


if __name__ == "__main__":
    main()
