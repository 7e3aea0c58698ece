"""The tables of a sweep: its frontier, what a budget buys, strategies, laws and claims.

Each function gives the content of one section, a note where the folder lacks what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepsight.errors import UserError
from stepsight.measures import measure, number
from stepsight.report.markup import Html, fold, join, mark, note, table, tag
from stepsight.report.page import interval_text
from stepsight.report.sweep.folder import SweepFolder
from stepsight.scaling.sampling.axes import by_family
from stepsight.scaling.sampling.frontier import FrontierCell
from stepsight.scaling.sampling.planner import Plan, plan
from stepsight.scaling.sampling.sweeps import Cell, Family, differing, unmeasured
from stepsight.scaling.sampling.wording import count

BUDGETS = (4, 16, 64, 256)  # model calls; those between the cheapest and the largest are shown
Names = Mapping[Family, str]

FRONTIER = (
    "Measured settings that no other one beats in both cost and error, and what each adds over the "
    "one before, with the 95 % interval paired by image. A step whose interval holds 0 may be luck."
)
WITHOUT = (
    "Intervals of the gains need the images: this folder holds its table alone, so that no step is "
    "known to be more than luck."
)
BUDGET = (
    "What to run with so many model calls an image: the best setting within the budget, measured "
    "or interpolated, with the 90 % interval for as many fresh images, and the cheapest setting "
    "within 2 % of it. For any other budget: stepsight scaling plan --sweep sweep.csv."
)
STRATEGIES = (
    "Ways to spend the same model calls, each on the same images. The relative difference to the "
    "baseline is paired by image; the oracle looks at the truth and is a bound, not a method."
)


def frontier_section(sweep: SweepFolder) -> Html:
    """The Pareto set of every task, by model calls."""
    fronts = {task: sweep.frontier(task) for task in sweep.tasks}
    parts = [_frontier_of(sweep, task, points) for task, points in fronts.items()]
    steps = [point for points in fronts.values() for point in points[1:]]
    bare = bool(steps) and all(math.isnan(point.gain_lo) for point in steps)
    return join(*parts, _text(sweep, f"{FRONTIER} {WITHOUT}" if bare else FRONTIER))


def _frontier_of(sweep: SweepFolder, task: str, points: Sequence[FrontierCell]) -> Html:
    cells = sweep.main(task)
    metric, names = cells[0].metric, differing(by_family(cells))
    header = ["setting", measure(metric).axis, "gain", "calls", "GFLOP", "ms"]
    lost = unmeasured(sweep.cells, task, metric)
    said = f"Left out: {count(lost, 'setting')} without a number of {measure(metric).label}."
    rows = [_front_row(point, names) for point in points]
    return join(tag("h3", task), table(header, rows), note(said) if lost else "")


def _front_row(point: FrontierCell, names: Names) -> Iterator[str]:
    cell = point.cell
    yield setting_text(cell.nfe, cell.members, names[cell.family])
    yield join(
        tag("span", number(cell.value), _class="value"),
        tag("span", f" {interval_text([cell.lo, cell.hi])}", _class="small line"),
    )
    yield "" if math.isnan(point.gain) else _front_gain(point)
    yield str(cell.total_calls)
    yield number(cell.gflop_per_image)
    yield number(cell.ms_per_image)


def _front_gain(point: FrontierCell) -> Html:
    """What a point adds over the one before, and whether that may be luck."""
    known = math.isfinite(point.gain_lo)
    luck = tag("div", "may be luck", _class="mark unsure") if point.gain_lo <= 0 else ""
    ends = percents(point.gain_lo, point.gain_hi) if known else ""
    return join(tag("span", f"{point.gain:+.1%}"), tag("div", ends, _class="small line"), luck)


def percents(lo: float, hi: float) -> str:
    """An interval of relative changes."""
    return f"[{lo:+.1%}, {hi:+.1%}]"


def planner_section(sweep: SweepFolder) -> Html:
    """What the planner answers for a few budgets of model calls."""
    parts = []
    for task in sweep.tasks:
        cells = sweep.main(task)
        calls = [cell.total_calls for cell in cells]
        budgets = [one for one in BUDGETS if min(calls) <= one <= max(calls)]
        names = differing(by_family(cells))
        rows = [_plan_row(found, names) for one in budgets if (found := _planned(cells, one))]
        header = ["budget", "run", measure(cells[0].metric).axis, "cheapest within 2 %"]
        parts.append(join(tag("h3", task), table(header, rows)))
    return join(*parts, _text(sweep, BUDGET))


def _planned(cells: Sequence[Cell], calls: int) -> Plan | None:
    try:
        return plan(cells, cells[0].task, f"{calls}nfe", cells[0].metric)
    except UserError:  # such a budget buys nothing that was measured
        return None


def _plan_row(found: Plan, names: Names) -> Iterator[str]:
    yield found.budget
    yield _choice(found, names)
    yield join(
        tag("span", number(found.expected), _class="value"),
        tag("span", f" {interval_text([found.lo, found.hi])}", _class="small line"),
        tag("div", "measured" if found.measured else "interpolated", _class="small"),
    )
    cheaper = found.cheapest
    saved = f"{_choice(cheaper, names)}, {cheaper.total_calls} calls, {number(cheaper.expected)}"
    yield "the same" if cheaper.total_calls == found.total_calls else saved


def _choice(one: Any, names: Names) -> str:
    return setting_text(one.nfe, one.members, names.get(Family.of(vars(one)), ""))


def setting_text(nfe: int, members: int, variant: str = "") -> str:
    """`4 NFE x 8 members`, and the variant it belongs to."""
    spent = f"{nfe} NFE x {count(members, 'member')}"
    return f"{spent}, {variant}" if variant else spent


def strategy_section(sweep: SweepFolder) -> Html:
    """Strategies beside their baseline, task by task; nothing where none was tried."""
    if not sweep.strategies:
        return Html()
    parts = []
    for task in dict.fromkeys(row["task"] for row in sweep.strategies):
        rows = [row for row in sweep.strategies if row["task"] == task]
        first, *others = (_strategies_by(rows, one) for one in dict.fromkeys(map(_metric, rows)))
        parts.append(join(tag("h3", task), first))
        parts += [fold(f"{task}, other metrics", *others)] if others else []
    return join(*parts, tag("p", STRATEGIES, _class="small"))


def _metric(row: Mapping[str, str]) -> str:
    return row["metric"]


def _strategies_by(rows: Sequence[Mapping[str, str]], metric: str) -> Html:
    header = ["strategy", "calls", measure(metric).axis, "against", "difference", ""]
    return table(header, (_strategy(row) for row in rows if row["metric"] == metric))


def _strategy(row: Mapping[str, str]) -> Iterator[str]:
    yield join(
        tag("div", tag("b", row["strategy"])),
        tag("div", setting_text(int(row["nfe"]), int(row["members"])), _class="small line"),
    )
    yield f"{_number(row.get('mean_calls') or row['total_calls']):.4g}"
    ends = [_number(row[name]) for name in ("lo", "hi")]
    yield join(
        tag("span", number(_number(row["value"])), _class="value"),
        tag("div", interval_text(ends) if all(map(math.isfinite, ends)) else "", _class="small"),
    )
    yield row["baseline"]
    yield _difference(row) if row["baseline"] else ""
    yield mark(row["verdict"]) if row["verdict"] else ""


def _difference(row: Mapping[str, str]) -> Html:
    """Relative to the baseline, with its interval where there is one."""
    value, *ends = (_number(row[f"difference{end}"]) for end in ("", "_lo", "_hi"))
    interval = percents(*ends) if all(map(math.isfinite, ends)) else ""
    shown = f"{value:+.1%}" if math.isfinite(value) else "-"
    return join(tag("span", shown), tag("div", interval, _class="small line"))


def law_section(sweep: SweepFolder) -> Html:
    """Every fit with its verdict, parameters and intervals."""
    rows = [_law(names, fit) for names, fit in _fits(sweep.fits)]
    if not rows:
        return note("No laws have been fitted yet.")
    return table(["fit", "verdict", "dials", "parameters [95 % interval]", "R²"], rows)


def _fits(node: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping]]:
    """Every mapping with a verdict, and the names that lead to it."""
    if not isinstance(node, Mapping):
        return
    if "verdict" in node:
        yield names, node
        return
    for name, child in node.items():
        if name == "families":
            for fit in child:
                yield (*names, str(Family.of(fit))), fit
        else:
            yield from _fits(child, (*names, str(name)))


def _law(names: tuple[str, ...], fit: Mapping[str, Any]) -> Iterator[str]:
    curve = fit.get("surface") or fit
    formula = tag("div", str(curve.get("formula") or ""), _class="small")
    yield join(tag("div", " / ".join(names)), formula)
    warnings = tag("div", "; ".join(map(str, fit.get("warnings") or [])), _class="small")
    yield join(mark(str(fit["verdict"])), warnings)
    yield join(*map(_dial, fit.get("dials") or []))
    intervals = curve.get("intervals") or {}
    yield join(
        *(
            tag("div", f"{name} = {_any_number(value)} {interval_text(intervals.get(name))}")
            for name, value in (curve.get("params") or {}).items()
        )
    )
    yield _any_number(curve.get("r2"))


def _dial(dial: Mapping[str, Any]) -> Html:
    """One dial turned while the other stays, and what that is worth."""
    at = f"NFE {dial['at']}" if dial["dial"] == "members" else count(dial["at"], "member")
    gain = "" if dial.get("gain") is None else f", {dial['gain']:+.1%}"
    text = f"{dial['dial']} at {at}{gain} "
    return tag("div", text, mark(str(dial["verdict"])), _class="small line")


def _text(sweep: SweepFolder, text: str) -> Html:
    return tag("p", text, _class="small") if sweep.tasks else Html()


def _number(text: str) -> float:
    return float(text or "nan")


def _any_number(value: Any) -> str:
    return number(float(value)) if isinstance(value, int | float) else str(value or "")
