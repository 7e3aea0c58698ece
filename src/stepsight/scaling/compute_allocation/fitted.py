"""A law of parameters and samples fitted to runs, and how sure its optima are.

Constants of such a law are correlated: A and alpha make up for each other, and so do B and beta, so
that intervals of single constants say little about N*. The resamples of the fit are whole laws.
Each has an optimum of its own, and their quantiles are the interval of N*, D*, a, b and G. The loss
at the optimum is a forecast of the fit, widened by its back-test.

What runs cannot tell, no law can: with two sizes, or where samples grow with the parameters, the
constants are not determined however well the curve fits. Such tables are refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError
from stepsight.scaling.compute_allocation.allocation import (
    TRAINING_FACTOR,
    TrainingLaw,
    allocate,
)
from stepsight.scaling.fitting.form import Array, positive
from stepsight.scaling.fitting.resampling import UNKNOWN, Ends
from stepsight.scaling.intervals import LEVEL, tails
from stepsight.scaling.laws.fits import fit
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.laws.forms import find_form

MIN_VALUES = 3  # of parameters and of samples: two do not tell a floor from a slope
TOGETHER = 0.95  # rank correlation from which on two columns are one
INPUTS = ("parameters", "samples")


@dataclass(frozen=True)
class FittedTrainingLaw:
    """A law, the fit that it is of, and the laws of the fit's resamples."""

    law: TrainingLaw
    fit: Fit
    draws: tuple[TrainingLaw, ...]  # those that have an optimum
    level: float

    @property
    def intervals(self) -> dict[str, Ends]:
        """Of the constants as the fit gives them, and of a, b and G."""
        derived = {name: self._ends([getattr(law, name) for law in self.draws]) for name in "abG"}
        return self.fit.intervals | derived

    def optimum(self, budget: float, factor: float = TRAINING_FACTOR) -> dict[str, Any]:
        """The fields of `Allocation` at a budget in FLOPs, their intervals (nan where the resamples
        do not determine them), and how far beyond the runs it lies."""
        best = allocate(self.law, budget, factor)
        others = [allocate(law, budget, factor) for law in self.draws]
        at = dict(zip(self.fit.inputs, (best.params, best.samples)))
        expected = self.fit.forecast(at, self.level)
        return best._asdict() | {
            "params_interval": self._ends([one.params for one in others]),
            "samples_interval": self._ends([one.samples for one in others]),
            "loss_interval": (expected.lo, expected.hi),
            "level": self.level,
            "reach": expected.reach,
            "basis": expected.basis,
            "verdict": self.fit.verdict,
        }

    @property
    def lost(self) -> int:
        """Resamples in which a term vanished, so that they have no optimum."""
        return len(self.fit.draws) - len(self.draws)

    def _ends(self, values: Sequence[float]) -> Ends:
        """Of the resamples; unknown where so many have no optimum that the ends are theirs."""
        tail, _ = ends = tails(self.level)
        if not values or self.lost > tail * len(self.fit.draws):
            return UNKNOWN
        lo, hi = np.quantile(values, ends).tolist()
        return lo, hi


def fit_training_law(
    form: str,
    params: ArrayLike,
    samples: ArrayLike,
    loss: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    bootstrap: int = 200,
    level: float = LEVEL,
) -> FittedTrainingLaw:
    """Fit "chinchilla" or "kaplan" to runs, columns "n" of positive numbers.

    Resamples draw runs, or whole `groups` where there are at least three.

    Raises:
        UserError: a number is not positive, the runs cannot tell parameters and samples apart, or
            one of them has no effect that the runs show.
    """
    columns = [positive(*one) for one in zip((*INPUTS, "loss"), (params, samples, loss))]
    _distinguish(columns[0], columns[1])
    table = np.stack(columns[:2], axis=1)
    found = fit(
        form, table, columns[2], inputs=INPUTS, groups=groups, bootstrap=bootstrap, level=level
    )
    law = _law(form, found.params)
    if law is None:
        shown = ", ".join(f"{name} {value:.3g}" for name, value in found.params.items())
        raise UserError(
            f"These {found.n} runs leave no optimum: the fit ends at {shown}, where parameters or "
            "samples do nothing. Add runs in which each varies while the other is held."
        )
    shape = find_form(form)
    rows = shape.reported(np.array(found.draws).reshape(-1, len(shape.parameters)))
    laws = (_law(form, dict(zip(shape.parameters, row))) for row in rows.tolist())
    return FittedTrainingLaw(law, found, tuple(one for one in laws if one), level)


def _law(form: str, constants: dict[str, float]) -> TrainingLaw | None:
    """None where a term has vanished."""
    try:
        return TrainingLaw.of(constants, form)
    except UserError:
        return None


def _distinguish(params: Array, samples: Array) -> None:
    """Raises UserError where the table cannot tell the effect of one column from the other's."""
    for name, values in zip(INPUTS, (params, samples)):
        if (count := len(np.unique(values))) < MIN_VALUES:
            raise UserError(
                f"The table holds {count} values of {name}; a law of parameters and samples needs "
                f"{MIN_VALUES} of each, since two do not tell a floor from a slope. Add runs."
            )
    together = rank_correlation(params, samples)
    if abs(together) >= TOGETHER:
        way = "rise together" if together > 0 else "move against each other"
        raise UserError(
            f"Parameters and samples {way} in this table: rank correlation {together:.2f}; A, "
            "alpha, B, beta cannot be told apart. Add runs of other sizes at the same samples."
        )


def confounded(name: str, setting: Array, params: Array, samples: Array) -> list[str]:
    """What a setting "n" of the runs, such as the learning rate, makes doubtful: notes."""
    notes = []
    if len(np.unique(setting)) > 1:
        for other, values in zip(INPUTS, (params, samples)):
            if abs(together := rank_correlation(setting, values)) >= TOGETHER:
                notes.append(
                    f"{name} changes with {other} (rank correlation {together:.2f}): the law holds "
                    "for runs tuned like these, and cannot tell the two apart"
                )
    return notes


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's, of columns "n" that vary; ties share the mean of their ranks."""
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return float(np.corrcoef(*ranks)[0, 1])
