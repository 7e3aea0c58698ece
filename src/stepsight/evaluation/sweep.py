"""The test-time sweep: NFE x members, what each cell costs and reaches, and what follows from it.

Written under `sweep/`: sweep.csv (one row a cell and metric), per_sample.csv, fit.json (power law
with and without floor, with a verdict), claims.json (three statements decided on paired intervals)
and pareto-<task>.png.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stepsight.evaluation import figures
from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.results import metrics_of, sample_rows, write_json, write_table
from stepsight.evaluation.statistics import interval, per_image
from stepsight.measures import measure
from stepsight.metrics import protocol as protocols
from stepsight.pipeline import DensePipeline
from stepsight.scaling import claims
from stepsight.scaling.fits import compare

RESAMPLES = 50  # of each fit: a dozen curves are fitted at the end of every run


def write_sweep(
    folder: Path,
    every: Sequence[Scores],
    pipeline: DensePipeline,
    sampler: str,
    flops: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Write the sweep of several tasks; returns the claims.

    flops: of one forward pass of one row, by task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        row for scores in every for row in sweep_rows(scores, pipeline, sampler, flops[scores.task])
    ]
    write_table(folder / "sweep.csv", rows)
    write_table(folder / "per_sample.csv", [row for s in every for row in sample_rows(s)])
    mains = {scores.task: pipeline.task(scores.task).metric for scores in every}
    write_json(folder / "fit.json", {task: fits(rows, task, main) for task, main in mains.items()})
    decided = [asdict(claim) for claim in statements(every, pipeline)]
    write_json(folder / "claims.json", decided)
    for task, main in mains.items():
        cells = [row for row in rows if (row["task"], row["metric"]) == (task, main)]
        cells = [row for row in cells if math.isfinite(row["value"])]
        title = f"{task}: {measure(main).label} against test-time compute"
        if cells:
            figures.to_png(figures.pareto_plot(cells, title), folder / f"pareto-{task}.png")
    return decided


def sweep_rows(
    scores: Scores, pipeline: DensePipeline, sampler: str, flops: float
) -> list[dict[str, Any]]:
    """One row a cell and metric, in the columns of sweep.csv."""
    diffusion = pipeline.config.diffusion
    peak = _peak_gb(pipeline.device)
    found = []
    for (nfe, members), rows in scores.settings.items():
        for metric in metrics_of(rows, scores.protocol):
            if metric in ("n_images", "hidden"):
                continue
            one = interval(rows, metric, protocols.get(scores.protocol))
            found.append(
                {
                    "task": scores.task,
                    "sampler": sampler,
                    "spacing": diffusion.spacing,
                    "schedule": diffusion.schedule,
                    "nfe": nfe,
                    "members": members,
                    "total_calls": nfe * members,
                    "gflop_per_image": flops * nfe * members / 1e9,
                    "ms_per_image": scores.seconds[nfe, members] * 1e3,
                    "peak_gb": peak,
                    "metric": metric,
                    "value": one.value,
                    "lo": one.lo,
                    "hi": one.hi,
                }
            )
    return found


def fits(rows: list[dict[str, Any]], task: str, metric: str) -> dict[str, Any]:
    """Power laws, with and without floor, of the error of `task` in its main `metric`.

    Against NFE at one member, members at the largest NFE, and the best error of each total number
    of calls. A metric that is better when larger is fitted as 1 - metric. Cells without an error,
    or with one of 0, have no logarithm and are left out.
    """
    flip = measure(metric).higher_is_better
    error = {
        (row["nfe"], row["members"]): 1 - row["value"] if flip else row["value"]
        for row in rows
        if (row["task"], row["metric"]) == (task, metric)
    }
    most = max(nfe for nfe, _ in error)
    error = {cell: value for cell, value in error.items() if math.isfinite(value) and value > 0}
    calls: dict[int, float] = {}
    for (nfe, members), value in error.items():
        calls[nfe * members] = min(value, calls.get(nfe * members, value))
    curves = {
        "steps": {nfe: value for (nfe, members), value in error.items() if members == 1},
        "members": {members: value for (nfe, members), value in error.items() if nfe == most},
        "compute": calls,
    }
    return {name: _both_forms(curve) for name, curve in curves.items() if len(curve) > 1}


def _both_forms(curve: dict[int, float]) -> dict[str, Any]:
    x = sorted(curve)
    y = [curve[one] for one in x]
    return {form: fit.to_dict() for form, fit in compare(x, y, bootstrap=RESAMPLES).items()}


def statements(every: Sequence[Scores], pipeline: DensePipeline) -> list[claims.Claim]:
    """The three statements of test-time compute for each task's main metric."""
    scored = []
    direction = {}
    for scores in every:
        task = pipeline.task(scores.task)
        direction[task.metric] = not task.higher_is_better
        for (nfe, members), rows in scores.settings.items():
            values = per_image(rows, task.metric)
            scored += [
                claims.ImageScore(task.name, task.metric, nfe, members, key, float(value))
                for key, value in zip(scores.keys, values)
            ]
    return claims.decide(scored, direction)


def _peak_gb(device: torch.device) -> float:
    """Peak memory of this process in GB: on the GPU, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
