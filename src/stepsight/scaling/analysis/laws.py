"""Laws of a report on scaling: what is fitted to a curve, and what speaks against it.

Of each curve the envelope over training compute, series over parameters and over images with the
other one fixed, and both together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from stepsight.scaling.analysis.curves import IMAGES, PARAMS, Curve
from stepsight.scaling.analysis.words import count
from stepsight.scaling.fitting.form import Array
from stepsight.scaling.ladders.forecast import size_and_data
from stepsight.scaling.laws.fits import COMPARED, Fit, compare, fit
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.plain import plain
from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.outliers import outliers
from stepsight.scaling.sampling.frontier import pareto

WORDS = {PARAMS: "parameters", IMAGES: "images"}
JOINT = "chinchilla"
ONE_INPUT = [form.name for form in FORMS.values() if len(form.inputs) == 1]
CHANCE = 0.01  # probability of as strong a trend among points without one
NO_LAW = ("not monotone", "improves but no law")
FEWEST = 3  # points of a series that is worth drawing


class Series(NamedTuple):
    """Points that differ in `along` and agree in `fixed`."""

    along: str
    fixed: str
    at: float
    x: Array
    y: Array
    runs: list[str]


@dataclass(frozen=True)
class Law:
    """A law fitted to points of a curve."""

    curve: Curve
    against: str  # in words
    x: Array  # "n", or "n 2" for a law in parameters and images
    y: Array
    fit: Fit
    others: tuple[Fit, ...] = ()  # forms that were compared, the best first

    def to_dict(self) -> dict[str, Any]:
        row = {"curve": self.curve.name, "kind": self.curve.kind, "against": self.against}
        row |= {"quantity": self.curve.quantity._asdict()}
        compared = {
            other.form: [other.aicc, other.held_out, other.verdict] for other in self.others
        }
        return plain(row | {"fit": self.fit.to_dict(), "compared": compared})


@dataclass(frozen=True)
class CurveLaws:
    """What was fitted to one curve; None and [] where there are too few points to try."""

    curve: Curve
    envelope: Law | None
    joint: Law | None
    series: tuple[tuple[Series, Law | None], ...]

    @property
    def laws(self) -> list[Law]:
        every = [self.envelope, self.joint, *(law for _, law in self.series)]
        return [law for law in every if law is not None]

    def along(self, name: str) -> list[tuple[Series, Law | None]]:
        return [(series, law) for series, law in self.series if series.along == name]


def laws_of(curve: Curve, bootstrap: int) -> CurveLaws:
    """Fit what the points of a curve allow."""
    joint = _joint(curve, bootstrap)
    series = [(series, _law_of(curve, series, bootstrap)) for series in _series(curve)]
    return CurveLaws(curve, _envelope(curve, joint, bootstrap), joint, tuple(series))


def _envelope(curve: Curve, joint: Law | None, bootstrap: int) -> Law | None:
    """The law of the points that no other one beats in both compute and error.

    Such points fall with compute by their choice, those of mere noise too. So all points have to
    say that error falls with compute (by Kendall's rank correlation), and where a law in parameters
    and images was looked for and not found, that is said.
    """
    errors, compute = np.array(curve.errors), curve.compute
    on = pareto(compute, errors) & (compute > 0)
    points = "FLOPs", compute[on], errors[on], _at(curve.runs, on)
    law = _best(curve, "training compute", points, ONE_INPUT, bootstrap)
    if law is None:
        return None
    notes, verdict = [], law.fit.verdict
    tau, chance = map(float, kendalltau(compute, errors, alternative="less"))
    if not chance <= CHANCE:
        notes.append(f"over all points error does not fall beyond chance (tau {tau:.2g})")
        verdict = verdict if verdict == "too few points" else "not monotone"
    if joint is not None and joint.fit.verdict in NO_LAW:
        notes.append(f"all points together follow no law ({joint.fit.verdict})")
    warnings = (*law.fit.warnings, *notes)
    return replace(law, fit=replace(law.fit, verdict=verdict, warnings=warnings))


def _best(
    curve: Curve,
    against: str,
    points: tuple[str, Array, Array, list[str]],
    forms: Sequence[str],
    bootstrap: int,
) -> Law | None:
    """A power law with or without a floor: that of the lower AICc, or, where there are too few
    points to correct it, that which predicts the points left out better. `points` are the name of
    x, x, y and runs.

    Other `forms` are compared too. They bend to any points, so what lies beyond is not read off
    them, but where one fits far better the law is not called one.
    """
    name, x, y, runs = points
    if len(np.unique(x)) < FEWEST:
        return None
    fits = compare(x, y, forms=forms, groups=runs, inputs=[name], bootstrap=0)
    simple = [form for form in fits.values() if form.form in COMPARED[1]]
    judged = [form for form in simple if form.verdict != "too few points"] or simple[:1]
    if not all(np.isfinite(form.aicc) for form in judged):
        judged.sort(key=lambda form: (math.isnan(form.held_out), form.held_out))
    fitted = fit(judged[0].form, x, y, groups=runs, inputs=[name], bootstrap=bootstrap)
    return Law(curve, against, x, y, _as_compared(fitted, judged[0]), tuple(fits.values()))


def _as_compared(fitted: Fit, compared: Fit) -> Fit:
    """The fit with intervals, and what the comparison with other forms said against it."""
    notes = [note for note in compared.warnings if note not in fitted.warnings]
    worse = bool(notes) and fitted.verdict == "law"
    verdict = compared.verdict if worse else fitted.verdict
    return replace(fitted, warnings=(*fitted.warnings, *notes), verdict=verdict)


def _joint(curve: Curve, bootstrap: int) -> Law | None:
    x, y = size_and_data(curve.records), np.array(curve.errors)
    if not curve.settles or min(len(np.unique(values)) for values in x.T) < 2:
        return None
    names = ["params", "images"]
    fits = compare(x, y, groups=curve.runs, inputs=names, bootstrap=bootstrap)

    def refit(kept: NDArray[np.bool_]) -> Fit:
        runs = _at(curve.runs, kept)
        return fit(JOINT, x[kept], y[kept], groups=runs, inputs=names, bootstrap=0)

    law, rows = fits[JOINT], _rows(curve, x, y)
    if law.residuals and (far := outliers(law, rows, refit)):
        law = replace(law, warnings=(*law.warnings, str(far)))
    return Law(curve, "parameters and images", x, y, law, tuple(fits.values()))


def _rows(curve: Curve, x: Array, y: Array) -> CurveRows:
    """The points with the names of their runs."""
    names = tuple(f"{one.run} at {one.images_seen:,} images" for one in curve.records)
    return CurveRows(dict(zip(WORDS.values(), x.T)), y, curve.label, names)


def _series(curve: Curve) -> Iterator[Series]:
    """Points over parameters at fixed images, and the other way round."""
    errors, runs = np.array(curve.errors), curve.runs
    if not curve.settles:
        return
    for along, fixed in ((PARAMS, IMAGES), (IMAGES, PARAMS)):
        x, other = curve.column(along), curve.column(fixed)
        for at in np.unique(other):
            on = other == at
            if len(np.unique(x[on])) >= FEWEST:
                order = np.argsort(x[on], kind="stable")
                labels = _at(runs, on)
                yield Series(
                    along, fixed, at, x[on][order], errors[on][order], [labels[i] for i in order]
                )


def _law_of(curve: Curve, series: Series, bootstrap: int) -> Law | None:
    along, fixed = WORDS[series.along], WORDS[series.fixed]
    against = f"{along} at {count(series.at)} {fixed}"
    return _best(curve, against, (along, series.x, series.y, series.runs), COMPARED[1], bootstrap)


def _at(names: Sequence[str], on: NDArray[np.bool_]) -> list[str]:
    return [name for name, keep in zip(names, on) if keep]
