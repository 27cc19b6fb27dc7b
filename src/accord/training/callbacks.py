"""transformers' TrainerCallback objects, called as they expect: with state and control, and their wishes honoured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.training.loop import Loop


class Callbacks:
    """Calls each callback's method when it has one. Free when there are none."""

    def __init__(self, loop: Loop, callbacks: Iterable[Any] = ()) -> None:
        self.loop = loop
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks]

    def call(self, event: str, **kwargs: Any) -> None:
        """Run one event, then act on `should_training_stop`, `should_save`, `should_evaluate`."""
        if not self.callbacks:
            return
        from transformers import TrainerControl

        loop = self.loop
        state = loop.state
        control = TrainerControl()
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None:
                method(
                    loop.config,
                    state,
                    control,
                    model=getattr(loop, "model", None),
                    processing_class=getattr(loop, "processing_class", None),
                    **kwargs,
                )
        if control.should_training_stop:
            loop.stop()
        if event == "on_step_end" and control.should_save:
            loop.save_checkpoint()
        if event == "on_step_end" and control.should_evaluate:
            loop.evaluate_and_compare()
