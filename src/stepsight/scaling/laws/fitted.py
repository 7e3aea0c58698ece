"""What a fit leaves behind: a law with its worth, to predict and to forecast with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError, suggest
from stepsight.scaling.fitting.form import MAX_LOG, Array
from stepsight.scaling.fitting.quality import Expected, Verdict
from stepsight.scaling.fitting.resampling import UNKNOWN, Ends
from stepsight.scaling.intervals import PREDICTIVE
from stepsight.scaling.laws.backtest import Backtest, Outlook
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.plain import plain

MAX_EXTRAPOLATION = 30.0
At = ArrayLike | Mapping[str, ArrayLike]  # where a law is evaluated


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law and what it is worth. Unknown numbers are nan."""

    form: str
    formula: str
    params: dict[str, float]
    intervals: dict[str, Ends]
    level: float  # of the intervals
    method: str = "none"  # how they were found: bootstrap (percentiles), profile, or none
    resampling: str = "none"  # what the bootstrap drew: points, runs, residuals, or none
    objective: float = math.nan  # sum of Huber losses
    huber: float  # where they turn linear
    r2: float = math.nan  # in log space
    aicc: float = math.inf  # comparable between forms on the same points
    held_out: float = math.nan  # root mean square of log errors at the top of the data, left out
    residuals: tuple[float, ...] = ()  # log y - log of the law, in the order of the points
    backtest: Backtest | None = None  # None where there are too few points to hide any
    inputs: tuple[str, ...]
    ranges: dict[str, Ends]  # of the inputs
    n: int
    warnings: tuple[str, ...]
    verdict: Verdict = "too few points"
    natural: tuple[float, ...] = field(default=(), repr=False)  # params, amplitudes as logarithms
    draws: tuple[tuple[float, ...], ...] = field(default=(), repr=False)  # the same of resamples
    outlook: Outlook | None = field(default=None, repr=False, compare=False)

    @property
    def x_range(self) -> Ends | dict[str, Ends]:
        """Of the one input, or of each by name."""
        return self.ranges[self.inputs[0]] if len(self.inputs) == 1 else self.ranges

    def predict(self, x: At) -> Array:
        """The law at `x`: of any shape for one input, "... d" for several, or columns by name.

        Warns beyond 30 times the range of the data.
        """
        points = self._points(x)
        for text in self.beyond(x):
            warnings.warn(text, stacklevel=2)
        return np.exp(self._log_curves([self.natural], points)[0]).reshape(points.shape[:-1])

    def forecast(self, at: At, level: float = PREDICTIVE) -> Expected:
        """The law at one place, and where a new measurement there should fall.

        The interval holds the scatter of the points around the law and what its parameters leave
        open, and as much more, below and above, as the forecasts of the back-test missed by.
        `warnings` says where the place lies beyond 30 times the range of the data, or why there is
        no interval.
        """
        points = self._points(at)
        assert points.size == len(self.inputs), "a forecast is for one place"
        notes, log_x = self.beyond(at), np.log(points.reshape(1, -1))
        value = float(np.exp(self._log_curves([self.natural], points)[0, 0]))
        if self.outlook is None:
            notes.append("no interval: there are too few points for one")
            return Expected(value, *UNKNOWN, level, tuple(notes))
        ends = np.clip(self.outlook.ends(log_x, level), -MAX_LOG, MAX_LOG)
        lo, hi = (value * np.exp(ends)).tolist()
        return Expected(
            value, lo, hi, level, tuple(notes), self.outlook.reach(log_x), self._basis()
        )

    def _basis(self) -> str:
        """What the interval rests on."""
        law = "parameters and scatter"
        if self.backtest is None:
            return f"{law}, Student's t: too few points to hide any, or no run to hide whole"
        said = f"{self.backtest.hits} of {self.backtest.of} earlier forecasts inside 90 %"
        return f"{law}, widened by a back-test up to {self.backtest.reach:.3g}x: {said}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None. Without the resamples."""
        row = asdict(replace(self, outlook=None)) | {"x_range": self.x_range}
        for name in ("natural", "draws", "ranges", "outlook"):
            del row[name]
        return plain(row)

    def _log_curves(self, natural: Any, points: Array) -> Array:
        """log y of each law at each point, "b n"."""
        log_x = np.log(points.reshape(-1, len(self.inputs)))
        return FORMS[self.form].evaluate(np.array(natural).reshape(-1, len(self.params)), log_x)

    def _points(self, x: At) -> Array:
        """Inputs side by side, "... d"."""
        if isinstance(x, Mapping):
            columns = [self._column(x, *names) for names in zip(self.inputs, self._roles)]
            return np.stack(np.broadcast_arrays(*columns), axis=-1)
        points = np.asarray(x, dtype=float)
        if len(self.inputs) == 1:
            return points[..., None]
        if points.ndim == 0 or points.shape[-1] != len(self.inputs):
            raise UserError(f"{self.form} is evaluated at columns {', '.join(self.inputs)}.")
        return points

    @property
    def _roles(self) -> tuple[str, ...]:
        return FORMS[self.form].inputs

    def _column(self, x: Mapping[str, ArrayLike], *names: str) -> Array:
        """By the name of the data's column, or by its role in the form."""
        for name in names:
            if name in x:
                return np.asarray(x[name], dtype=float)
        raise UserError(f"There is no value of '{names[0]}'.{suggest(names[0], x)}")

    def beyond(self, x: At) -> list[str]:
        """Which inputs lie over 30 times outside of the data, a sentence each."""
        points, notes = self._points(x), []
        for name, column in zip(self.inputs, np.moveaxis(points, -1, 0)):
            lo, hi = self.ranges[name]
            if np.any((column > MAX_EXTRAPOLATION * hi) | (column < lo / MAX_EXTRAPOLATION)):
                where = f"the data ({name} {lo:.3g} to {hi:.3g})"
                notes.append(f"extrapolating beyond {MAX_EXTRAPOLATION:g} times {where}")
        return notes
