"""The page of a scaling analysis, with its figures and the same for machines beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.errors import UserError
from stepsight.measures import duration, number
from stepsight.report import figures, rendering
from stepsight.report.scaling.contents import Analysis, Forecasts, sentences, to_dict
from stepsight.report.scaling.figures import Figures, draw, elbow_file, panel_file
from stepsight.scaling.analysis import words
from stepsight.scaling.analysis.curves import IMAGES, PARAMS
from stepsight.scaling.analysis.folder import ScalingFolder
from stepsight.scaling.analysis.laws import CurveLaws
from stepsight.scaling.analysis.words import count, flops, shortly, span
from stepsight.scaling.compute_allocation.allocation import TrainingLaw, allocate
from stepsight.scaling.laws.fits import ROUNDING
from stepsight.scaling.records import column, to_csv

PAGE, TWIN, TABLE = "report.html", "report.json", "records.csv"
BUDGETS = (1.0, 10.0)  # of the largest compute measured
UNDONE = ("failed", "left out")  # rungs in this order come before those that are done


def write(analysis: Analysis, out: Path) -> Path:
    """Write report.html, its figures as PNG, report.json and records.csv; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = draw(analysis)
    for name, figure in drawn.items():
        figures.to_png(figure, out / f"{name}.png")
    to_csv(out / TABLE, analysis.folder.records)
    twin = json.dumps(to_dict(analysis), indent=1, allow_nan=False)
    (out / TWIN).write_text(twin + "\n", encoding="utf-8")
    return rendering.write_page(out / PAGE, render(analysis, drawn))


def render(analysis: Analysis, drawn: Figures) -> str:
    """The stand-alone page, with the figures of `draw`."""
    folder = analysis.folder
    tasks = dict.fromkeys(record.task for record in folder.records)
    series = [law for laws in analysis.headline for _, law in laws.series if law is not None]
    rest = [law for laws in analysis.others for law in laws.laws]
    curve = next((name for name in drawn if name.startswith("compute-")), "")
    factors = {factor for tuned in folder.tuned for factor in tuned.losses}
    return rendering.render(
        "scaling",
        title=f"Scaling: {', '.join(tasks)}",
        facts=_facts(folder),
        sentences=sentences(analysis),
        curve=curve,
        answers=_answers(analysis),
        words=words,
        figures=drawn,
        forecast_runs=_forecast_runs(analysis.forecasts),
        allocations=[row for laws in analysis.headline for row in _allocations(laws)],
        laws={"main": [*analysis.main_laws, *analysis.axes], "series": series, "rest": rest},
        panels=[(drawn[panel_file(row, i)], row) for i, row in enumerate(analysis.relations)],
        elbows=[(drawn[elbow_file(elbow)], elbow) for elbow in analysis.emergences],
        rounding=ROUNDING,
        folder=folder,
        bad_rungs=[rung for state in UNDONE for rung in folder.rungs if rung.state == state],
        good_rungs=[rung for rung in folder.rungs if rung.state not in UNDONE],
        factors={factor: f"x {factor:g}" for factor in sorted(factors)},
        notes=analysis.notes,
    )


def _answers(analysis: Analysis) -> dict[str, str]:
    """What each drawer says while it is closed."""
    folder, laws = analysis.folder, analysis.main_laws
    clean = sum(words.clean(law.fit) for law in laws)
    seconds = sum(rung.seconds for rung in folder.rungs)
    failed = f"{len(folder.failed)} failed, " if folder.failed else ""
    curves = count(len(analysis.headline))
    return {
        "forecasts": words.forecast_summary(folder.settled, folder.waiting),
        "laws": f"{clean} of {len(laws)} are clean" if laws else "too few points",
        "axes": f"{curves} curves over parameters and over images",
        "relations": rendering.counted(panel.relation.verdict for panel in analysis.relations),
        "emergence": rendering.counted(elbow.fit.verdict for elbow in analysis.emergences),
        "rungs": f"{len(folder.rungs)} rungs, {failed}{duration(seconds)} in all",
        "notes": f"{len(analysis.notes)} notes",
    }


def _facts(folder: ScalingFolder) -> str:
    records = folder.records
    params, images = span(column(records, PARAMS)), span(column(records, IMAGES))
    compute, runs = span(column(records, "training_flops"), flops), {r.run for r in records}
    return (
        f"{len(records)} records of {len(runs)} runs: {params} active parameters, {images} images, "
        f"{compute} training FLOPs."
    )


def _forecast_runs(forecasts: Forecasts) -> list[dict[str, Any]]:
    """Run by run, forecasts with their outcomes."""
    runs: dict[str, Forecasts] = defaultdict(list)
    for forecast, scored in forecasts:
        runs[forecast.run].append((forecast, scored))
    return [
        {
            "name": name,
            "first": rows[0][0],
            "rows": rows,
            "warnings": list(dict.fromkeys(shortly(w) for row, _ in rows for w in row.warnings)),
        }
        for name, rows in runs.items()
    ]


def _allocations(laws: CurveLaws) -> Iterator[tuple[str, ...]]:
    """Compute-optimal parameters and images for `BUDGETS`, where the joint law is a law and they do
    not lie far outside of what was measured."""
    if laws.joint is None or laws.joint.fit.verdict != "law":
        return
    curve, compute = laws.curve, laws.curve.compute
    factor = float(np.median(compute / (curve.column(PARAMS) * curve.column(IMAGES))))
    for share in BUDGETS:
        try:
            best = allocate(TrainingLaw.of(laws.joint.fit.params), share * compute.max(), factor)
        except UserError:  # a term of the law vanished, so nothing is traded off
            return
        if laws.joint.fit.beyond((best.params, best.samples)):
            continue
        yield (
            curve.name,
            f"{flops(best.budget)} FLOPs, {share:g} x the largest",
            count(best.params),
            count(best.samples),
            f"{curve.label} {number(best.loss)}",
        )
