"""Draw examples as the model sees them: which tokens are prompt, which are learned, and whether the end token is among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from accord.data.check import ends_counted
from accord.data.printable import printable
from accord.types import Example

if TYPE_CHECKING:
    from rich.text import Text

    from accord.data.render_steps import StepRenderer

PROMPT_STYLE = "dim"
COUNTED_STYLE = "bold green"
UNCOUNTED_STYLE = "yellow"


def draw_examples(
    examples: Iterable[Example], tokenizer: Any, *, end_ids: Sequence[int] | None = None, max_length: int | None = None
) -> Text:
    """Examples with their loss mask in color: prompt dim, learned tokens green, other tokens of the completion yellow.

    Args:
        examples: what to draw, usually three rows.
        tokenizer: a transformers tokenizer.
        end_ids: ids that end an answer, as training has them; None: the tokenizer's end token.
        max_length: cut as training would; None: whole examples.
    Raises:
        DataError: if an example cannot be rendered.
    """
    from rich.text import Text

    from accord.data.render import Renderer
    from accord.data.render_steps import StepRenderer

    renderer = Renderer(tokenizer, end_ids=end_ids, max_length=max_length)
    steps = StepRenderer(renderer)
    drawing = Text()
    drawing.append("prompt", PROMPT_STYLE).append("   ").append("learned", COUNTED_STYLE).append("   ")
    drawing.append("in the completion, not learned", UNCOUNTED_STYLE).append("\n")
    for example in examples:
        drawing.append(f"\n--- {example.where or 'example'} ({example.kind})\n", "bold")
        if example.kind == "steps":
            _draw_steps(drawing, example, steps)
            continue
        rendered = renderer.render(example)
        drawing.append(_decode(tokenizer, rendered.prompt_ids), PROMPT_STYLE)
        for number, completion in enumerate(rendered.completions, start=1):
            name = ("chosen", "rejected")[number - 1] if example.kind == "preference" else f"completion {number}"
            drawing.append(f"\n[{name}] " if len(rendered.completions) > 1 else "\n")
            _draw_completion(drawing, completion.ids, completion.counted, tokenizer)
            drawing.append(f"\n    {_summary(completion.ids, completion.counted, renderer.end_ids, tokenizer)}\n", "italic")
    return drawing


def _draw_completion(drawing: Text, ids: Sequence[int], counted: Sequence[bool], tokenizer: Any) -> None:
    for counts, run in groupby(zip(ids, counted, strict=True), key=lambda pair: pair[1]):
        drawing.append(_decode(tokenizer, [token for token, _ in run]), COUNTED_STYLE if counts else UNCOUNTED_STYLE)


def _draw_steps(drawing: Text, example: Example, steps: StepRenderer) -> None:
    """A solution as `accord prm` reads it up to its last labelled step: the last token of each labelled step is learned from."""
    labels = example.step_labels or ()
    unit = steps.labelled(example, labels)
    if unit is None:
        drawing.append("    no labelled step fits: accord prm leaves this solution out.\n", "italic")
        return
    tokenizer = steps.renderer.tokenizer
    drawing.append(_decode(tokenizer, unit.prompt_ids), PROMPT_STYLE).append("\n")
    for branch in unit.branches:
        _draw_completion(drawing, branch.ids, branch.counted or (), tokenizer)
    shown = ", ".join("none" if label is None else f"{label:+d}" if label else "0" for label in labels)
    drawing.append(f"\n    labels of the steps: {shown}; each is learned at the last token of its step.\n", "italic")


def _summary(ids: Sequence[int], counted: Sequence[bool], end_ids: Sequence[int], tokenizer: Any) -> str:
    learned = f"{sum(counted)} of {len(ids)} tokens are learned"
    if ends_counted(ids, counted, end_ids):
        last = [token for token, counts in zip(ids, counted, strict=True) if counts][-1:]
        return f"{learned}; the last is the end token {_decode(tokenizer, last)}."
    return f"{learned}; NO end token is learned: the model would not learn to stop here."


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return printable(str(tokenizer.decode(list(ids), skip_special_tokens=False)))
