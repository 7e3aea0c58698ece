"""How much model and how much data a training budget buys, from a law of both.

    chinchilla  L = E + A N^-alpha + B D^-beta                   Hoffmann et al. 2022, eq. 2
    kaplan      L = E + ((A / N)^(alpha / beta) + B / D)^beta    Kaplan et al. 2020, eq. 1.5, + E

(arXiv:2203.15556 and 2001.08361.) N counts parameters, D samples: tokens in the papers, images or
tokens here, as long as the factor of the compute fits. Both laws are E + (p N^-s + q D^-t)^g, of
which only the inner sum matters to where the optimum lies, so one closed form serves both
(Hoffmann et al., eq. 4):

    C = k N D,  N* = G (C / k)^a,  D* = (C / k)^b / G,
    a = t / (s + t) = beta / (alpha + beta),  b = 1 - a,  G = (s p / (t q))^(1 / (s + t))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError, suggest
from stepsight.scaling.fitting.form import Array

FormName = Literal["chinchilla", "kaplan"]
FORMS: tuple[FormName, ...] = ("chinchilla", "kaplan")
CONSTANTS = ("E", "A", "alpha", "B", "beta")
# Training FLOPs a parameter and sample: two a multiply-accumulate, three passes (forward, and
# backward for inputs and for weights). An image of n tokens takes n times as many.
TRAINING_FACTOR = 6.0


class Powers(NamedTuple):
    """The law as E + (p N^-s + q D^-t)^g."""

    p: float
    s: float
    q: float
    t: float
    g: float


@dataclass(frozen=True)
class TrainingLaw:
    """Constants of a law of parameters and samples, all but the floor E positive."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    form: FormName = "chinchilla"

    @classmethod
    def of(cls, constants: dict[str, Any], form: str = "chinchilla") -> TrainingLaw:
        """From numbers by name, such as the `params` of a fit.

        Raises:
            UserError: one is missing or not positive, or there is no such form.
        """
        if form not in FORMS:
            raise UserError(
                f"There is no law '{form}' of parameters and samples.{suggest(form, FORMS)}"
            )
        wrong = [name for name in CONSTANTS if not _usable(constants.get(name), name == "E")]
        if wrong:
            raise UserError(
                f"A law of parameters and samples needs {', '.join(CONSTANTS)}, positive numbers "
                f"(E may be 0); {', '.join(wrong)} is missing or is none."
            )
        numbers = {name: float(constants[name]) for name in CONSTANTS}
        return cls(**numbers, form=next(known for known in FORMS if known == form))

    @property
    def powers(self) -> Powers:
        if self.form == "chinchilla":
            return Powers(self.A, self.alpha, self.B, self.beta, 1.0)
        ratio = self.alpha / self.beta
        return Powers(self.A**ratio, ratio, self.B, 1.0, self.beta)

    @property
    def a(self) -> float:
        """Exponent of the optimal parameters in compute; that of the samples is b = 1 - a."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        return 1 - self.a

    @property
    def G(self) -> float:
        """The square root of N* / D* at C = k."""
        p, s, q, t, _ = self.powers
        return (s * p / (t * q)) ** (1 / (s + t))

    def loss(self, params: ArrayLike, samples: ArrayLike) -> Array:
        """At N parameters and D samples of any shapes that broadcast."""
        p, s, q, t, g = self.powers
        n, d = np.asarray(params, dtype=float), np.asarray(samples, dtype=float)
        return self.E + (p * n**-s + q * d**-t) ** g


class Allocation(NamedTuple):
    """The best use of a training budget."""

    budget: float  # FLOPs
    params: float
    samples: float
    loss: float


def allocate(law: TrainingLaw, budget: float, factor: float = TRAINING_FACTOR) -> Allocation:
    """Compute-optimal parameters and samples for `budget` FLOPs, and the loss they reach.

    factor: training FLOPs a parameter and sample, k in C = k N D.

    Raises:
        UserError: budget or factor is not positive.
    """
    for name, value in (("budget", budget), ("factor", factor)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} {value:g}: FLOPs are positive numbers, such as 1e18.")
    reach = budget / factor
    params = law.G * reach**law.a
    samples = reach**law.b / law.G
    return Allocation(budget, params, samples, float(law.loss(params, samples)))


def _usable(value: Any, may_vanish: bool) -> bool:
    if not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value > 0 or (may_vanish and value == 0)
