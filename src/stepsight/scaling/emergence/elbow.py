"""Predict from fine-tuning where a capability emerges (Snell et al. 2024, arXiv:2411.16035).

    Perf = A max(0, E(D) - L) + B,    E(D) = k (log D)^alpha + C

L is the loss of the pretrained model, D the number of fine-tuning images, log the natural one. The
elbow E(D) moves to higher losses, that is to weaker models, as D grows; followed back to as many
images as a prompt would hold, E(D0), it says at which pretraining loss the capability appears with
hardly any fine-tuning. Perf is better when higher: an error enters as 1 - error.

The fit is maximum likelihood under Gaussian noise of one deviation sigma. Intervals resample
models, each with all its numbers of images: measurements of one model share its luck.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from stepsight.errors import UserError
from stepsight.scaling.emergence.diagnosis import (
    Design,
    FittedElbow,
    design_warnings,
    few_shot_warnings,
)
from stepsight.scaling.emergence.model import (
    FORM,
    FORMULA,
    PARAMETERS,
    Elbow,
    Points,
    elbow,
    elbow_problem,
    reported,
)
from stepsight.scaling.emergence.posterior import sample
from stepsight.scaling.fitting.columns import numbers_of
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.fitting.quality import SPARE_POINTS, Verdict
from stepsight.scaling.fitting.resampling import Ends, pairs, percentiles, resampled
from stepsight.scaling.fitting.search import Optima, Problem, best_of, best_start
from stepsight.scaling.intervals import LEVEL
from stepsight.scaling.plain import plain

FEW = 5  # images of a few-shot prompt; the elbow hardly depends on it, as log D does not
MIN_LEVELS, MIN_MODELS = 3, 3  # determine an elbow that moves; more are asked for in warnings
RESTARTS = 2  # alphas of the grid that a resample is searched from besides the optimum


@dataclass(frozen=True)
class FewShot:
    """The pretraining loss L* at which the capability appears with `images` images."""

    images: float
    loss: float
    lo: float  # by the bootstrap
    hi: float
    posterior: Ends | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EmergenceFit:
    """A fitted elbow and what it is worth. Unknown numbers are nan."""

    params: dict[str, float]  # A, B, k, alpha, C, sigma
    intervals: dict[str, Ends]  # bootstrap over models, at `level`
    posterior: dict[str, Ends] | None = None  # central intervals of the posterior, at `level`
    objective: float = math.nan  # negative log likelihood
    r2: float = math.nan
    n: int
    measured: Design
    level: float
    warnings: tuple[str, ...]
    verdict: Verdict = "too few points"
    draws: Array = field(repr=False, compare=False)  # of params, "m 6"
    posterior_draws: Array | None = field(default=None, repr=False, compare=False)
    form: str = FORM
    formula: str = FORMULA

    def elbow(self, images: ArrayLike) -> Array:
        """E(D) at `images` (any shape, at least 1): the loss below which performance leaves B.

        Raises:
            UserError: fewer images than one.
        """
        images = np.asarray(images, dtype=float)
        if not (images >= 1).all():
            raise UserError("The elbow is a function of log D: give one image or more.")
        return elbow(self.params["k"], self.params["alpha"], self.params["C"], images)

    def few_shot(self, images: float = FEW) -> FewShot:
        """E(D0) with its interval, and what speaks against it. Raises UserError as `elbow`."""
        loss = float(self.elbow(images))
        ends = expanded(_elbows(self.draws, images), self.level, self.measured.models)
        lo, hi = ends.tolist()
        sampled, central = self.posterior_draws, None
        if sampled is not None:
            (central,) = percentiles(_elbows(sampled, images)[:, None], self.level)
        notes = few_shot_warnings(self.measured, images, loss, hi - lo)
        return FewShot(float(images), loss, lo, hi, central, notes)

    def predict(self, loss: ArrayLike, images: ArrayLike) -> Array:
        """Performance of a model of pretraining loss `loss`, fine-tuned on `images` images."""
        depth = np.maximum(self.elbow(images) - np.asarray(loss, dtype=float), 0.0)
        return self.params["A"] * depth + self.params["B"]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: nan and infinity become None."""
        left_out = {"draws", "posterior_draws"}
        kept = {name: value for name, value in vars(self).items() if name not in left_out}
        kept |= {"measured": asdict(self.measured), "few_shot": asdict(self.few_shot())}
        return plain({"form": self.form, "formula": self.formula} | kept)


def fit_columns(
    columns: Mapping[str, ArrayLike],
    x: Sequence[str],
    y: str,
    *,
    bootstrap: int = 200,
    seed: int = 0,
    base: float | None = None,
    level: float = LEVEL,
    posterior: bool = False,
    groups: Sequence[Hashable] | None = None,
) -> EmergenceFit:
    """Fit the elbow to columns: `x` names those of loss and of images, `y` that of performance.

    base: the trivial predictor's score, which B is then; measured, it is not fitted.
    groups: one label a row, its model; by default, rows of one loss are one model.
    posterior: also sample the posterior (`emergence.posterior` states the priors; needs emcee).

    Raises:
        UserError: a column is missing or holds something else than numbers, or emcee is missing.
    """
    points, labels = read_points(columns, x, y, groups)
    data, measured = elbow_problem(points, base), _design(points, labels)
    assert isinstance(data.form, Elbow)
    notes = design_warnings(measured)
    unfitted = _unfitted(measured, level, notes)
    fewest = measured.levels < MIN_LEVELS or measured.models < MIN_MODELS
    too_few = measured.points < data.form.free + SPARE_POINTS
    if fewest or too_few or not np.ptp(points.loss):
        return unfitted
    best = best_start(data)
    draws = _bootstrap(data, data.form, best, labels, bootstrap, seed)
    sampled, mixing = sample(data, best, seed) if posterior else (None, [])
    theta = reported(data, best)[0]
    state = FittedElbow(data, best)
    central = None if sampled is None else percentiles(sampled, level)
    wide = _wide(draws, measured, level)
    verdict = state.verdict
    fitted = replace(
        unfitted,
        params=dict(zip(PARAMETERS, theta.tolist())),
        intervals=_named(expanded(draws, level, measured.models)),
        posterior=None if central is None else dict(zip(PARAMETERS, central)),
        objective=float(-norm.logpdf(state.residuals, scale=theta[-1]).sum()),
        r2=state.r2,
        warnings=(*notes, *state.warnings(), *wide, *mixing),
        verdict="improves but no law" if wide and verdict == "law" else verdict,
        draws=draws,
        posterior_draws=sampled,
    )
    return replace(fitted, warnings=(*fitted.warnings, *fitted.few_shot().warnings))


def scale_of(loss: float, A: float, a: float, E: float = 0.0) -> float:
    """Where a law L = E + A x^-a reaches `loss`: an elbow as parameters, or as compute.

    Infinite at or below the floor.
    """
    return (A / (loss - E)) ** (1 / a) if loss > E else math.inf


def read_points(
    columns: Mapping[str, ArrayLike],
    x: Sequence[str],
    y: str,
    groups: Sequence[Hashable] | None,
) -> tuple[Points, list[Hashable]]:
    """Columns as points, and the label of each one's model.

    Raises:
        UserError: as `fit_columns`.
    """
    if len(x) != 2:
        raise UserError(
            f"The elbow has two inputs, a column of losses and one of images; x names {len(x)}."
        )
    points = Points(*(numbers_of(columns, name) for name in (*x, y)))
    assert len({value.shape for value in points}) == 1
    if not len(points.y):
        raise UserError("There are no points to fit.")
    for name, value in zip((*x, y), points):
        if bad := int(np.sum(~np.isfinite(value))):
            raise UserError(f"{bad} of {len(value)} values of {name} are no numbers. Drop them.")
    if not (points.images >= 1).all():
        raise UserError(
            f"{x[1]} has values below one image. The elbow is a function of log D: leave models "
            "without fine-tuning out."
        )
    labels = list(groups) if groups is not None else points.loss.tolist()
    assert len(labels) == len(points.y), "one label a row"
    return points, labels


def _design(points: Points, labels: Sequence[Hashable]) -> Design:
    return Design(
        points=len(points.y),
        models=len(set(labels)),
        levels=len(np.unique(points.images)),
        loss=(float(points.loss.min()), float(points.loss.max())),
        images=(float(points.images.min()), float(points.images.max())),
    )


def _bootstrap(
    data: Problem,
    form: Elbow,
    best: Optima,
    labels: Sequence[Hashable],
    count: int,
    seed: int,
) -> Array:
    """Parameters "count 6" of the same points with models drawn with replacement."""
    models = np.array([hash(label) for label in labels])
    redrawn = resampled(
        data,
        pairs(data.v, labels),
        count,
        seed,
        lambda kept: len(np.unique(models[kept])) >= MIN_MODELS,
    )
    starts = form.best_on_grid(data.u, data.v, redrawn.weights, RESTARTS)
    near = np.broadcast_to(best.q, (len(starts), 1, best.q.shape[1]))
    optima = best_of(redrawn, np.concatenate([starts, near], axis=1))
    return reported(data, optima, redrawn.weights.sum(axis=1))


def _elbows(draws: Array, images: float) -> Array:
    """E(D) of each draw."""
    k, alpha, c = draws[:, PARAMETERS.index("k") : PARAMETERS.index("C") + 1].T
    return elbow(k, alpha, c, np.asarray(images, dtype=float))


def _wide(draws: Array, measured: Design, level: float) -> list[str]:
    """Where, among the images measured, the elbow could be anywhere among the losses measured."""
    places = np.stack([_elbows(draws, images) for images in measured.images], axis=1)
    lo, hi = expanded(places, level, measured.models)
    return [
        f"the elbow at {images:g} images is ill-determined: its interval is wider ({width:.3g}) "
        f"than the losses measured ({np.ptp(measured.loss):.3g})"
        for images, width in zip(measured.images, hi - lo)
        if width > np.ptp(measured.loss)
    ]


def expanded(draws: Array, level: float, models: int) -> Array:
    """Expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, sec. 3).

    A resample of few models scatters too little; quantiles further out make up for that, by as
    much as they would have to for a mean. draws "m ..." -> "2 ...".
    """
    if not len(draws):
        return np.full((2, *draws.shape[1:]), math.nan)
    reach = t.ppf((1 + level) / 2, models - 1) * math.sqrt(models / (models - 1))
    return np.quantile(draws, [norm.cdf(-reach), norm.cdf(reach)], axis=0)


def _named(ends: Array) -> dict[str, Ends]:
    """Ends "2 6" by parameter."""
    return dict(zip(PARAMETERS, zip(*ends.tolist())))


def _unfitted(measured: Design, level: float, notes: list[str]) -> EmergenceFit:
    """What can be said when the points do not determine the elbow."""
    unknown = np.empty((0, len(PARAMETERS)))
    return EmergenceFit(
        params=dict.fromkeys(PARAMETERS, math.nan),
        intervals=_named(expanded(unknown, level, measured.models)),
        n=measured.points,
        measured=measured,
        level=level,
        warnings=tuple(notes),
        draws=unknown,
    )
