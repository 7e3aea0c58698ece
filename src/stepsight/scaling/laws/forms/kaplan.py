"""L = ((A / N)^(alpha / beta) + B / D)^beta + E.

The form of Kaplan et al. 2020 (arXiv:2001.08361, eq. 1.5) with a floor, as Brandfonbrener et al.
2024 fit it (arXiv:2411.12925). With as many tokens as wanted it is E + (A / N)^alpha, with as many
parameters E + (B / D)^beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from stepsight.scaling.fitting.form import MAX_LOG, MAX_SLOPE, Array, LogForm, with_floor
from stepsight.scaling.laws.forms.projection import VANISHED, combinations, project

LEAST = 1e-3  # exponent: at zero A and B have no meaning
GRID = np.geomspace(0.05, 2.0, 7)  # of exponents
MOST = 200.0  # log of a weight
FLOORS = np.array([0.0, 0.4, 0.7, 0.85, 0.95])  # of a low y
LEAST_EXCESS = 0.01  # of y, where a start supposes a floor above a point


@dataclass(frozen=True)
class Kaplan(LogForm):
    """Inner parameters E, a0 = alpha (log A - centre_N) - centre_L, alpha, b0, beta, so that
    log(L - E) = beta log(exp(p / beta) + exp(r / beta)), p = a0 - alpha u, r = b0 - beta w."""

    def curve(self, q: Array, u: Array) -> Array:
        return with_floor(q[:, :1], _excess(q, u))

    def jacobian(self, q: Array, u: Array) -> Array:
        p, r = _limits(q, u)
        beta, h, log_y = q[:, 4:5], _excess(q, u), self.curve(q, u)
        share, by_params = np.exp(h - log_y), expit((p - r) / beta)
        by_tokens = 1.0 - by_params
        by_beta = (h - by_params * p - by_tokens * r) / beta - by_tokens * u[:, 1]
        slopes = [by_params, -u[:, 0] * by_params, by_tokens, by_beta]
        return np.stack([np.exp(-log_y), *(share * slope for slope in slopes)], axis=2)

    def natural(self, q: Array, centre: Array) -> Array:
        natural = q.copy()
        natural[:, 0] *= np.exp(centre[2])
        natural[:, 1] = (q[:, 1] + centre[2]) / q[:, 2] + centre[0]
        natural[:, 3] = (q[:, 3] + centre[2]) / q[:, 4] + centre[1]
        return natural

    def bounds(self, u: Array, v: Array) -> tuple[Array, Array]:
        least = v.min() - 20.0 - MAX_SLOPE * np.abs(u).max(axis=0)
        most = v.max() + 1.0
        lower = np.array([0.0, least[0], LEAST, least[1], LEAST])
        return lower, np.array([np.exp(v.max()), most, MAX_SLOPE, most, MAX_SLOPE])

    def starts(self, u: Array, v: Array) -> Array:
        """(L - E)^(1 / beta) is linear in A^(alpha / beta) and B, given E and the exponents."""
        low = np.quantile(np.exp(v), 0.1)  # the lowest of all may be an outlier
        grid = combinations(FLOORS * low, GRID, GRID)
        floor, alpha, beta = (grid[:, i : i + 1] for i in range(3))
        log_excess = np.log(np.maximum(np.exp(v) - floor, LEAST_EXCESS * np.exp(v)))
        columns = np.stack(
            [-alpha / beta * u[:, 0], np.broadcast_to(-u[:, 1], log_excess.shape)], 2
        )
        # d log L = beta g^(beta - 1) / L dg with g = (L - E)^(1 / beta), relative to its largest
        height = (log_excess / beta).max(axis=1, keepdims=True)
        far = np.minimum(log_excess - log_excess / beta + height - v, MOST)
        weights = beta * np.exp(far)
        logs = project(columns, np.exp(log_excess / beta - height), weights) + height
        levels = np.maximum(beta * logs, VANISHED)
        return np.column_stack([floor, levels[:, :1], alpha, levels[:, 1:], beta])


def _limits(q: Array, u: Array) -> tuple[Array, Array]:
    """Logs of the excess if only parameters, or only tokens, were scarce, "b n" each."""
    return q[:, 1:2] - q[:, 2:3] * u[:, 0], q[:, 3:4] - q[:, 4:5] * u[:, 1]


def _excess(q: Array, u: Array) -> Array:
    """log(L - E), "b n"."""
    p, r = _limits(q, u)
    beta = q[:, 4:5]
    return np.clip(beta * np.logaddexp(p / beta, r / beta), -MAX_LOG, MAX_LOG)


KAPLAN = Kaplan(
    name="kaplan",
    formula="L = ((A / N)^(alpha / beta) + B / D)^beta + E",
    inputs=("params", "tokens"),
    parameters=("E", "A", "alpha", "B", "beta"),
    exponents=("alpha", "beta"),
    logs=("A", "B"),
)
