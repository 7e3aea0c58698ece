"""A run folder as training leaves it, quickly written by hand, for whoever shows runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.evaluation.results import write_table
from stepsight.legends import Legend
from stepsight.report.grids import compose
from stepsight.report.panels import PanelTile, PicturePanel, write_panel
from stepsight.scaling.sampling.sweeps import Cell, write_sweep

PICTURES = ("sweep/film-depth", "sweep/reliability-depth")


def metrics(hostile: str) -> list[dict]:
    rows = []
    for step in range(1, 41):
        losses = {"loss/depth": step**-0.4, "loss/amodal": step**-0.3}
        rows.append(
            {"kind": "train", "step": step, "images_seen": 16 * step, "loss": step**-0.35}
            | losses
            | {"lr": 0.02, "images_per_s": 230.0, "data_share": 0.01, "seconds": 0.5 * step}
        )
    for step in (20, 40):
        for task, metric, value in (("depth", "abs_rel", 0.28), ("amodal", "iou", 0.5)):
            rows.append(
                {"kind": "val", "step": step, "images_seen": 16 * step, "task": task}
                | {"data": f"scenes{hostile}", "nfe": 4, "members": 1, "n": 64, "seconds": 6.0}
                | {"metrics": {metric: value}, "baselines": {f"trivial{hostile}": {metric: 0.45}}}
            )
    return rows


def results(hostile: str) -> list[dict]:
    shared = {"protocol": "native", "protocol_text": f"as is{hostile}", "nfe": 4, "members": 4}
    shared |= {"sampler": "ddim", "size": [64, 64], "checkpoint": f"step-40{hostile}", "n": 512}
    depth = {
        "task": "depth",
        "data": f"scenes{hostile}",
        "metrics": {"abs_rel": 0.19, "delta1": 0.72, "n_images": 512.0},
        "intervals": {"abs_rel": [0.18, 0.2]},
        "baselines": {"mean_map": {"abs_rel": 0.294}, "nothing": {"abs_rel": None}},
        "ratios": {"mean_map": {"metric": "abs_rel", "ratio": 0.65, "lo": 0.62, "hi": 0.68}},
        "label": None,
        "ceiling": {"abs_rel": 0.02},
    }
    amodal = {
        "task": "amodal",
        "data": "scenes",
        "metrics": {"iou": 0.65},
        "intervals": {},
        "baselines": {"box": {"iou": 0.676}},
        "ratios": {"box": {"metric": "iou", "ratio": 0.96, "lo": 0.93, "hi": 0.99}},
        "label": f"training frames (overfit){hostile}",
        "ceiling": None,
    }
    return [depth | shared, amodal | shared]


def swept(hostile: str) -> list[Cell]:
    """A grid of one task, with the CRPS of its ensembles."""
    return [
        Cell(
            task="depth",
            sampler="ddim",
            spacing="trailing",
            schedule="rectified_flow",
            nfe=nfe,
            members=members,
            total_calls=nfe * members,
            gflop_per_image=0.1 * nfe * members,
            ms_per_image=3.0 * nfe * members,
            peak_gb=math.nan,
            metric=metric,
            value=value,
            lo=value - 0.001,
            hi=value + 0.001,
            checkpoint=f"runs/tiny{hostile}",
        )
        for nfe in (1, 4)
        for members in (1, 8)
        for metric, value in (("abs_rel", 0.2 - 0.002 * members), ("crps", 0.3 / members))
        if metric == "abs_rel" or members > 1
    ]


def strategies(hostile: str) -> list[dict[str, Any]]:
    shared = {"task": "depth", "nfe": 4, "members": 8, "total_calls": 32, "mean_calls": 32}
    shared |= {"metric": "abs_rel", "value": 0.19, "lo": 0.18, "hi": 0.2, "images": 64}
    merged = {"strategy": "median", "baseline": "", "difference": "", "verdict": ""}
    best = {"strategy": f"oracle{hostile}", "baseline": "median", "difference": -0.01}
    best |= {"difference_lo": -0.02, "difference_hi": -0.005, "verdict": "wins"}
    return [shared | best, shared | merged]


def panel(hostile: str) -> PicturePanel:
    """An image and what is predicted for it."""
    image = PanelTile("image", f"image{hostile}")
    answer = PanelTile("one call", "depth at 1 x 1", f"1 x 1{hostile}", 0.21)
    scale = Legend("values", ("#000000", "#ffffff"), 1.3, 11.0, f"m{hostile}", log=True)
    says = f"scenes{hostile}", "native", "key", f"median image{hostile}"
    return PicturePanel("depth", *says, "abs_rel", (image, answer), scale)


def write_run(path: Path, hostile: str = "") -> Path:
    """A finished run of two tasks; `hostile` goes into every name a user could choose."""
    for folder in ("samples", "eval", "sweep"):
        (path / folder).mkdir(parents=True)
    (path / "config.yaml").write_text(f"tasks:\n  depth: {{}}\nnote: {hostile}\n")
    (path / "command.txt").write_text(f"train.py --config tiny.yaml {hostile}\n")
    (path / "env.json").write_text(json.dumps({"stepsight": "0.1.0", "host": f"a{hostile}"}))
    lines = [json.dumps(row) for row in metrics(hostile)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind":"train","st')
    tile = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("samples/step-000020", "samples/step-000040", "samples/final", *PICTURES):
        compose([[tile, tile]], ["image", "truth"], ["depth"], path / f"{name}.png")
    for kind in ("panels", "extremes"):
        write_panel(path / "eval", panel(hostile), [tile, tile], kind)
    write_panel(path / "sweep", panel(hostile), [tile, tile], "films")
    (path / "eval" / "results.json").write_text(json.dumps(results(hostile)))
    write_sweep(path / "sweep" / "sweep.csv", swept(hostile))
    write_table(path / "sweep" / "strategies.csv", strategies(hostile))
    fit = {"params": {"A": 0.2, "a": 0.02}, "intervals": {"A": [0.19, 0.21], "a": [None, None]}}
    fit |= {"formula": "e = E + A T^-a + B N^-b", "r2": 0.97}
    dial = {"dial": "steps", "at": 8, "points": 2, "gain": 0.07, "verdict": "saturated"}
    family = {"checkpoint": f"runs/tiny{hostile}", "sampler": "ddim", "surface": fit}
    family |= {"verdict": "law", "dials": [dial]}
    laws = {"depth": {"metric": "abs_rel", "families": [family]}}
    (path / "sweep" / "fit.json").write_text(json.dumps(laws))
    claim = {"task": "depth", "metric": "abs_rel", "averaging": "per image", "main": True}
    claim |= {"statement": f"more members help{hostile}", "given": "calls 4", "verdict": "holds"}
    claim |= {"value": 0.07, "lo": 0.05, "hi": 0.09, "n": 512, "sentence": "Eight instead of one."}
    claim |= {
        "p": 0.001,
        "p_holm": 0.004,
        "cost": 32,
        "base_cost": 4,
        "sampler": "ddim",
        "spacing": "trailing",
    }
    sides = {"base": 1, "other": 8}
    claim |= {
        s: {"nfe": 4, "members": n, "temperature": 1.0, "views": "none"} for s, n in sides.items()
    }
    (path / "sweep" / "claims.json").write_text(json.dumps([claim]))
    return path
