"""On real samples of published sets no rule speaks but where a fault is planted."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import stepsight.data
from stepsight.data.plausible.judging import remarks, summary, votes
from stepsight.data.table import Source
from stepsight.types import Sample

SAMPLES = Path(
    os.environ.get("STEPSIGHT_SAMPLES", Path(__file__).parents[4] / "shared" / "samples")
)
SETS = {
    "hypersim": "hypersim",
    "flyingchairs": "FlyingChairs",
    "ade20k": "ade20k",
    "coco_panoptic": "coco_panoptic",
    "cocoa": "cocoa",
    "pix2gestalt": "pix2gestalt",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real samples are not here"),
]


def opened(name: str) -> Source:
    return stepsight.data.open(name, str(SAMPLES / SETS[name]))


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_said_of_real_samples(name):
    source = opened(name)
    samples = [source[index] for index in range(min(len(source), 8))]
    assert [str(one) for sample in samples for one in remarks(sample, source)] == []
    assert summary(one for sample in samples for one in votes(sample, source)) == []


def mirrored(sample: Sample) -> Sample:
    names = ("depth", "depth_valid", "labels", "modal", "amodal")
    held = {name: getattr(sample, name) for name in names}
    return replace(sample, **{k: x.flip(-1) for k, x in held.items() if x is not None})


@pytest.mark.parametrize(
    ("name", "plant", "rule"),
    [
        ("hypersim", mirrored, ("depth", "turned")),
        ("ade20k", mirrored, ("labels", "turned")),
        ("pix2gestalt", mirrored, ("amodal", "turned")),
        (
            "hypersim",
            lambda s: replace(s, depth=1 / s.depth.clamp(min=0.01)),
            ("depth", "inverted"),
        ),
        ("hypersim", lambda s: replace(s, depth=s.depth.roll(1, -1)), ("depth", "shifted")),
        ("flyingchairs", lambda s: replace(s, flow=s.flow.flip(0)), ("flow", "misread")),
    ],
)
def test_what_is_planted_in_real_samples_is_said(name, plant, rule):
    source = opened(name)
    planted = [plant(source[index]) for index in range(min(len(source), 4))]
    found = summary(one for sample in planted for one in votes(sample, source))
    assert rule in {(one.quantity, one.rule) for one in found}
