"""The seed paper's printed laws beside fits to its points (arXiv 2411.08034)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forecasting.published import by, column, rows_of
from stepsight.scaling.laws.fits import compare, fit
from stepsight.scaling.laws.fitted import Fit

PRINTED = "seed_published_power_laws.csv"
ERRORS = {"absrel": "AbsRel", "delta1_error": "1 - δ1"}
SMALLEST = "a1"


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for every law: as printed, and what the points give."""
    printed = {row["law"]: row for row in rows_of(folder, PRINTED)}
    rows = rows_of(folder, "seed_finetune_depth_points.csv")
    x, models = column(rows, "macs_as_plotted")[:, 0], [row["model"] for row in rows]
    for error, name in ERRORS.items():
        found = fit("power", x, column(rows, error)[:, 0], groups=models)
        about = {"law": f"{name}, fine-tuning compute", "of": "all points, models resampled"}
        yield about | _row(printed[f"finetune_{error}"], [found])
    ends = [rows[-1] for rows in by(rows_of(folder, "seed_pretrain_loss_curves.csv"), "model")]
    kept = [row for row in ends if row["model"] != SMALLEST]
    for of, chosen in ((f"last losses without {SMALLEST}", kept), ("last losses of all", ends)):
        x, y = (column(chosen, name)[:, 0] for name in ("macs_as_plotted", "loss"))
        found = fit("power", x, y, huber=math.inf)
        yield {"law": "pretraining loss", "of": of} | _row(printed["pretrain_loss"], [found])
    for name, axis, file in (
        ("steps", "denoising_steps", "seed_test_time_steps.csv"),
        ("members", "ensemble_size", "seed_test_time_ensemble.csv"),
    ):
        law = printed[f"{'steps' if name == 'steps' else 'ensemble'}_absrel"]
        fits = [
            compare(column(rows, axis)[:, 0], column(rows, "absrel")[:, 0])["power"]
            for rows in by(rows_of(folder, file), "model")
        ]
        yield {"law": f"AbsRel, {name}", "of": "each model"} | _row(law, fits)


def _row(printed: dict[str, str], fits: Sequence[Fit]) -> dict[str, Any]:
    """Exponents of one fit with its interval, of several the range."""
    exponents = [found.params["a"] for found in fits]
    lo, hi = fits[0].intervals["a"] if len(fits) == 1 else (min(exponents), max(exponents))
    return {
        "printed": [float(printed["coefficient_printed"]), -float(printed["exponent_printed"])],
        "exponent": float(np.mean(exponents)),
        "ends": [lo, hi] if math.isfinite(lo) else None,
        "r2": [found.r2 for found in fits],
        "verdicts": [found.verdict for found in fits],
    }
