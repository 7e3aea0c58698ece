"""Learning rates over widths, by parametrisation (benchmarks/transfer.py)."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

from page_numbers import common
from page_numbers.common import bare, rows_of, share, table

SWEEP = "transfer.csv"
Kind = tuple[str, str, str, str]


def transfer() -> str:
    """The best factor of every width, how far the ends are apart, and what carrying over costs."""
    if not (common.DATA / SWEEP).is_file():
        return "Not measured yet.\n"
    from benchmarks.transfer import best_of  # torch takes a second to load

    kinds: dict[Kind, dict[int, dict[float, list[float]]]] = defaultdict(dict)
    for row in rows_of(SWEEP):
        kind = row["optimizer"], row["parametrisation"], row["depth"], row["images"]
        losses = kinds[kind].setdefault(int(row["width"]), {})
        losses.setdefault(float(row["factor"]), []).append(float(row["loss"]))
    rows = []
    for kind, widths in kinds.items():
        means = {
            width: {factor: fmean(several) for factor, several in losses.items()}
            for width, losses in sorted(widths.items())
        }
        best = {width: best_of(losses) for width, losses in means.items()}
        small, large = best[min(best)], best[max(best)]
        ratio = large.factor / small.factor
        factors = ", ".join(f"{width}: {bare(one.factor)}" for width, one in best.items())
        lost = share(large.at(small.factor) / large.loss - 1, 1)
        rows.append([*kind, factors, f"{max(ratio, 1 / ratio):.2f}", lost])
    header = ["optimizer", "parametrisation", "depth", "images", "best factor by width"]
    return table([*header, "ends apart, times", "loss by the smallest width's factor"], rows)
