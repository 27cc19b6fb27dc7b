"""The plan of one run: what it takes in memory and time, whether it fits, and what would make it fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from accord.config.base import SMALL_WEIGHTS, TrainingConfig
from accord.config.online import OnlineConfig
from accord.config.options import TrainOptions
from accord.models.load import check_device
from accord.models.size import SMALLEST_BUDGET, ModelSize, choose_token_budget
from accord.planning.machine import Speeds
from accord.planning.memory import GB, MemoryNeed, Way, check_fits, predict, ways_to_fit
from accord.planning.time import Seconds, Training, predict_seconds, roughly
from accord.planning.work import HEADLESS, SAMPLED_TOGETHER, Data, Work, work_of

KEPT_TOKEN = 28
"""Bytes kept of each sampled token: seven numbers (log-probs of sampler, old policy and reference, advantage, return, value, id)."""


@dataclass(frozen=True)
class Place:
    """Where a run would be."""

    have: float
    """Bytes that it may take."""
    device: str = "cpu"
    weight_bytes: float = 4
    compute_bytes: int | None = None
    held: str | None = None
    """As `memory.predict`; the embeddings and the LM head then take `weight_bytes`."""
    half: bool = False
    """True where the checkpoint stores embeddings and LM head as bfloat16, which held weights leave as they are."""


def place_of(config: TrainingConfig, have: float, device: str, weight_bytes: float, *, half: bool) -> Place:
    """Where a run of this config would be.

    Args:
        weight_bytes: as its `dtype` says.
        half: True where embeddings and LM head are stored as bfloat16. False for float32.
    Raises:
        ConfigError: if the device cannot compute with weights held so.
    """
    check_device(config.weights, device)
    on_gpu = device.startswith("cuda")
    if config.weights == "fp32":
        return Place(have, device, 4, half=half)
    if config.weights not in SMALL_WEIGHTS:
        return Place(have, device, weight_bytes, half=half)
    if config.weights == "bf16" and on_gpu:
        return Place(have, device, 2, half=half)
    return Place(have, device, 2 if half else 4, int(weight_bytes) if on_gpu else 4, config.weights, half)


def smallest_need(size: ModelSize, options: TrainOptions, config: TrainingConfig, place: Place) -> int:
    """Bytes that a run takes in micro-batches as small as they are asked for, or can be made."""
    return predict(size, **memory_settings(config, options, place), token_budget=config.tokens_per_microbatch or SMALLEST_BUDGET).total


def trains_all(options: TrainOptions, config: TrainingConfig) -> bool:
    """Whether all weights are trained: no adapter, and no heads on frozen features."""
    return not options.lora_r and getattr(config, "backbone", "") != "heads"


@dataclass(frozen=True)
class Plan:
    """What a run will take."""

    what: str
    """The method and its model: dpo on smollm2-135m."""
    need: MemoryNeed
    have: float
    token_budget: int
    ways: tuple[Way, ...] = ()
    """Changes under which it fits, where it does not."""
    work: Work | None = None
    """None where nothing is known of the rows."""
    seconds: Seconds | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def fits(self) -> bool:
        return self.need.total <= self.have

    @property
    def lines(self) -> str:
        """The first lines of a run: whether it fits, and how long it takes."""
        said = f"Plan: {self.what} {self.verdict}"
        if self.work is None:
            return said
        said += f"\n  {self.work.steps} optimizer steps, {self.work.tokens:,.0f} tokens in updates"
        return said if self.seconds is None else f"{said}: {roughly(self.seconds.total)}"

    def check(self, *, force: bool) -> None:
        """Refuse what does not fit.

        Args:
            force: True goes on regardless. False raises.
        Raises:
            MachineError: (exit code 4) with what it needs, what there is and what would fit.
        """
        check_fits(self.need, self.have, what=f"accord {self.what}", fitting=", or ".join(map(str, self.ways[:2])), force=force)

    @property
    def verdict(self) -> str:
        """fits, does not fit, or fits if."""
        if self.fits:
            return f"fits: {self.need.total / GB:.1f} GB of {self.have / GB:.1f} GB"
        start = f"{self.need.total / GB:.1f} GB, and there are {self.have / GB:.1f} GB"
        if self.ways:
            return f"fits if ({start}): " + "; or ".join(str(way) for way in self.ways[:3])
        return f"does not fit: {start}, and no flag that saves memory is enough"

    def __str__(self) -> str:
        lines = [f"{self.what} {self.verdict}", f"  memory: {self.need}"]
        if self.work is not None:
            lines.append(f"  {self.work.steps} optimizer steps, {self.work.tokens:,.0f} tokens in updates, {self.token_budget} at once")
        if self.seconds is not None:
            lines.append(f"  time: {roughly(self.seconds.total)}: {self.seconds}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def memory_settings(config: TrainingConfig, options: TrainOptions, place: Place, *, rows: int | None = None) -> dict[str, Any]:
    """What `memory.predict` is told of a run whose rows have not been rendered, the token budget apart: of what is sampled the answers
    alone stand in its cache, which `plan_run` corrects when prompts are known.

    Args:
        rows: prompts there are; None: enough.
    """
    rank: int | None = options.lora_r or None
    if getattr(config, "backbone", "") == "heads":
        rank = 0
    context = config.max_length or 1024
    settings: dict[str, Any] = {
        "context": context,
        "checkpointing": config.gradient_checkpointing,
        "weight_bytes": place.weight_bytes,
        "rank": rank,
        "head": config.method not in HEADLESS,
        "optim": config.optim,
    }
    if place.compute_bytes is not None:
        settings["compute_bytes"] = place.compute_bytes
    if place.held:
        settings["held"] = place.held
    if rank:
        settings["lora_layers"] = options.lora_layers
    if options.lora_target != "all-linear":
        settings["target_modules"] = [name.strip() for name in options.lora_target.split(",")]
    if isinstance(config, OnlineConfig):
        adapters = 2 if getattr(config, "value", "") == "adapter" else 1
        settings |= {"adapters": adapters, "trained_adapters": adapters}
        prompts = config.prompts_a_round if rows is None else min(rows, config.prompts_a_round)
        settings |= sampling_settings(prompts * config.num_generations, config.answer_tokens)
    return settings


def sampling_settings(answers: int, tokens: int) -> dict[str, Any]:
    """What `memory.predict` is told of so many answers, so long at most."""
    together = min(SAMPLED_TOGETHER, answers)
    return {"sample_rows": together, "cache_tokens": together * tokens}


def fewer_answers(config: TrainingConfig, settings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Flags under which half, a quarter, ... of the answers are sampled at once, down to one prompt's: as `memory.ways_to_fit` takes them."""
    if not isinstance(config, OnlineConfig) or not settings.get("sample_rows"):
        return []
    found: list[tuple[str, float]] = []
    prompts = config.prompts_a_round // 2
    while prompts:
        rows = prompts * config.num_generations
        batch = rows // (config.steps_a_pass * config.gradient_accumulation_steps)
        flag = f"--prompts_per_iteration {prompts}" if config.method == "ppo" else f"--per_device_train_batch_size {batch}"
        if rows < settings["sample_rows"] and (config.method == "ppo" or batch >= config.num_generations):
            found.append((flag, rows / settings["sample_rows"]))
        prompts //= 2
    return found


def budget_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of them that `size.choose_token_budget` takes."""
    found = {name: settings[name] for name in ("context", "checkpointing", "weight_bytes", "lora_layers") if name in settings}
    return found | ({"weight_bytes": settings["compute_bytes"]} if "compute_bytes" in settings else {})


def plan_run(
    size: ModelSize,
    config: Any,
    options: TrainOptions,
    place: Place,
    *,
    data: Data | None = None,
    speeds: Speeds | None = None,
    below: int = 0,
    sampled: tuple[int, int] = (0, 0),
    notes: tuple[str, ...] = (),
) -> Plan:
    """Plan one run.

    Args:
        config: of its method; a token budget that it leaves open is chosen as the run itself would.
        data: its rows; None plans memory alone, for rows as long as `max_length` allows.
        speeds: of the machine; None plans no time.
        below: adapters that lie frozen below the trained one.
        sampled: as `work.work_of`.
        notes: lines to show with it.
    """
    settings = memory_settings(config, options, place)
    settings["adapters"] = settings.get("adapters", 1) + below
    budget = config.tokens_per_microbatch
    if budget is None:
        fixed = predict(size, **{**settings, "head": True}, token_budget=0).total  # as `training.budget` counts
        budget = choose_token_budget(size, place.have - fixed, device=place.device, **budget_settings(settings))
    work = None
    if data is not None:
        learned = len(options.reward_model or ())
        work = work_of(config, data, token_budget=budget, lora_layers=options.lora_layers, reward_models=learned, sampled=sampled)
        settings |= _of_the_work(size, config, settings, work, data)
    need = predict(size, **settings, token_budget=budget)
    ways = tuple(ways_to_fit(size, place.have, **settings, **more_ways(config, place, settings))) if need.total > place.have else ()
    if place.held and work is not None and work.sampled_rows and _merges(size, need, place):
        need = replace(need, merged=second_set(size))
    seconds = None
    if work is not None and speeds is not None:
        training = Training(
            rank=settings["rank"],
            target_modules=settings.get("target_modules", "all-linear"),
            lora_layers=settings.get("lora_layers", 1.0),
            checkpointing=config.gradient_checkpointing,
            below=below,
            weight_bytes=place.compute_bytes or place.weight_bytes,
            held=place.held,
            merged=not place.held or _merges(size, need, place),
            optim=config.optim,
        )
        seconds = predict_seconds(size, work, speeds, training)
    return Plan(f"{config.method} on {options.model}", need, place.have, budget, ways, work, seconds, notes)


def more_ways(config: TrainingConfig, place: Place, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `memory.ways_to_fit` is told beside the settings."""
    outer = (2 if place.half else 4) if place.device == "cpu" else place.weight_bytes
    return {"heads": hasattr(config, "backbone"), "outer": outer, "fewer": fewer_answers(config, settings), "sharded": config.fully_shard}


def _merges(size: ModelSize, need: MemoryNeed, place: Place) -> bool:
    """Whether sampling from a held base finds room for a second weight set in float32 (`models.merged`): as much again must stay free."""
    return need.merged > 0 or place.have - need.total > 2 * second_set(size)


def second_set(size: ModelSize) -> int:
    """Bytes of the adapted linear layers in float32."""
    return 4 * sum(inputs * outputs for _, inputs, outputs in size.linears)


def _of_the_work(size: ModelSize, config: Any, settings: dict[str, Any], work: Work, data: Data) -> dict[str, Any]:
    """What the rows say about memory: the longest goes through whole; what is sampled stands in the cache; what is kept of it all."""
    found: dict[str, Any] = {"longest": work.longest}
    frozen = 1.0 - settings.get("lora_layers", 1.0)
    kept = data.epoch.tokens * size.hidden * 4 if frozen and config.cache_lower_layers else 0.0
    if work.sampled_rows:
        prompt = data.longest if isinstance(config, OnlineConfig) else data.prompt  # elsewhere the longest row has answers
        found |= {"sample_rows": work.sampled_rows, "cache_tokens": work.sampled_rows * work.answer + work.sampled_prompts * prompt}
    if not isinstance(config, OnlineConfig):
        return {**found, "buffers": kept}
    prompts = min(config.prompts_a_round, data.rows)
    answered = prompts * config.num_generations * config.answer_tokens
    states = size.hidden * 4 if config.method == "ppo" else 0
    reads = config.method == "ppo" or getattr(config, "beta", 0.0) > 0
    return {
        **found,
        "reference_copy": settings["rank"] is None and reads,
        "buffers": answered * (KEPT_TOKEN + states) + (kept and (answered + prompts * data.prompt) * size.hidden * 4),
    }
