"""What a form is: a family of curves, or of surfaces, that a search can move and a reader can read.

A `Form` predicts values from parameters that a search moves, its inner ones. A `LogForm` is a law,
positive for positive inputs and fitted in logs; there two sets of parameters describe one curve:

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
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepsight.errors import UserError

Array = NDArray[np.float64]
MAX_SLOPE = 10.0
MAX_LOG = 700.0
COMPLEX_STEP = 1e-30


@dataclass(frozen=True)
class Form(ABC):
    """Curves v(u).

    Shapes: b curves at once, n points, d inputs, k parameters; `q` "b k" are inner parameters, `u`
    "n d" and `v` "n" the points as the form reads them.
    """

    name: str
    formula: str
    parameters: tuple[str, ...]  # as reported

    @abstractmethod
    def curve(self, q: Array, u: Array) -> Array:
        """v, "b n"."""

    @abstractmethod
    def jacobian(self, q: Array, u: Array) -> Array:
        """d v / d inner, "b n k"."""

    @abstractmethod
    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Lower and upper inner parameters, "k" each."""

    @abstractmethod
    def starts(self, u: Array, v: Array) -> Array:
        """Where searches may begin, inner, "s k"."""


@dataclass(frozen=True)
class LogForm(Form):
    """Curves y(x), positive for positive x; `u` "n d" and `v` "n" are centred logs, `centre` "d+1"
    the middle of the logs of the inputs and of y, and `curve` is log y, centred."""

    inputs: tuple[str, ...]
    exponents: tuple[str, ...]  # those that must be positive for a law that improves
    logs: tuple[str, ...]  # amplitudes and places, positive, moved as logarithms
    breaks: str = ""  # the parameter that is the place of x from which the last exponent acts
    fewest: int = 0  # distinct points that the form demands whatever its number of parameters

    @abstractmethod
    def natural(self, q: Array, centre: Array) -> Array:
        """Natural parameters, "b k"; of complex `q` as well."""

    def centred(self, centre: Array) -> LogForm:
        """The form as points around `centre` are to be fitted. A shift changes most forms in their
        parameters alone; one in which inputs are counted by each other has to know it."""
        return self

    def natural_jacobian(self, q: Array, centre: Array) -> Array:
        """d natural / d inner, "b k k", by complex steps and so exact (Squire & Trapp 1998)."""
        k = q.shape[1]
        stepped = q[:, None] + COMPLEX_STEP * 1j * np.eye(k)
        turned = self.natural(cast(Array, stepped.reshape(-1, k)), centre).imag / COMPLEX_STEP
        return np.swapaxes(turned.reshape(-1, k, k), 1, 2)

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
        return self.curve(self.inner(natural), log_x)


def with_floor(floor: Array, log_excess: Array) -> Array:
    """log(E + excess) without leaving log space, where a steep excess would overflow; E may be 0,
    and by rounding a little less."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(np.maximum(floor, 0.0)), log_excess)


def positive(name: str, values: ArrayLike, advice: str = "") -> Array:
    """A column "n" of positive numbers.

    Raises:
        UserError: one is none; `advice` says what to do about it.
    """
    column = np.asarray(values, dtype=float)
    assert column.ndim == 1
    if bad := int(np.sum(~(np.isfinite(column) & (column > 0)))):
        raise UserError(
            f"{bad} of {len(column)} values of {name} are not positive numbers.{advice}"
        )
    return column
