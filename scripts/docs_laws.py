"""Fit docs/data/ladder-depth.csv and ladder-emergence.csv: docs/data/ladder-laws.json.

uv run python scripts/docs_laws.py            # then scripts/docs_numbers.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from page_numbers.common import DATA, rows_of  # noqa: E402
from page_numbers.ladder import (  # noqa: E402
    EMERGENCE,
    HELD_OUT,
    LADDER,
    LAWS,
    Rung,
    rungs,
)

from stepsight.scaling.emergence.companion import fit_companion, judge  # noqa: E402
from stepsight.scaling.emergence.elbow import fit_columns  # noqa: E402
from stepsight.scaling.laws.averaging import average  # noqa: E402
from stepsight.scaling.laws.fits import compare  # noqa: E402
from stepsight.scaling.laws.fitted import Fit  # noqa: E402
from stepsight.scaling.plain import plain  # noqa: E402
from stepsight.scaling.sampling.frontier import pareto  # noqa: E402

AGAINST = ("envelope over compute", "sizes and images")
EXPONENTS = ("a", "alpha", "beta")


def laws() -> dict[str, Any]:
    """Every form of the laws of two quantities, and what they say of the run that was held out."""
    made = [rung for rung in rungs() if rung.model != HELD_OUT]
    (outcome,) = (rung for rung in rungs() if rung.model == HELD_OUT)
    fits = {
        (quantity, against): maker(made, quantity)
        for quantity in ("loss", "abs_rel")
        for against, maker in zip(AGAINST, (_envelope, _joint))
    }
    rows = [
        {"quantity": quantity, "against": against} | _row(found)
        for (quantity, against), forms in fits.items()
        for found in forms.values()
    ]
    envelope, joint = (fits["loss", against] for against in AGAINST)
    today = average(joint).forecast((outcome.params, outcome.images))
    best = next(iter(envelope.values()))
    return {
        "laws": rows,
        "envelope": float(best.predict(outcome.flops)),
        "today": {"value": today.value, "lo": today.lo, "hi": today.hi},
    }


def _envelope(made: list[Rung], quantity: str) -> Mapping[str, Fit]:
    """Through the runs that no cheaper one beats."""
    x = np.array([rung.flops for rung in made])
    y = np.array([getattr(rung, quantity) for rung in made])
    best = pareto(x, y)
    return compare(x[best], y[best], inputs=["C"])


def _joint(made: list[Rung], quantity: str) -> Mapping[str, Fit]:
    x = np.array([[rung.params, rung.images] for rung in made])
    return compare(x, [getattr(rung, quantity) for rung in made], inputs=["params", "images"])


def _row(found: Fit) -> dict[str, Any]:
    tested = found.backtest
    kept = {"hits": tested.hits, "of": tested.of, "error": tested.error} if tested else None
    exponents = {
        name: [value, *found.intervals[name]]
        for name, value in found.params.items()
        if name in EXPONENTS
    }
    row = {"form": found.form, "exponents": exponents, "r2": found.r2}
    return row | {"backtest": kept, "verdict": found.verdict}


def emergence() -> dict[str, Any]:
    """The elbow of delta1, its companion AbsRel, and what is expected of five images."""
    fit = fit_columns(_tuned("delta1"), ("loss", "images"), "delta1")
    columns = _tuned("abs_rel")
    told = judge(fit, fit_companion(columns, ("loss", "images"), "abs_rel"))
    few, images = fit.few_shot(5), columns["images"]
    elbows = [float(fit.elbow(amount)) for amount in (images.min(), images.max())]
    return {
        "verdict": fit.verdict,
        "r2": fit.r2,
        **{name: fit.params[name] for name in ("A", "B", "sigma")},
        "elbows": elbows,
        "few_shot": few.loss,
        "few_shot_interval": [few.lo, few.hi],
        "companion": told.sentence,
        "warnings": fit.warnings,
    }


def _tuned(metric: str) -> dict[str, np.ndarray]:
    """Loss of the pretrained model, scenes it was tuned on, and what it reached."""
    losses = {row["run"]: float(row["loss"]) for row in rows_of(LADDER)}
    rows = [row for row in rows_of(EMERGENCE) if row["metric"] == metric]
    return {
        "loss": np.array([losses[row["parent"]] for row in rows]),
        "images": np.array([float(row["samples"]) for row in rows]),
        metric: np.array([float(row["value"]) for row in rows]),
    }


def main() -> int:
    found = plain(laws() | {"emergence": emergence()})
    (DATA / LAWS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
