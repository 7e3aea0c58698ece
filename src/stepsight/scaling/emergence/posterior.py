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
from stepsight.scaling.emergence.search import ALPHA, Array, ElbowModel, Optimum, parameters

WALKERS = 48
STEPS = 3000  # of which the first third is left out
KEPT = 4000  # draws
LENGTHS = 20  # autocorrelation times that a chain should have


def sample(model: ElbowModel, best: Optimum, seed: int) -> tuple[Array, list[str]]:
    """Draws "m 6" of A, B, k, alpha, C and sigma, and what speaks against them.

    Raises:
        UserError: emcee is not installed.
    """
    try:
        import emcee
    except ImportError as error:
        raise UserError("The posterior needs emcee: uv sync --extra scaling.") from error
    lower, upper = _box(model)
    rng = np.random.default_rng(seed)
    chain = emcee.EnsembleSampler(
        WALKERS,
        len(lower),
        lambda theta: log_posterior(model, theta),
        moves=[(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)],
        vectorize=True,
    )
    chain.random_state = np.random.RandomState(seed).get_state()
    chain.run_mcmc(_start(model, best, lower, upper, rng), STEPS)
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
    return _reported(model, thinned), notes


def log_posterior(model: ElbowModel, theta: Array) -> Array:
    """Up to a constant, theta "m d" -> "m"; the coordinates are those of `_box`."""
    lower, upper = _box(model)
    within = np.clip(theta, lower, upper)
    elbows, slope, base, sigma = _unpack(model, within)
    left = model.points.y - model.curve(elbows, slope[:, None], base[:, None])
    fit = -0.5 * np.sum(left**2, axis=1) / sigma**2 - left.shape[1] * np.log(sigma)
    allowed = (theta == within).all(axis=1) & (elbows[:, 1] <= elbows[:, 2])
    return np.where(allowed, fit, -np.inf)


def _box(model: ElbowModel) -> tuple[Array, Array]:
    """Ends of the priors, uniform in log alpha, both elbows, log A, log sigma, and B if fitted."""
    points, extent = model.points, model.points.extent
    steep, level = np.log(extent / points.span), (points.y.min(), points.y.max())
    elbows = model.bounds
    rows = [np.log(ALPHA), elbows, elbows, (steep - np.log(1e3), steep + np.log(1e3))]
    rows.append((np.log(1e-6 * extent), np.log(extent)))
    if model.base is None:
        rows.append((level[0] - extent, level[1] + extent))
    lower, upper = np.array(rows, dtype=float).T
    return lower, upper


def _unpack(model: ElbowModel, theta: Array) -> tuple[Array, Array, Array, Array]:
    """theta "m d" -> (alpha, E at the fewest images, at the most) "m 3", A, B and sigma "m"."""
    elbows = theta[:, :3].copy()
    elbows[:, 0] = np.exp(theta[:, 0])
    slope, sigma = np.exp(theta[:, 3]), np.exp(theta[:, 4])
    fixed = np.full(len(theta), model.base if model.base is not None else 0.0)
    return elbows, slope, theta[:, 5] if model.base is None else fixed, sigma


def _start(
    model: ElbowModel, best: Optimum, lower: Array, upper: Array, rng: np.random.Generator
) -> Array:
    """Walkers around the optimum, as far apart as a hundredth of the priors."""
    alpha, fewest, most = best.theta
    sigma = parameters(model, best, len(model.points.y))[-1]
    steep = np.log(max(best.slope, np.exp(lower[3])))
    centre = np.array([np.log(alpha), fewest, most, steep, np.log(sigma), best.base])[: len(lower)]
    spread = 0.01 * (upper - lower)
    walkers = centre + spread * rng.standard_normal((WALKERS, len(lower)))
    walkers = np.clip(walkers, lower + 0.01 * spread, upper - 0.01 * spread)
    walkers[:, 1:3] = np.sort(walkers[:, 1:3], axis=1)
    return walkers


def _reported(model: ElbowModel, theta: Array) -> Array:
    """theta "m d" -> A, B, k, alpha, C, sigma, "m 6"."""
    elbows, slope, base, sigma = _unpack(model, theta)
    k, alpha, c = model.reported(elbows)
    return np.stack([slope, base, k, alpha, c, sigma], axis=1)
