"""Trees of real files, where they are there: what a user expects of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stepsight.data.looking.look import look
from stepsight.errors import UserError

SAMPLES = Path(
    os.environ.get("STEPSIGHT_SAMPLES", Path(__file__).parents[3] / "shared" / "samples")
)
pytestmark = pytest.mark.skipif(not (SAMPLES / "zoo").is_dir(), reason="no real files")
UNITS = {
    "zoo/exr": "m",
    "zoo/half_missing": "mm",
    "zoo/lowres_depth": "mm",
    "zoo/npz": "m",
    "zoo/one_folder": "mm",
    "zoo/png_kitti256": "1/256",
    "zoo/png_tum5000": "1/5000",
    "zoo/raw65535": "mm",
    "kitti": "1/256",
    "nyu": "mm",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNITS)
def test_the_unit_of_depth(name):
    found = look(SAMPLES / name)
    truth = found.truth["depth"]
    assert truth.encoding == {"unit": UNITS[name]} and truth.evidence
    halved = ["2 of 4 pictures have depth."] if name == "zoo/half_missing" else []
    assert found.problems == halved
    assert found.options.get("invalid", []) == ([65535.0] if name == "zoo/raw65535" else [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantity", "samples"),
    [
        ("zoo/exif180", "labels", 4),
        ("zoo/mask_01", "amodal", 4),
        ("zoo/mask_palette", "amodal", 4),
        ("zoo/seg_coco_json", "labels", 3),
        ("zoo/seg_labelme", "labels", 3),
        ("FlyingChairs", "flow", 3),
        ("kitti_flow", "flow", 1),
        ("ade20k", "labels", 2),
        ("pix2gestalt", "amodal", 6),
    ],
)
def test_other_truth(name, quantity, samples):
    found = look(SAMPLES / name)
    assert [*found.truth] == [quantity] and len(found.samples) == samples
    assert not found.problems


@pytest.mark.parametrize("name", ["zoo/masks", "cocoa", "hypersim_raw", "coco_panoptic"])
def test_what_is_no_tree_of_samples(name):
    with pytest.raises(UserError, match=name):
        look(SAMPLES / name)
