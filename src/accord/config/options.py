"""What the recipes take, as plain dataclasses that the command line can fill without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from accord.config.base import WEIGHTS
from accord.config.mitigation import MitigationConfig
from accord.config.rounds import SELECT
from accord.errors import ConfigError


@dataclass
class DemoOptions:
    """`accord demo`."""

    route: str = "rlhf"
    """rlhf (SFT, reward model, PPO), dpo (SFT, DPO), base (a base model becomes an assistant), reasoning (SFT, GRPO on sums in steps), hacking (a flawed reward is exploited, and
    caught) or constitution (critique and revision by principles, SFT, DPO)."""
    full: bool = False
    """True uses all packaged data and LoRA reward and value adapters (about an hour). False the subset sized for ten minutes."""
    output_dir: str | None = None
    """Folder of the run. None is runs/demo-<route>."""
    weights: str = "auto"
    """How the frozen base is held in every stage: bf16, int8, nf4 (four bits) or gguf (a GGUF file's own blocks), widened to float32 as they are used; fp32; auto as the processor computes."""
    seed: int = 42
    """The same seed gives the same run."""
    probes: int | None = None
    """Held-out prompts of each slice in the report, 1 to 60 (reasoning: four problems each). None is 12, 60 with --full, 25 for reasoning, 5 for hacking, 40 for constitution."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    ignore_memory: bool = False
    """True goes on when the predicted memory exceeds what is free. False refuses."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it (demo base). False asks."""
    dry_run: bool = False
    """True prints settings, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        check_weights("demo", self.weights)
        if self.route not in ("rlhf", "dpo", "base", "reasoning", "hacking", "constitution"):
            raise ConfigError(f"accord demo {self.route!r}: the routes are rlhf, dpo, base, reasoning, hacking and constitution.")
        if self.full and self.route == "constitution":
            raise ConfigError(
                "accord demo constitution has no --full: it uses all its packaged prompts. More of them in the report: --probes 60."
            )
        if self.full and self.route == "hacking":
            raise ConfigError("accord demo hacking has no --full: the flaw is found in a few rounds.")
        if self.full and self.route == "reasoning":
            raise ConfigError(
                "accord demo reasoning has no --full: its problems are made as they are needed. More of them in the report: --probes 60."
            )
        if self.probes is not None and not 1 <= self.probes <= 60:
            raise ConfigError(f"accord demo --probes {self.probes}: between 1 and 60 held-out prompts of each slice.")


@dataclass
class AlignOptions:
    """`accord align`."""

    data: str = ""
    """Your comparisons, say prompt, chosen, rejected (or rankings): any file `accord data check` reads. With --rounds: prompts."""
    model: str = "smollm2-135m"
    """Name, folder, run, GGUF file or hub id of the model to align."""
    method: str = "ppo"
    """ppo (SFT, reward model, PPO) or dpo (SFT, DPO); with --rounds also grpo, and no SFT."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    output_dir: str | None = None
    """Folder of the run. None is runs/align-<file>, with --rounds runs/rounds-<project>."""
    max_new_tokens: int = 96
    """Longest answer in tokens while training and in the report."""
    iterations: int = 14
    """PPO rounds of 12 prompts with 8 answers each."""
    weights: str = "auto"
    """How the frozen base is held in every stage: bf16, int8, nf4 (four bits) or gguf (a GGUF file's own blocks), widened to float32 as they are used; fp32; auto as the processor computes."""
    seed: int = 42
    """The same seed gives the same run. Which 20 % of the prompts are held out does not depend on it, so runs compare."""
    force: bool = False
    """True runs every stage again. False skips those whose inputs have not changed."""
    ignore_memory: bool = False
    """True goes on when the predicted memory exceeds what is free. False refuses."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    dry_run: bool = False
    """True prints settings, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        check_weights("align", self.weights)
        if self.iterations < 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"accord align --iterations {self.iterations} --max_new_tokens {self.max_new_tokens}: both must be 1 or more."
            )
        if self.method not in ("ppo", "dpo", "grpo"):
            raise ConfigError(f"accord align --method {self.method!r}: the methods are ppo and dpo, and with --rounds grpo.")
        if not self.data:
            raise ConfigError(
                "accord align needs --data: a file of comparisons, for example pairs.csv. Start one with: accord data template preference pairs.csv"
            )


def check_weights(command: str, weights: str) -> None:
    """Refuse a way of holding weights that there is not.

    Raises:
        ConfigError: naming the command.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"accord {command} --weights {weights!r}: it is {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}.")


@dataclass
class TrainOptions:
    """What every training command takes beside its method's config."""

    model: str = "smollm2-135m"
    """Name, folder, GGUF file or hub id of the model to train; a run folder goes on from its adapters."""
    data: str = ""
    """Training rows (ppo, grpo: prompts): any file or folder `accord data check` reads; several as a.jsonl:0.7,b.jsonl:0.3."""
    eval_data: str | None = None
    """Held-out rows, of the same kind. None evaluates nothing."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    reward_model: list[str] | None = None
    """ppo, grpo and sft --best-of, which need this or --reward: run folders of reward models, each optionally with a weight: runs/reward*0.5."""
    reward: list[str] | None = None
    """ppo, grpo and sft --best-of, which need this or --reward-model: accuracy, format, constraints, code, gym, judge, repetition (docs/rewards.md) or file.py:function, each optionally with a weight: format*0.2."""
    heldout_reward: str | None = None
    """ppo, grpo: run folder of a reward model of other labels that is only watched: an alarm says when it does not follow the reward."""
    ptx_data: str | None = None
    """PPO: demonstrations mixed into each step (see ptx_coef). None mixes nothing."""
    lora_r: int = 16
    """Rank of the LoRA adapter; 0 trains all weights, which ppo does not offer."""
    lora_alpha: int = 32
    """Scale of the adapter: alpha / r multiplies its output."""
    lora_dropout: float = 0.0
    """Always 0: with dropout, log-probs of sampling, reference and training would differ."""
    lora_target: str = "all-linear"
    """Modules that get adapters: all-linear, or names separated by commas."""
    lora_layers: float = 1.0
    """Share of the layers, from the top, that get adapters: 0.5 trains the upper half at about half the cost, 1 trains all."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True goes on when the predicted memory exceeds what is free. False refuses."""
    dry_run: bool = False
    """True prints config, three rendered rows, tokens, parameters and memory, and trains nothing."""

    def __post_init__(self) -> None:
        if self.lora_r < 0:
            raise ConfigError(f"lora_r={self.lora_r} must be 0 (all weights) or more.")
        if not 0 < self.lora_layers <= 1:
            raise ConfigError(
                f"lora_layers={self.lora_layers} must be above 0 and at most 1: the share of the layers, from the top, that get adapters."
            )
        if self.lora_dropout:
            raise ConfigError("lora_dropout must be 0: with dropout, log-probs of sampling, reference and training would differ.")


@dataclass
class BestOfOptions(MitigationConfig):
    """`accord sft --best-of`: rejection-sampling fine-tuning."""

    best_of: int = 0
    """Answers sampled to each prompt, of which the best by --reward or --reward-model is imitated. 0 imitates the data's own answers."""
    keep_from: float | None = None
    """Lowest reward of an answer that is imitated. None: 1 where all rewards are 0 or 1, so right answers only; else any."""
    sample_tokens: int = 256
    """Longest sampled answer in tokens."""
    temperature: float = 1.0
    """Of the sampling: 1 is the model's own distribution; 0 would give the same answer N times."""
    aggregation: str = "min"
    """One number from the steps' scores, where --reward-model is a process reward model: min, product, last, mean or log_odds."""

    def __post_init__(self) -> None:
        check_sampling(self, {"best_of": 0, "sample_tokens": 1}, above_0=("temperature",))
        self.check_mitigation()


AGGREGATION_NAMES = ("min", "product", "last", "mean", "log_odds")
"""The keys of `objectives.process.AGGREGATIONS`, which only torch can import."""


def check_sampling(options: object, at_least: dict[str, int], above_0: tuple[str, ...] = ()) -> None:
    """Refuse numbers out of range and an aggregation that is none.

    Args:
        at_least: the lowest value of each option.
        above_0: options that must be above 0.
    Raises:
        ConfigError: naming the option.
    """
    for name, lowest in at_least.items():
        if getattr(options, name) < lowest:
            raise ConfigError(f"--{name} {getattr(options, name)} must be {lowest} or more.")
    for name in above_0:
        if not getattr(options, name) > 0:
            raise ConfigError(f"--{name} {getattr(options, name)} must be above 0.")
    aggregation = getattr(options, "aggregation", "min")
    if aggregation not in AGGREGATION_NAMES:
        raise ConfigError(f"--aggregation {aggregation!r} must be one of {', '.join(AGGREGATION_NAMES)}.")


@dataclass
class LabelOptions:
    """`accord prm label`."""

    data: str = ""
    """Prompts to sample solutions for, or solutions to label (rows as for accord prm; labels in them are not read)."""
    model: str = "smollm2-135m"
    """Name, folder or run folder of the model that completes solutions; labels are worth what it makes of a step."""
    reward: list[str] | None = None
    """What says whether a whole answer is right: accuracy and other names of docs/rewards.md, or file.py:function, each optionally with a weight."""
    threshold: float = 1.0
    """Lowest reward of a right answer."""
    rollouts: int = 8
    """Completions sampled after each step."""
    solutions: int = 1
    """Solutions sampled for each prompt; unused where the data has solutions."""
    step_separator: str = "\n"
    r"""Closes every step; the same as in accord prm. An empty line in a shell: $'\n\n'."""
    max_new_tokens: int = 256
    """Longest solution, and longest completion, in tokens."""
    temperature: float = 1.0
    """Of the sampling: 1 is the model's own distribution."""
    seed: int = 0
    """Seeds sampling."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question."""
    to: str | None = None
    """The file of step rows to write. None is <data>-steps.jsonl. The samples stand beside it, and are used again."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.data or not self.reward:
            raise ConfigError(
                "accord prm label needs --data and --reward: accord prm label --data prompts.jsonl --model runs/sft --reward check.py:right"
            )
        if not self.step_separator:
            raise ConfigError("--step_separator must be some text.")
        check_sampling(self, {"rollouts": 1, "solutions": 1, "max_new_tokens": 1}, above_0=("temperature",))


@dataclass
class ChatOptions:
    """`accord chat` and `accord sample`."""

    model: str = "smollm2-135m"
    """Name, folder or run folder of the model to talk to."""
    prompt: list[str] | None = None
    """Prompts to answer and exit. None reads lines from the terminal. With --learn the one whose answer is shown at the start and now."""
    system: str | None = None
    """A system message before every conversation."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    temperature: float = 0.7
    """0 takes the most likely token; 1 is the model's own distribution."""
    top_p: float | None = None
    """Keep the likeliest tokens with this much probability together; 1 keeps all. None is 0.95, with --learn 1."""
    num_samples: int = 1
    """Answers to each prompt."""
    seed: int = 0
    """Seeds sampling."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        for name, holds, allowed in (
            ("max_new_tokens", self.max_new_tokens >= 1, "1 or more"),
            ("num_samples", self.num_samples >= 1, "1 or more"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"--{name} {getattr(self, name)} must be {allowed}.")


@dataclass
class LearnOptions:
    """`accord chat --learn`."""

    learn: bool = False
    """True opens a chat page in the browser: each time you prefer one of two answers, the model learns from it. False talks in the terminal."""
    output_dir: str | None = None
    """--learn: folder of the adapter and of your preferences; the same folder again goes on. None is runs/learn-<model>."""
    learning_rate: float = 8e-5
    """--learn: rate of AdamW, the same at every step. Higher is seen sooner and harms the text sooner."""
    beta: float = 0.1
    """--learn: how strongly the policy is held to its start. 0.05 to 0.5."""
    steps: int = 2
    """--learn: optimizer steps after each preference."""
    pairs: int = 4
    """--learn: preferences in a step: the new one, the others drawn from those before it."""
    replay: int = 40
    """--learn: how many of the newest preferences those others are drawn from. 0 learns from each preference alone."""
    lora_r: int = 16
    """--learn: rank of the LoRA adapter that is trained."""
    lora_layers: float = 0.33
    """--learn: share of the layers, from the top, that get the adapter. 1 trains all and takes longer."""
    host: str = "127.0.0.1"
    """--learn: address to listen on; another than this machine's own needs TLS, and people need an invitation."""
    port: int = 8321
    """--learn: port to listen on; 0 takes a free one."""
    tls_cert: str | None = None
    """--learn: certificate file, for people on other machines. None: plain HTTP, on this machine alone."""
    tls_key: str | None = None
    """--learn: its key file."""
    behind: str | None = None
    """--learn: https:// address of a proxy or tunnel with TLS before this server. None: there is none."""
    open_browser: bool = True
    """--learn: True opens the page. False prints its address alone."""

    def __post_init__(self) -> None:
        for name, holds, allowed in (
            ("learning_rate", 0 <= self.learning_rate < 1, "0 or more and below 1"),
            ("beta", self.beta > 0, "above 0"),
            ("steps", self.steps >= 1, "1 or more"),
            ("pairs", self.pairs >= 1, "1 or more"),
            ("replay", self.replay >= 0, "0 or more"),
            ("lora_r", self.lora_r >= 1, "1 or more"),
            ("lora_layers", 0 < self.lora_layers <= 1, "above 0 and at most 1"),
        ):
            if not holds:
                raise ConfigError(f"accord chat --{name} {getattr(self, name)} must be {allowed}.")
        given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if given and not self.learn:
            raise ConfigError(f"accord chat --{given[0]} belongs to --learn, which trains on what you prefer.")


@dataclass
class DoctorOptions:
    """`accord doctor`."""

    model: list[str] | None = None
    """Models whose template and end tokens are checked: names, folders, runs. None checks those that are fetched."""
    quick: bool = False
    """True measures no speed. False times a matrix product and a read of memory, in a second."""


@dataclass
class EvaluateOptions(MitigationConfig):
    """`accord evaluate`."""

    run: str = ""
    """Run folder of a reward model (accuracy), a DPO policy (implicit accuracy) or a process reward model (first errors found); with
    --best-of, any policy."""
    data: str = ""
    """Held-out comparisons; for a process reward model solutions with step labels; with --best-of, prompts."""
    best_of: int = 0
    """Answers sampled to each prompt, to measure what choosing the best of 1, 2, 4, ... of them gains. 0 measures accuracy instead."""
    reward_model: list[str] | None = None
    """--best-of chooses by these: run folders of reward or process reward models, each optionally with a weight: runs/prm*0.5."""
    reward: list[str] | None = None
    """--best-of chooses by these too: functions as file.py:function, each optionally with a weight."""
    aggregation: str = "min"
    """One number from the scores of a process reward model's steps: min, product, last, mean or log_odds."""
    true: str | None = None
    """What answers are really worth: accuracy or another name of docs/rewards.md, or file.py:function. None: only the reward chosen by is shown."""
    answer: str | None = None
    """file.py:function that takes completions and returns their final answers (or None): adds majority and weighted vote; needs --true."""
    max_new_tokens: int = 256
    """--best-of: longest answer in tokens."""
    temperature: float = 1.0
    """--best-of: 1 is the model's own distribution."""
    seed: int = 0
    """Seeds sampling and the bootstrap."""
    output_dir: str | None = None
    """--best-of: folder of samples (used again), scores and curve. None is runs/best-of-<N>-<model>-<data>."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question chosen=best rejected=worst."""
    force: bool = False
    """True loads the model even when it does not seem to fit in the free memory. False refuses."""

    def __post_init__(self) -> None:
        if not self.run or not self.data:
            raise ConfigError("accord evaluate needs a run folder and --data: accord evaluate runs/reward --data heldout.jsonl")
        check_sampling(self, {"best_of": 0, "max_new_tokens": 1}, above_0=("temperature",))
        self.check_mitigation()
        if self.best_of and not (self.reward_model or self.reward):
            raise ConfigError("accord evaluate --best-of needs what to choose by: --reward_model runs/... or --reward file.py:function.")
        if self.answer and not self.true:
            raise ConfigError("accord evaluate --answer needs --true file.py:function: what the answer that wins the vote is worth.")
        for name in ("reward_model", "reward", "true", "answer", "output_dir"):
            if getattr(self, name) and not self.best_of:
                raise ConfigError(f"accord evaluate --{name} belongs to --best-of N.")


@dataclass
class AnnotateOptions:
    """`accord annotate`."""

    project: str = "labels"
    """Folder of the project; made if it is not there."""
    data: str | None = None
    """Rows with answers to judge, or with --model prompts to answer. None opens what the project has."""
    model: str | None = None
    """Name, folder or run to sample answers from. None judges the answers that the rows have."""
    answers: int = 2
    """Answers sampled to each prompt: 2 make a pair, more a ranking."""
    select: str = "random"
    """Which pairs are asked: random, or active (double Thompson sampling over a reward model's heads; random_share of project.yaml stays random)."""
    reward_model: str | None = None
    """--select active: run folder of the reward model whose heads choose."""
    talk: bool = False
    """True adds a page on which people talk with --model and judge two answers to each turn. False does not."""
    limit: int | None = None
    """Only the first so many rows. None: all."""
    round: int = 0
    """Round that new tasks belong to."""
    overlap: int = 1
    """Annotators wanted for each task, in a project that is made now."""
    max_new_tokens: int = 128
    """Longest sampled answer in tokens."""
    temperature: float = 1.0
    """Of sampling."""
    columns: dict[str, str] | None = None
    """Which of your columns is which: prompt=question."""
    seed: int = 42
    """Of sampling."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs TLS."""
    port: int = 8321
    """Port to listen on; 0 takes a free one."""
    tls_cert: str | None = None
    """Certificate file, for people on other machines. None: plain HTTP, on this machine alone."""
    tls_key: str | None = None
    """Its key file."""
    behind: str | None = None
    """https:// address of a proxy or tunnel with TLS before this server. None: there is none."""
    open_browser: bool = True
    """True opens the page. False prints its address alone."""
    accept_licence: bool = False
    """True accepts the licence of a model that asks for it. False asks."""
    force: bool = False
    """True loads a model that may not fit into memory."""

    def __post_init__(self) -> None:
        if self.model and not self.data and not self.talk:
            raise ConfigError("accord annotate --model samples answers to prompts: give them with --data, or talk with it: --talk.")
        if self.talk and not self.model:
            raise ConfigError("accord annotate --talk needs somebody to talk with: --model NAME, a folder or a run.")
        if self.talk and self.temperature <= 0:
            raise ConfigError("accord annotate --talk needs two different answers to each turn: give a --temperature above 0.")
        if not 2 <= self.answers <= 20:
            raise ConfigError(f"accord annotate --answers {self.answers}: 2 for a pair, up to 20 for a ranking.")
        if self.select not in SELECT:
            raise ConfigError(f"accord annotate --select {self.select!r}: it is {' or '.join(SELECT)}.")
        if self.select == "random" and self.reward_model:
            raise ConfigError("accord annotate --reward-model chooses what is asked: give --select active with it.")
        if self.select == "random":
            return
        if not self.model or not self.data:
            raise ConfigError(
                "accord annotate --select active chooses among answers that it samples: give --model, and prompts with --data."
            )
        if not self.reward_model:
            raise ConfigError(
                "accord annotate --select active needs a reward model, and so labels: judge pairs that chance chose, accord project snapshot "
                f"{self.project}, accord reward --data {self.project}, then --reward-model with its run folder."
            )
        if self.answers != 2:
            raise ConfigError(
                f"accord annotate --select active asks pairs, each of several answers that it samples: leave --answers {self.answers} out."
            )
