"""What a fitted elbow is worth: its verdict, and warnings that belong beside its numbers.

A hinge through points is always found. Whether there is an elbow is another question, asked of the
points: is a straight line in the loss, which leaves no base, far less likely? Whether it follows a
law is a third: do images move it, is it a kink and no smooth bend, and do the points determine all
of its parameters (`rivals`)?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stepsight.scaling.emergence.model import ALPHA, QUIET, Elbow, extent
from stepsight.scaling.emergence.rivals import Rivals
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import (
    AT_BOUND,
    DECISIVE,
    LAW_R2,
    MAX_CONDITION,
    Verdict,
    aicc,
    condition,
    r_squared,
    stopped_at,
)
from stepsight.scaling.fitting.search import Optima, Problem

ADVISED_LEVELS = 5  # of images
ADVISED_MODELS = 6
WORSENS = 0.5  # correlation of performance and loss at one number of images


@dataclass(frozen=True)
class Design:
    """What was measured."""

    points: int
    models: int
    levels: int  # distinct numbers of images
    loss: tuple[float, float]  # of the strongest model and of the weakest
    images: tuple[float, float]


class FittedElbow:
    """An optimum on its points, and what the points say to it."""

    def __init__(self, data: Problem, best: Optima) -> None:
        assert isinstance(data.form, Elbow)
        self.form, self.data, self.q = data.form, data, best.q
        self.loss, self.logs, self.y = data.u[:, 0], data.u[:, 1], data.v
        self.quiet = QUIET * extent(data)
        self.residuals = data.v - self.form.curve(best.q, data.u)[0]
        self.r2 = r_squared(data.v, self.residuals)
        self.rivals = Rivals(data, self.quiet)

    @property
    def verdict(self) -> Verdict:
        """First match in this order, of points that determine a fit.

        * not monotone: at equal images, performance falls as models get better.
        * no elbow: all points lie on one side of it, or a straight line in L is not less likely by
          an AICc of 10.
        * law: R2 of at least 0.9, and nothing in `against`.
        * improves but no law: everything else.
        """
        if self._worsens():
            return "not monotone"
        above, below = self._sides()
        if not (self.q[0, 3] > 0 and above and below and self._gain >= DECISIVE):
            return "no elbow"
        return "law" if self.r2 >= LAW_R2 and not self.against else "improves but no law"

    def warnings(self) -> list[str]:
        """Sides of the elbow without points, a line that does as well, and what denies a law."""
        above, below = self._sides()
        notes = []
        if self._worsens():
            notes.append("performance rises with the loss: an error has to enter as 1 - error")
        if not above:
            notes.append("no point above the elbow: all models have left the base")
        if not below or not self.q[0, 3]:
            notes.append("no point below the elbow: no model has left the base")
        if self._gain < DECISIVE:
            notes.append(
                f"a straight line in the loss does as well (AICc higher by {self._gain:.3g}, an "
                f"elbow needs {DECISIVE:g})"
            )
        return [*notes, *self.against]

    @cached_property
    def against(self) -> list[str]:
        """Why an elbow is no law: parameters at a bound, or ones that trade off; images that do
        not move it beyond chance; a smooth curve that fits far better."""
        notes = self._bounds()
        if not notes and not (worst := self._condition()) <= MAX_CONDITION:
            notes.append(f"ill-determined ({worst:.2g}): parameters trade off against each other")
        if not self._still and (moves := self.rivals.still() - self._aicc) < DECISIVE:
            notes.append(
                f"images do not move the elbow beyond chance (AICc of one for all higher by "
                f"{moves:.3g}, a move needs {DECISIVE:g})"
            )
        name, smooth = self.rivals.smooth()
        if (better := self._aicc - smooth) >= DECISIVE:
            notes.append(f"{name} fits far better (AICc lower by {better:.0f}): no kink is seen")
        return notes

    def _bounds(self) -> list[str]:
        low, high = self.data.lower[1], self.data.upper[1]  # of both elbows
        log_alpha, fewest, rise, *_ = self.q[0].tolist()
        near, notes = stopped_at(log_alpha, *np.log(ALPHA)), []
        if near is not None and not self._still:
            notes.append(f"alpha is at its bound {math.exp(near):g}")
        if self._still:
            notes.append("k is at its bound 0: images do not move the elbow, alpha says nothing")
        for end, name in ((fewest, "fewest"), (min(fewest + rise, high), "most")):
            if stopped_at(end, low, high) is not None:
                notes.append(f"the elbow at the {name} images is at its bound {end:.4g}")
        return notes

    @property
    def _still(self) -> bool:
        """Whether the elbow of the optimum does not move."""
        return bool(self.q[0, 2] <= AT_BOUND * np.ptp(self.loss))

    @cached_property
    def _aicc(self) -> float:
        rss = float(self.residuals @ self.residuals)
        return aicc(rss, len(self.y), self.form.free, self.quiet)

    @cached_property
    def _gain(self) -> float:
        """By how much the AICc of the elbow is lower than that of a straight line."""
        return self.rivals.straight() - self._aicc

    def _worsens(self) -> bool:
        """Whether, at equal images, performance falls with the loss instead of rising."""
        loss, y = (within(self.logs, column) for column in (self.loss, self.y))
        scale = math.sqrt(float(loss @ loss) * float(y @ y))
        return bool(scale) and float(loss @ y) / scale > WORSENS

    def _sides(self) -> tuple[int, int]:
        """Points of higher loss than the elbow, and of lower."""
        elbows = self.form.elbows(self.q, self.data.u)[0]
        return int(np.sum(self.loss >= elbows)), int(np.sum(self.loss < elbows))

    def _condition(self) -> float:
        """Of the Jacobian by alpha, both elbows, A, and B unless it is given."""
        slopes = self.form.jacobian(self.q, self.data.u)[0, :, : self.form.free]
        slopes[:, 1] -= slopes[:, 2]  # by one elbow where the other stays
        return condition(slopes)


def design_warnings(measured: Design) -> list[str]:
    """What the design alone calls into question."""
    notes = []
    if measured.levels < ADVISED_LEVELS:
        notes.append(
            f"{measured.levels} numbers of images: how the elbow moves shows over "
            f"{ADVISED_LEVELS} or more, each four times the last"
        )
    if measured.models < ADVISED_MODELS:
        notes.append(f"{measured.models} models: {ADVISED_MODELS} or more show where they leave B")
    return notes


def few_shot_warnings(
    measured: Design, images: float, loss: float, width: float
) -> tuple[str, ...]:
    """What speaks against E(D0) = `loss` with an interval of this width; nan says nothing."""
    strongest, weakest = measured.loss
    notes = []
    if loss < strongest:
        notes.append(
            f"E({images:g}) = {loss:.4g} lies beyond the strongest model ({strongest:.4g}): "
            "extrapolated"
        )
    if loss > weakest:
        notes.append(
            f"E({images:g}) = {loss:.4g} lies beyond the weakest model ({weakest:.4g}): "
            "extrapolated"
        )
    if width > weakest - strongest:
        notes.append(
            f"E({images:g}) is ill-determined: its interval is wider ({width:.3g}) than the losses "
            f"measured ({weakest - strongest:.3g})"
        )
    return tuple(notes)


def within(groups: Array, values: Array) -> Array:
    """Values minus the mean of their group, "n" each."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return values - (np.bincount(place, values) / counts)[place]
