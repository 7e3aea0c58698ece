"""What is left of the start in an average of weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from stepsight.averages import HEAVY, decay_at, start_share

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.5, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("updates", [0, 1, 5, 50, 9000])
def test_the_share_is_the_product_of_the_decays(decay, updates):
    expected = math.prod(decay_at(decay, n) for n in range(updates))
    assert start_share(decay, updates) == pytest.approx(expected, rel=1e-9)
    assert start_share(decay, updates, warmup=False) == pytest.approx(decay**updates)


def test_a_constant_decay_keeps_the_start_where_a_warm_one_does_not():
    assert start_share(0.9999, 9000, warmup=False) == pytest.approx(0.4066, abs=1e-4)
    assert start_share(0.99, 20, warmup=False) == pytest.approx(0.818, abs=1e-3)
    assert start_share(0.9999, 9000) < 1e-20 and start_share(0.99, 20) < 1e-6


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_run_is_scored_with_the_weights_it_began_with(path):
    training = (yaml.safe_load(path.read_text()) or {}).get("training", {})
    updates = int(training.get("images", 10_000)) // int(training.get("batch", 16))
    assert start_share(float(training.get("ema", 0.99)), updates) < HEAVY
