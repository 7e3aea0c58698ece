"""Learning rates over widths, by parametrisation (benchmarks/transfer.py)."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from page_numbers import common
from page_numbers.common import bare, rows_of, table

SWEEP = "transfer.csv"
Kind = tuple[str, str, str, str]
Widths = dict[int, dict[float, list[float]]]  # losses of seeds by factor


def transfer() -> str:
    """The best factor of every width, how far the ends are apart, and what carrying over costs."""
    if not (common.DATA / SWEEP).is_file():
        return "Not measured yet.\n"
    kinds: dict[Kind, Widths] = defaultdict(dict)
    for row in rows_of(SWEEP):
        kind = row["optimizer"], row["parametrisation"], row["depth"], row["images"]
        losses = kinds[kind].setdefault(int(row["width"]), {})
        losses.setdefault(float(row["factor"]), []).append(float(row["loss"]))
    header = ["optimizer", "parametrisation", "depth", "images", "factors tried, seeds"]
    header += ["best factor by width", "ends apart, times", "loss by the smallest width's factor"]
    return table(header, [[*kind, *_cells(widths)] for kind, widths in kinds.items()])


def _cells(widths: Widths) -> list[str]:
    """Of one way: what was tried, the best factors, how far apart, and the loss carried over."""
    from benchmarks.transfer import Best, best_of  # torch takes a second to load

    best: dict[int, Best | None] = {}
    for width, losses in sorted(widths.items()):
        try:
            best[width] = best_of({factor: fmean(several) for factor, several in losses.items()})
        except ValueError:  # the lowest is at an end
            best[width] = None
    factors = sorted({factor for losses in widths.values() for factor in losses})
    seeds = max(len(several) for losses in widths.values() for several in losses.values())
    tried = f"{factors[0]:g} to {factors[-1]:g}, {seeds}"
    shown = (f"{width}: {bare(one.factor) if one else 'at an end'}" for width, one in best.items())
    small, large = best[min(best)], best[max(best)]
    if small is None or large is None:
        return [tried, ", ".join(shown), "", ""]
    ratio = large.factor / small.factor
    lost = f"{100 * (large.at(small.factor) / large.loss - 1):+.1f} %"
    return [tried, ", ".join(shown), f"{max(ratio, 1 / ratio):.2f}", lost]
