"""Predictions of other programs: found by name, read in every container, refused where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from writers import write_flo, write_ids, write_kitti_flow, write_pfm

from stepsight.data.decoding.images import write_png16
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.predictions.files import find_files
from stepsight.evaluation.predictions.reading import read_prediction

DRAW = np.random.default_rng(0)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "key, file",
    [
        ("val/ai_1/rgb_cam_00_fr0000", "val/ai_1/rgb_cam_00_fr0000.npy"),
        ("val/ai_1/rgb_cam_00_fr0000", "ai_1/pred_cam_00_fr0000.npy"),  # Marigold, Hypersim
        ("test/kitchen_0004/rgb_0001", "kitchen_0004/pred_0001.npy"),  # and NYU
        ("drive/image_02/0000000005", "pred_0000000005.npy"),  # and the rest
        ("00006", "00006.flo"),
        ("a/b.c", "b.c.pfm"),
    ],
)
def test_the_file_of_a_key(tmp_path, key, file):
    folder = touch(tmp_path, file, "other.npy", "depth/x.png")
    assert find_files(folder, [key, "absent"]) == {key: folder / file}


def test_a_pattern_says_where_files_are(tmp_path):
    folder = touch(tmp_path, "out/a/b_disp.npy", "b.npy")
    assert find_files(folder, ["a/b"], "out/{key}_disp.npy") == {"a/b": folder / "out/a/b_disp.npy"}
    assert find_files(folder, ["a/b"], "{name}.npy") == {"a/b": folder / "b.npy"}


def test_a_file_that_two_keys_lead_to_is_refused(tmp_path):
    touch(tmp_path, "rgb_0.npy")
    with pytest.raises(UserError, match=r"rgb_0.npy fits both a/rgb_0 and b/rgb_0"):
        find_files(tmp_path, ["a/rgb_0", "b/rgb_0"])
    with pytest.raises(UserError, match="no such folder"):
        find_files(tmp_path / "nowhere", ["a"])


# ---------------------------------------------------------------------------- containers


@pytest.mark.parametrize("shape", [(3, 5), (1, 3, 5), (3, 5, 1), (1, 1, 3, 5)])
def test_depth_arrays_of_any_layout(tmp_path, shape):
    depth = DRAW.random((3, 5)).astype(np.float64)
    np.save(tmp_path / "a.npy", depth.reshape(shape))
    found = read_prediction(tmp_path / "a.npy", "depth")
    assert found.dtype == torch.float32 and found.shape == (1, 1, 3, 5)
    np.testing.assert_allclose(found[0, 0], depth, rtol=1e-7)


def test_flow_from_every_container(tmp_path):
    flow = torch.from_numpy(DRAW.integers(-64, 64, (2, 3, 5)) / 64).float()
    np.save(tmp_path / "first.npy", flow.numpy())
    np.save(tmp_path / "last.npy", flow.permute(1, 2, 0).numpy())
    write_flo(tmp_path / "a.flo", flow)
    write_pfm(tmp_path / "a.pfm", torch.cat([flow, torch.zeros_like(flow[:1])]))
    write_kitti_flow(tmp_path / "a.png", flow, torch.ones_like(flow[:1], dtype=torch.bool))
    for name in ("first.npy", "last.npy", "a.flo", "a.pfm", "a.png"):
        assert torch.equal(read_prediction(tmp_path / name, "flow")[0], flow), name


def test_depth_and_ids_from_pictures(tmp_path):
    stored = torch.from_numpy(DRAW.integers(1, 60000, (1, 3, 5))).to(torch.uint16)
    write_png16(tmp_path / "d.png", stored)
    found = read_prediction(tmp_path / "d.png", "depth", scale=256)
    torch.testing.assert_close(found[0], stored.float() / 256)
    np.save(tmp_path / "d.npy", stored.numpy())
    assert torch.equal(read_prediction(tmp_path / "d.npy", "depth", scale=256), found)
    classes, numbers = (torch.from_numpy(DRAW.integers(0, 80, (1, 3, 5))) for _ in "ci")
    write_ids(tmp_path / "p.png", 1000 * classes + numbers)
    found = read_prediction(tmp_path / "p.png", "panoptic")
    assert torch.equal(found[0], torch.cat([classes, numbers]))


def bad_nan(folder: Path) -> tuple[Path, str]:
    np.save(folder / "bad.npy", np.array([[1.0, np.nan]]))
    return folder / "bad.npy", "depth"


def bad_unknown(folder: Path) -> tuple[Path, str]:
    write_kitti_flow(folder / "bad.png", torch.zeros(2, 3, 5), torch.zeros(1, 3, 5) > 0)
    return folder / "bad.png", "flow"


def bad_fraction(folder: Path) -> tuple[Path, str]:
    np.save(folder / "bad.npy", np.array([[1.0, 0.5]]))
    return folder / "bad.npy", "semantic"


def bad_channels(folder: Path) -> tuple[Path, str]:
    np.save(folder / "bad.npy", np.zeros((4, 5, 6)))
    return folder / "bad.npy", "flow"


def bad_grey(folder: Path) -> tuple[Path, str]:
    write_pfm(folder / "bad.pfm", torch.zeros(1, 3, 5))
    return folder / "bad.pfm", "flow"


def bad_colour(folder: Path) -> tuple[Path, str]:
    write_pfm(folder / "bad.pfm", torch.zeros(3, 3, 5))
    return folder / "bad.pfm", "depth"


def bad_container(folder: Path) -> tuple[Path, str]:
    write_flo(folder / "bad.flo", torch.zeros(2, 3, 5))
    return folder / "bad.flo", "depth"


@pytest.mark.parametrize(
    "make, said",
    [
        (bad_nan, "1 values are NaN or infinite"),
        (bad_unknown, "15 values are marked as unknown"),
        (bad_fraction, "whole numbers"),
        (bad_channels, "an array 4 x 5 x 6 is no flow, which has 2 channels"),
        (bad_grey, "1 channels, where flow has 2"),
        (bad_colour, "3 channels, where depth has 1"),
        (bad_container, "no prediction of depth is read from .flo"),
    ],
)
def test_files_that_cannot_be_scored_are_refused_by_name(tmp_path, make, said):
    path, task = make(tmp_path)
    with pytest.raises(DataFormatError, match=said) as error:
        read_prediction(path, task)
    assert str(path) in str(error.value)
