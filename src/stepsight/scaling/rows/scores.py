"""Which way is better: laws are of errors that fall, and scores enter as what they lack.

A name says it where `stepsight.measures` knows it, or where it is called an accuracy or an error;
else the numbers do: a share that rises with scale is a score. Scores in percent lack 100 - score.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import numpy as np

from stepsight.measures import measures
from stepsight.scaling.rows.curve import CurveRows

Better = Literal["higher", "lower", "unknown"]
HIGHER = {"acc", "accuracy", "iou", "miou", "f1", "auc", "auroc", "precision", "recall", "success"}
LOWER = {"error", "err", "loss", "mae", "mse", "rmse", "epe", "nll", "ce", "bpb", "perplexity"}
RISES = 0.5  # Kendall's tau between the place and the result, of a curve that rises
CHANCE = 0.05  # probability of so strong a trend among rows without one


def better(name: str) -> Better:
    """Which way the column called `name` is better, as far as its name says."""
    plain = re.sub(r"[^a-z0-9.]", "", name.lower())
    for known, measure in measures().items():
        if plain == re.sub(r"[^a-z0-9.]", "", known):
            return measure.better if measure.better in ("higher", "lower") else "unknown"
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return "lower" if words & LOWER else "higher" if words & HIGHER else "unknown"


def turned(rows: CurveRows) -> CurveRows:
    """Rows whose y is an error: scores as 1 - score, or 100 - score where they are percents.

    What cannot be turned is left as it is; notes say what was done, and why.
    """
    y, known, trend = rows.y, better(rows.target), _trend(rows)
    if known == "lower" or not len(y) or (known == "unknown" and trend <= 0):
        return rows
    if known == "higher" and trend < 0:
        return rows.noting(
            f"{rows.target} is better when higher, by its name, yet falls as scale grows: fitted "
            "as it is. Name the column for what it holds, such as 1 - accuracy."
        )
    percent = known == "higher" and y.max() > 1
    best = 100 if percent else 1
    if not (0 <= y.min() and y.max() <= best):
        return rows.noting(
            f"{rows.target} rises with scale, and laws are of errors that fall: give a column of "
            "what is lacking, 1 - value for a share or best - value for any other score"
        )
    why = "is better when higher" if known == "higher" else "rises with scale, as scores do"
    told = f"{rows.target} {why}: fitted as {best} - {rows.target}"
    if percent and (shares := np.flatnonzero(y <= 1).tolist()):
        told += f". It is taken as percents; {rows.called(shares)}: are these shares?"
    elif percent:
        told += ", as it is in percent"
    return replace(rows, y=best - y, target=f"{best} - {rows.target}").noting(told)


def _trend(rows: CurveRows) -> int:
    """1 where y rises beyond chance with the product of the inputs, -1 where it falls, else 0."""
    from scipy.stats import kendalltau  # takes a second to load

    if len(np.unique(rows.sizes)) < 3:
        return 0
    tau, chance = map(float, kendalltau(rows.sizes, rows.y))
    return int(np.sign(tau)) if abs(tau) >= RISES and chance / 2 <= CHANCE else 0
