"""From rows to results: metrics with intervals, ratios to trivial predictors, files.

Every result carries its protocol, the sampler, NFE and members, the working size and the digest of
the weights. Intervals are 95 % bootstrap intervals over images; ratios are paired by image.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stepsight.evaluation.evaluator import Rows, Scores, Setting
from stepsight.metrics import protocol as protocols
from stepsight.metrics.reduce import COUNTS, reduce
from stepsight.pipeline import DensePipeline
from stepsight.scaling.intervals import Interval, mean_interval, pooled_interval, ratio_interval


def metrics_of(rows: Rows, protocol: str) -> dict[str, float]:
    """Metrics of a set under the protocol's averaging."""
    return reduce(rows, protocols.get(protocol).averaging)


def result(
    scores: Scores, setting: Setting, pipeline: DensePipeline, sampler: str, label: str | None
) -> dict[str, Any]:
    """One object of results.json."""
    rows, metric = scores.settings[setting], pipeline.task(scores.task).metric
    protocol = protocols.get(scores.protocol)
    baselines = {name: metrics_of(own, scores.protocol) for name, own in scores.baselines.items()}
    return {
        "task": scores.task,
        "data": scores.source,
        "protocol": protocol.id,
        "protocol_text": protocol.description,
        "sampler": sampler,
        "nfe": setting[0],
        "members": setting[1],
        "n": len(scores.keys),
        "size": list(scores.working),
        "checkpoint": pipeline.name,
        "label": label,
        "metrics": metrics_of(rows, scores.protocol),
        "intervals": {
            name: [found.lo, found.hi]
            for name in _measured(rows)
            if math.isfinite((found := interval(rows, name)).lo)
        },
        "baselines": baselines,
        "ratios": {
            name: _ratio(rows, own, metric) | {"metric": metric}
            for name, own in scores.baselines.items()
        },
        "ceiling": metrics_of(scores.ceiling, scores.protocol) if scores.ceiling else None,
        "seconds_per_image": scores.seconds[setting],
    }


def interval(rows: Rows, metric: str) -> Interval:
    """The metric of a set with its bootstrap interval."""
    if metric in _POOLED:
        return pooled_interval(rows["confusion"].numpy(), _POOLED[metric])
    return mean_interval(rows[metric].numpy())


def per_image(rows: Rows, metric: str) -> np.ndarray:
    """One number an image, for paired comparisons; pooled metrics are taken image by image."""
    if metric in _POOLED:
        return np.array([_POOLED[metric](one) for one in rows["confusion"].numpy()])
    return rows[metric].numpy()


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all; numbers that are not finite become null."""
    staged = path.with_name(f".{path.name}")
    staged.write_text(json.dumps(finite(value), indent=2) + "\n")
    os.replace(staged, path)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV with the columns of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def flat(one: dict[str, Any]) -> dict[str, Any]:
    """A result as one CSV row."""
    plain = {k: v for k, v in one.items() if not isinstance(v, (dict, list))}
    nested = {f"baseline.{name}": m for name, m in one["baselines"].items()}
    return plain | one["metrics"] | {f"{a}.{b}": v for a, m in nested.items() for b, v in m.items()}


def sample_rows(scores: Scores) -> list[dict[str, Any]]:
    """One CSV row an image and setting."""
    found = []
    for (nfe, members), rows in scores.settings.items():
        columns = {name: per_image(rows, name).tolist() for name in _measured(rows)}
        for i, key in enumerate(scores.keys):
            whose = {"task": scores.task, "data": scores.source, "key": key}
            values = {name: column[i] for name, column in columns.items()}
            found.append(whose | {"nfe": nfe, "members": members} | values)
    return found


def _miou(confusion: np.ndarray) -> float:
    hit = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    seen = union > 0
    return float((hit[seen] / union[seen]).mean()) if seen.any() else math.nan


def _accuracy(confusion: np.ndarray) -> float:
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else math.nan


_POOLED: dict[str, Callable[[np.ndarray], float]] = {
    "miou": _miou,
    "pixel_accuracy": _accuracy,
}


def _measured(rows: Rows) -> list[str]:
    if "confusion" in rows:
        return list(_POOLED)
    return [name for name in rows if name not in COUNTS]


def _ratio(rows: Rows, other: Rows, metric: str) -> dict[str, float]:
    """metric / baseline's metric with a paired interval; below 1 is less."""
    if metric in _POOLED:
        of = _POOLED[metric]
        both = np.stack([rows["confusion"].numpy(), other["confusion"].numpy()], axis=1)
        found = pooled_interval(both, lambda pair: of(pair[0]) / max(of(pair[1]), 1e-12))
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = ratio_interval(rows[metric].numpy(), other[metric].numpy())
    return {"ratio": found.value, "lo": found.lo, "hi": found.hi}


def finite(value: Any) -> Any:
    """`value` with None for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
