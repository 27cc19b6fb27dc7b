"""Loads a model with small weights: one tensor after the other, so that its full-precision weights are never in memory together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.errors import ConfigError, MachineError
from accord.models import bitsandbytes_files, folders, gguf
from accord.models.bitsandbytes_files import Codes, is_four_bit
from accord.models.blocks import HELD, Blocks, can_hold
from accord.models.free_memory import available_memory, require
from accord.models.size import held_bytes
from accord.models.small import SmallLinear

if TYPE_CHECKING:
    from accord.models.load import ResolvedModel

EMBEDDINGS = ("Embedding", "Gemma2TextScaledWordEmbedding", "Gemma3TextScaledWordEmbedding")
"""Classes whose rows may be held as bfloat16: they look up, and multiply by `embed_scale` where they have one."""


def load_small(resolved: ResolvedModel, config: Any, kind: str, place: str, *, force: bool = False) -> tuple[Any, list[str]]:
    """The causal language model, whole, its linear layers held as `kind`, the rest in float32, embeddings and LM head as they are stored.

    Args:
        resolved: its folder holds safetensors of plain numbers, or nf4 by bitsandbytes; or it comes from a GGUF file, which is read itself.
        config: its transformers config.
        kind: one of `small.KINDS`, or gguf.
        place: the device.
        force: True loads it however little memory is free. False refuses what cannot fit before a weight is read.
    Returns:
        the model, and what to tell the user, a line each.
    Raises:
        ConfigError: if the model has no linear layers that could be held so.
        MachineError: if it does not fit, or weights are damaged, missing or of another shape.
    """
    folder = Path(resolved.folder)
    source = Path(resolved.gguf) if resolved.gguf else folder
    stored = gguf.stored_bytes(source) if resolved.gguf else folders.check_weights(folder)
    if is_four_bit(config):
        config = copy.deepcopy(config)
        del config.quantization_config  # what is built is ours
    model = _empty(config, kind, resolved.name)
    if not force:
        half = "BF16" in stored and not resolved.gguf
        require(_bytes(model, half=half), available_memory(place), what=f"Loading {resolved.name} with weights={kind!r}")
    notes = []
    main = stored.most_common(1)[0][0]
    if kind == "bf16" and stored["BF16"] < 0.5 * sum(stored.values()):
        notes.append(f"{resolved.name}: its weights are stored in {main}; bf16 rounds them to 8 bits of precision.")
    if resolved.gguf and kind in ("int8", "nf4") and main not in ("F32", "F16", "BF16"):
        notes.append(
            f"{resolved.name}: its weights are stored in {main} and rounded once more to {kind}; weights gguf holds them as they are."
        )
    left = _fill(model, source, resolved.name)
    if left:
        notes.append(
            f"{resolved.name}: {len(left)} stored weights are not part of the language model and were left out (first: {left[0]})."
        )
    _finish(model)
    model.config.name_or_path = resolved.folder
    if (folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.to(place).eval(), notes


def make_small(config: Any, kind: str, weight_of: Any) -> Any:
    """A model of a config with small weights, from a function that gives each weight by its name.

    Args:
        weight_of: name and shape to a tensor; called once for each weight, in the order of the model. Tied weights are asked for once.
    """
    model = _empty(config, kind, "the model")
    for name, shape in _shapes(model).items():
        _give(model, name, weight_of(name, shape))
    _finish(model)
    return model.eval()


def _empty(config: Any, kind: str, name: str) -> Any:
    """The model without storage for its weights; its linear layers, LM head aside, are small ones."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    head, count = model.get_output_embeddings(), 0
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(parent, key, SmallLinear(child.in_features, child.out_features, kind, bias=child.bias is not None))
                count += 1
    if not count:
        raise ConfigError(
            f"weights={kind!r}: {name} ({type(model).__name__}) has no plain linear layers that could be held so. Leave weights at auto."
        )
    return model


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every weight that a checkpoint must hold, with its shape; a tied LM head is the embedding's."""
    held = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, SmallLinear)}
    tied = _tied_head(model)
    found: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != tied:
            found[name] = (held[name].out_features, held[name].in_features) if name in held else tuple(parameter.shape)
    return found


def _tied_head(model: Any) -> str | None:
    head = model.get_output_embeddings()
    if not model.config.get_text_config().tie_word_embeddings:
        return None
    return next(f"{name}.weight" for name, module in model.named_modules() if module is head)


def _bytes(model: Any, *, half: bool) -> float:
    """What the loaded model takes. half: True where embeddings and LM head are stored as bfloat16; False for float32."""
    outer = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    total = 0.0
    shapes = _shapes(model)
    for name, module in model.named_modules():
        if isinstance(module, SmallLinear):
            total += held_bytes(module.kind, module.in_features, module.out_features)
        elif f"{name}.weight" in shapes:
            total += module.weight.numel() * (2 if half and id(module) in outer else 4)
    return total


def _fill(model: Any, source: Path, name: str) -> list[str]:
    """Read the weights into the model; returns the names of those that it has no place for.

    Args:
        source: a transformers folder or a GGUF file.
    Raises:
        MachineError: naming the first weight that is missing or of another shape.
    """
    shapes, prefix = _shapes(model), f"{model.base_model_prefix}."
    tied = _tied_head(model)
    left: list[str] = []

    def place(stored: str) -> str | None:
        return next((known for known in (stored, prefix + stored) if known in shapes), None)

    def wanted(stored: str) -> bool:
        if place(stored) is None and stored != tied:
            left.append(stored)
        return place(stored) is not None

    done: set[str] = set()
    for stored, tensor in _read(source, wanted):
        known = place(stored)
        if known is not None and tuple(tensor.shape) == shapes[known]:
            _give(model, known, tensor, source)
            done.add(known)
    lost = sorted(shapes.keys() - done)
    if lost:
        raise MachineError(
            f"{name}: {len(lost)} weights are missing or of another shape in {source} (first: {lost[0]}), or laid out in a way that small weights "
            "are not read from. Leave weights at auto, or fetch the model again."
        )
    return sorted(left)


def _read(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Tensor | Blocks | Codes]]:
    if source.is_file():
        yield from gguf.read_weights(source, wanted)
        return
    if is_four_bit(folders.read_config(source)):
        yield from bitsandbytes_files.read_weights(source, wanted)
        return
    for path in folders.weight_files(source):
        yield from folders.read_tensors(path, wanted)


def _give(model: Any, name: str, tensor: Tensor | Blocks | Codes, source: Path = Path()) -> None:
    """One weight to its place: held, kept as bfloat16 (embedding, LM head), or widened.

    Args:
        source: where it is from, for messages.
    """
    owner, _, key = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(tensor, Codes):
        if not isinstance(module, SmallLinear):
            raise MachineError(f"{source} holds {name} in 4 bits, which is no linear layer of the decoder. Name the unquantised model.")
        module.take(tensor)
        return
    if isinstance(tensor, Blocks):
        if isinstance(module, SmallLinear) and module.kind == "gguf":
            if not can_hold(tensor.kind):
                raise ConfigError(
                    f"{source.name} holds {name} as {tensor.kind}, and weights='gguf' computes with {', '.join(HELD)}. Use --weights int8 or nf4, which round it, or fp32."
                )
            module.take(tensor)
            return
        try:
            tensor = tensor.dense()
        except NotImplementedError as error:
            raise gguf.unreadable(source, tensor.kind) from error
    if isinstance(module, SmallLinear) and key == "weight":
        module.hold(tensor)
        module.sample = module.sample.clone()  # of a bfloat16 weight it is a view, which would keep all of it in memory
        return
    outer = module is model.get_output_embeddings() or (module is model.get_input_embeddings() and type(module).__name__ in EMBEDDINGS)
    kept = tensor if outer and key == "weight" and tensor.dtype == torch.bfloat16 else tensor.float()
    setattr(module, key, nn.Parameter(kept, requires_grad=False))


def _finish(model: Any) -> None:
    """Tie the LM head; have an embedding and a head of bfloat16 give float32."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if _tied_head(model) is not None:
        head.weight = embedding.weight
    if embedding.weight.dtype == torch.bfloat16:
        embedding.forward = MethodType(_look_up, embedding)
    if head.weight.dtype == torch.bfloat16:
        small = SmallLinear(head.in_features, head.out_features, "bf16", bias=head.bias is not None)
        small.weight, small.bias = head.weight, head.bias
        model.set_output_embeddings(small)


def _look_up(self: Any, input_ids: Tensor) -> Tensor:
    rows = F.embedding(input_ids, self.weight, self.padding_idx).float()
    scale = getattr(self, "embed_scale", None)
    return rows if scale is None else rows * scale.float()
