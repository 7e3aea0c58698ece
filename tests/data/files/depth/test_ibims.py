"""iBims-1, written here as MATLAB writes it, by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from stepsight.data.readers.config import IbimsSettings
from stepsight.data.readers.depth.ibims import Ibims
from stepsight.errors import DataFormatError, UserError

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
DEPTH = np.linspace(0.5, 40, 20).reshape(4, 5)
ONES = np.ones((4, 5), np.uint8)


def write(root, name="lab_01", compressed=True, **changes):
    masks = {"mask_invalid": ONES.copy(), "mask_transp": ONES.astype(bool)}
    frame = {"rgb": RGB, "depth": DEPTH, "calib": {"K": np.eye(3)}, **masks, **changes}
    frame = {key: value for key, value in frame.items() if value is not None}
    savemat(root / f"{name}.mat", {"data": frame}, do_compression=compressed)
    return root


def open_at(root, split="all", quantities=None):
    return Ibims(IbimsSettings(root=str(root)), split, quantities)


@pytest.mark.parametrize("compressed", [True, False])
def test_both_masks_count(tmp_path, compressed):
    invalid, transparent, depth = ONES.copy(), ONES.copy(), DEPTH.copy()
    invalid[0, 1] = transparent[2, 3] = depth[3, 0] = 0
    changes = {"mask_invalid": invalid, "mask_transp": transparent, "depth": depth}
    (sample,) = open_at(write(tmp_path, compressed=compressed, **changes))
    valid = np.ones((4, 5), bool)
    valid[0, 1] = valid[2, 3] = valid[3, 0] = False
    assert sample.key == "lab_01" and np.array_equal(sample.image.permute(1, 2, 0), RGB)
    assert np.array_equal(sample.depth_valid[0], valid)
    assert np.array_equal(sample.depth[0], np.where(valid, DEPTH, 0).astype(np.float32))
    assert open_at(tmp_path, quantities=frozenset())[0].depth is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mask_transp": None}, "needs data.mask_transp"),
        ({"depth": DEPTH[:3]}, r"needs data.depth, .* it has one of shape \(3, 5\)"),
        ({"mask_invalid": 0 * ONES}, "no valid depth"),
        ({"rgb": RGB.astype(float)}, "its rgb is float64"),
    ],
)
def test_malformed(tmp_path, changes, reason):
    with pytest.raises(DataFormatError, match=f"lab_01.mat: .*{reason}"):
        open_at(write(tmp_path, **changes))[0]


def test_another_layout_is_named(tmp_path):
    (tmp_path / "rgb").mkdir()
    with pytest.raises(UserError, match="ibims: found 0"):
        open_at(tmp_path)
    inside = tmp_path / "ibims1_core_mat"
    inside.mkdir()
    write(inside)
    with pytest.raises(UserError, match="did you mean .*ibims1_core_mat"):
        open_at(tmp_path)
