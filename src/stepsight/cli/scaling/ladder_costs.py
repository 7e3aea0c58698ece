"""What the runs of a ladder cost, by settings alone, and beside the runs that it forecasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from stepsight import config as configuration
from stepsight.scaling.ladders.ladder import RATES, Rung, images_of, own_images

ROW = "{:<52}{:>12}{:>12}{:>10}{:>8}"
PETA = 1e15
PRICELESS = ("images", "keep_at", "seed", *RATES)  # of training: what an image's cost is not of


def table(rungs: Sequence[Rung], held_out: Sequence[Rung]) -> list[str]:
    """A line for each rung, with the images that it trains on itself, and the totals.

    rungs: all that come before the runs that are held out, short ones to tune rates included.
    """
    lines = [ROW.format("rung", "parameters", "images", "PFLOP", "factor")]
    for rung in (*rungs, *held_out):
        cells = f"{described(rung)['params_total']:,}", f"{own_images(rung):,}"
        cost = f"{flops([rung]) / PETA:.3g}"
        lines.append(ROW.format(rung.name, *cells, cost, f"{rung.factor:g}"))
    every = (*rungs, *held_out)
    apart = sum(images_of(rung.config) * _an_image(rung) for rung in every)
    saved = f" ({apart / PETA:.4g} without branches)" if apart > flops(every) else ""
    total = f"{len(every)} runs, {flops(every) / PETA:.4g} PFLOP{saved}"
    return [*lines, f"{total}, learning rates before tuning", *share(rungs, held_out)]


def share(rungs: Sequence[Rung], held_out: Sequence[Rung]) -> list[str]:
    """What the rungs cost of the training of the runs that are held out, as a sentence; [] where
    there are none."""
    if not held_out:
        return []
    ladder, target = flops(rungs), flops(held_out)
    return [
        f"the ladder: {ladder / PETA:.4g} PFLOP of training, tuning included: "
        f"{ladder / target:.2%} of the {target / PETA:.4g} that are held out"
    ]


def spent(status: Mapping[str, Mapping[str, Any]], rungs: Iterable[Rung]) -> float:
    """Core-seconds that rungs took, evaluation included; status: rows of ladder.json."""
    return sum(status.get(rung.name, {}).get("core_seconds", 0.0) for rung in rungs)


def flops(rungs: Iterable[Rung]) -> float:
    """Of training, without what a branch takes over from its trunk."""
    return sum(own_images(rung) * _an_image(rung) for rung in rungs if rung.experts is None)


def described(rung: Rung) -> dict[str, Any]:
    """What is known of a rung before it runs."""
    training = rung.config.get("training") or {}
    telling = {key: value for key, value in training.items() if key not in PRICELESS}
    return _described(yaml.safe_dump(rung.config | {"training": telling}))


@cache
def _described(text: str) -> dict[str, Any]:
    from stepsight.training.planning.dry_run import describe

    return describe(configuration.from_dict(yaml.safe_load(text)))


def _an_image(rung: Rung) -> float:
    return described(rung)["flops_train_per_image"]
