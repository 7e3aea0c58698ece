"""The report of a run: one HTML file that needs nothing else, for the author and for strangers.

Every picture is inside the page, there are no scripts, and a content security policy forbids the
page to load anything. What the run folder does not have is left out with a line that says so.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from stepsight.measures import duration
from stepsight.report import figures
from stepsight.report.expert_figures import expert_section
from stepsight.report.markup import (
    Html,
    Pictures,
    fold,
    join,
    listing,
    note,
    page,
    plot,
    sections_with_links,
    tag,
)
from stepsight.report.page import score_tables
from stepsight.report.run_folder import RunFolder, read_run
from stepsight.report.sweep import page as sweep_page
from stepsight.report.verdict import next_steps, verdict


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Raises `UserError` if there is no such folder, `DataFormatError` if a file in it is damaged.
    """
    target = run_dir / "report.html"
    target.write_text(render(read_run(run_dir)), encoding="utf-8")
    return target


def render(run: RunFolder) -> str:
    """The whole page."""
    pictures = Pictures()
    sections = {
        "Next": ("What to try next", _next(run)),
        "Evaluation": ("Evaluation", _evaluation(run, pictures)),
        "Samples": ("Samples", _samples(run, pictures)),
        "Training": ("Training", _training(run)),
        "Experts": ("Experts", expert_section(run.train)),
        "Validation": ("Validation against trivial predictors", _validation(run)),
        **sweep_page.sections(run.sweep),
        "Configuration": ("Configuration", _configuration(run)),
        "Reproduce": ("Reproduce", _reproduce(run)),
    }
    return page(run.path.resolve().name, sections_with_links(_heading(run), sections))


def _heading(run: RunFolder) -> Html:
    facts = [f"{name} {value}" for name, value in run.environment.items() if _is_short(value)]
    if run.train:
        last = run.train[-1]
        facts += [f"{last['images_seen']} images seen", f"{duration(last['seconds'])} of training"]
    return join(
        tag("h1", run.path.resolve().name),
        tag("p", verdict(run), _class="verdict"),
        tag("p", " · ".join(facts), _class="facts"),
    )


def _next(run: RunFolder) -> Html:
    steps = next_steps(run)
    return listing(steps) if steps else note("Nothing stands out.")


def _training(run: RunFolder) -> Html:
    if not run.train:
        return note("No training steps are recorded.")
    rates = [row["images_per_s"] for row in run.train if row.get("images_per_s")]
    speed = f"{sum(rates) / len(rates):.0f} images/s on average. " if rates else ""
    curves = plot(figures.training_curves(run.train), "training loss against images seen")
    return join(curves, tag("p", speed, "Faint: as measured; bold: trend.", _class="small"))


def _validation(run: RunFolder) -> Html:
    tasks = dict.fromkeys(row["task"] for row in run.val if row["metrics"])
    if not tasks:
        return note("No validation is recorded.")
    plots = [plot(figures.validation_curves(run.val, task), f"{task} validation") for task in tasks]
    return join(
        tag("p", "Dashed: predictors that know nothing of the image. A curve has to pass them."),
        tag("div", *plots, _class="figures"),
    )


def _evaluation(run: RunFolder, pictures: Pictures) -> Html:
    if not run.results:
        return note("Not evaluated yet.")
    grids = [
        pictures.show(path, f"{path.stem.removeprefix('grid-')}: best, median and worst images")
        for path in run.grids
    ]
    return join(score_tables(run.results), *grids)


def _samples(run: RunFolder, pictures: Pictures) -> Html:
    if not run.samples:
        return note("No sample grids yet.")
    *earlier, last = run.samples
    newest = pictures.show(last, f"{last.stem}: newest samples")
    if not earlier:
        return newest
    spread = earlier[:: max(1, len(earlier) // 3)]
    return join(newest, fold("Earlier", *(pictures.show(path, path.stem) for path in spread)))


def _configuration(run: RunFolder) -> Html:
    if not run.config:
        return note("The run folder has no config.yaml.")
    return fold("config.yaml, with every default", tag("pre", run.config))


def _reproduce(run: RunFolder) -> Html:
    name = shlex.quote(str(run.path))
    commands = [
        run.command,
        f"uv run evaluate.py --checkpoint {name}",
        f"uv run evaluate.py --checkpoint {name} --sweep",
    ]
    return tag("pre", "\n".join(filter(None, commands)))


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) < 40
