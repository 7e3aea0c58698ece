"""Fit a law, or an elbow, to columns of a table by name."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from stepsight.errors import UserError, suggest
from stepsight.scaling.fitting.columns import column, numbers_of
from stepsight.scaling.laws import fits
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.laws.forms import FORMS

if TYPE_CHECKING:
    from stepsight.scaling.emergence.elbow import EmergenceFit

EMERGENCE = "emergence"
NAMES = (*FORMS, EMERGENCE)
INPUTS = {name: form.inputs for name, form in FORMS.items()} | {EMERGENCE: ("loss", "images")}


def fit(
    form: str,
    columns: Mapping[str, ArrayLike],
    *,
    x: str | Sequence[str] | None = None,
    y: str | None = None,
    groups: str | Sequence[Hashable] | None = None,
    **options: Any,
) -> Fit | EmergenceFit:
    """Fit `form` to columns of equal length.

    `y` is by default the last column; `x` the columns that the form names its inputs by, or all
    others. `groups` is a column, or one label a row. `options` are those of `fits.fit`, and for
    "emergence" those of `emergence.fit_columns`.

    Raises:
        UserError: there is no such form or column, or a column holds something else than numbers.
    """
    if form not in NAMES:
        raise UserError(f"There is no form '{form}'.{suggest(form, NAMES)}")
    if not columns:
        raise UserError("There are no columns to fit.")
    names, target = choose(form, list(columns), x, y, groups if isinstance(groups, str) else None)
    values = {name: numbers_of(columns, name) for name in (*names, target)}
    labels = [*np.asarray(column(columns, groups)).tolist()] if isinstance(groups, str) else groups
    _same_length(values, labels)
    if form == EMERGENCE:
        from stepsight.scaling.emergence.elbow import fit_columns  # scipy.stats: slow to load

        return fit_columns(values, names, target, groups=labels, **options)
    table = np.stack([values[name] for name in names], axis=1)
    return fits.fit(form, table, values[target], inputs=names, groups=labels, **options)


def choose(
    form: str,
    known: Sequence[str],
    x: str | Sequence[str] | None,
    y: str | None,
    groups: str | None = None,
) -> tuple[tuple[str, ...], str]:
    """Names of the columns of inputs, and of the one of results.

    Raises:
        UserError: there are not as many as the form has inputs.
    """
    target = known[-1] if y is None else y
    if x is not None:
        names = (x,) if isinstance(x, str) else tuple(x)
    elif set(INPUTS[form]) <= {*known} - {target}:
        names = INPUTS[form]
    else:
        names = tuple(name for name in known if name not in (target, groups))
    if len(names) != len(INPUTS[form]):
        wanted = f"{len(INPUTS[form])} ({', '.join(INPUTS[form])})"
        given = ", ".join(names) or "none"
        raise UserError(f"The form {form} has inputs of its own, {wanted}; x names {given}.")
    return names, target


def _same_length(values: Mapping[str, np.ndarray], labels: Sequence[Hashable] | None) -> None:
    sizes = {name: len(column) for name, column in values.items()}
    if labels is not None:
        sizes["groups"] = len(labels)
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"The columns differ in length: {listed}.")
