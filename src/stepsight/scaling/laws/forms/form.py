"""What a form is: a family of curves, or of surfaces, that a search can move and a reader can read.

Two sets of parameters describe the same curve:

* natural: those reported, E and A and a of y = E + A x^-a, with amplitudes and places as
  logarithms. A is the value at x = 1, far outside the data (at 1 FLOP) and tied to the exponent
  almost perfectly.
* inner: the same in units of the middle of the data, u = log x - centre and v = log y - centre.
  What the search moves: there level and slope are nearly independent.

A natural parameter is linear in its own inner one, given the others. So any of them can be held at
a value by solving for its inner one, which is how profiles pin it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MAX_SLOPE = 10.0
MAX_LOG = 700.0


@dataclass(frozen=True)
class Form(ABC):
    """Curves y(x), positive for positive x.

    Shapes: b curves at once, n points, d inputs, k parameters; `q` "b k" are inner parameters, `u`
    "n d" and `v` "n" centred logs, `centre` "d+1" the middle of the logs of the inputs and of y.
    """

    name: str
    formula: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]  # as reported
    exponents: tuple[str, ...]  # those that must be positive for a law that improves
    logs: tuple[str, ...]  # amplitudes and places, positive, moved as logarithms
    fewest: int = 0  # distinct points that the form demands whatever its number of parameters

    @abstractmethod
    def log_curve(self, q: Array, u: Array) -> Array:
        """log y, centred, "b n"."""

    @abstractmethod
    def jacobian(self, q: Array, u: Array) -> Array:
        """d log y / d inner, "b n k"."""

    @abstractmethod
    def natural(self, q: Array, centre: Array) -> Array:
        """Natural parameters, "b k"."""

    @abstractmethod
    def natural_jacobian(self, q: Array, centre: Array) -> Array:
        """d natural / d inner, "b k k"."""

    @abstractmethod
    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Lower and upper inner parameters, "k" each."""

    @abstractmethod
    def starts(self, u: Array, v: Array) -> Array:
        """Where searches may begin, inner, "s k"."""

    def canonical(self, q: Array) -> Array:
        """Of several inner parameters "b k" for the same curve, those to report."""
        return q

    @property
    def moved_as_logs(self) -> NDArray[np.bool_]:
        return np.array([name in self.logs for name in self.parameters])

    def reported(self, natural: Array) -> Array:
        """Parameters to read, "... k".

        A curve that drops like a step has an amplitude beyond floating point; it is cut off there.
        """
        return np.where(self.moved_as_logs, np.exp(np.clip(natural, -MAX_LOG, MAX_LOG)), natural)

    def inner(self, natural: Array) -> Array:
        """Inner parameters for data centred at zero, "b k".

        Exponents and floors are their own inner parameters, so the first pass sets them, and the
        second the amplitudes that depend on them.
        """
        origin, q = np.zeros(len(self.inputs) + 1), np.ones_like(natural)
        for _ in range(2):
            off = natural - self.natural(q, origin)
            q = q + off / np.einsum("bkk->bk", self.natural_jacobian(q, origin))
        return q

    def evaluate(self, natural: Array, log_x: Array) -> Array:
        """log y of reported curves, `natural` "b k", `log_x` "n d" not centred -> "b n"."""
        return self.log_curve(self.inner(natural), log_x)


def with_floor(floor: Array, log_excess: Array) -> Array:
    """log(E + excess) without leaving log space, where a steep excess would overflow; E may be 0,
    and by rounding a little less."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(np.maximum(floor, 0.0)), log_excess)
