"""What `stepsight scaling fit` says of a curve: its fits, what they foresee, and their outliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stepsight.scaling.fitting.quality import Expected
from stepsight.scaling.laws.averaging import Averaged
from stepsight.scaling.laws.fitted import Fit
from stepsight.scaling.laws.forms import FORMS
from stepsight.scaling.plain import plain
from stepsight.scaling.rows.curve import CurveRows
from stepsight.scaling.rows.outliers import Outliers

if TYPE_CHECKING:
    from rich.table import Table

    from stepsight.scaling.emergence.elbow import EmergenceFit

    AnyFit = Fit | Averaged | EmergenceFit

REACHES = (2.0, 4.0, 16.0)  # of forecasts, over the largest place measured
TOLD = 4.0  # the reach at which the law without outliers is compared
INTERVAL = ("reach", "value", "lo", "hi", "level", "basis")
Place = dict[str, float]  # inputs by name


@dataclass(frozen=True)
class FittedCurve:
    """Rows of a curve, the forms that went through them, and where to forecast."""

    name: str
    rows: CurveRows
    fits: Sequence[AnyFit]  # with the average of several forms
    outliers: Mapping[str, Outliers]  # by form
    level: float  # of forecasts
    asked: Sequence[Place] = ()

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where forecasts are made, by what they are called."""
        asked = {", ".join(f"{n}={v:.4g}" for n, v in place.items()): place for place in self.asked}
        return {f"{reach:g}x": self.beyond(reach) for reach in REACHES} | asked

    def beyond(self, reach: float) -> Place:
        """The place so many times as far as the largest, all inputs scaled alike."""
        top, factor = int(self.rows.sizes.argmax()), reach ** (1 / len(self.rows.x))
        return {name: factor * float(column[top]) for name, column in self.rows.x.items()}

    def to_rows(self) -> list[dict[str, Any]]:
        """For JSON: one object a form, and one for their average."""
        return plain([self._row(fit) | {"notes": list(self.rows.notes)} for fit in self.fits])

    def _row(self, fit: AnyFit) -> dict[str, Any]:
        row: dict[str, Any] = {"curve": self.name}
        if isinstance(fit, Averaged):
            return row | _averaged(fit) | {"interval_at": self._intervals(fit)}
        row |= fit.to_dict()
        if not isinstance(fit, Fit):
            return row
        found = self.outliers.get(fit.form)
        named = zip(found.names, found.off) if found else ()
        row |= {"interval_at": self._intervals(fit)}
        row["outliers"] = [{"row": name, "off": off} for name, off in named]
        if found:
            without = found.without
            row["without_outliers"] = without.to_dict() | {"interval_at": self._intervals(without)}
        return row

    def _intervals(self, fit: Fit | Averaged) -> list[dict[str, Any]]:
        expected = [(at, vars(fit.forecast(at, self.level))) for at in self.places.values()]
        return [{"at": at} | {key: told[key] for key in INTERVAL} for at, told in expected]

    def without_outliers(self, fit: Fit) -> list[str]:
        """Which rows are far from a law, and what becomes of it without them."""
        found, place = self.outliers.get(fit.form), self.beyond(TOLD)
        if found is None:
            return []
        without, names = found.without, FORMS[fit.form].exponents
        told = [
            f"{name} {without.params[name]:.3g} instead of {fit.params[name]:.3g}" for name in names
        ]
        ends = [_expected(one.forecast(place, self.level), " ") for one in (without, fit)]
        told.append(f"at {TOLD:g}x {' instead of '.join(ends)}")
        verdicts = dict.fromkeys(f"'{one.verdict}'" for one in (without, fit))
        told.append(f"verdict {' instead of '.join(verdicts)}")
        return [f"{found}. Without: {'; '.join(told)}"]


def _averaged(mean: Averaged) -> dict[str, Any]:
    """For JSON."""
    row = {name: getattr(mean, name) for name in ("form", "formula", "weights", "n", "verdict")}
    tested = mean.backtest and asdict(mean.backtest)
    return row | {"backtest": tested, "warnings": list(mean.warnings)}


def print_fits(curve: FittedCurve) -> None:
    """Tables with a row a form, of what was fitted and of what it foresees, and below them what to
    keep in mind."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    fits, laws = curve.fits, [fit for fit in curve.fits if isinstance(fit, Fit | Averaged)]
    drawn = [fit for fit in fits if not isinstance(fit, Averaged)]
    methods = " / ".join(dict.fromkeys(map(_method, drawn)))
    about = f"{len(curve.rows.y)} points; {drawn[0].level:.0%} intervals {methods}"
    console.print(f"{curve.name} against {', '.join(curve.rows.x)} ({about})")
    console.print(_grid_of_fits(fits))
    if laws:
        console.print(f"forecasts, {curve.level:.0%} intervals, beyond the largest place")
        console.print(_grid_of_forecasts(curve, laws))
    for fit in fits:
        own = fit.warnings if not isinstance(fit, Averaged) else ()
        odd = curve.without_outliers(fit) if isinstance(fit, Fit) else []
        basis = [fit.forecast(curve.beyond(TOLD)).basis] if isinstance(fit, Fit) else []
        for line in filter(None, (fit.formula, *basis, *own, *odd)):
            console.print(f"  {fit.form}: {line}")
    console.print()


def _grid_of_fits(fits: Sequence[AnyFit]) -> Table:
    names = list(
        dict.fromkeys(name for f in fits if not isinstance(f, Averaged) for name in f.params)
    )
    grid = _grid("form", *names, "R2", "back-test", "verdict")
    for fit in fits:
        cells = [_parameter(fit, name) for name in names]
        r2 = "" if isinstance(fit, Averaged) else f"{fit.r2:.3f}"
        grid.add_row(fit.form, *cells, r2, _tested(fit), fit.verdict)
    return grid


def _grid_of_forecasts(curve: FittedCurve, laws: Sequence[Fit | Averaged]) -> Table:
    grid = _grid("form", *curve.places)
    for law in laws:
        expected = (law.forecast(place, curve.level) for place in curve.places.values())
        grid.add_row(law.form, *(_expected(one, "\n") for one in expected))
    return grid


def _grid(*columns: str) -> Table:
    from rich.table import Table

    grid = Table(*columns, show_lines=True)
    for shown in grid.columns:
        shown.overflow = "fold"
    return grid


def _tested(fit: AnyFit) -> str:
    """How many forecasts of hidden points held, and how far they reached."""
    tested = fit.backtest if isinstance(fit, Fit | Averaged) else None
    return f"{tested.hits} of {tested.of}\nto {tested.reach:.3g}x" if tested else ""


def _method(fit: AnyFit) -> str:
    """How its intervals are made."""
    if not isinstance(fit, Fit):
        return "resample models"
    return "by profile" if fit.method == "profile" else f"resample {fit.resampling}"


def _parameter(fit: AnyFit, name: str) -> str:
    if isinstance(fit, Averaged) or name not in fit.params:
        return ""
    lo, hi = fit.intervals[name]
    return f"{fit.params[name]:.4g}\n{lo:.3g} to {hi:.3g}"


def _expected(one: Expected, between: str) -> str:
    return f"{one.value:.4g}{between}[{one.lo:.3g}, {one.hi:.3g}]"
