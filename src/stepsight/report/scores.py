"""The scores of results as tables, one per task and protocol, and the page of an evaluation.

How far protocols differ on the same predictions is shown apart from them, as a list and not as a
ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepsight.measures import measure, number
from stepsight.report import rendering
from stepsight.report.cost import cost_curve
from stepsight.report.run_folder import by
from stepsight.report.sweep.folder import SweepFolder
from stepsight.report.verdict import first_scores, sentences, standing_text, standings
from stepsight.results import Result
from stepsight.scaling.sampling.wording import count

DIFFER = (
    "The same predictions, each line under its own protocol. The numbers are not comparable with "
    "each other, only with others under the same protocol id."
)


def write_page(path: Path, results: Sequence[Result]) -> Path:
    """Write the page of an evaluation beside its panels; it needs no other file."""
    tasks = ", ".join(dict.fromkeys(result.task for result in results))
    data = ", ".join(dict.fromkeys(result.data for result in results))
    page = rendering.render(
        "evaluation",
        title=f"Evaluation on {data}: {tasks}",
        panels=rendering.first_panels(path.parent),
        extremes=rendering.shown_panels(path.parent, "extremes"),
        sentences=sentences(first_scores(results), SweepFolder()),
        curve=cost_curve(results),
        standing_text=standing_text(results),
        **scores(results),
    )
    return rendering.write_page(path, page)


def scores(results: Sequence[Result]) -> dict[str, object]:
    """What the template `scores` needs."""
    functions = (standings, setting_text, images_text, score_text, arrow)
    values = {function.__name__: function for function in functions}
    return {"results": results, "differences": differences(results), "differ": DIFFER, **values}


def differences(results: Sequence[Result]) -> list[list[Result]]:
    """Results on the same predictions under two protocols or more, in groups."""
    groups = by(results, "task", "data", "checkpoint", "sampler", "nfe", "members")
    return [rows for _, rows in groups if len(rows) > 1]


def setting_text(result: Result) -> str:
    """What was spent on a prediction, as far as that is known, and what it was computed in unless
    that is float32."""
    members = count(result.members, "member")
    spent = f"{result.nfe} NFE x {members}" if result.nfe else members
    start = "" if result.temperature is None else f", T {result.temperature:g}"
    further = (None if result.views == "none" else result.views, result.options.get("precision"))
    return ", ".join([f"{result.sampler}, {spent}{start}", *filter(None, further)])


def images_text(result: Result) -> str:
    """How many images were scored, of how many if there are more, and how many were bad."""
    known = result.expected not in (None, result.n)
    scored = f"{result.n} of {result.expected} images" if known else f"{result.n} images"
    return f"{scored}, {len(result.skipped)} bad ones skipped" if result.skipped else scored


def score_text(result: Result, metric: str | None) -> str:
    """`AbsRel 0.190↓`."""
    if metric is None:
        return "-"
    return f"{measure(metric).label} {number(result.metrics[metric])}{arrow(metric)}"


def arrow(metric: str) -> str:
    """Which way is better; empty where that is not known."""
    return {"higher": "↑", "lower": "↓"}.get(measure(metric).better, "")
