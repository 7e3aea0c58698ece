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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepsight.evaluation.evaluator import Scores
from stepsight.evaluation.predictors import Provenance
from stepsight.evaluation.statistics import counts, interval, measured, per_image, ratio
from stepsight.measures import main_metric
from stepsight.metrics import protocol as protocols
from stepsight.metrics.masked import Rows
from stepsight.metrics.protocol import Protocol
from stepsight.metrics.reduce import reduce
from stepsight.report.calibration import calibration_verdict
from stepsight.results import Ratio, Result
from stepsight.scaling.intervals import mean_interval
from stepsight.scaling.plain import plain
from stepsight.scaling.sampling.paired import Setting

NAMED = 3  # images that a label names


def metrics_of(rows: Rows, protocol: str) -> dict[str, float]:
    """Metrics of a set under the protocol's averaging."""
    return reduce(rows, protocols.get(protocol))


def result(scores: Scores, setting: Setting, provenance: Provenance) -> Result:
    """The scores of one setting, with intervals and ratios."""
    rows, protocol = scores.settings[setting], protocols.get(scores.protocol)
    metrics = metrics_of(rows, protocol.name)
    main = main_metric(scores.task, metrics, protocol.metrics)
    expected, label = completeness(protocol, scores.source, len(scores.keys), provenance)
    said = (label, _failures(scores.failed), _unfit(scores), _unscored(scores.keys, rows, protocol))
    label = "; ".join(filter(None, said)) or None
    baselines, stated = scores.baselines.items(), uncertainties(scores, setting).items()
    intervals = {name: interval(rows, name, protocol) for name in metrics if name != "n_images"}
    ratios = {name: ratio(rows, base, main, protocol) for name, base in baselines if main}
    return Result(
        task=scores.task,
        data=scores.source,
        split=provenance.split,
        options=dict(provenance.options),
        protocol=provenance.profile.mark(protocol.id),
        protocol_text=protocol.description,
        protocol_source=protocol.source,
        sampler=provenance.sampler,
        nfe=setting[0],
        members=setting[1],
        temperature=provenance.temperature,
        views=provenance.views,
        n=len(scores.keys),
        expected=expected,
        size=scores.working,
        checkpoint=provenance.checkpoint,
        label=label,
        metric=main,
        metrics=metrics,  # of which a single image has no interval:
        intervals={name: (x.lo, x.hi) for name, x in intervals.items() if math.isfinite(x.lo)},
        uncertainty={name: mean_interval(value.numpy()).value for name, value in stated},
        calibration=_calibration(scores, setting, provenance),
        baselines={name: metrics_of(base, protocol.name) for name, base in baselines},
        ratios={name: Ratio(x.value, x.lo, x.hi, main or "") for name, x in ratios.items()},
        ceiling=metrics_of(scores.ceiling, protocol.name) if scores.ceiling else None,
        seconds_per_image=scores.seconds[setting],
        skipped=tuple(scores.skipped),
    )


def _unfit(scores: Scores) -> str:
    """What to say beside scores of images that were not seen at the size of the protocol."""
    if not scores.unfit:
        return ""
    return f"{scores.unfit} of {len(scores.keys)} images not at the size that the protocol asks for"


def _unscored(keys: Sequence[str], rows: Rows, protocol: Protocol) -> str:
    """What to say of images without enough truth for the protocol's fit."""
    if protocol.alignment == "none":
        return ""
    left = [key for key, n in zip(keys, rows["n"].tolist()) if not n]
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    why = f"too few valid pixels for the fit in {', '.join(left[:NAMED])}{more}"
    return f"{why}: left out ({len(left)} of {len(keys)})" if left else ""


def _failures(keys: Sequence[str]) -> str:
    """What to say beside scores of a model whose answers for these images are no numbers."""
    if not keys:
        return ""
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"answers that are no numbers for {', '.join(keys[:NAMED])}{more}: each counts as wrong"


def uncertainties(scores: Scores, setting: Setting) -> Rows:
    """The scores "b" of the uncertainty at a setting; without the sums behind a diagram."""
    rows = scores.uncertainty.get(setting, {})
    return {name: value for name, value in rows.items() if value.ndim == 1}


def _calibration(scores: Scores, setting: Setting, provenance: Provenance) -> dict[str, Any] | None:
    """Whether the uncertainty at a setting is to be believed, in a word and a sentence, beside the
    record that its intervals were scaled by; None where it states neither intervals nor
    probabilities."""
    rows = scores.uncertainty.get(setting, {})
    verdict = calibration_verdict(rows)
    record = dict(provenance.calibration) if "coverage_90" in rows else {}
    return verdict and {"scale": None} | record | verdict._asdict()


def completeness(
    protocol: Protocol, source: str, n: int, provenance: Provenance
) -> tuple[int | None, str | None]:
    """The images that the whole split has, and what has to be said of the `n` that were scored."""
    notes = [provenance.label] if provenance.label else []
    expected, split, data = provenance.published, provenance.split, protocol.data
    if data is not None and not (source == data or source.startswith(f"{data}_")):
        notes.append(f"not the data of this protocol ({data})")
    elif data is not None and split and protocol.split and split != protocol.split:
        notes.append(f"split {split}, not this protocol's {protocol.split}")
    elif data is not None:
        expected = protocol.count or expected
    if provenance.available is not None and n < provenance.available:
        expected = max(expected or 0, provenance.available)
    if expected is not None and n < expected:
        notes.append(f"partial: {n} of {expected}")
    elif expected is not None and n > expected:
        notes.append(f"not the split of this protocol: {n} images, not {expected}")
    return expected, "; ".join(notes) or None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all; numbers that are not finite become null."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")  # processes may write the same file
    staged.write_text(json.dumps(plain(value), indent=2) + "\n")
    os.replace(staged, path)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV with the columns of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def sample_rows(scores: Scores) -> list[dict[str, Any]]:
    """One CSV row per image and setting, with the counts that pooled metrics are made of."""
    table, protocol = [], protocols.get(scores.protocol)
    for (nfe, members), rows in scores.settings.items():
        columns = {name: per_image(rows, name).tolist() for name in measured(rows)}
        columns |= {name: column.tolist() for name, column in counts(rows, protocol).items()}
        stated = uncertainties(scores, (nfe, members))
        columns |= {f"uncertainty.{name}": value.tolist() for name, value in stated.items()}
        for i, key in enumerate(scores.keys):
            whose = {"task": scores.task, "data": scores.source, "protocol": scores.protocol}
            values = {name: column[i] for name, column in columns.items()}
            table.append(whose | {"key": key, "nfe": nfe, "members": members} | values)
    return table
