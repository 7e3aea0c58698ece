"""The posterior of the elbow model, by emcee (Foreman-Mackey et al. 2013, arXiv:1202.3665).

The priors, independent but for the order of the elbows (arXiv:2411.16035 does not print its own):

    A        log-uniform, from 1e-3 to 1e3 times the range of y over the range of losses
    B        uniform, within one range of y outside of the values measured; or given
    alpha    log-uniform, 0.05 to 5
    E        at the fewest images and at the most: uniform within one range of losses outside of
             the models measured, not falling
    sigma    log-uniform, from 1e-6 of the range of y to the whole

The elbow makes kinks and more than one mode, which moves along differences of walkers cross.
"""

from __future__ import annotations

import numpy as np

from stepsight.errors import UserError
from stepsight.scaling.emergence.model import ALPHA, Elbow, extent, reported
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.search import Optima, Problem

WALKERS = 48
STEPS = 3000  # of which the first third is left out
KEPT = 4000  # draws
LENGTHS = 20  # autocorrelation times that a chain should have


def sample(data: Problem, best: Optima, seed: int) -> tuple[Array, list[str]]:
    """Draws "m 6" of A, B, k, alpha, C and sigma, and what speaks against them.

    Raises:
        UserError: emcee is not installed.
    """
    try:
        import emcee
    except ImportError as error:
        raise UserError("The posterior needs emcee: uv sync --extra scaling.") from error
    lower, upper = _box(data)
    rng = np.random.default_rng(seed)
    chain = emcee.EnsembleSampler(
        WALKERS,
        len(lower),
        lambda theta: log_posterior(data, theta),
        moves=[(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)],
        vectorize=True,
    )
    chain.random_state = np.random.RandomState(seed).get_state()
    chain.run_mcmc(_start(data, best, lower, upper, rng), STEPS)
    burnt = STEPS // 3
    time = float(np.max(chain.get_autocorr_time(discard=burnt, quiet=True, tol=0)))
    draws = chain.get_chain(discard=burnt, flat=True)
    assert draws is not None
    thinned = draws[:: max(len(draws) // KEPT, 1)]
    notes = []
    if not (STEPS - burnt) / time >= LENGTHS:
        notes.append(
            f"posterior not converged: its chain has {(STEPS - burnt) / time:.0f} "
            f"autocorrelation times, {LENGTHS} are needed"
        )
    return _reported(data, thinned), notes


def log_posterior(data: Problem, theta: Array) -> Array:
    """Up to a constant, theta "m d" -> "m"; the coordinates are those of `_box`."""
    lower, upper = _box(data)
    within = np.clip(theta, lower, upper)
    q, sigma = _unpack(data, within)
    left = data.v - data.form.curve(q, data.u)
    fit = -0.5 * np.sum(left**2, axis=1) / sigma**2 - left.shape[1] * np.log(sigma)
    allowed = (theta == within).all(axis=1) & (theta[:, 1] <= theta[:, 2])
    return np.where(allowed, fit, -np.inf)


def _box(data: Problem) -> tuple[Array, Array]:
    """Ends of the priors, uniform in log alpha, both elbows, log A, log sigma, and B if fitted."""
    size, elbows = extent(data), (data.lower[1], data.upper[1])
    steep, far = np.log(size / np.ptp(data.u[:, 0])), np.log(1e3)
    rows = [np.log(ALPHA), elbows, elbows, (steep - far, steep + far)]
    rows.append((np.log(1e-6 * size), np.log(size)))
    if _base(data) is None:
        rows.append((data.v.min() - size, data.v.max() + size))
    lower, upper = np.array(rows, dtype=float).T
    return lower, upper


def _base(data: Problem) -> float | None:
    assert isinstance(data.form, Elbow)
    return data.form.base


def _unpack(data: Problem, theta: Array) -> tuple[Array, Array]:
    """theta "m d" -> inner parameters "m 5" and sigma "m"."""
    log_alpha, fewest, most, log_slope, log_sigma, *rest = theta.T
    base = rest[0] if rest else np.full(len(theta), _base(data))
    q = np.stack([log_alpha, fewest, most - fewest, np.exp(log_slope), base], axis=1)
    return q, np.exp(log_sigma)


def _start(
    data: Problem, best: Optima, lower: Array, upper: Array, rng: np.random.Generator
) -> Array:
    """Walkers around the optimum, as far apart as a hundredth of the priors."""
    log_alpha, fewest, rise, slope, base = best.q[0]
    sigma = reported(data, best)[0, -1]
    steep = np.log(max(slope, np.exp(lower[3])))
    centre = np.array([log_alpha, fewest, fewest + rise, steep, np.log(sigma), base])[: len(lower)]
    spread = 0.01 * (upper - lower)
    walkers = centre + spread * rng.standard_normal((WALKERS, len(lower)))
    walkers = np.clip(walkers, lower + 0.01 * spread, upper - 0.01 * spread)
    walkers[:, 1:3] = np.sort(walkers[:, 1:3], axis=1)
    return walkers


def _reported(data: Problem, theta: Array) -> Array:
    """theta "m d" -> A, B, k, alpha, C, sigma, "m 6"."""
    q, sigma = _unpack(data, theta)
    assert isinstance(data.form, Elbow)
    return np.column_stack([data.form.natural(q, data.u), sigma])
