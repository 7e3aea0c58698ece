"""The pages of a sweep: what its sections show, in the report of a run or alone in `sweep.html`.

All is made from the files of the folder alone, so that a sweep of any age, or written by hand, can
be shown again. Of the claims, those about a task's main metric come first; folded are those of
several members or of a warmer start, and those of the proper scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from stepsight.errors import command
from stepsight.measures import measure
from stepsight.report import figures, rendering
from stepsight.report.cost import cost_curve
from stepsight.report.rendering import EmbeddedPicture, Pictures
from stepsight.report.run_folder import by
from stepsight.report.sweep import figures as sweep_figures
from stepsight.report.sweep.answers import answers
from stepsight.report.sweep.folder import SweepFolder, fullest, read_sweep_folder, told_apart
from stepsight.report.verdict import sentences
from stepsight.results import Result
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.claims import Claim
from stepsight.scaling.sampling.frontier import COSTS
from stepsight.scaling.sampling.paired import MetricTable
from stepsight.scaling.sampling.planner import Plan, plans
from stepsight.scaling.sampling.questions import CALLS, HARMLESS, MARGIN
from stepsight.scaling.sampling.response_surface import Choice
from stepsight.scaling.sampling.sweeps import Cell, Family, left_out
from stepsight.scaling.sampling.wording import count

BUDGETS = (4, 16, 64, 256)  # model calls; those between the cheapest and the largest are shown
PANELS = ("edge_f1", "crps", "brier", "ause", "coverage_90", "spread")  # beside the main metric

BROKEN = "broken sampler"  # the verdict on claims that were not tested


class TaskClaims(NamedTuple):
    """The claims of a task."""

    task: str
    causes: list[str]  # why samplers are broken
    first: list[Claim]
    folded: dict[str, list[Claim]]  # by what they are about


def write(folder: Path, page: bool = True) -> Path:
    """Draw pareto-<task>.png and heat-<task>.png from sweep.csv, and write sweep.html.

    page: False leaves the page out, where the report of a run has the sections. Returns the page,
    or the folder. Raises `DataFormatError` if a file in the folder is damaged.
    """
    sweep = read_sweep_folder(folder)
    for task in sweep.tasks:
        figures.to_png(_pareto(sweep, task), folder / f"pareto-{task}.png")
        figures.to_png(_heat_map(sweep, task), folder / f"heat-{task}.png")
    if not page:
        return folder
    return rendering.write_page(folder / "sweep.html", render(sweep))


def render(sweep: SweepFolder) -> str:
    """The stand-alone page."""
    return rendering.render(
        "sweep",
        title=f"Test-time compute: {', '.join(sweep.tasks) or 'nothing measured'}",
        checkpoints=list(dict.fromkeys(cell.checkpoint for cell in sweep.cells if cell.checkpoint)),
        panels=rendering.first_panels(sweep.path, sweep.path.parent / "eval"),
        sentences=sentences([_cheapest(sweep, task) for task in sweep.tasks], sweep),
        curve=cost_curve(sweep),
        sweep=gather(sweep),
    )


def _cheapest(sweep: SweepFolder, task: str) -> Result:
    """The score of the cheapest setting worth its cost."""
    cell = sweep.frontier(task)[0].cell
    return Result(
        task=task,
        nfe=cell.nfe,
        members=cell.members,
        metric=cell.metric,
        metrics={cell.metric: cell.value},
    )


def gather(sweep: SweepFolder) -> dict[str, Any]:
    """What the template `sweep_sections` shows; what the folder lacks is empty."""
    tasks = [_task_sections(sweep, task) for task in sweep.tasks]
    steps = [point for sections in tasks for point in sections["front"][1:]]
    content = {
        "tasks": tasks,
        "unpaired": bool(steps) and not any(point.paired for point in steps),
        "films": rendering.shown_panels(sweep.path, "films"),
        "panels": {task: _panelled(sweep, task) for task in sweep.tasks},
        "diagrams": _pictures(sweep, "reliability", "reliability"),
        "planner": _planner(sweep),
        "strategies": sweep.strategies,
        "laws": [(", ".join(filter(None, names)), fit) for names, fit in _fits(sweep.fits)],
        "claims": claims_by_task(sweep.claims),
        "outdated": sweep.outdated,
        "margin": f"{MARGIN:.1%}",
    }
    return content | {"answers": answers(content)}


def _task_sections(sweep: SweepFolder, task: str) -> dict[str, Any]:
    """What the sections show of a task: the cells of its main metric."""
    cells = sweep.main(task)
    variants = told_apart(by_family(cells))

    def setting(choice: Cell | Choice) -> str:
        """`4 NFE x 8 members`, and the variant it belongs to where there are several."""
        spent = f"{choice.nfe} NFE x {count(choice.members, 'member')}"
        variant = variants.get(Family.of(vars(choice)), "")
        return f"{spent}, {variant}" if variant else spent

    return {
        "task": task,
        "measure": measure(cells[0].metric),
        "left_out": left_out(sweep.cells, task, cells[0].metric, COSTS["calls"]),
        "front": sweep.frontier(task),
        "best": min(cells, key=lambda cell: (cell.error, cell.total_calls)),
        "pareto": _pareto(sweep, task),
        "heat": _heat_map(sweep, task),
        "plans": _plans(cells, sweep.tables),
        "covered": _covered(sweep, task),
        "setting": setting,
    }


def _pareto(sweep: SweepFolder, task: str) -> Figure:
    return sweep_figures.pareto_plot(sweep.main(task), f"{task}: what compute buys")


def _heat_map(sweep: SweepFolder, task: str) -> Figure:
    """Of the family with the most cells; which it is stands in the title."""
    family, cells = fullest(sweep.main(task))
    whose = ", ".join(filter(None, (task, told_apart(by_family(sweep.main(task)))[family])))
    return sweep_figures.heat_map(cells, f"{whose}: {measure(cells[0].metric).axis}")


def _plans(cells: Sequence[Cell], tables: Sequence[MetricTable]) -> list[Plan]:
    """What the planner answers for a few budgets of model calls."""
    spent = [cell.total_calls for cell in cells]
    budgets = [f"{calls}nfe" for calls in BUDGETS if min(spent) <= calls <= max(spent)]
    return plans(cells, cells[0].task, budgets, cells[0].metric, tables=tables)


def _planner(sweep: SweepFolder) -> str:
    """The command that plans for another budget."""
    table, task = sweep.path / "sweep.csv", next(iter(sweep.tasks), "")
    asked = "--sweep", table, "--task", task, "--budget", "32nfe"
    return command("scaling", "plan", *asked)


def _pictures(sweep: SweepFolder, kind: str, what: str) -> list[EmbeddedPicture]:
    """The pictures of a kind, within a budget for them."""
    pictures = Pictures()
    paths = sorted(sweep.path.glob(f"{kind}-*.png")) if sweep.tasks else []
    return [pictures.read(path, f"{path.stem.partition('-')[2]}: {what}") for path in paths]


def _covered(sweep: SweepFolder, task: str) -> float | None:
    """The share of the truth within the 90 % intervals of the most calls of the most members."""
    cells = sweep.of(task, "coverage_90")
    most = max(cells, key=lambda cell: (cell.members, cell.nfe), default=None)
    return None if most is None else most.value


def _panelled(sweep: SweepFolder, task: str) -> dict[str, Figure]:
    """A figure for each metric of the fullest family that says something of its members: the main
    one, and what else there is for more than one member; {} where that is nothing."""
    family, main = fullest(sweep.main(task))
    found = {main[0].metric: main}
    for metric in PANELS:
        if cells := [cell for cell in sweep.of(task, metric) if cell.family == family]:
            found[metric] = cells
    drawn = {metric: sweep_figures.panel(cells) for metric, cells in found.items()}
    return drawn if len(drawn) > 1 else {}


def _fits(node: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping]]:
    """Every mapping with a verdict, and the names that lead to it."""
    if not isinstance(node, Mapping):
        return
    if "verdict" in node:
        yield names, node
        return
    for name, child in node.items():
        if name == "families":
            apart = told_apart(map(Family.of, child))
            yield from (((*names, apart[Family.of(fit)]), fit) for fit in child)
        else:
            yield from _fits(child, (*names, str(name)))


def claims_by_task(claims: Sequence[Claim]) -> list[TaskClaims]:
    """The claims of every task, sorted."""
    return [_sorted(task, rows) for (task,), rows in by(claims, "task")]


def main_sentences(claims: Sequence[Claim]) -> list[str]:
    """The sentences that a reader needs first: for every task, each broken sampler once, and the
    claims about its main metric that are not folded."""
    return [
        sentence
        for task in claims_by_task(claims)
        for sentence in (*task.causes, *(claim.sentence for claim in task.first))
    ]


def _sorted(task: str, claims: Sequence[Claim]) -> TaskClaims:
    causes = dict.fromkeys(claim.sentence for claim in claims if claim.verdict == BROKEN)
    sound = [claim for claim in claims if claim.verdict != BROKEN]
    main = [claim for claim in sound if claim.main]
    plainest = min(map(_start, main), default=None)
    of_calls = CALLS, HARMLESS  # of which those of the plainest start come first
    first = [c for c in main if c.statement not in of_calls or _start(c) == plainest]
    folded = {
        "several members and other starts": [claim for claim in main if claim not in first],
        "proper scores": [claim for claim in sound if not claim.main],
    }
    return TaskClaims(task, list(causes), first, folded)


def _start(claim: Claim) -> tuple[float, int]:
    """The plainest is that of the fewest members at the lowest temperature."""
    return claim.other.temperature, claim.other.members
