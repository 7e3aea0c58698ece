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
from stepsight.scaling.sampling.wording import count

COVERED = 0.85, 0.95  # what the 90 % interval of a calibrated uncertainty covers
GOOD, FAIR = 0.02, 0.05  # calibration errors of stated probabilities
RANKED = ((0.1, "hardly"), (0.4, "weakly"), (0.6, "moderately"))  # below such correlations


class Judgement(NamedTuple):
    """A verdict and the sentence that holds it."""

    verdict: str
    sentence: str


def calibration_verdict(rows: Rows) -> Judgement | None:
    """What the uncertainty rows of images (`evaluation.spread`) amount to; None where they hold
    neither intervals nor probabilities, or nothing was scored.

    Intervals are "calibrated", "too narrow" or "too wide" (`COVERED`); probabilities are "good",
    "fair" or "poor" by their calibration error (`GOOD`, `FAIR`).
    """
    judges = {"coverage_90": _of_intervals, "brier": _of_probabilities}
    judgements = [judge(rows) for name, judge in judges.items() if name in rows]
    if not judgements or judgements[0] is None:
        return None
    verdict, sentence = judgements[0]
    return Judgement(verdict, " ".join([sentence, *_ranking(rows)]))


def _of_intervals(rows: Rows) -> Judgement | None:
    share = mean_interval(rows["coverage_90"].numpy())
    if not math.isfinite(share.value):
        return None
    low, high = COVERED
    verdict = "calibrated" if low <= share.value <= high else "too narrow"
    verdict = "too wide" if share.value > high else verdict
    ends = f" [{_percent(share.lo)}, {_percent(share.hi)}]" if math.isfinite(share.lo) else ""
    raw = ""
    if "coverage_90_raw" in rows:
        raw = f" (raw members: {_percent(mean_interval(rows['coverage_90_raw'].numpy()).value)} %)"
    covered = f"90 % intervals cover {_percent(share.value)} %{ends} of the truth"
    return Judgement(verdict, f"{covered} on {count(share.n, 'image')}{raw}: {verdict}.")


def _of_probabilities(rows: Rows) -> Judgement | None:
    error, brier = calibration_error(rows["calibration"]), mean_interval(rows["brier"].numpy())
    if not math.isfinite(error):
        return None
    verdict = "good" if error < GOOD else "fair" if error < FAIR else "poor"
    off = f"Stated probabilities are off by {_percent(error)} % (ECE), Brier {brier.value:.4f}"
    return Judgement(verdict, f"{off}, on {count(brier.n, 'image')}: {verdict}.")


def _ranking(rows: Rows) -> Iterator[str]:
    """Whether the uncertainty tells where the errors are, where that was measured."""
    rho = mean_interval(rows["spread_error"].numpy()).value if "spread_error" in rows else math.nan
    if math.isfinite(rho):
        word = next((word for most, word in RANKED if rho < most), "well")
        yield f"The spread ranks errors {word} (Spearman {rho:.2f})."


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
