"""Other forms of the same curve: a law has to stand against them whether or not it was asked to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from stepsight.scaling.fitting.form import Array, LogForm
from stepsight.scaling.fitting.quality import aicc
from stepsight.scaling.fitting.search import best_start, problem
from stepsight.scaling.laws.diagnosis import judged_from
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.laws.spread import ROUNDING

CANDIDATES, STEPS = 3, 20  # of a search that only has to tell whether a form fits far better
# Forms by their number of inputs, the simplest first. Each is set against the first of the others
# that has as many parameters or more; what still richer ones would add shows in `curvature`.
LADDERS = {1: ("power", "power_floor", "power_shifted", "bnsl"), 2: ("chinchilla", "kaplan")}


def rivals_of(form: LogForm, distinct: int) -> list[str]:
    """The forms that a law is set against where it is fitted alone."""
    every = [FORMS[name] for name in LADDERS.get(len(form.inputs), ())]
    richer = [
        other
        for other in every
        if not _same_curve(other, form)
        and len(other.parameters) >= len(form.parameters)
        and distinct >= judged_from(other)
    ]
    return [other.name for other in richer[:1]]


def _same_curve(other: LogForm, form: LogForm) -> bool:
    """Whether two forms differ in the names of their inputs and parameters alone."""
    first, second = (
        (type(one), getattr(one, "floor", None), len(one.parameters)) for one in (other, form)
    )
    return first == second


def criteria(names: Iterable[str], u: Array, v: Array, huber: float) -> dict[str, float]:
    """AICc of each form fitted to centred logs `u` "n d" and `v` "n"."""
    found = {}
    for name in names:
        data = problem(FORMS[name].centred(np.zeros(u.shape[1] + 1)), u, v, huber)
        objective = float(best_start(data, CANDIDATES, STEPS).objective[0])
        found[name] = aicc(2 * objective, len(v), len(data.form.parameters), ROUNDING)
    return found
