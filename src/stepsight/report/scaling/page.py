"""The page of a scaling analysis: its sections, figures, and the same for machines.

Everything is made anew from the records each time, so that a page follows its ladder; only the
forecasts are kept as they were made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepsight.measures import measure
from stepsight.report import figures
from stepsight.report.markup import (
    Html,
    join,
    listing,
    page,
    plot,
    sections_with_links,
    tag,
)
from stepsight.report.scaling import figures as scaling_figures
from stepsight.report.scaling.figures import Mark
from stepsight.report.scaling.tables import (
    allocation_table,
    emergence_text,
    forecast_section,
    law_section,
    relation_text,
    rung_section,
)
from stepsight.scaling.analysis.curves import IMAGES, PARAMS, curves, headline
from stepsight.scaling.analysis.emergence import Emergence, emergences
from stepsight.scaling.analysis.folder import ScalingFolder
from stepsight.scaling.analysis.laws import WORDS, CurveLaws, laws_of
from stepsight.scaling.analysis.relations import Panel, panels
from stepsight.scaling.analysis.words import (
    briefly,
    clean,
    flops,
    forecast_summary,
    judgement,
    span,
)
from stepsight.scaling.ladders.forecast import Forecast
from stepsight.scaling.plain import plain
from stepsight.scaling.records import column, to_csv

Figures = dict[str, Figure]  # by the names of their files
PAGE, TWIN, TABLE = "report.html", "report.json", "records.csv"
COMPUTE_TEXT = (
    "Every checkpoint by its training compute; lines join those of one size. The law goes through "
    "the envelope, the points that no other one beats in both compute and error, whose luck it "
    "shares. Solid: fitted. Dashed: extrapolated, with the 90 % band for a new point."
)
SERIES_TEXT = (
    "The same points over parameters at fixed images, and over images at fixed parameters, each "
    "line with a law of its own."
)
RESIDUAL_TEXT = (
    "One law in parameters and images together, E + A / N^alpha + B / D^beta. What it leaves over "
    "should scatter without a pattern."
)


@dataclass(frozen=True)
class Analysis:
    """All that a report says."""

    folder: ScalingFolder
    headline: list[CurveLaws]
    others: list[CurveLaws]
    relations: list[Panel]
    emergences: list[Emergence]
    notes: list[str]

    @property
    def curves(self) -> list[CurveLaws]:
        return self.headline + self.others


def analyse(folder: ScalingFolder, bootstrap: int) -> Analysis:
    """Fit everything that the records allow; intervals by `bootstrap` resamples."""
    every, notes = curves(folder.records)
    first = headline(every)
    main = [laws_of(one, bootstrap) for one in first]
    others = [laws_of(one, bootstrap) for one in every if one not in first]
    relations, unpaired = panels(folder.records, main, bootstrap)
    return Analysis(
        folder=folder,
        headline=main,
        others=others,
        relations=relations,
        emergences=list(emergences(folder.records, bootstrap)),
        notes=[*folder.notes, *notes, *unpaired],
    )


def write(found: Analysis, out: Path) -> Path:
    """Write report.html, its figures as PNG, report.json and records.csv; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = draw(found)
    for name, figure in drawn.items():
        figures.to_png(figure, out / f"{name}.png")
    to_csv(out / TABLE, found.folder.records)
    twin = json.dumps(to_dict(found), indent=1, allow_nan=False)
    (out / TWIN).write_text(twin + "\n", encoding="utf-8")
    target = out / PAGE
    target.write_text(render(found, drawn), encoding="utf-8")
    return target


def to_dict(found: Analysis) -> dict[str, Any]:
    """The report for machines."""
    folder = found.folder
    settled = [
        asdict(one.forecast)
        | {"outcome": one.outcome, "measured": one.time, "inside": one.inside, "error": one.error}
        for one in folder.settled
    ]
    laws = [
        law.to_dict() | {"clean": clean(law.fit), "says": judgement(law.fit)}
        for one in found.curves
        for law in one.laws
    ]
    return plain(
        {
            "records": len(folder.records),
            "runs": len({one.run for one in folder.records}),
            "laws": laws,
            "forecasts": settled,
            "waiting": [asdict(one) for one in folder.waiting],
            "relations": [one.to_dict() for one in found.relations],
            "emergence": [one.to_dict() for one in found.emergences],
            "rungs": [asdict(one) | {"ladder": one.ladder.name} for one in folder.rungs],
            "tuned": [asdict(one) | {"kept": one.kept} for one in folder.tuned],
            "notes": found.notes,
        }
    )


def summary(found: Analysis) -> list[str]:
    """Laws with their verdicts, forecasts against outcomes, and what failed, a line each."""
    laws = [law for one in found.headline for law in (one.envelope, one.joint) if law is not None]
    lines = [f"{law.curve.name} against {law.against}: {briefly(law.fit)}" for law in laws]
    if not laws:
        lines.append("There are too few points for a law: measure three runs or more.")
    forecasts = forecast_summary(found.folder.settled, found.folder.waiting)
    lines += [f"Forecasts: {forecasts}."] if forecasts else []
    failed = found.folder.failed
    return lines + ([f"{len(failed)} of {len(found.folder.rungs)} rungs failed."] if failed else [])


def render(found: Analysis, drawn: Figures) -> str:
    """The stand-alone page, with the figures of `draw`."""
    title = f"Scaling: {', '.join(dict.fromkeys(one.task for one in found.folder.records))}"
    header = join(
        tag("h1", title),
        tag("p", _facts(found.folder), _class="facts"),
        listing(summary(found)),
    )
    return page(title, sections_with_links(header, sections(found, drawn)))


def sections(found: Analysis, drawn: Figures) -> dict[str, tuple[str, Html]]:
    """By short name their title and content; those with nothing to say are empty."""
    joint = _shown(drawn, "residuals", RESIDUAL_TEXT, side_by_side=False)
    return {
        "Forecasts": ("Forecasts and outcomes", forecast_section(found.folder)),
        "Compute": ("What training compute buys", _shown(drawn, "compute", COMPUTE_TEXT)),
        "Axes": ("Parameters and data, one at a time", _shown(drawn, "along", SERIES_TEXT)),
        "Joint": ("Parameters and data together", join(joint, allocation_table(found.headline))),
        "Laws": ("Fitted laws", law_section(found.headline, found.others)),
        "Relations": ("From one loss to another", _relations(found.relations, drawn)),
        "Emergence": ("Emergence after fine-tuning", _emergence(found.emergences, drawn)),
        "Rungs": ("Rungs", rung_section(found.folder)),
        "Notes": ("What was left out", listing(found.notes) if found.notes else Html()),
    }


def _facts(folder: ScalingFolder) -> str:
    own = folder.records
    compute = span(column(own, "training_flops"), flops)
    return (
        f"{len(own)} records of {len({one.run for one in own})} runs: "
        f"{span(column(own, PARAMS))} active parameters, {span(column(own, IMAGES))} images, "
        f"{compute} training FLOPs."
    )


def _shown(drawn: Figures, kind: str, text: str, side_by_side: bool = True) -> Html:
    """The figures of a kind and what they show; nothing where there are none."""
    plots = [plot(one, name) for name, one in drawn.items() if name.startswith(f"{kind}-")]
    if not plots:
        return Html()
    return join(
        tag("div", *plots, _class="figures" if side_by_side else ""),
        tag("p", text, _class="small"),
    )


def _relations(found: Sequence[Panel], drawn: Figures) -> Html:
    shown = [
        tag("div", plot(drawn[_file(panel, i)], panel.title), relation_text(panel))
        for i, panel in enumerate(found)
    ]
    return tag("div", *shown, _class="figures") if shown else Html()


def _emergence(found: Sequence[Emergence], drawn: Figures) -> Html:
    shown = [
        tag("div", plot(drawn[_elbow_file(one)], one.title), emergence_text(one)) for one in found
    ]
    return tag("div", *shown, _class="figures") if shown else Html()


def draw(found: Analysis) -> Figures:
    """All figures by the names of their files."""
    drawn: Figures = {}
    for one in found.headline:
        name, said = _slug(one.curve.name), _said(one, found.folder)
        drawn[f"compute-{name}"] = scaling_figures.compute_plot(one, _marks(one, said))
        for along, word in WORDS.items():
            if one.along(along):
                target = max((getattr(each, along) for each, _ in said), default=0)
                drawn[f"along-{word}-{name}"] = scaling_figures.series_plot(one, along, target)
        if one.joint is not None and one.joint.fit.residuals:
            drawn[f"residuals-{name}"] = scaling_figures.residual_plot(one.curve, one.joint)
    drawn |= {_file(panel, i): _relation(panel) for i, panel in enumerate(found.relations)}
    return drawn | {_elbow_file(one): _elbow(one) for one in found.emergences}


def _file(panel: Panel, i: int) -> str:
    return f"{panel.hook}-{i + 1}"


def _elbow_file(one: Emergence) -> str:
    return f"emergence-{_slug(one.name)}"


def _relation(one: Panel) -> Figure:
    line = one.relation.predict if np.isfinite(one.relation.kappa) else None
    labels = one.pairing.x, one.pairing.y
    return scaling_figures.relation_plot(one.title, labels, one.x, one.y, line)


def _elbow(one: Emergence) -> Figure:
    columns = one.columns["loss"], one.columns["samples"], one.columns["value"]
    return scaling_figures.emergence_plot(
        one.title,
        measure(one.quantity.metric).axis,
        columns,
        one.fit.predict,
        lambda samples: float(one.fit.elbow(samples)),
    )


def _said(one: CurveLaws, folder: ScalingFolder) -> list[tuple[Forecast, float | None]]:
    """The forecasts of a curve with their outcomes, the latest of each run."""
    every: list[tuple[Forecast, float | None]] = [(waiting, None) for waiting in folder.waiting]
    every += [(scored.forecast, scored.outcome) for scored in folder.settled]
    own = [(said, came) for said, came in every if said.quantity == one.curve.quantity]
    latest = {(said.params_active, said.images_seen): (said, came) for said, came in own}
    return list(latest.values())


def _marks(one: CurveLaws, said: Sequence[tuple[Forecast, float | None]]) -> list[Mark]:
    """Forecasts in a figure over compute, theirs that of the points by parameters x images."""
    curve = one.curve
    rate = float(np.median(curve.compute / (curve.column(PARAMS) * curve.column(IMAGES))))
    return [_mark(each, rate * each.params_active * each.images_seen, came) for each, came in said]


def _mark(said: Forecast, compute: float, outcome: float | None) -> Mark:
    ends = [said.value, said.lo, said.hi, outcome]
    if not said.lower_is_better:
        value, lo, hi, outcome = (None if end is None else 1 - end for end in ends)
        ends = [value, hi, lo, outcome]
    value, lo, hi, outcome = ends
    assert value is not None and lo is not None and hi is not None
    return Mark(said.run, compute, value, lo, hi, outcome)


def _slug(name: str) -> str:
    """Safe as a part of a file's name."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower().replace("δ", "delta")).strip("-")
