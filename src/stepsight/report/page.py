"""The report of a run and the page of an evaluation: one HTML file each that needs nothing else.

Every picture is inside the page, there are no scripts, and a content security policy forbids the
page to load anything. What the run folder does not have is left out with a line that says so.

Both show scores in tables, one per task and protocol. How far protocols differ on the same
predictions is shown apart from them, as a list and not as a ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stepsight.errors import command
from stepsight.measures import duration, measure, number
from stepsight.report import figures, rendering
from stepsight.report.rendering import Pictures
from stepsight.report.run_folder import RunFolder, by, read_run
from stepsight.report.sweep import page as sweep_page
from stepsight.report.verdict import next_steps, standings, verdict
from stepsight.results import Result
from stepsight.scaling.sampling.wording import count

DIFFER = (
    "The same predictions, each line under its own protocol. The numbers are not comparable with "
    "each other, only with others under the same protocol id."
)


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Raises `UserError` if there is no such folder, `DataFormatError` if a file in it is damaged.
    """
    target = run_dir / "report.html"
    target.write_text(render(read_run(run_dir)), encoding="utf-8")
    return target


def render(run: RunFolder) -> str:
    """The report of a run."""
    evaluate = command("evaluate", "--checkpoint", run.path)
    return rendering.render(
        "run",
        title=run.path.resolve().name,
        verdict=verdict(run),
        facts=_facts(run),
        steps=next_steps(run),
        config=run.config,
        commands=[*filter(None, [run.command]), evaluate, f"{evaluate} --sweep"],
        sweep=sweep_page.gather(run.sweep),
        **scores(run.results),
        **_pictures(run),
        **_training(run),
    )


def _facts(run: RunFolder) -> list[str]:
    facts = [
        f"{name} {value}"
        for name, value in run.environment.items()
        if isinstance(value, str | int | float) and len(str(value)) < 40
    ]
    if run.train:
        last = run.train[-1]
        facts += [f"{last['images_seen']} images seen", f"{duration(last['seconds'])} of training"]
    return facts


def _pictures(run: RunFolder) -> dict[str, Any]:
    """Grids of the evaluation, the newest samples and some earlier ones, within one budget."""
    read = Pictures().read
    earlier, newest = run.samples[:-1], run.samples[-1:]
    spread = earlier[:: max(1, len(earlier) // 3)]
    return {
        "grids": [
            read(path, f"{path.stem.removeprefix('grid-')}: best, median and worst images")
            for path in (run.grids if run.results else [])
        ],
        "newest": [read(path, f"{path.stem}: newest samples") for path in newest],
        "earlier": [read(path, path.stem) for path in spread],
    }


def _training(run: RunFolder) -> dict[str, Any]:
    """Curves of training and validation, and the use of experts."""
    rates = [row["images_per_s"] for row in run.train if row.get("images_per_s")]
    tasks = dict.fromkeys(row["task"] for row in run.val if row["metrics"])
    imbalance, maps = figures.usage_figures(run.train)
    return {
        "losses": figures.training_curves(run.train) if run.train else None,
        "speed": sum(rates) / len(rates) if rates else None,
        "validations": {task: figures.validation_curves(run.val, task) for task in tasks},
        "imbalance": imbalance,
        "expert_maps": maps,
    }


def write_page(path: Path, results: Sequence[Result], grids: Iterable[Path]) -> Path:
    """Write the page of an evaluation; it needs no other file."""
    pictures = Pictures()
    whose = ", ".join(dict.fromkeys(f"{result.task} on {result.data}" for result in results))
    shown = [pictures.read(grid, f"{grid.stem}: best, median and worst images") for grid in grids]
    page = rendering.render(
        "evaluation", title=f"Evaluation of {whose}", grids=shown, **scores(results)
    )
    path.write_text(page, encoding="utf-8")
    return path


def scores(results: Sequence[Result]) -> dict[str, object]:
    """What the template `scores` needs besides pictures."""
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
