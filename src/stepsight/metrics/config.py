"""What a metric is to those who compare its values (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stepsight.errors import UserError

LEAST = 1e-6  # smaller errors count as this one in ratios


@dataclass(frozen=True)
class Measure:
    """A metric: its name and unit as people read them, which way is better, and how it is pooled.

    best: of a perfect prediction, from which errors are counted; None: 0 where lower is better,
    1 where higher is; an infinity where there is none.
    count: the row of counts that says over how many pixels of an image it is a mean.
    power: 2 for roots of means of squares, which pool as squares.
    pools: whether the value of the pooled pixels follows from those of the images.
    """

    label: str
    better: Literal["higher", "lower", "neither", "unknown"]
    unit: str = ""
    best: float | None = None
    count: str = "n"
    power: int = 1
    pools: bool = True

    @property
    def higher_is_better(self) -> bool:
        """Raises UserError where nothing says which way is better."""
        if self.better == "unknown":
            raise UserError(
                f"no task declares the metric '{self.label}', so that nothing says whether higher "
                f"or lower is better. Add it to `metrics` of its task (docs/tasks.md), or install "
                f"the package that has it."
            )
        if self.better == "neither":
            raise UserError(f"'{self.label}' ranks nothing: neither higher nor lower is better.")
        return self.better == "higher"

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label

    @property
    def axis(self) -> str:
        """Label, unit and direction for the axis of a figure."""
        known = self.better in ("higher", "lower")
        return f"{self.title}{f', {self.better} is better' if known else ''}"

    def beats(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`."""
        return value > other if self.higher_is_better else value < other

    def error(self, value: float) -> float:
        """How far `value` is from the best there is; without one, the value where lower is better
        and its negative where higher is."""
        return self._sign * (value - self._zero)

    def value(self, error: float) -> float:
        """The value that is so far from the best."""
        return self._zero + self._sign * error

    @property
    def _sign(self) -> int:
        return -1 if self.higher_is_better else 1

    @property
    def _zero(self) -> float:
        """The value without error."""
        best = float(self.higher_is_better) if self.best is None else self.best
        return best if math.isfinite(best) else 0.0

    def log_ratio(self, value: float, rivals: Sequence[float]) -> float:
        """log(error / least error of the rivals), which is 1 without any: below 0 where it beats
        them. Of metrics without a best value, the difference over the size of that rival."""
        error, rival = self.error(value), min(map(self.error, rivals), default=1.0)
        if self.best is None or math.isfinite(self.best):
            return math.log(max(error, LEAST) / max(rival, LEAST))
        return (error - rival) / max(abs(rival), LEAST)


Metrics = Mapping[str, Measure]


def parts(metrics: Metrics, *names: str) -> Metrics:
    """The metrics over parts of the pixels, each counted by a row of its own, `n_<part>`."""
    return {
        f"{metric}_{name}": replace(
            row, label=f"{row.label} {name.replace('_', '-')}", count=f"n_{name}"
        )
        for metric, row in metrics.items()
        for name in names
    }
