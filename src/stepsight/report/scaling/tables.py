"""The tables of a report on scaling: laws, forecasts, rungs, and what is best for a budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from stepsight.errors import UserError
from stepsight.measures import duration, number
from stepsight.report.markup import Html, fold, join, mark, note, table, tag
from stepsight.scaling.analysis.curves import IMAGES, PARAMS
from stepsight.scaling.analysis.emergence import Emergence
from stepsight.scaling.analysis.folder import Rung, ScalingFolder, Tuned
from stepsight.scaling.analysis.laws import CurveLaws, Law
from stepsight.scaling.analysis.relations import Panel
from stepsight.scaling.analysis.words import (
    count,
    day,
    flops,
    interval,
    judgement,
    named,
    parameters,
    reservations,
    shortly,
)
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.ladders.forecast import Forecast, Scored
from stepsight.scaling.laws.fits import ROUNDING

FORECAST_TEXT = (
    "Said before the run was made and not changed since; a record of that size and amount scores "
    "it. Of 90 % intervals nine in ten should hold the outcome."
)
LAW_TEXT = (
    "95 % intervals resample runs. Held-out error is that of the top quarter of the points, by a "
    "fit that did not see them. A law is clean where nothing speaks against it."
)
ALLOCATION_TEXT = (
    "By the joint law, the size and the amount that reach the lowest loss with so much compute. "
    "Beyond the measured sizes and amounts this is an extrapolation."
)
BUDGETS = (1.0, 10.0)  # of the largest compute measured
FLOORS: tuple[Literal["E0", "E1"], ...] = ("E0", "E1")
STATES = {
    "inside": ("good", "✓ inside"),
    "outside": ("bad", "✗ outside"),
    "done": ("good", "✓ done"),
    "failed": ("bad", "✗ failed"),
}


def forecast_section(folder: ScalingFolder) -> Html:
    """Run by run, forecasts against outcomes, then those that wait for one."""
    settled: dict[str, list[Scored]] = defaultdict(list)
    waiting: dict[str, list[Forecast]] = defaultdict(list)
    for one in folder.settled:
        settled[one.forecast.run].append(one)
    for said in folder.waiting:
        waiting[said.run].append(said)
    runs = list(dict.fromkeys([*settled, *waiting]))
    if not runs:
        return Html()
    parts = [_forecasts(settled.get(run, []), waiting.get(run, [])) for run in runs]
    return join(*parts, tag("p", FORECAST_TEXT, _class="small"))


def _forecasts(settled: Sequence[Scored], waiting: Sequence[Forecast]) -> Html:
    """The forecasts of one run."""
    every = [*(one.forecast for one in settled), *waiting]
    first = every[0]
    size = f"{count(first.params_active)} parameters, {count(first.images_seen)} images"
    header = ["of", "forecast", "made", "outcome", "measured", "inside?", "error"]
    against = dict.fromkeys(shortly(text) for one in every for text in one.warnings)
    return join(
        tag("h3", first.run),
        tag(
            "p", f"{size}, {first.reach:.2g} times the largest run by their product", _class="small"
        ),
        table(header, [*map(_settled, settled), *map(_waiting, waiting)]),
        tag("p", f"What stands against these laws: {'; '.join(against)}.", _class="small")
        if against
        else "",
    )


def _settled(one: Scored) -> Iterator[str]:
    yield from _said(one.forecast)
    yield tag("span", number(one.outcome), _class="value")
    yield day(one.time)
    yield _state("inside" if one.inside else "outside")
    yield f"{one.error:+.1%}"


def _waiting(one: Forecast) -> Iterator[str]:
    yield from _said(one)
    yield from (tag("span", "waiting", _class="note"), "", "", "")


def _said(one: Forecast) -> Iterator[str]:
    by = f"{one.form}, {one.points} points of {one.runs} runs, {one.verdict}"
    yield join(tag("div", named(one.quantity)), tag("div", by, _class="small"))
    yield join(
        tag("span", number(one.value), _class="value"),
        tag("div", f"{interval(one.lo, one.hi)} {one.level:.0%}", _class="small line"),
    )
    yield day(one.made)


def law_section(headline: Sequence[CurveLaws], others: Sequence[CurveLaws]) -> Html:
    """Envelopes and joint laws; behind a line the series, and all other metrics and settings."""
    main = [law for one in headline for law in (one.envelope, one.joint) if law is not None]
    if not main and not any(one.laws for one in others):
        return note("There are too few points for a law: measure three runs or more.")
    series = [law for one in headline for _, law in one.series if law is not None]
    rest = [law for one in others for law in one.laws]
    return join(
        _laws(main),
        tag("p", LAW_TEXT, _class="small"),
        fold("Over parameters and images, one at a time", _laws(series)) if series else "",
        fold("Other metrics and test-time settings", _laws(rest)) if rest else "",
    )


def _laws(laws: Iterable[Law]) -> Html:
    header = ["law", "verdict", "parameters [interval]", "R²", "held-out", "AICc"]
    return table(header, map(_law, laws))


def _law(law: Law) -> Iterator[str]:
    fit = law.fit
    yield join(
        tag("div", tag("b", law.curve.name)),
        tag("div", f"against {law.against}"),
        tag("div", f"{fit.formula}, {fit.n} points", _class="small"),
    )
    yield join(_worth(fit.verdict, reservations(fit)), tag("div", judgement(fit), _class="small"))
    yield join(*(tag("div", text, _class="line") for text in parameters(fit)))
    yield number(fit.r2)
    yield number(fit.held_out)
    yield join(
        tag("div", _number(fit.aicc)),
        *(
            tag("div", f"{one.form} {_number(one.aicc)}", _class="small line")
            for one in law.others
            if one.form != fit.form and np.isfinite(one.aicc)
        ),
    )


def _worth(verdict: str, against: Sequence[str]) -> Html:
    """A verdict as a coloured word; green only for a law that nothing speaks against."""
    if verdict == "law":
        return tag("span", "~ law, not clean", _class="mark unsure") if against else mark("law")
    style, sign = ("unsure", "~") if verdict.startswith("too few") else ("bad", "✗")
    return tag("span", f"{sign} {verdict}", _class=f"mark {style}")


def _state(state: str) -> Html:
    style, words = STATES.get(state, ("unsure", f"~ {state}"))
    return tag("span", words, _class=f"mark {style}")


def _number(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "-"


def allocation_table(headline: Sequence[CurveLaws]) -> Html:
    """Compute-optimal parameters and images, by the joint laws that are laws."""
    rows = [row for one in headline for row in _allocations(one)]
    if not rows:
        return Html()
    header = ["law", "budget", "parameters", "images", "reaches"]
    return join(
        tag("h3", "Best use of a training budget"),
        table(header, rows),
        tag("p", ALLOCATION_TEXT, _class="small"),
    )


def _allocations(one: CurveLaws) -> Iterator[tuple[str, ...]]:
    if one.joint is None or one.joint.fit.verdict != "law":
        return
    curve = one.curve
    compute = curve.compute
    factor = float(np.median(compute / (curve.column(PARAMS) * curve.column(IMAGES))))
    for share in BUDGETS:
        try:
            found = allocate(TrainingLaw.of(one.joint.fit.params), share * compute.max(), factor)
        except UserError:  # a term of the law vanished, so nothing is traded off
            return
        yield (
            curve.name,
            f"{flops(found.budget)} FLOPs, {share:g} x the largest",
            count(found.params),
            count(found.samples),
            f"{curve.label} {number(found.loss)}",
        )


def relation_text(one: Panel) -> Html:
    """A relation in words, under its figure."""
    found = one.relation
    told = [
        f"{name} = {number(getattr(found, name))} {interval(*found.intervals[name])}".strip()
        for name in ("kappa", "K")
    ]
    told += [f"{name} = {_floor(getattr(found, name))} ({found.floors[name]})" for name in FLOORS]
    worth = f"{found.n} pairs, R² {found.r2:.3f}: {', '.join(told)}."
    against = [*found.warnings, *one.pairing.notes]
    return join(
        tag(
            "p", _worth(found.verdict, found.warnings), f" {found.formula}. {worth}", _class="small"
        ),
        tag("p", "; ".join(against), _class="small") if against else "",
    )


def _floor(value: float) -> str:
    """A floor that a search left at its bound is zero."""
    return "0" if value < ROUNDING else number(value)


def emergence_text(one: Emergence) -> Html:
    """An elbow in words, under its figure."""
    found = one.fit
    told = [
        f"{name} = {number(value)} {interval(*found.intervals[name])}".strip()
        for name, value in found.params.items()
    ]
    few = found.few_shot()
    early = f"With {few.images:g} samples it is expected below a loss of {number(few.loss)}"
    lines = [
        join(_worth(found.verdict, found.warnings), f" {found.formula}: {', '.join(told)}."),
        f"{early} {interval(few.lo, few.hi)}.".replace(" .", ".") if np.isfinite(few.loss) else "",
        one.judged.sentence if one.judged else "No smooth companion metric tells whose jump it is.",
        "; ".join(found.warnings),
    ]
    return join(*(tag("p", line, _class="small") for line in lines if line))


def rung_section(folder: ScalingFolder) -> Html:
    """What became of the rungs, the failed ones first, and the learning rates that were chosen."""
    if not folder.rungs:
        return Html()
    order = {"failed": 0, "left out": 1}
    rungs = sorted(folder.rungs, key=lambda rung: order.get(rung.state, 2))
    bad = [rung for rung in rungs if rung.state in order]
    done = [rung for rung in rungs if rung.state not in order]
    header = ["rung", "state", "time", "learning rate", "why"]
    seconds = sum(rung.seconds for rung in rungs)
    text = f"{len(rungs)} rungs, {len(folder.failed)} failed, {duration(seconds)} in all."
    return join(
        tag("p", text),
        table(header, map(_rung, bad)) if bad else "",
        fold(f"{len(done)} rungs that are done", table(header, map(_rung, done))) if done else "",
        _tuning(folder.tuned),
    )


def _rung(rung: Rung) -> Iterator[str]:
    yield rung.name
    yield _state(rung.state)
    yield duration(rung.seconds)
    yield f"x {rung.factor:g}"
    yield rung.why


def _tuning(tuned: Sequence[Tuned]) -> Html:
    if not tuned:
        return Html()
    factors = sorted({factor for one in tuned for factor in one.losses})
    rows = [
        (one.name, *(_loss(one.losses.get(factor)) for factor in factors), _kept(one))
        for one in tuned
    ]
    header = ["loss by factor of the learning rate", *(f"x {one:g}" for one in factors), "kept"]
    return join(tag("h3", "Learning rates"), table(header, rows))


def _loss(value: float | None) -> str:
    return "-" if value is None else number(value)


def _kept(one: Tuned) -> str:
    if one.kept is None:
        return "-"
    return f"x {one.kept:g}" + (", the edge of what was tried" if one.at_edge else "")
