"""The scatter of seeds: known noise is found, and places of a single run tell nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stepsight.scaling.ladders.noise import scatter
from stepsight.scaling.records import ScalingRecord

Record = Callable[..., ScalingRecord]


def runs(record: Record, places: int, seeds: int, noise: float) -> list[ScalingRecord]:
    draw = np.random.default_rng(0)
    return [
        record(
            metric="fl_all",
            lower_is_better=False,
            run=f"{place}-{seed}",
            seed=seed,
            images_seen=64 * (place + 1),
            value=1 - 0.5 / (place + 1) * np.exp(noise * draw.standard_normal()),
        )
        for place in range(places)
        for seed in range(seeds)
    ]


def test_the_noise_of_seeds_is_found_whatever_the_places_are(record):
    (found,) = scatter(runs(record, 200, 2, 0.03)).values()
    assert found.deviation == pytest.approx(0.03, rel=0.15)
    assert (found.places, found.runs) == (200, 400)


def test_places_of_one_seed_say_nothing(record):
    assert scatter(runs(record, 5, 1, 0.03)) == {}
    mixed = runs(record, 5, 1, 0.03)
    mixed.append(replace(mixed[0], run="again", seed=1, value=mixed[0].value))
    (found,) = scatter(mixed).values()
    assert (found.deviation, found.places, found.runs) == (0, 1, 2)
