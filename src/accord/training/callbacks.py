"""transformers' TrainerCallback objects, called as they expect: with state, control and arguments they know, and their wishes honoured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accord.training.loop import Loop


class Arguments:
    """A config under transformers' names too: what its own callbacks (early stopping, say) ask of `TrainingArguments`."""

    def __init__(self, loop: Loop) -> None:
        self._config = config = loop.config
        self.logging_strategy, self.eval_strategy, self.save_strategy = (
            "steps" if steps else "no" for steps in (config.logging_steps, config.eval_steps, config.save_steps)
        )
        self.metric_for_best_model = loop.best.name
        self.greater_is_better = loop.best.higher
        self.logging_first_step = self.eval_delay = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


class Callbacks:
    """Calls each callback's method when it has one. Free when there are none.

    To save or to evaluate is done where the run can be resumed: an online method's wishes wait for the end of its iteration.
    """

    def __init__(self, loop: Loop, callbacks: Iterable[Any] = ()) -> None:
        self.loop = loop
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        self._in_epoch = self._save = self._evaluate = False
        self._before = 0.0

    def call(self, event: str, **kwargs: Any) -> None:
        """Run one event; note `should_training_stop`, `should_save`, `should_evaluate`."""
        if not self.callbacks:
            return
        from transformers import TrainerControl

        loop = self.loop
        state, arguments, control = loop.state, Arguments(loop), TrainerControl()
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None:
                method(arguments, state, control, model=loop.model, processing_class=loop.processing_class, **kwargs)
        if control.should_training_stop:
            loop.stop()
        self._save |= control.should_save
        self._evaluate |= control.should_evaluate

    def before_step(self) -> None:
        if not self._in_epoch:
            self._in_epoch, self._before = True, self.loop.epoch
            self.call("on_epoch_begin")
        self.call("on_step_begin")

    def after_step(self, *, boundary: bool) -> None:
        """boundary: True where the run can be saved and resumed. False keeps wishes for later."""
        self.call("on_step_end")
        if math.floor(self.loop.epoch + 1e-9) > math.floor(self._before + 1e-9):
            self._in_epoch = False
            self.call("on_epoch_end")
        if not boundary:
            return
        save, evaluate, self._save, self._evaluate = self._save, self._evaluate, False, False
        if save:
            self.loop.save_checkpoint()
        if evaluate:
            self.loop.evaluate_and_compare()
