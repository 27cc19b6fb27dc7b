"""Does the packed path give this model's own logits? Measured at load, not listed: a silent difference would be the worst bug."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from accord.data.packing import Branch, PackedBatch, Unit, pack
from accord.models.packed_attention import TreeLayout, UnsupportedAttention

if TYPE_CHECKING:
    from accord.models.adapters import PolicyModel

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Largest log-probability difference in nats that counts as rounding."""
LEAST_HALF = 5e-2
"""The same in half types, where rounding depends on the model's size: at least so much, and more where the model's own kinds of attention differ by more."""
TIMES_ITS_OWN = 3.0
UNKNOWN = 0.2
"""Taken for what its own kinds differ by where a model has only one that runs (soft-capped scores have no fused kernel)."""
FEW_TOKENS = 1024
"""Vocabulary of the small copy: embeddings are most of a small model's memory and have no part in how it attends."""
FEW_INNER = 256
"""Inner width of its MLP, for the same reason: at full width two layers of a 7B model took 1.8 GB and ten seconds."""


def packing_problem(policy: PolicyModel) -> str | None:
    """None when packing is exact for this model, else one line that says why it is off.

    Checked on the real weights with two short rows, and on a two-layer random copy of the config (fp32), where a difference cannot
    hide behind half-precision rounding or weights that happen to ignore attention. In half types the real weights may differ by what the
    model's own kinds of attention differ by: SmolLM2-135M in bfloat16 is 0.2 nat apart from itself.
    """
    name = type(policy.model).__name__
    allowed = TOLERANCE.get(policy.model.dtype, LEAST_HALF)
    try:
        difference = _difference(policy)
        if policy.model.dtype not in TOLERANCE and difference > allowed:
            allowed = max(allowed, TIMES_ITS_OWN * _own_rounding(policy))
        exact = _difference(_small_copy(policy))
        if not exact <= TOLERANCE[torch.float32]:
            difference, allowed = exact, 0.0
    except UnsupportedAttention as error:
        return f"{name}: one row per completion, because its attention uses an {error} that the packed path does not have"
    except Exception as error:  # any failure of the trial run means the same: this model keeps its own path
        return f"{name}: one row per completion, because a packed trial run failed ({type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else 'no message'})"
    if not difference <= allowed:
        return f"{name}: one row per completion, because packed log-probs differ from the model's own by {difference:.1e} nat"
    return None


def _difference(policy: Any) -> float:
    """Largest difference in log-prob between the packed path and rows run alone."""
    from accord.models.adapters import Want
    from accord.models.rows import forward_rows

    batch, want = _trial(policy), Want(logprobs=True)
    with torch.no_grad():
        hidden, _ = policy.hidden_states(batch.tokens, batch.positions, TreeLayout(batch), ())
        packed = policy.read(hidden, None, batch, want, 1.0).logprobs
        rows = forward_rows(policy, batch, (), want).logprobs
    return float((packed - rows).abs().max())


def _own_rounding(policy: Any) -> float:
    """Largest difference in log-prob between the two kinds of attention that the model itself comes with, rows run alone: rounding and nothing else."""
    from accord.models.adapters import Want
    from accord.models.rows import forward_rows

    batch, want = _trial(policy), Want(logprobs=True)
    chosen, found = policy.text_config._attn_implementation, []
    try:
        for kind in ("sdpa", "eager"):
            policy.text_config._attn_implementation = kind
            with torch.no_grad():
                found.append(forward_rows(policy, batch, (), want).logprobs)
    except (ValueError, NotImplementedError):
        return UNKNOWN
    finally:
        policy.text_config._attn_implementation = chosen
    return float((found[0] - found[1]).abs().max())


def _trial(policy: Any) -> PackedBatch:
    """Two prompts with two completions each."""
    vocab = int(policy.model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, vocab, (length,), generator=generator).tolist())

    window = getattr(policy.text_config, "sliding_window", None) or 0
    long = window + 5 if 0 < window <= 32 else 9
    units = [Unit(ids(long), (Branch(ids(4)), Branch(ids(6)))), Unit(ids(3), (Branch(ids(5)), Branch(ids(1))))]
    return pack(units, policy.device)


def _small_copy(policy: PolicyModel) -> PolicyModel:
    """A random fp32 model of the same class with two layers (all kinds of layer it has, when they alternate) and few tokens."""
    from accord.models.adapters import PolicyModel

    config = copy.deepcopy(policy.model.config)
    text = config.get_text_config()
    kinds = list(getattr(text, "layer_types", None) or [])
    wanted = [kinds.index(kind) for kind in dict.fromkeys(kinds)] or [0, 0]
    layers = max(2, len(wanted))
    if kinds:
        text.layer_types = ([kinds[i] for i in wanted] * 2)[:layers]
    text.num_hidden_layers = layers
    if text.vocab_size > FEW_TOKENS:
        text.vocab_size, text.pad_token_id = FEW_TOKENS, None
    if isinstance(getattr(text, "intermediate_size", None), int):
        text.intermediate_size = min(FEW_INNER, text.intermediate_size)
    if getattr(text, "sliding_window", None):
        text.sliding_window = 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = type(policy.model)(config).float().eval()
        for parameter in model.parameters():  # default inits leave attention nearly uniform: make it matter
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.08)
    return PolicyModel(model, packed=True)
