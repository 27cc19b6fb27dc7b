"""One base model, a stack of adapters on it, and the only code that runs its weights.

A training stage freezes every earlier adapter, keeps them active and adds one fresh adapter (B = 0). The reference policy is the
stack without the newest adapter, never "adapters off": after SFT, "off" would be the base model, not the SFT policy.
The stack is an argument of every forward pass; recomputation under activation checkpointing sees the same stack.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn

from accord.data.packing import PackedBatch
from accord.errors import ConfigError
from accord.models import packed_attention
from accord.models.adapter_kinds import check_adapter, check_head, head_weight
from accord.models.allocator import return_freed_memory
from accord.models.answer_features import answer_features, likelihoods
from accord.models.checkpointing import checkpointed_modules, checkpointing, run_checkpointed
from accord.models.flex_attention import SHORTEST, FlexLayout
from accord.models.fuse import fuse
from accord.models.heads import Reading
from accord.models.merged import PLAIN, Holding, holding, merged_weights
from accord.models.packed_attention import Layout, TreeLayout
from accord.models.partial import LowerStates, kept_states, midway_problem, only_layers
from accord.models.sharding import Sharding
from accord.models.small import held_as
from accord.models.take import take
from accord.objectives.logprobs import TokenLogprobs, chunked_logprobs
from accord.objectives.segments import at_least_fp32

Stack = tuple[str, ...]
_NUMBERS = count()


@dataclass
class Outputs:
    """What one forward pass returns; only what was asked for is set."""

    logprobs: Tensor | None = None
    """(M,) log-probability of each counted token, in nats."""
    entropy: Tensor | None = None
    """(M,) entropy of the distribution each counted token was predicted from, no gradient."""
    greedy: Tensor | None = None
    """(M,) bool, with the log-probs: whether each counted token is the most probable one."""
    states: Tensor | None = None
    """(M, d) final hidden state that predicts each counted token: what a value head reads."""
    ends: tuple[Tensor, ...] = ()
    """One tensor for each of `Want.ends`: (C, d) hidden state of each completion's last token, after the final norm; (C, 3 d) with context;
    more with surprise. A completion with `Branch.ends` has a row for each of them."""


@dataclass(frozen=True)
class Want:
    """What a forward pass should return."""

    logprobs: bool = True
    entropy: bool = False
    states: bool = False
    ends: tuple[Reading, ...] = ()


class PolicyModel:
    """A causal language model with its adapter stack.

    Args:
        model: a transformers causal LM, or a peft model around one (its adapters become the bottom of the stack).
        packed: True runs the shared-prefix layout through the model's own forward. False runs one row per completion. None measures
            at once whether the packed path gives the model's own logits and decides.
        fused: True puts the functions of `models.fused` into the model's modules where they fit. False leaves it as it is.
    """

    def __init__(self, model: nn.Module, *, packed: bool | None = None, fused: bool = True) -> None:
        from peft import PeftModel

        self.peft: Any = model if isinstance(model, PeftModel) else None
        self.model: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self.adapters: list[str] = list(self.peft.peft_config) if self.peft is not None else []
        self.frozen_base = self.peft is not None
        self.origins: dict[str, str] = {}
        """The run folder an adapter was loaded from or saved to."""
        self.number = next(_NUMBERS)
        """Tells the models of one process apart; processes that do the same in the same order give the same numbers."""
        self.note: str | None = None
        """Why the packed path is off, in one line; None when it is on."""
        self.checkpointing = False
        self.attention = "branches"
        """How packed batches attend: `branches` (`TreeLayout`) or `flex` (`FlexLayout`)."""
        self.sharding: Sharding | None = None
        """Set when the weights are split over processes."""
        self._midway: bool | None = None
        self._active: Stack | None = None
        self.fused = fused
        for config in self.peft.peft_config.values() if self.peft is not None else ():
            check_adapter(config, self.held)
        self._prepare_modules()
        packed_attention.register()
        self.packed = True if packed is None else packed
        if packed is None:
            from accord.models.support import packing_problem

            self.note = packing_problem(self)
            self.packed = self.note is None

    # -- structure ------------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def text_config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def held(self) -> str | None:
        """How its frozen linear layers are held (`models.small`); None where they are ordinary ones."""
        return held_as(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return torch.float32 if self.held else self.model.dtype

    @property
    def backbone(self) -> Any:
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def decoder(self) -> Any:
        """The part of the backbone that reads text: all of it, but in a model that sees or hears too."""
        return self.backbone if self.text_config is self.config else self.model.get_decoder()

    @property
    def hidden_size(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def num_layers(self) -> int:
        return int(self.text_config.num_hidden_layers)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, found by their number: the one ModuleList with `num_hidden_layers` entries nearest the root."""
        for module in self.decoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.num_layers:
                return module
        name = type(self.model).__name__
        raise ConfigError(f"{name} has no list of {self.num_layers} decoder layers: middle-layer features are not available for it.")

    @property
    def final_norm(self) -> nn.Module:
        for name in ("norm", "final_layernorm", "ln_f", "final_layer_norm"):
            if hasattr(self.decoder, name):
                return getattr(self.decoder, name)
        return nn.Identity()

    def _prepare_modules(self) -> None:
        """Modules that are new: no dropout, and fused functions where they fit."""
        self.model.eval()
        if self.fused:
            fuse(self.model)
        check_head(self.model.get_output_embeddings())

    def tuner_layers(self) -> list[Any]:
        """Every module that carries adapters."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    # -- adapters ---------------------------------------------------------------------------------------------------------------

    def add_adapter(self, name: str, config: Any, *, seed: int = 0) -> Stack:
        """Freeze everything, then add one fresh trainable adapter on top. Returns the new stack.

        Args:
            name: unused so far in this model.
            config: a peft config (LoraConfig).
            seed: seeds the adapter's A matrices alone, so that nothing drawn before or after changes them.
        """
        from peft import get_peft_model

        if name in self.adapters:
            raise ConfigError(f"An adapter named {name!r} is already on this model. Choose another name.")
        check_adapter(config, self.held)
        with torch.random.fork_rng(devices=[]), _without_noise():
            torch.manual_seed(seed)
            if self.peft is None:
                self.peft = get_peft_model(self.model, config, adapter_name=name)
            else:
                self.peft.add_adapter(name, config)
        self._prepare_modules()
        self.adapters.append(name)
        self.frozen_base = True
        self.train_only(name)
        return tuple(self.adapters)

    def copy_adapter(self, name: str, copy: str) -> None:
        """Add a frozen copy of an adapter as it is now; what was trained still is. Whoever runs a stack says which of the two is in it."""
        assert self.peft is not None
        trained = [name for name in self.adapters if any(p.requires_grad for p in self.adapter_parameters(name).values())]
        self.add_adapter(copy, self.peft.peft_config[name])
        self.copy_weights(name, copy)
        self.train_only(*trained)

    def copy_weights(self, name: str, copy: str) -> None:
        """Give an adapter the weights of another one of the same shape."""
        own = self.adapter_parameters(copy)
        with torch.no_grad():
            for key, parameter in self.adapter_parameters(name).items():
                own[".".join(copy if part == name else part for part in key.split("."))].copy_(parameter)

    def load_adapter(self, name: str, folder: str) -> None:
        """Add a saved peft adapter, frozen, on top of the stack.

        Raises:
            ConfigError: if it is of a kind that a stack cannot hold.
        """
        from peft import PeftConfig, PeftModel

        check_adapter(PeftConfig.from_pretrained(folder), self.held)
        if self.peft is None:
            with _without_noise():
                self.peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name, is_trainable=False)
        else:
            self.peft.load_adapter(folder, adapter_name=name, is_trainable=False)
        self._prepare_modules()
        self.adapters.append(name)
        self.frozen_base = True
        self.train_only(None)

    def train_only(self, *names: str | None) -> None:
        """Gradients for these adapters and for nothing else in the model."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        for name in names:
            for parameter in self.adapter_parameters(name).values() if name else ():
                parameter.requires_grad_(True)

    def adapter_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Parameters of one adapter by their name in the model."""
        return {key: parameter for key, parameter in self.model.named_parameters() if name in key.split(".")}

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {key: parameter for key, parameter in self.model.named_parameters() if parameter.requires_grad}

    # -- processes ----------------------------------------------------------------------------------------------------------------

    def shard(self) -> None:
        """Split every weight over all processes; done once, after the last adapter was added.

        Raises:
            ConfigError: if this model cannot pack (its passes would differ in number between processes), or torch is too old.
        """
        if not self.packed:
            raise ConfigError("fully_shard needs a model that can pack, and this one runs a row at a time. Leave fully_shard at False.")
        if self.sharding is None:
            self.sharding = Sharding(self.peft if self.peft is not None else self.model, list(self.layers), self.device)

    def gathered(self) -> AbstractContextManager[None]:
        """Where weights are split, they are whole within this context (`Sharding.gathered`); elsewhere it does nothing."""
        return nullcontext() if self.sharding is None else self.sharding.gathered()

    # -- which layers an adapter touches --------------------------------------------------------------------------------------------

    def lowest_layer(self, name: str) -> int:
        """The lowest decoder layer (0-based) with weights of this adapter; 0 when it also sits outside the layers."""
        prefix = next(key for key, module in self.model.named_modules() if module is self.layers)
        found = [
            key.removeprefix(f"{prefix}.").split(".")[0] if key.startswith(f"{prefix}.") else "0" for key in self.adapter_parameters(name)
        ]
        return min((int(index) for index in found), default=0)

    def frozen_depth(self, stack: Sequence[str]) -> int:
        """How many of the lowest layers nothing trainable in `stack` touches: their output never changes. 0 in full fine-tuning."""
        trainable = self.trainable_parameters()
        names = [name for name in stack if any(key in trainable for key in self.adapter_parameters(name))]
        if not names or any(not any(name in key.split(".") for name in self.adapters) for key in trainable):
            return 0
        return min(self.lowest_layer(name) for name in names)

    def adapters_below(self, stack: Sequence[str], layer: int) -> Stack:
        """The adapters of `stack` that sit below this layer."""
        return tuple(name for name in stack if self.lowest_layer(name) < layer)

    @property
    def can_start_midway(self) -> bool:
        """Whether a pass may start at a middle layer from kept states; measured once."""
        if self._midway is None:
            self._midway = self.packed and midway_problem(self) is None
        return self._midway

    # -- forward ------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, stack: Sequence[str], *, packed: bool = True) -> Iterator[None]:
        """Run the model with exactly these adapters; also entered again when checkpointed layers are recomputed."""
        wanted = tuple(stack)
        unknown = [name for name in wanted if name not in self.adapters]
        if unknown:
            raise ConfigError(f"The stack names {unknown} but this model has {self.adapters}.")
        layers = self.tuner_layers()
        before = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
        attention = self.text_config._attn_implementation
        previous = self._active
        try:
            self._active = wanted
            for layer in layers:
                layer._active_adapter, layer._disable_adapters = list(wanted), False
            if packed:
                self.text_config._attn_implementation = packed_attention.NAME
            yield
        finally:
            self._active = previous
            self.text_config._attn_implementation = attention
            for layer, active, disabled in before:
                layer._active_adapter, layer._disable_adapters = active, disabled

    def enable_checkpointing(self) -> None:
        """Trade one more forward pass for memory: keep only the input of each decoder layer."""
        self.checkpointing = True
        return_freed_memory()
        for module in checkpointed_modules(self.model):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(run_checkpointed, module, self._recompute_contexts)

    def _recompute_contexts(self) -> tuple[Any, Any]:
        stack = self._active or ()
        packed = self.text_config._attn_implementation == packed_attention.NAME
        return nullcontext(), self.using(stack, packed=packed)

    def forward(self, batch: PackedBatch, stack: Sequence[str], want: Want = Want(), *, temperature: float = 1.0) -> Outputs:
        """Run a packed batch through the base with `stack` active.

        Args:
            batch: N tokens, C completions, M counted tokens.
            stack: adapters to use, bottom first; () is the bare base.
            want: what to return.
            temperature: divides the logits, as in sampling.
        """
        if self.sharding is None:
            return self._forward(batch, stack, want, temperature)

        def parts() -> tuple[Tensor | None, ...]:
            out = self._forward(batch, stack, want, temperature)
            return out.logprobs, out.entropy, out.greedy, out.states, *out.ends

        logprobs, entropy, greedy, states, *ends = self.sharding.run(parts)
        return Outputs(logprobs, entropy, greedy, states, tuple(ends))

    def _forward(self, batch: PackedBatch, stack: Sequence[str], want: Want, temperature: float) -> Outputs:
        if not self.packed:
            from accord.models.rows import forward_rows

            return forward_rows(self, batch, stack, want, temperature=temperature)
        layers = {reading.layer for reading in want.ends if reading.layer is not None}
        start = kept_states(batch, min(layers) - 1 if layers else self.num_layers)
        if start is not None and (start.model != self.number or self.adapters_below(stack, start.layer) != start.adapters):
            start = None
        to_the_end = want.logprobs or want.entropy or want.states or any(reading.surprise or not reading.layer for reading in want.ends)
        only_layers_read = layers and not to_the_end
        hidden, middle = self.hidden_states(
            batch.tokens,
            batch.positions,
            self.layout(batch),
            stack,
            layers=layers,
            start=start,
            stop=max(layers) if only_layers_read else None,
        )
        return self.read(hidden, middle, batch, want, temperature, stack)

    def layout(self, batch: PackedBatch) -> Layout:
        """Who sees whom in a batch, computed as `attention` says."""
        return FlexLayout(batch) if self.attention == "flex" and batch.num_tokens >= SHORTEST else TreeLayout(batch)

    def hidden_states(
        self,
        tokens: Tensor,
        positions: Tensor,
        layout: Layout,
        stack: Sequence[str],
        *,
        layers: Collection[int] = (),
        start: LowerStates | None = None,
        stop: int | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Final hidden states (N, d), and the outputs of `layers` after the final norm.

        Args:
            layers: 1..L.
            start: states to begin from instead of the embeddings.
            stop: run only this many layers, then the final norm. None runs all.
        """
        captured: dict[int, Tensor] = {}
        stop = stop if stop is not None and self.can_start_midway else self.num_layers

        def keep(layer: int) -> Any:
            def hook(_module: Any, _inputs: Any, out: Any) -> None:
                captured[layer] = cast("Tensor", out[0] if isinstance(out, tuple) else out)

            return self.layers[layer - 1].register_forward_hook(hook)

        hooks = [keep(layer) for layer in layers if layer < stop]
        inputs = {"input_ids": tokens[None]} if start is None else {"inputs_embeds": start.states[None]}
        partly = only_layers(self.layers, start.layer if start else 0, stop) if start or stop < self.num_layers else nullcontext()
        try:
            with self.using(stack), partly, checkpointing(self.model, self.checkpointing):
                output = self.backbone(**inputs, position_ids=positions[None], use_cache=False, packed=layout)
                hidden = output.last_hidden_state[0]
                middle = {layer: self.final_norm(captured[layer])[0] if layer in captured else hidden for layer in layers}
        finally:
            for hook in hooks:
                hook.remove()
        return hidden, middle

    def layer_input(self, tokens: Tensor, positions: Tensor, layout: Layout, stack: Sequence[str], layer: int) -> Tensor:
        """(N, d) input of decoder layer `layer` (0-based); the layers from there on do not run."""
        with self.using(stack), only_layers(self.layers, 0, layer):
            skipped: Any = self.layers[layer]
            self.backbone(input_ids=tokens[None], position_ids=positions[None], use_cache=False, packed=layout)
            return skipped.seen[0]

    def read(
        self, hidden: Tensor, middle: dict[int, Tensor], batch: PackedBatch, want: Want, temperature: float, stack: Sequence[str] = ()
    ) -> Outputs:
        """Apply the LM head, with the adapters of `stack` on it, to the counted positions alone, in chunks; take from `hidden` and `middle`
        (outputs of layers) what reward heads read."""
        out = Outputs()
        if want.logprobs or want.entropy or want.states:
            states = take(hidden, batch.sources)
            out.states = states if want.states else None
            if want.logprobs or want.entropy:
                out.logprobs, out.entropy, out.greedy = self.logprobs(
                    states, batch.targets, stack, temperature=temperature, want_entropy=want.entropy
                )
        if want.ends:
            places = batch.answers
            likely = None
            if any(reading.surprise for reading in want.ends):
                likely = likelihoods(hidden, batch, lambda states, targets: self.logprobs(states, targets, stack).logprobs)
            out.ends = tuple(
                answer_features(hidden if reading.layer is None else middle[reading.layer], places, reading, likely)
                for reading in want.ends
            )
        return out

    def logprobs(
        self, states: Tensor, targets: Tensor, stack: Sequence[str], *, temperature: float = 1.0, want_entropy: bool = False
    ) -> TokenLogprobs:
        """Log-probabilities of `targets` (M,) in final hidden states (M, d), with the adapters of `stack` on the LM head."""
        head = self.model.get_output_embeddings()
        return chunked_logprobs(
            states,
            head_weight(head, stack),
            targets,
            bias=getattr(head, "bias", None),
            temperature=temperature,
            softcap=self.softcap,
            want_entropy=want_entropy,
        )

    def logits(self, states: Tensor) -> Tensor:
        """LM head on given states (n, d): (n, V), at least fp32. For sampling, where every logit is needed."""
        logits = at_least_fp32(self.model.get_output_embeddings()(states))
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits

    @property
    def softcap(self) -> float | None:
        return getattr(self.text_config, "final_logit_softcapping", None)

    def holding(self, stack: Sequence[str], *, prepack: bool, int8: bool = False) -> Holding:
        """How memory lets a second weight set be held; see `models.merged`."""
        return holding(self, stack, prepack=prepack, int8=int8)

    def merged(
        self, stack: Sequence[str], held: Holding = PLAIN, *, packed: bool = True, rows: int = 1, int8: bool = False
    ) -> AbstractContextManager[None]:
        """Decode from a second weight set; see `models.merged`."""
        return merged_weights(self, stack, held, packed=packed, rows=rows, int8=int8)


@contextmanager
def _without_noise() -> Iterator[None]:
    """peft 0.21 reads a property that transformers 5.23 has renamed; users can do nothing about the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
