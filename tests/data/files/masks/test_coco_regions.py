"""Regions against pycocotools, whose rule they must follow, and against damage, which it trusts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from stepsight.data.decoding.outlines.regions import is_empty, read_region
from stepsight.errors import DataFormatError, UserError

coco = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # its decoder's


def packed(mask: np.ndarray) -> dict:
    record = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": record["counts"].decode()}


def listed(mask: np.ndarray) -> dict:
    """Run lengths counted pixel by pixel, down the columns."""
    runs, inside = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != inside:
            runs.append(0)
            inside = pixel
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


@pytest.mark.parametrize("seed", range(60))
def test_run_lengths_of_random_masks(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 70, 2).tolist()
    coarse = rng.random((height, width)) < rng.random()
    block = int(rng.integers(1, 9))  # long runs as well as short ones
    mask = np.kron(coarse, np.ones((block, block), bool))
    for record in (packed(mask), listed(mask)):
        found = read_region(record, *mask.shape, "here")
        assert found.dtype == torch.bool and found.shape == (1, *mask.shape)
        assert (found[0].numpy() == mask).all()
        assert is_empty(record, *mask.shape) == (not mask.any())


@pytest.mark.parametrize("fill", [False, True])
def test_nothing_and_everything(fill):
    mask = np.full((300, 200), fill)
    for record in (packed(mask), listed(mask)):
        assert read_region(record, 300, 200, "").all().item() == fill
        assert is_empty(record, 300, 200) == (not fill)


def test_polygon_of_known_pixels():
    """Pixels whose centres lie inside: columns 2 to 4 and rows 1 to 3."""
    expected = torch.zeros(1, 6, 8, dtype=torch.bool)
    expected[:, 1:4, 2:5] = True
    square = [2, 1, 5, 1, 5, 4, 2, 4]
    assert read_region(square, 6, 8, "").equal(expected)
    other = [6.0, 4.0, 8.0, 4.0, 8.0, 6.0, 6.0, 6.0]
    expected[:, 4:, 6:] = True
    assert read_region([square, other], 6, 8, "").equal(expected)  # united


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_drawn_as_the_data_sets_were(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(8, 60, 2).tolist()
    polygon = (rng.random(2 * int(rng.integers(3, 12))) * 1.4 * width - 0.2 * width).tolist()
    drawn = coco.decode(coco.merge(coco.frPyObjects([polygon], height, width)))
    assert (read_region(polygon, height, width, "")[0].numpy() == drawn).all()
    assert is_empty(polygon, height, width) == (not drawn.any())


def test_a_polygon_outside_is_empty():
    assert is_empty([-5, -5, -1, -5, -1, -1], 8, 8)
    assert not is_empty([1, 1, 6, 1, 6, 6], 8, 8)


DAMAGED = {
    "nothing": ([], "at least three corners"),
    "null": (None, "at least three corners"),
    "two corners": ([1, 1, 5, 5], "at least three corners"),
    "odd": ([1, 1, 5, 1, 5, 5, 7], "at least three corners"),
    "one bad of two": ([[1, 1, 5, 1, 5, 5], "x"], "at least three corners"),
    "NaN": ([1, 1, 5, 1, float("nan"), 5], "not a number within 32 pixels"),
    "infinite": ([1, 1, 5, 1, float("inf"), 5], "not a number within"),
    "huge": ([1, 1, 5, 1, 1e9, 5], "not a number within"),
    "beyond floats": ([1, 1, 5, 1, 10**400, 5], "not a number within"),
    "text": ([1, 1, 5, 1, "5", 5], "not a number within"),
    "endless": ([0, 0, 30, 30] * 40000, "longer than 1048576 pixels"),
    "no counts": ({"size": [8, 8]}, "neither a text nor whole numbers"),
    "no size": ({"counts": [64]}, "size None on 8 x 8"),
    "other size": ({"size": [8, 9], "counts": [72]}, r"size \[8, 9\] on 8 x 8"),
    "negative": ({"size": [8, 8], "counts": [-1, 65]}, "whole numbers from 0 on"),
    "fraction": ({"size": [8, 8], "counts": [64.0]}, "whole numbers from 0 on"),
    "truth": ({"size": [8, 8], "counts": [True, 63]}, "whole numbers from 0 on"),
    "short": ({"size": [8, 8], "counts": [10, 3]}, "cover 13 of 64 pixels"),
    "long": ({"size": [8, 8], "counts": [10**12]}, "cover 1000000000000 of 64"),
    "foreign": ({"size": [8, 8], "counts": "é"}, "damaged at 'é'"),
    "too long a number": ({"size": [8, 8], "counts": "o" * 40}, "damaged at 'o'"),
    "cut": ({"size": [8, 8], "counts": "P"}, "cut off"),
    "packed short": ({"size": [8, 8], "counts": "8"}, "cover 8 of 64"),
    "packed too long a run": ({"size": [8, 8], "counts": "oo7"}, "a run of 8191 pixels"),
    "packed negative": ({"size": [8, 8], "counts": "O"}, "a run of -1 pixels"),
}


@pytest.mark.parametrize(("region", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_regions(region, reason):
    with pytest.raises(DataFormatError, match=f"^a.json, region 3: .*{reason}"):
        read_region(region, 8, 8, "a.json, region 3")
    assert not is_empty(region, 8, 8)


@pytest.mark.parametrize("seed", range(40))
def test_scrambled_packed_counts_never_crash(seed):
    rng = np.random.default_rng(seed)
    record = packed(rng.random((20, 30)) < 0.3)
    text = list(record["counts"])
    for place in rng.integers(0, len(text), 3):
        text[place] = chr(int(rng.integers(32, 127)))
    try:
        mask = read_region(record | {"counts": "".join(text)}, 20, 30, "f")
    except DataFormatError as error:
        assert str(error).startswith("f: ")
    else:
        assert mask.shape == (1, 20, 30)


def test_polygons_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)  # as if it could not be imported
    with pytest.raises(UserError, match="uv sync --extra data"):
        read_region([1, 1, 5, 1, 5, 5], 8, 8, "")
    assert read_region({"size": [2, 2], "counts": [1, 3]}, 2, 2, "").sum() == 3
