"""Activation checkpointing of transformers' layers without what training mode brings along: dropout stays off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
"""Makes the contexts of the first and of the second computation."""


def checkpointed_modules(model: nn.Module) -> list[Any]:
    """The modules that ask in training mode for a function that checkpoints: transformers' decoder layers, else whatever can."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    able = [module for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    return [module for module in able if isinstance(module, GradientCheckpointingLayer)] or able


@contextmanager
def checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Have these modules checkpoint where a gradient is wanted; afterwards the model is in evaluation, as it always is.

    Args:
        wanted: False checkpoints nothing.
    """
    try:
        if wanted and torch.is_grad_enabled():
            for module in checkpointed_modules(model):
                module.training = True
        yield
    finally:
        model.eval()


def run_checkpointed(module: nn.Module, contexts: Contexts, function: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
    """`function` of `module`, computed again in backward; once the module has asked for this, it runs as in evaluation."""

    def run(*given: Any, **keywords: Any) -> Any:
        asked, module.training = module.training, False
        try:
            return function(*given, **keywords)
        finally:
            module.training = asked

    return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts, **more)
