"""Does a process reward model find the first error of a solution, and only there? Measured as ProcessBench does (Zheng et al. 2024, arXiv:2412.06559)."""

from __future__ import annotations

from collections.abc import Sequence

from accord.errors import DataError
from accord.rewards.process import ProcessRewardModel
from accord.types import Example


def predicted_first_error(probabilities: Sequence[float], threshold: float = 0.5) -> int:
    """The first step, from 0, whose probability of being right is below the threshold; -1 if none is."""
    return next((index for index, probability in enumerate(probabilities) if probability < threshold), -1)


def labelled_first_error(labels: Sequence[int | None]) -> int | None:
    """The first step, from 0, labelled wrong; -1 if every step is labelled and none is; None where labels that are missing hide it."""
    for index, label in enumerate(labels):
        if label is None:
            return None
        if label == -1:
            return index
    return -1


def first_error_table(predicted: Sequence[int], labelled: Sequence[int]) -> dict[str, float]:
    """How often the prediction is exactly right, apart for erroneous and correct solutions, and F1, the harmonic mean of the two.

    Args:
        predicted, labelled: the index of the first wrong step of each solution, -1 for none.
    Returns:
        `erroneous` and `correct` (how many there are), `accuracy_erroneous` and `accuracy_correct` where there are any, and `f1` where there
        are both (0 when both accuracies are 0). 0 to 1.
    """
    pairs = list(zip(predicted, labelled, strict=True))
    table: dict[str, float] = {}
    for name, chosen in (("erroneous", [p for p in pairs if p[1] >= 0]), ("correct", [p for p in pairs if p[1] < 0])):
        table[name] = len(chosen)
        if chosen:
            table[f"accuracy_{name}"] = sum(ours == theirs for ours, theirs in chosen) / len(chosen)
    if table["erroneous"] and table["correct"]:
        table["f1"] = harmonic_mean(table["accuracy_erroneous"], table["accuracy_correct"])
    return table


def harmonic_mean(a: float, b: float) -> float:
    """2 a b / (a + b); 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def process_bench(model: ProcessRewardModel, rows: Sequence[Example], *, threshold: float = 0.5) -> dict[str, float]:
    """`first_error_table` of a model on solutions with a label a step, and `unknown`: how many say too little to know their first error.

    Args:
        threshold: a step is called wrong when it is less likely right than this, 0 to 1. Chosen on other solutions than these, if at all.
    Raises:
        DataError: if no solution has a known first error.
    """
    known = [(row, error) for row in rows if (error := labelled_first_error(row.step_labels or ())) is not None]
    if not known:
        raise DataError("No solution says where its first error is: labels up to the first -1, or of every step, are needed.")
    scores = model.score_solutions([row.prompt for row, _ in known], [[m.content for m in row.completions[0].messages] for row, _ in known])
    predicted = [predicted_first_error(steps.tolist(), threshold) for steps in scores]
    return {**first_error_table(predicted, [error for _, error in known]), "unknown": len(rows) - len(known)}
