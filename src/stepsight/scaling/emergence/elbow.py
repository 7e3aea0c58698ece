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

from stepsight.errors import UserError, suggest
from stepsight.scaling.emergence.diagnosis import (
    Range,
    Verdict,
    design_warnings,
    few_shot_warnings,
    fit_warnings,
    judge_elbow,
    r_squared,
)
from stepsight.scaling.emergence.posterior import sample
from stepsight.scaling.emergence.search import (
    PARAMETERS,
    Array,
    ElbowModel,
    Optimum,
    Points,
    Search,
    elbow,
    parameters,
)
from stepsight.scaling.plain import plain

FORM = "emergence"
FORMULA = "y = A max(0, E(D) - L) + B, E(D) = k (log D)^alpha + C"
FEW = 5  # images of a few-shot prompt; the elbow hardly depends on it, as log D does not
MIN_LEVELS, MIN_MODELS = 3, 3  # determine an elbow that moves; more are asked for in warnings

Ends = tuple[float, float]


@dataclass(frozen=True)
class FewShot:
    """The pretraining loss L* at which the capability appears with `images` images."""

    images: float
    loss: float
    lo: float  # by the bootstrap
    hi: float
    posterior: Ends | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EmergenceFit:
    """A fitted elbow and what it is worth. Unknown numbers are nan."""

    params: dict[str, float]  # A, B, k, alpha, C, sigma
    intervals: dict[str, Ends]  # bootstrap over models, at `level`
    posterior: dict[str, Ends] | None  # central intervals of the posterior, at `level`
    objective: float  # negative log likelihood
    r2: float
    n: int
    measured: Range
    level: float
    warnings: tuple[str, ...]
    verdict: Verdict
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
            lower, upper = _central(_elbows(sampled, images), self.level).tolist()
            central = lower, upper
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
    level: float = 0.95,
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
    model = ElbowModel(points, base)
    measured = _range(points, labels)
    notes = design_warnings(measured)
    fewest = measured.levels < MIN_LEVELS or measured.models < MIN_MODELS
    if fewest or measured.points < model.free + 2 or not points.span:
        return _unfitted(measured, level, notes)
    search, each = Search(model), np.ones(measured.points)
    best = search.best(each)
    draws = _bootstrap(search, best, labels, bootstrap, np.random.default_rng(seed))
    sampled, mixing = sample(model, best, seed) if posterior else (None, [])
    theta = parameters(model, best, measured.points)
    fitted = EmergenceFit(
        params=dict(zip(PARAMETERS, theta.tolist())),
        intervals=_named(expanded(draws, level, measured.models)),
        posterior=None if sampled is None else _named(_central(sampled, level)),
        objective=float(-norm.logpdf(model.residuals(best.theta, each), scale=theta[-1]).sum()),
        r2=r_squared(model, best),
        n=measured.points,
        measured=measured,
        level=level,
        warnings=(*notes, *fit_warnings(model, best), *mixing),
        verdict=judge_elbow(model, best),
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
    values = []
    for name in (*x, y):
        if name not in columns:
            raise UserError(f"There is no column '{name}'.{suggest(name, columns)}")
        values.append(np.asarray(columns[name], dtype=float))
    points = Points(*values)
    assert len({value.shape for value in points}) == 1 and points.y.ndim == 1
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


def _range(points: Points, labels: Sequence[Hashable]) -> Range:
    return Range(
        points=len(points.y),
        models=len(set(labels)),
        levels=len(np.unique(points.images)),
        loss=(float(points.loss.min()), float(points.loss.max())),
        images=(float(points.images.min()), float(points.images.max())),
    )


def _bootstrap(
    search: Search,
    best: Optimum,
    labels: Sequence[Hashable],
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Parameters "count 6" of the same points with models drawn with replacement."""
    order = {label: place for place, label in enumerate(dict.fromkeys(labels))}
    member = np.array([order[label] for label in labels])
    even = np.full(len(order), 1 / len(order))
    draws = []
    while len(draws) < count:
        times = rng.multinomial(len(order), even)
        if np.count_nonzero(times) >= MIN_MODELS:
            weights = times[member].astype(float)
            found = search.best(weights, starts=2, near=best.theta)
            draws.append(parameters(search.model, found, weights.sum()))
    return np.array(draws).reshape(-1, len(PARAMETERS))


def _elbows(draws: Array, images: float) -> Array:
    """E(D) of each draw."""
    k, alpha, c = draws[:, PARAMETERS.index("k") : PARAMETERS.index("C") + 1].T
    return elbow(k, alpha, c, np.asarray(images, dtype=float))


def expanded(draws: Array, level: float, models: int) -> Array:
    """Expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, sec. 3).

    A resample of few models scatters too little; quantiles further out make up for that, by as
    much as they would have to for a mean. draws "m ..." -> "2 ...".
    """
    if not len(draws):
        return np.full((2, *draws.shape[1:]), math.nan)
    reach = t.ppf((1 + level) / 2, models - 1) * math.sqrt(models / (models - 1))
    return np.quantile(draws, [norm.cdf(-reach), norm.cdf(reach)], axis=0)


def _central(draws: Array, level: float) -> Array:
    """draws "m ..." -> "2 ...": the middle of the posterior."""
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _named(ends: Array) -> dict[str, Ends]:
    """Ends "2 6" by parameter."""
    return dict(zip(PARAMETERS, zip(*ends.tolist())))


def _unfitted(measured: Range, level: float, notes: list[str]) -> EmergenceFit:
    """What can be said when the points do not determine the elbow."""
    unknown = np.empty((0, len(PARAMETERS)))
    return EmergenceFit(
        params=dict.fromkeys(PARAMETERS, math.nan),
        intervals=_named(expanded(unknown, level, measured.models)),
        posterior=None,
        objective=math.nan,
        r2=math.nan,
        n=measured.points,
        measured=measured,
        level=level,
        warnings=tuple(notes),
        verdict="too few points",
        draws=unknown,
    )
