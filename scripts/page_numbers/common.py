"""Where the figures of pages are kept, and how they are written."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data"
RESULTS = ROOT / "benchmarks" / "results"
MAIN = {"depth": "abs_rel", "flow": "epe", "amodal": "iou", "semantic": "miou"}
LABELS = {"abs_rel": "AbsRel", "epe": "EPE px", "iou": "IoU", "miou": "mIoU"}
LABELS |= {"crps": "CRPS", "brier": "Brier", "edge_f1": "edge F1"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows_of(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_of(name: str) -> Any:
    """A file of benchmarks/results; None where it was not measured."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def figures(value: float) -> str:
    """Three figures, as tables of the field have them."""
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


def bare(value: float, digits: int = 3) -> str:
    """Significant figures, below one without the zero in front, as prose has them: .226."""
    text = f"{value:.{digits}g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.{digits - 1}e}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def share(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"
