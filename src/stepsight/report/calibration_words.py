"""Is a stated uncertainty to be believed? A word and a sentence, from the scores of `spread`.

Two questions are answered: whether intervals and probabilities come true as often as they say, and
whether the uncertainty tells where in an image the errors are. A scale (`evaluation.calibration`)
answers for the first alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from stepsight.metrics.masked import Rows
from stepsight.metrics.uncertainty import calibration_error
from stepsight.scaling.intervals import mean_interval

COVERED = 0.85, 0.95  # what the 90 % interval of a calibrated uncertainty covers
GOOD, FAIR = 0.02, 0.05  # calibration errors of stated probabilities
RANKED = ((0.1, "hardly"), (0.4, "weakly"), (0.6, "moderately"))  # below such correlations


class Told(NamedTuple):
    """A verdict and the sentence that holds it."""

    verdict: str
    sentence: str


def calibration_verdict(rows: Rows) -> Told | None:
    """What the uncertainty rows of images (`evaluation.spread`) amount to; None where they hold
    neither intervals nor probabilities, or nothing was scored.

    Intervals are "calibrated", "too narrow" or "too wide" (`COVERED`); probabilities are "good",
    "fair" or "poor" by their calibration error (`GOOD`, `FAIR`).
    """
    if "coverage_90" in rows:
        told = _of_intervals(rows)
    elif "brier" in rows:
        told = _of_probabilities(rows)
    else:
        return None
    return told and Told(told.verdict, " ".join([told.sentence, *_ranking(rows)]))


def _of_intervals(rows: Rows) -> Told | None:
    found = mean_interval(rows["coverage_90"].numpy())
    if not math.isfinite(found.value):
        return None
    low, high = COVERED
    verdict = "calibrated" if low <= found.value <= high else "too narrow"
    verdict = "too wide" if found.value > high else verdict
    ends = f" [{_percent(found.lo)}, {_percent(found.hi)}]" if math.isfinite(found.lo) else ""
    raw = ""
    if "coverage_90_raw" in rows:
        raw = f" (raw members: {_percent(mean_interval(rows['coverage_90_raw'].numpy()).value)} %)"
    return Told(
        verdict,
        f"90 % intervals cover {_percent(found.value)} %{ends} of the truth on "
        f"{_images(found.n)}{raw}: {verdict}.",
    )


def _of_probabilities(rows: Rows) -> Told | None:
    error, brier = calibration_error(rows["calibration"]), mean_interval(rows["brier"].numpy())
    if not math.isfinite(error):
        return None
    verdict = "good" if error < GOOD else "fair" if error < FAIR else "poor"
    return Told(
        verdict,
        f"Stated probabilities are off by {_percent(error)} % (ECE), Brier {brier.value:.4f}, on "
        f"{_images(brier.n)}: {verdict}.",
    )


def _ranking(rows: Rows) -> Iterator[str]:
    """Whether the uncertainty tells where the errors are, where that was measured."""
    if "spread_error" not in rows:
        return
    rho = mean_interval(rows["spread_error"].numpy()).value
    if not math.isfinite(rho):
        return
    word = next((word for most, word in RANKED if rho < most), "well")
    yield f"The spread ranks errors {word} (Spearman {rho:.2f})."


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _images(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"
