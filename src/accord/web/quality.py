"""The page that says whether to trust a round's labels, what limits a reward model on them, and how many more to ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from accord.annotation.accuracies import Measured, check_share, kept, typed
from accord.annotation.outlook import TARGET, Outlook, outlook
from accord.annotation.panel import Panel, panel
from accord.annotation.results import Progress
from accord.annotation.store import Store
from accord.errors import AccordError, ConfigError
from accord.reporting.charts import Line, line_chart
from accord.web.access import JUDGES, READS_QUALITY
from accord.web.pages import access_of, rendered

POINTS = 12
"""Of the curve in the chart."""
router = APIRouter()


@router.get("/quality", response_class=HTMLResponse)
def quality(
    request: Request,
    accuracy: Annotated[str, Query(max_length=20)] = "",
    measured: Annotated[str, Query(max_length=1000)] = "",
    target: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """The page for the newest round.

    Args:
        accuracy, measured, target: as `accord project quality` takes them; "" leaves it to what was measured.
    """
    person = access_of(request).require(request, *READS_QUALITY)
    store: Store = request.app.state.store
    found, progress = panel(store), store.progress()
    given = {"accuracy": accuracy.strip(), "measured": measured.strip(), "target": target.strip()}
    wrong = ""
    learned: dict[str, Measured] = {}
    try:
        ahead = asked(found, progress, request.app.state.folder, **given)
        learned = by_arm(request.app.state.folder)
    except AccordError as error:
        wrong, ahead = str(error), outlook(found, progress, ())
    disputed = {one.task for one in found.queue}
    return HTMLResponse(
        rendered(
            request,
            "quality.html",
            panel=found,
            names={person.id: person.name for person in store.annotators()},
            progress=progress,
            ahead=ahead,
            given=given,
            wrong=wrong,
            chart=chart(ahead, found.same_decided.value),
            settles=person.role == "admin",
            readable=store.readable(person.id, disputed) if person.role in JUDGES else disputed,
            learned=learned,
        )
    )


def asked(panel: Panel, progress: Progress, folder: Path | None, *, accuracy: str, measured: str, target: str) -> Outlook:
    """The outlook, with what somebody typed in place of what was measured.

    Raises:
        ConfigError: naming the field that is wrong.
        DataError: if what was measured is damaged.
    """
    rows = [typed(one) for one in measured.replace(",", " ").split()] or (kept(folder) if folder is not None else [])
    wanted = _share(target, "target")
    return outlook(panel, progress, rows, accuracy=_share(accuracy, "reward accuracy"), target=TARGET if wanted is None else wanted)


def by_arm(folder: Path | None) -> dict[str, Measured]:
    """The reward model of each arm that learned from most of its labels. Raises DataError if what was measured is damaged."""
    return {one.arm: one for one in kept(folder, arms=True)} if folder is not None else {}


def _share(text: str, name: str) -> float | None:
    try:
        return check_share(float(text), f"{name} {text}") if text else None
    except ValueError as error:
        raise ConfigError(f"{name} {text}: an accuracy is a share from 0 to 1.") from error


def chart(ahead: Outlook, agreement: float | None) -> str:
    """What was measured, the curve through it as far as it is followed, and how often two annotators agree, as an SVG; "" with less than two sizes."""
    sizes = [one.labels for one in ahead.measured]
    if len(set(sizes)) < 2:
        return ""
    low, high = min(sizes), max(sizes) + (ahead.to_go.labels or 0)
    shares = [one.accuracy for one in ahead.measured]
    lines = [Line("measured", sizes, shares, labels=[f"{share:.2f}" for share in shares])]
    if ahead.to_go.curve is not None:
        steps = [low * (high / low) ** (step / POINTS) for step in range(POINTS + 1)]
        lines.append(Line("the curve", steps, [ahead.to_go.curve.at(step) for step in steps]))
    if agreement is not None:
        lines.append(Line("two annotators agree", [low, high], [agreement, agreement], dashed=True))
    return line_chart(lines, x_label="labels", y_label="held-out accuracy")
