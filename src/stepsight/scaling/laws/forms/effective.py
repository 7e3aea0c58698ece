"""Laws in which two inputs act as one: effective data, effective parameters.

repeated    y = E + B D'^-beta
constrained L = E + A N^-alpha + B D'^-beta
    Images that a model saw before are worth less than new ones. With U distinct ones among the
    images seen, D, D' = U + U R (1 - exp(-(D / U - 1) / R)): the first pass counts in full, and
    however many follow, no more than R further ones (Muennighoff et al. 2023, arXiv:2305.16264,
    eq. 5, who find R of 15 for text). The samples of a data set are distinct in full once the
    images seen outnumber them; before, every image is new.
experts     L = E + A (P^(1-c) T^c)^-alpha + B D^-beta
    P parameters act on one token, of T in all. c says how much the others are worth: 0 nothing, 1
    as much as active ones. For a fixed number of images it is the law of Clark et al. 2022
    (arXiv:2202.01169, eq. 4) without interaction, in T / P for their number of experts, with the
    floor and the data of Hoffmann et al. 2022.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.laws.forms.sums import SUMS, SumOfPowers

PASSES = (0.1, 1e4)  # of R: repeats worth a tenth of one pass, and as much as new images
LONGEST = 30.0  # log of images over samples, beyond which exp would overflow
_OF = {form.name: form for form in SUMS}


@dataclass(frozen=True)
class EffectiveSum(LogForm):
    """A sum of powers of effective inputs. Inner parameters: those of the sum, then the one that
    makes effective inputs out of the measured ones."""

    base: SumOfPowers = field(kw_only=True)

    @abstractmethod
    def effective(self, last: Array, u: Array) -> tuple[Array, Array]:
        """Effective inputs of the sum, "b n m", and the derivative by `last` "b 1" of the one that
        it moves, "b n"."""

    @property
    @abstractmethod
    def moved(self) -> int:
        """Which effective input that is."""

    @abstractmethod
    def guesses(self) -> Array:
        """Where the search of the last parameter may begin, "g"."""

    @abstractmethod
    def span(self) -> tuple[float, float]:
        """Its bounds."""

    def curve(self, q: Array, u: Array) -> Array:
        return self.base.curve(q[:, :-1], self.effective(q[:, -1:], u)[0])

    def jacobian(self, q: Array, u: Array) -> Array:
        inputs, by_last = self.effective(q[:, -1:], u)
        slopes = self.base.jacobian(q[:, :-1], inputs)
        place = self.base.floor + 2 * self.moved  # of its amplitude; the exponent follows
        own = -q[:, None, place + 1] * slopes[..., place] * by_last
        return np.concatenate([slopes, own[..., None]], axis=2)

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Those of the sum for inputs as wide as any effective ones."""
        wide = np.concatenate([self._at(guess, u) for guess in self.guesses()])
        ends = self.base.bounds(wide, v)
        return np.append(ends[0], self.span()[0]), np.append(ends[1], self.span()[1])

    def starts(self, u: Array, v: Array) -> Array:
        found = [
            np.column_stack([starts, np.full(len(starts), guess)])
            for guess in self.guesses()
            for starts in [self.base.starts(self._at(guess, u), v)]
        ]
        return np.concatenate(found)

    def canonical(self, q: Array) -> Array:
        return np.column_stack([self.base.canonical(q[:, :-1]), q[:, -1]])

    def _at(self, guess: float, u: Array) -> Array:
        return self.effective(np.array([[guess]]), u)[0][0]


@dataclass(frozen=True)
class Repeated(EffectiveSum):
    """The last two inputs are images seen and distinct samples, the last inner parameter log R."""

    apart: float = 0.0  # middle of the logs of the images less that of the samples

    def centred(self, centre: Array) -> LogForm:
        """How often samples were seen is a ratio in their own units."""
        return replace(self, apart=float(centre[-3] - centre[-2]))

    @property
    def moved(self) -> int:
        return len(self.inputs) - 2

    def effective(self, last: Array, u: Array) -> tuple[Array, Array]:
        again = np.clip(u[:, -2] - u[:, -1] + self.apart, 0.0, LONGEST)  # log passes
        passes, most = np.expm1(again), np.exp(last)
        fading = np.exp(-passes / most)
        worth = -most * np.expm1(-passes / most)
        data = u[:, -2] - again + np.log1p(worth)
        sizes = np.broadcast_to(u[:, :-2], (*data.shape, u.shape[1] - 2))
        by_last = (worth - passes * fading) / (1.0 + worth)
        return np.concatenate([sizes, data[..., None]], axis=2), by_last

    def natural(self, q: Array, centre: Array) -> Array:
        shifted = self.base.natural(q[:, :-1], np.delete(centre, -2))
        return np.column_stack([shifted, q[:, -1]])

    def guesses(self) -> Array:
        return np.log([1.0, 4.0, 15.0, 100.0])

    def span(self) -> tuple[float, float]:
        return float(np.log(PASSES[0])), float(np.log(PASSES[1]))


@dataclass(frozen=True)
class IdleExperts(EffectiveSum):
    """Inputs: active parameters, parameters in all, images; the last inner parameter is c."""

    @property
    def moved(self) -> int:
        return 0

    def effective(self, last: Array, u: Array) -> tuple[Array, Array]:
        idle = np.broadcast_to(u[:, 1] - u[:, 0], (len(last), len(u)))
        data = np.broadcast_to(u[:, 2], idle.shape)
        return np.stack([u[:, 0] + last * idle, data], axis=2), idle

    def natural(self, q: Array, centre: Array) -> Array:
        shifted = self.base.natural(q[:, :-1], np.delete(centre, 1))
        shifted[:, 1] += q[:, 2] * q[:, -1] * (centre[1] - centre[0])
        return np.column_stack([shifted, q[:, -1]])

    def guesses(self) -> Array:
        return np.array([0.1, 0.4, 0.8])

    def span(self) -> tuple[float, float]:
        return 0.0, 1.0


EFFECTIVE = (
    Repeated(
        name="repeated",
        formula="y = E + B D'^-beta, D' = U + U R (1 - exp(-(D / U - 1) / R)), U = min(S, D)",
        inputs=("images", "samples"),
        parameters=("E", "B", "beta", "R"),
        exponents=("beta",),
        logs=("B", "R"),
        base=_OF["power_floor"],
    ),
    Repeated(
        name="constrained",
        formula="L = E + A / N^alpha + B / D'^beta, "
        "D' = U + U R (1 - exp(-(D / U - 1) / R)), U = min(S, D)",
        inputs=("params", "images", "samples"),
        parameters=("E", "A", "alpha", "B", "beta", "R"),
        exponents=("alpha", "beta"),
        logs=("A", "B", "R"),
        base=_OF["chinchilla"],
    ),
    IdleExperts(
        name="experts",
        formula="L = E + A / (P^(1-c) T^c)^alpha + B / D^beta",
        inputs=("params", "params_total", "images"),
        parameters=("E", "A", "alpha", "B", "beta", "c"),
        exponents=("alpha", "beta"),
        logs=("A", "B"),
        base=_OF["chinchilla"],
    ),
    SumOfPowers(
        name="resolution",
        formula="L = E + A / N^alpha + B / D^beta + C / P^gamma",
        inputs=("params", "images", "pixels"),
        parameters=("E", "A", "alpha", "B", "beta", "C", "gamma"),
        exponents=("alpha", "beta", "gamma"),
        logs=("A", "B", "C"),
    ),
)
