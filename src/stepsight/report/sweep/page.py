"""The pages of a sweep: its sections, in the report of a run or alone in `sweep.html`.

The sections are made from the files of the folder alone, so that a sweep of any age, or one written
by hand, can be shown again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from stepsight.measures import measure, number
from stepsight.report import figures
from stepsight.report.markup import (
    Html,
    Pictures,
    join,
    note,
    page,
    plot,
    sections_with_links,
    tag,
)
from stepsight.report.page import interval_text
from stepsight.report.sweep import figures as sweep_figures
from stepsight.report.sweep.claims import claim_section
from stepsight.report.sweep.folder import SweepFolder, fullest, read_sweep_folder
from stepsight.report.sweep.tables import (
    frontier_section,
    law_section,
    planner_section,
    setting_text,
    strategy_section,
)
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.sweeps import Cell, differing

Sections = dict[str, tuple[str, Html]]  # short name to title and content

PANELS = ("edge_f1", "crps", "brier", "ause", "coverage_90", "spread")  # beside the main metric
FILM = (
    "the image whose gain from the cheapest setting to the best one is the median; below each tile "
    "the value of the whole set, smaller that of the image; framed: the setting that is best over "
    "the set; grey, or faded to grey: no truth; last row: how far the members lie apart"
)
UNCERTAINTY = (
    "The error beside what its members say of it: boundaries, CRPS, AUSE (does the spread order "
    "the pixels as the error does; 0 is best), the coverage of the 90 % interval, the mean spread. "
    "The band is the 95 % interval at the most calls. In the reliability diagrams the diagonal is "
    "an ensemble that means what it says."
)


def write(folder: Path, page: bool = True) -> Path:
    """Draw pareto-<task>.png and heat-<task>.png from sweep.csv, and write sweep.html.

    page: False leaves the page out, where the report of a run has the sections. Returns the page,
    or the folder. Raises `DataFormatError` if a file in the folder is damaged.
    """
    sweep = read_sweep_folder(folder)
    for task in sweep.tasks:
        cells = sweep.main(task)
        figures.to_png(_pareto(cells), folder / f"pareto-{task}.png")
        figures.to_png(_heat(fullest(cells)[1]), folder / f"heat-{task}.png")
    if not page:
        return folder
    target = folder / "sweep.html"
    target.write_text(render(sweep), encoding="utf-8")
    return target


def render(sweep: SweepFolder) -> str:
    """The stand-alone page."""
    title = f"Test-time compute: {', '.join(sweep.tasks) or 'nothing measured'}"
    checkpoints = dict.fromkeys(cell.checkpoint for cell in sweep.cells if cell.checkpoint)
    header = join(
        tag("h1", title),
        tag("p", f"{sweep.path.resolve().name} of {', '.join(checkpoints)}", _class="facts")
        if checkpoints
        else "",
    )
    return page(title, sections_with_links(header, sections(sweep)))


def sections(sweep: SweepFolder) -> Sections:
    """All sections of a sweep; those with nothing to say are empty."""
    return {
        "Sweep": ("Sampling compute: steps and members", _sweep(sweep)),
        "Frontier": ("What is worth its cost", frontier_section(sweep)),
        "Budget": ("What a budget buys", planner_section(sweep)),
        "Film": ("One image over steps and members", _films(sweep)),
        "Uncertainty": ("What the spread is worth", _uncertainty(sweep)),
        "Strategies": ("Other ways to spend it", strategy_section(sweep)),
        "Laws": ("Fitted laws", law_section(sweep)),
        "Claims": ("Claims", claim_section(sweep)),
    }


def _sweep(sweep: SweepFolder) -> Html:
    if not sweep.tasks:
        return note("The test-time dials have not been swept yet.")
    return join(*(_sweep_of(sweep.main(task)) for task in sweep.tasks))


def _sweep_of(cells: Sequence[Cell]) -> Html:
    family, own = fullest(cells)
    best = min(cells, key=lambda cell: (cell.error, cell.total_calls))
    variant = differing(by_family(cells))[best.family]
    spent = f"{best.total_calls} model calls, {number(best.gflop_per_image)} GFLOP"
    caption = (
        f"Best: {setting_text(best.nfe, best.members, variant)}, "
        f"{measure(best.metric).label} {number(best.value)} {interval_text([best.lo, best.hi])}, "
        f"for {spent} and {number(best.ms_per_image)} ms an image. Points are labelled NFE x "
        f"members. The map shows {family}; the plot shows every variant."
    )
    task = cells[0].task
    plots = plot(_pareto(cells), f"{task} Pareto"), plot(_heat(own), f"{task} sweep")
    return join(
        tag("h3", task), tag("div", *plots, _class="figures"), tag("p", caption, _class="small")
    )


def _pareto(cells: Sequence[Cell]) -> Figure:
    return sweep_figures.pareto_plot(cells, f"{cells[0].task}: accuracy for compute")


def _heat(cells: Sequence[Cell]) -> Figure:
    label = measure(cells[0].metric).axis
    return sweep_figures.heat_map(cells, f"{cells[0].task}: {label}")


def _films(sweep: SweepFolder) -> Html:
    shown = Pictures()  # a budget of their own
    return join(*(shown.show(path, _named(path, FILM)) for path in _of("film", sweep)))


def _uncertainty(sweep: SweepFolder) -> Html:
    drawn = [
        plot(sweep_figures.panels(found, f"{task}: error and uncertainty"), f"{task} uncertainty")
        for task in sweep.tasks
        if len(found := _panelled(sweep, task)) > 1
    ]
    shown = Pictures()
    diagrams = [shown.show(path, _named(path, "reliability")) for path in _of("reliability", sweep)]
    if not drawn and not diagrams:
        return Html()
    return join(tag("p", UNCERTAINTY), *drawn, tag("div", *diagrams, _class="figures"))


def _panelled(sweep: SweepFolder, task: str) -> dict[str, list[Cell]]:
    """The cells of each panel: the fullest family's, of the main metric and of what else there is
    for more than one member."""
    family, main = fullest(sweep.main(task))
    found = {main[0].metric: main}
    for metric in PANELS:
        if own := [cell for cell in sweep.of(task, metric) if cell.family == family]:
            found[metric] = own
    return found


def _of(kind: str, sweep: SweepFolder) -> list[Path]:
    return sweep.pictures(kind) if sweep.tasks else []


def _named(path: Path, what: str) -> str:
    return f"{path.stem.partition('-')[2]}: {what}"
