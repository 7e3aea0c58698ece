"""What a report on scaling says in words: numbers, laws, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from stepsight.measures import measure, number
from stepsight.scaling.ladders.forecast import LOSS, Forecast, Quantity, ScoredForecast
from stepsight.scaling.laws.fits import Fit
from stepsight.scaling.laws.forms import FORMS

PREDICTED = 0.1  # error at the points left out, beyond which a law does not reach past its points


def count(value: float) -> str:
    """A number of parameters or images with three digits: 1.6M, 16.4k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{_plain(value / unit)}{letter}"
    return _plain(value)


def _plain(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def flops(value: float) -> str:
    """Compute, such as 1.1e13."""
    return f"{value:.1e}".replace("e+", "e")


def named(quantity: Quantity) -> str:
    """A quantity with its metric as people read it."""
    label = LOSS if quantity.metric == LOSS else measure(quantity.metric).label
    return str(quantity).replace(f" {quantity.metric}", f" {label}", 1)


def shortly(warning: str) -> str:
    """A warning without its explanation."""
    return warning.partition(";")[0]


def span(values: Iterable[float], written=count) -> str:
    """`8.19k to 65.5k`, or the one value."""
    known = sorted(set(values))
    return " to ".join(dict.fromkeys(written(one) for one in (known[0], known[-1])))


def reservations(fit: Fit) -> list[str]:
    """What speaks against reading a fit as a law; [] for a clean one."""
    stated = fit.verdict == "law" or any(note.startswith(fit.verdict) for note in fit.warnings)
    notes = [*([] if stated else [fit.verdict]), *fit.warnings]
    if math.expm1(fit.held_out) > PREDICTED:
        notes.append(f"the top of the points is predicted no better than to {PREDICTED:.0%}")
    return notes


def clean(fit: Fit) -> bool:
    """Whether a law may be read without reservations."""
    return fit.verdict == "law" and not reservations(fit)


def judgement(fit: Fit) -> str:
    """What a fit is worth, in a sentence that does not flatter it."""
    return _sentence(fit, reservations(fit))


def briefly(fit: Fit) -> str:
    """Exponents and floor of a law, and what it is worth in short."""
    left = [text for text in parameters(fit) if text.partition(" ")[0] not in FORMS[fit.form].logs]
    law = f"{fit.formula}, {', '.join(left)}. " if fit.residuals else ""
    return law + _sentence(fit, [shortly(note) for note in reservations(fit)])


def _sentence(fit: Fit, against: Sequence[str]) -> str:
    worth = "" if math.isnan(fit.r2) else f" (R² {fit.r2:.3f}, {left_out(fit)}; {hit_rate(fit)})"
    if fit.verdict != "law":
        return f"Not a clean law{worth}: {'; '.join(against)}."
    if against:
        return f"A law, but not a clean one{worth}: {'; '.join(against)}."
    return f"A clean law{worth}."


def left_out(fit: Fit) -> str:
    """The error at the top quarter of the points, of a fit that did not see them."""
    if math.isnan(fit.held_out):
        return "too few points to leave some out"
    return f"held-out error {math.expm1(fit.held_out):.1%}"


def hit_rate(fit: Fit) -> str:
    """What forecasts of hidden points were worth."""
    if fit.backtest is None:
        return "too few points to hide any and forecast them"
    held = f"90 % intervals held {fit.backtest.hits} of {fit.backtest.of} hidden points"
    return f"{held}, up to {fit.backtest.reach:.3g}x"


def parameters(fit: Fit) -> list[str]:
    """`a = 0.21 [0.19, 0.23]`, each."""
    return [
        f"{name} = {number(value)} {interval(*fit.intervals[name])}".strip()
        for name, value in fit.params.items()
    ]


def interval(lo: float, hi: float) -> str:
    """`[low, high]`, empty where an end is unknown."""
    known = math.isfinite(lo) and math.isfinite(hi)
    return f"[{number(lo)}, {number(hi)}]" if known else ""


def day(moment: str) -> str:
    """The day and minute of an ISO 8601 moment."""
    return moment[:16].replace("T", " ")


def rehearsed(forecast: Forecast) -> str:
    """What the same way would have said of the ladder's own rungs; "" of forecasts made before that
    was written down."""
    if not forecast.basis:
        return ""
    if forecast.tested <= 1:
        return "no rung beyond the rest was hidden"
    if not forecast.of:
        return "too few rungs to hide any and forecast them"
    held = f"intervals held {forecast.hits} of {forecast.of} of the ladder's own hidden rungs"
    wider = "; it is widened by what they missed" if forecast.hits < forecast.of else ""
    return f"{forecast.level:.0%} {held}, up to {forecast.tested:.3g}x{wider}"


def forecast_basis(forecast: Forecast) -> str:
    """Reach, basis and hit rate of a forecast, and what its ladder cost."""
    share = f"its ladder took {forecast.spent:.2g} times the target's training FLOPs"
    return "; ".join(
        filter(
            None,
            (
                f"reaches {forecast.reach:.2g} times the largest run",
                forecast.basis or forecast.form,
                rehearsed(forecast),
                share if math.isfinite(forecast.spent) else "",
            ),
        )
    )


def came_of(scored: ScoredForecast) -> str:
    """Where the outcome lies in the interval, and if outside, what was known to speak against the
    forecast when it was made."""
    made = scored.forecast
    low = scored.outcome < made.value
    end, name = (made.lo, "lower") if low else (made.hi, "upper")
    share = (scored.outcome - made.value) / (end - made.value) if end != made.value else math.inf
    if scored.inside:
        return f"{share:.0%} of the way to the {name} end"
    where = f"{share:.2g} times as far off as the {name} end"
    doubts = []
    if made.verdict != "law":
        doubts.append(f"what it rests on is no law ({made.verdict})")
    if made.of and made.reach > made.tested:
        doubts.append(f"hidden rungs were forecast up to {made.tested:.3g}x alone")
    if made.of and made.hits < made.level * made.of:
        doubts.append(f"of these {made.hits} of {made.of} were inside")
    if not made.of:
        doubts.append("no rungs were hidden to try it on")
    return f"{where}: {'; '.join(doubts)}" if doubts else f"{where}, with no warning beforehand"


def forecast_summary(settled: Iterable[ScoredForecast], waiting: Iterable[Forecast]) -> str:
    """How forecasts have done, in a sentence; "" where there are none."""
    settled, waiting = list(settled), list(waiting)
    parts = []
    if settled:
        inside = sum(scored.inside for scored in settled)
        errors = [abs(scored.error) for scored in settled if math.isfinite(scored.error)]
        mean = f", mean error {sum(errors) / len(errors):.1%}" if errors else ""
        parts.append(f"{inside} of {len(settled)} outcomes inside their forecast interval{mean}")
    if waiting:
        parts.append(f"{len(waiting)} forecast{'s' * (len(waiting) > 1)} waiting for an outcome")
    return "; ".join(parts)
