"""The report of a run: one HTML file that needs nothing else, for the author and for strangers.

Every picture is inside the page, there are no scripts, and a content security policy forbids the
page to load anything. What the run folder does not have is left out with a line that says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepsight.evaluation import figures
from stepsight.evaluation.expert_figures import expert_section
from stepsight.evaluation.markup import (
    Html,
    Pictures,
    fold,
    join,
    listing,
    mark,
    note,
    page,
    table,
    tag,
)
from stepsight.evaluation.page import interval_text, score_tables
from stepsight.evaluation.run_folder import Row, RunFolder, read_run
from stepsight.evaluation.verdict import next_steps, verdict
from stepsight.measures import duration, measure, number


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
        "Sweep": ("Sampling compute: steps and members", _sweep(run)),
        "Laws": ("Fitted laws", _laws(run)),
        "Claims": ("Claims", _claims(run)),
        "Configuration": ("Configuration", _configuration(run)),
        "Reproduce": ("Reproduce", _reproduce(run)),
    }
    sections = {name: found for name, found in sections.items() if found[1]}
    links = [tag("a", name, href=f"#{name.lower()}") for name in sections]
    body = join(
        tag("header", _heading(run), tag("nav", *links)),
        *(
            tag("section", tag("h2", title), content, id=name.lower())
            for name, (title, content) in sections.items()
        ),
    )
    return page(run.path.resolve().name, body)


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
    plot = _plot(figures.training_curves(run.train), "training loss against images seen")
    return join(plot, tag("p", speed, "Faint: as measured; bold: trend.", _class="small"))


def _validation(run: RunFolder) -> Html:
    tasks = dict.fromkeys(row["task"] for row in run.val if row["metrics"])
    if not tasks:
        return note("No validation is recorded.")
    plots = [
        _plot(figures.validation_curves(run.val, task), f"{task} validation") for task in tasks
    ]
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


def _sweep(run: RunFolder) -> Html:
    tasks = run.swept_tasks()
    if not tasks:
        return note("The test-time dials have not been swept yet.")
    return join(*(_sweep_of(run, task) for task in tasks))


def _sweep_of(run: RunFolder, task: str) -> Html:
    rows = run.sweep_of(task)
    variant, cells = _fullest_variant(rows)
    best = figures.pareto_set(rows)[-1]
    spent = f"{best['total_calls']:g} model calls, {number(best['gflop_per_image'])} GFLOP"
    caption = (
        f"Best: {best['nfe']:g} NFE x {best['members']:g} with {best['sampler']}, "
        f"{measure(best['metric']).label} {number(best['value'])} "
        f"{interval_text([best['lo'], best['hi']])}, for {spent} and "
        f"{number(best['ms_per_image'])} ms an image. The map shows {variant}; "
        "the plot shows every variant."
    )
    law = figures.fitted_law(run.fits.get(task, {}), best["metric"])
    plots = (
        _plot(figures.heat_map(cells, f"{task}: {measure(best['metric']).label}"), f"{task} sweep"),
        _plot(figures.pareto_plot(rows, f"{task}: accuracy for compute", law), f"{task} Pareto"),
    )
    return join(
        tag("h3", task), tag("div", *plots, _class="figures"), tag("p", caption, _class="small")
    )


def _fullest_variant(rows: list[Row]) -> tuple[str, list[Row]]:
    """The sampler, spacing and schedule with the most cells, and those cells."""
    variants: dict[str, list[Row]] = {}
    for row in rows:
        name = f"{row['sampler']}, {row['spacing']} spacing, {row['schedule']}"
        variants.setdefault(name, []).append(row)
    return max(variants.items(), key=lambda item: len(item[1]))


def _laws(run: RunFolder) -> Html:
    rows = [_law(names, fit) for names, fit in _fits(run.fits)]
    if not rows:
        return note("No laws have been fitted yet.")
    return table(["fit", "verdict", "parameters [95 % interval]", "R²", "warnings"], rows)


def _fits(node: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping]]:
    """Every mapping with a verdict, and the names that lead to it."""
    if not isinstance(node, Mapping):
        return
    if "verdict" in node:
        yield names, node
        return
    for name, child in node.items():
        yield from _fits(child, (*names, str(name)))


def _law(names: tuple[str, ...], fit: Mapping[str, Any]) -> Iterator[str]:
    formula = tag("div", str(fit.get("formula") or ""), _class="small")
    yield join(tag("div", " / ".join(names)), formula)
    yield mark(str(fit["verdict"]))
    intervals = fit.get("intervals") or {}
    yield join(
        *(
            tag("div", f"{name} = {_any_number(value)} {interval_text(intervals.get(name))}")
            for name, value in (fit.get("params") or {}).items()
        )
    )
    yield _any_number(fit.get("r2"))
    yield "; ".join(map(str, fit.get("warnings") or []))


def _claims(run: RunFolder) -> Html:
    if not run.claims:
        return note("The claims have not been put to the test yet.")
    return table(
        ["task", "claim", "verdict", "what was measured"],
        (
            (claim["task"], claim["statement"], mark(claim["verdict"]), claim["sentence"])
            for claim in run.claims
        ),
    )


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


def _plot(figure: Any, title: str) -> Html:
    return tag("div", Html(figures.to_svg(figure, title)), _class="plot")


def _any_number(value: Any) -> str:
    return number(float(value)) if isinstance(value, int | float) else str(value or "")


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) < 40
