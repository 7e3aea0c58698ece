"""Laws of a report on scaling over what parameters and images do not say: distinct samples,
resolution, experts.

Each axis has a law together with parameters and images, for ladders that vary these as well, and
simpler ones for those that hold some of them fixed: of those fixed, the values with the most points
are taken. Curves in parameters and images alone leave the other points out or keep them apart
(`curves`); here they are what the law is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stepsight.scaling.analysis.curves import IMAGES, PARAMS, Curve
from stepsight.scaling.analysis.laws import Law
from stepsight.scaling.analysis.words import count
from stepsight.scaling.ladders.forecast import by_quantity, errors_of, most_samples
from stepsight.scaling.laws.diagnosis import MIN_LEVELS, judged_from
from stepsight.scaling.laws.fits import fit
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.records import PIXELS, ScalingRecord, column

SAMPLES, TOTAL = "samples", "params_total"
WORDS = {
    PARAMS: "parameters",
    IMAGES: "images",
    SAMPLES: "distinct samples",
    PIXELS: "pixels",
    TOTAL: "parameters in all",
}


class AxisForm(NamedTuple):
    """A law over an axis, and the columns of records that it is a law in."""

    form: str
    columns: tuple[str, ...]


AXES = {
    SAMPLES: (
        AxisForm("constrained", (PARAMS, IMAGES, SAMPLES)),
        AxisForm("repeated", (IMAGES, SAMPLES)),
        AxisForm("power_floor", (SAMPLES,)),
    ),
    PIXELS: (
        AxisForm("resolution", (PARAMS, IMAGES, PIXELS)),
        AxisForm("power_floor", (PIXELS,)),
    ),
    TOTAL: (AxisForm("experts", (PARAMS, TOTAL, IMAGES)),),
}


def axis_laws(records: Sequence[ScalingRecord], bootstrap: int) -> Iterator[Law]:
    """A law for each quantity and each axis that its records vary far enough."""
    for axis, forms in AXES.items():
        for quantity, rows in by_quantity(records, [axis]).items():
            errors = errors_of(quantity, rows)
            known = [record for record, error in zip(rows, errors) if error > 0]
            if not _varied(known, axis):
                continue
            for offered in forms:
                chosen = _chosen(known, offered.columns)
                if _enough(chosen, offered):
                    curve = Curve(quantity, "", tuple(chosen), tuple(errors_of(quantity, chosen)))
                    yield _law(curve, offered, bootstrap)
                    break


def _varied(rows: Sequence[ScalingRecord], axis: str) -> bool:
    """Whether an axis says something, and runs began alike."""
    if len({f"{record.inherited_flops or 0.0:.6g}" for record in rows}) != 1:
        return False
    if axis == TOTAL:
        return len({record.params_total > record.params_active for record in rows}) > 1
    if axis == SAMPLES and not any(r.images_seen > (r.samples or r.images_seen) for r in rows):
        return False
    return len({_value(record, axis) for record in rows} - {None}) >= MIN_LEVELS


def _chosen(rows: Sequence[ScalingRecord], columns: Sequence[str]) -> list[ScalingRecord]:
    """Rows that have all columns and agree in everything else: in the most frequent values of it,
    and in having seen as many distinct samples as there were."""
    rows = [record for record in rows if all(_value(record, name) for name in columns)]
    if SAMPLES not in columns:
        rows = most_samples(rows)
    fixed = [name for name in (PARAMS, IMAGES, PIXELS) if name not in columns]

    def rest(record: ScalingRecord) -> Hashable:
        return tuple(_value(record, name) for name in fixed)

    common = Counter(map(rest, rows)).most_common(1)
    return [record for record in rows if rest(record) == common[0][0]]


def _enough(rows: Sequence[ScalingRecord], offered: AxisForm) -> bool:
    levels = [len({_value(record, name) for record in rows}) for name in offered.columns]
    places = {tuple(_value(record, name) for name in offered.columns) for record in rows}
    return min(levels) >= MIN_LEVELS and len(places) >= judged_from(FORMS[offered.form])


def _law(curve: Curve, offered: AxisForm, bootstrap: int) -> Law:
    x = np.stack([column(curve.records, name) for name in offered.columns], axis=1)
    names = [WORDS[name] for name in offered.columns]
    y = np.array(curve.errors)
    fitted = fit(offered.form, x, y, inputs=names, groups=tuple(curve.runs), bootstrap=bootstrap)
    fixed = {
        name: {_value(record, name) for record in curve.records}
        for name in (PARAMS, IMAGES)
        if name not in offered.columns
    }
    at = " and ".join(f"{count(value or 0)} {WORDS[name]}" for name, (value,) in fixed.items())
    against = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return Law(curve, f"{against}, at {at}" if at else against, x, y, fitted)


def _value(record: ScalingRecord, name: str) -> int | None:
    return getattr(record, name)
