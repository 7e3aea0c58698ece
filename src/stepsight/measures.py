"""What the numbers of a run folder are called, which way is better, and how they are written.

The one look-up of metrics by name: what tasks declare (`tasks.config`), and what none of them owns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from types import MappingProxyType

from stepsight.errors import UserError
from stepsight.metrics.config import Measure
from stepsight.tasks.config import TaskSettings, scored_tasks

# Metrics of no task in particular: of losses, of uncertainty (`evaluation.spread`), of outlines.
GENERIC = {
    "loss": Measure("loss", "lower"),
    "edge_f1": Measure("edge F1", "higher", count="edges", pools=False),
    "ause": Measure("AUSE", "lower"),
    "aurg": Measure("AURG", "higher"),
    "spread_error": Measure("rank correlation with the error", "higher"),
    "coverage_90": Measure("coverage of 90 %", "neither"),
    "coverage_90_raw": Measure("coverage of 90 %, raw", "neither"),
    "crps": Measure("CRPS", "lower"),
    "crps_calibrated": Measure("CRPS, calibrated", "lower"),
    "brier": Measure("Brier score", "lower"),
    "spread": Measure("spread", "neither"),
}
IN_A_LINE = 4  # metrics of a protocol


def measures() -> Mapping[str, Measure]:
    """All metrics by name: those that tasks declare, and the generic ones.

    Raises UserError where two tasks declare one metric otherwise.
    """
    return _declared(tuple(scored_tasks().values()))


@lru_cache
def _declared(tasks: tuple[type[TaskSettings], ...]) -> Mapping[str, Measure]:
    declared, owner = dict(GENERIC), dict.fromkeys(GENERIC, "stepsight itself")
    for task in tasks:
        for name, row in task.metrics.items():
            if (other := declared.setdefault(name, row)) != row:
                declarations = zip(asdict(row).items(), asdict(other).values())
                key, here, there = next((k, x, y) for (k, x), y in declarations if x != y)
                raise UserError(
                    f"the metric '{name}' has {key} {here!r} for task {task.name}, and {there!r} "
                    f"for {owner[name]}. Give it another name."
                )
            owner.setdefault(name, f"task {task.name}")
    return MappingProxyType(declared)


def measure(name: str) -> Measure:
    """The measure called `name`; one that nobody declared has a label, but no better or worse."""
    return measures().get(name) or Measure(name.replace("_", " "), "unknown")


def headline(task: str, offered: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """The metrics worth a place in one line, the main one first: of a protocol that names its
    metrics, the first of that `order`, otherwise those of `task`."""
    offered = [name for name in offered if name != "n_images"]
    settings = scored_tasks().get(task)
    of_protocol = [name for name in order if name in offered][:IN_A_LINE]
    of_task = [name for name in (settings.in_one_line() if settings else ()) if name in offered]
    return of_protocol or of_task or offered[:2]


def main_metric(task: str, offered: Iterable[str], order: Sequence[str] = ()) -> str | None:
    """The first of the `headline`; None when nothing is offered."""
    return next(iter(headline(task, offered, order)), None)


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no needless exponent; NaN as a dash."""
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def spoken(name: str) -> str:
    """A name of the code as people read it: `mean_map` is "mean map"."""
    return name.replace("_", " ")


def duration(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12.3s`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"
