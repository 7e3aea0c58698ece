"""From rows to results: metrics with intervals, ratios to trivial predictors, files.

Every result carries its protocol, the sampler, NFE and members, the working size, how much of the
protocol's data was scored, and the digest of the weights. Intervals are 95 % bootstrap intervals
over images; ratios are paired by image.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.predictors import Setting
from stepsight.evaluation.statistics import counts, interval, measured, per_image, ratio
from stepsight.measures import main_metric
from stepsight.metrics import protocol as protocols
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import reduce
from stepsight.report.calibration_words import calibration_verdict
from stepsight.scaling.intervals import mean_interval


@dataclass(frozen=True)
class Made:
    """How scores came about, as far as their rows do not tell."""

    sampler: str
    checkpoint: str  # digest of the weights, or the folder of imported predictions
    split: str | None = None
    published: int | None = None  # images of the whole split, where that is known
    label: str | None = None  # said beside every score
    available: int | None = None  # images of the split that are there
    options: Mapping[str, Any] = field(default_factory=dict)  # of the data and of imported files
    temperature: float | None = None  # of the start noise
    views: str | None = None  # what further calls saw
    calibration: Mapping[str, Any] = field(default_factory=dict)  # the record of its intervals


def metrics_of(rows: Rows, protocol: str) -> dict[str, float]:
    """Metrics of a set under the protocol's averaging."""
    return reduce(rows, protocols.get(protocol))


def result(scores: Scores, setting: Setting, made: Made) -> dict[str, Any]:
    """One object of results.json."""
    rows, rule = scores.settings[setting], protocols.get(scores.protocol)
    metrics = metrics_of(rows, rule.name)
    main = main_metric(scores.task, metrics, rule.metrics)
    expected, label = completeness(rule, scores.source, len(scores.keys), made)
    return {
        "task": scores.task,
        "data": scores.source,
        "split": made.split,
        "options": dict(made.options),
        "protocol": rule.id,
        "protocol_text": rule.description,
        "protocol_source": rule.source,
        "sampler": made.sampler,
        "nfe": setting[0],
        "members": setting[1],
        "temperature": made.temperature,
        "views": made.views,
        "n": len(scores.keys),
        "expected": expected,
        "size": list(scores.working),
        "checkpoint": made.checkpoint,
        "label": label,
        "metric": main,
        "metrics": metrics,
        "intervals": _intervals(rows, rule, metrics),
        "uncertainty": {
            name: mean_interval(value.numpy()).value
            for name, value in uncertainties(scores, setting).items()
        },
        "calibration": _calibration(scores, setting, made),
        "baselines": {name: metrics_of(own, rule.name) for name, own in scores.baselines.items()},
        "ratios": {
            name: ratio(rows, own, main, rule) | {"metric": main}
            for name, own in scores.baselines.items()
            if main is not None
        },
        "ceiling": metrics_of(scores.ceiling, rule.name) if scores.ceiling else None,
        "seconds_per_image": scores.seconds[setting],
    }


def uncertainties(scores: Scores, setting: Setting) -> Rows:
    """The scores "b" of the uncertainty at a setting; without the sums behind a diagram."""
    found = scores.uncertainty.get(setting, {})
    return {name: value for name, value in found.items() if value.ndim == 1}


def _calibration(scores: Scores, setting: Setting, made: Made) -> dict[str, Any] | None:
    """Whether the uncertainty at a setting is to be believed, in a word and a sentence, beside the
    record that its intervals were scaled by; None where it states neither intervals nor
    probabilities."""
    rows = scores.uncertainty.get(setting, {})
    told = calibration_verdict(rows)
    record = dict(made.calibration) if "coverage_90" in rows else {}
    return told and {"scale": None} | record | told._asdict()


def completeness(rule: Protocol, source: str, n: int, made: Made) -> tuple[int | None, str | None]:
    """The images that the whole split has, and what has to be said of the `n` that were scored."""
    notes = [made.label] if made.label else []
    expected = made.published
    if rule.data is not None and not (source == rule.data or source.startswith(f"{rule.data}_")):
        notes.append(f"not the data of this protocol ({rule.data})")
    elif rule.data is not None and made.split and rule.split and made.split != rule.split:
        notes.append(f"split {made.split}, not this protocol's {rule.split}")
    elif rule.data is not None:
        expected = rule.count or expected
    if made.available is not None and n < made.available:
        expected = max(expected or 0, made.available)
    if expected is not None and n < expected:
        notes.append(f"partial: {n} of {expected}")
    elif expected is not None and n > expected:
        notes.append(f"not the split of this protocol: {n} images, not {expected}")
    return expected, "; ".join(notes) or None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all; numbers that are not finite become null."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")  # processes may write the same file
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
    options = {f"option.{name}": value for name, value in one["options"].items()}
    ends = {
        f"{name}.{end}": value
        for name, pair in one["intervals"].items()
        for end, value in zip(("lo", "hi"), pair)
    }
    spread = {f"uncertainty.{name}": value for name, value in one["uncertainty"].items()}
    nested = {f"baseline.{name}": m for name, m in one["baselines"].items()}
    trivial = {f"{a}.{b}": v for a, m in nested.items() for b, v in m.items()}
    return plain | options | one["metrics"] | ends | spread | trivial


def sample_rows(scores: Scores) -> list[dict[str, Any]]:
    """One CSV row an image and setting, with the counts that pooled metrics are made of."""
    found, rule = [], protocols.get(scores.protocol)
    for setting, rows in scores.settings.items():
        columns = {name: per_image(rows, name).tolist() for name in measured(rows)}
        columns |= {name: column.tolist() for name, column in counts(rows, rule).items()}
        spread = uncertainties(scores, setting)
        columns |= {f"uncertainty.{name}": value.tolist() for name, value in spread.items()}
        for i, key in enumerate(scores.keys):
            whose = {"task": scores.task, "data": scores.source, "protocol": scores.protocol}
            values = {name: column[i] for name, column in columns.items()}
            found.append(whose | {"key": key, "nfe": setting[0], "members": setting[1]} | values)
    return found


def finite(value: Any) -> Any:
    """`value` with None for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _intervals(rows: Rows, rule: Protocol, metrics: dict[str, float]) -> dict[str, list[float]]:
    """The intervals of those metrics that have one: a single image has none."""
    found = {name: interval(rows, name, rule) for name in metrics if name != "n_images"}
    return {name: [one.lo, one.hi] for name, one in found.items() if math.isfinite(one.lo)}
