"""Predictions in the containers of users and benchmarks: the same values from each."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
from PIL import Image
from scipy.io import savemat
from writers import write_dpt, write_ids

from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.predictions.reading import decoded, read_prediction
from stepsight.evaluation.predictions.segments import listed_segments

DRAW = np.random.default_rng(0)
DEPTH = (1 + DRAW.random((6, 8))).astype(np.float32)
FLOW = DRAW.normal(size=(6, 8, 2)).astype(np.float32)
MASK = np.zeros((6, 8), np.uint8)
MASK[2:5, 3:7] = 1


def exr(path: Path, planes: dict[str, np.ndarray]) -> None:
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, planes) as file:
        file.write(str(path))


def hdf5(path: Path, **arrays: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def test_depth_from_every_container(tmp_path):
    np.savez(tmp_path / "a.npz", depth=DEPTH)
    savemat(tmp_path / "a.mat", {"depth": DEPTH})
    hdf5(tmp_path / "a.h5", depth=DEPTH)
    tifffile.imwrite(tmp_path / "a.tiff", DEPTH)
    exr(tmp_path / "a.exr", {"Y": DEPTH})
    write_dpt(tmp_path / "a.dpt", torch.from_numpy(DEPTH)[None])
    for suffix in ("npz", "mat", "h5", "tiff", "exr", "dpt"):
        found = read_prediction(tmp_path / f"a.{suffix}", "depth")
        assert found.shape == (1, 1, 6, 8) and np.array_equal(found[0, 0], DEPTH), suffix


def test_whole_numbers_are_divided_in_every_container(tmp_path):
    stored = (DEPTH * 5000).astype(np.uint16)
    np.savez(tmp_path / "a.npz", depth=stored)
    tifffile.imwrite(tmp_path / "a.tiff", stored)
    Image.fromarray(stored).save(tmp_path / "a.png")
    for suffix in ("npz", "tiff", "png"):
        found = read_prediction(tmp_path / f"a.{suffix}", "depth", scale=5000)
        np.testing.assert_allclose(found[0, 0], stored / 5000, rtol=1e-6)


def test_flow_from_arrays(tmp_path):
    hdf5(tmp_path / "a.flo5", flow=FLOW)
    np.savez(tmp_path / "a.npz", flow=FLOW)
    exr(tmp_path / "a.exr", {"u": FLOW[..., 0].copy(), "v": FLOW[..., 1].copy()})
    for suffix in ("flo5", "npz", "exr"):
        found = read_prediction(tmp_path / f"a.{suffix}", "flow")
        assert np.array_equal(found[0].permute(1, 2, 0), FLOW), suffix
    hdf5(tmp_path / "b.flo5", flow=np.where(FLOW > 2, np.nan, FLOW))
    with pytest.raises(DataFormatError, match=r"b.flo5: \d+ values are marked as unknown"):
        read_prediction(tmp_path / "b.flo5", "flow")


def test_masks_of_two_values_and_grey_probabilities(tmp_path):
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(MASK).save(tmp_path / "01.png")
    Image.fromarray(255 * MASK).save(tmp_path / "255.png")
    Image.fromarray(255 * MASK).convert("1").save(tmp_path / "1bit.png")
    np.save(tmp_path / "01.npy", MASK)
    np.savez(tmp_path / "01.npz", MASK)
    for name in ("palette.png", "01.png", "255.png", "1bit.png", "01.npy", "01.npz"):
        found = read_prediction(tmp_path / name, "amodal")
        assert np.array_equal(found[0, 0], MASK), name
    grey = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_allclose(read_prediction(tmp_path / "grey.png", "amodal")[0, 0], grey / 255)


def test_class_ids_by_their_codes(tmp_path):
    stored = DRAW.integers(1, 151, (6, 8))
    Image.fromarray(stored.astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(stored.astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("a.png", "wide.png"):
        assert np.array_equal(read_prediction(tmp_path / name, "semantic")[0, 0], stored)
        found = read_prediction(tmp_path / name, "semantic", codes="1..")
        assert np.array_equal(found[0, 0], stored - 1)
    ids = torch.tensor([7, 8, 26, 33, 0, 255])
    assert decoded(ids, "cityscapes").tolist() == [0, 1, 13, 18, -1, -1]


def results(path: Path, *segments: tuple[int, int]) -> None:
    info = [{"id": number, "category_id": category} for number, category in segments]
    record = {"image_id": 7, "file_name": "a.png", "segments_info": info}
    path.write_text(json.dumps({"annotations": [record]}))


COCO: Any = SimpleNamespace(name="coco_panoptic", places={1: 0, 17: 1, 200: 2}, things={1, 17})


def test_cocos_panoptic_files(tmp_path):
    ids = torch.tensor([[[1, 1, 900001], [2, 2, 0]]])
    write_ids(tmp_path / "a.png", ids)
    (tmp_path / "manifest.json").write_text("{}")
    results(tmp_path / "panoptic.json", (1, 17), (2, 17), (900001, 200))
    segments = listed_segments(tmp_path, COCO)["a.png"]
    assert segments == {1: (1, 1), 2: (1, 2), 900001: (2, 0)}
    found = read_prediction(tmp_path / "a.png", "panoptic", segments=segments)
    assert found[0].tolist() == [[[1, 1, 2], [1, 1, 255]], [[1, 1, 0], [2, 2, 0]]]
    results(tmp_path / "panoptic.json", (1, 17))
    with pytest.raises(DataFormatError, match="holds the segment 2, which its JSON lacks"):
        segments = listed_segments(tmp_path, COCO)["a.png"]
        read_prediction(tmp_path / "a.png", "panoptic", segments=segments)


def test_segments_of_unknown_categories_are_refused(tmp_path):
    assert listed_segments(tmp_path, COCO) == {}
    results(tmp_path / "panoptic.json", (1, 99))
    with pytest.raises(DataFormatError, match="category 99 is none"):
        listed_segments(tmp_path, COCO)
    with pytest.raises(UserError, match="which scenes does not have"):
        listed_segments(tmp_path, SimpleNamespace(name="scenes"))  # type: ignore[arg-type]
