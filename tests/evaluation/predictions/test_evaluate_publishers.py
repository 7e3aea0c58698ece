"""`evaluate --predictions` under protocols that ask for other truth, or pool what means do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.cli import evaluate
from stepsight.data.decoding.images import write_image, write_png16

SIZE = (24, 32)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Two pictures with depth, normals, and the mask of an object nearer than the rest."""
    root, draw = tmp_path / "pictures", np.random.default_rng(0)
    for kind in ("images", "depth", "normals", "modal", "amodal"):
        (root / kind).mkdir(parents=True)
    for name in ("a", "b"):
        near = np.zeros(SIZE, dtype=bool)
        near[6:18, 8:20] = True
        depth = np.where(near, 2000, 4000) + draw.integers(0, 20, SIZE)
        picture = torch.from_numpy(draw.integers(0, 256, (3, *SIZE))).to(torch.uint8)
        write_image(root / f"images/{name}.png", picture)
        write_png16(root / f"depth/{name}.png", torch.from_numpy(depth)[None].to(torch.uint16))
        np.save(root / f"normals/{name}.npy", np.tile([0.0, 0.0, -1.0], (*SIZE, 1)))
        for kind in ("modal", "amodal"):
            Image.fromarray(near.astype(np.uint8) * 255).save(root / f"{kind}/{name}.png")
        for task, values in (("depth", depth / 500.0), ("normals", normals_of(name))):
            (tmp_path / task).mkdir(exist_ok=True)
            np.save(tmp_path / f"{task}/{name}.npy", values.astype(np.float32))
    return root


def normals_of(name: str) -> np.ndarray:
    """Turned away by 10 degrees in a; in b by 40."""
    angle = np.deg2rad({"a": 10.0, "b": 40.0}[name])
    return np.tile([[[np.sin(angle)]], [[0.0]], [[-np.cos(angle)]]], SIZE)


def scored(pictures: Path, task: str, *protocols: str) -> dict[str, dict[str, float]]:
    """Metrics by protocol."""
    rules = [word for name in protocols for word in ("--protocol", name)]
    out = pictures.parent / "out"
    data = ["--data.name", "folder", "--data.root", pictures, "--data.split", "all"]
    flags = ["--predictions", pictures.parent / task, *data, "--task", task, *rules, "--out", out]
    assert evaluate.main([str(one) for one in [*flags, "--processes", 1]]) == 0
    results = json.loads((out / "results.json").read_text())
    return {row["protocol"].split("@")[0]: row["metrics"] for row in results}


def test_contours_of_depth_and_of_masks(pictures):
    names = ("depth-pro-boundary", "depth-pro-boundary-recall", "moge-scale", "moge-affine")
    found = scored(pictures, "depth", *names)
    assert found["depth-pro-boundary"]["boundary_f1"] == pytest.approx(1)
    assert found["depth-pro-boundary-recall"]["boundary_recall"] == pytest.approx(1)
    for name in names[2:]:
        assert found[name]["abs_rel"] < 1e-5 and found[name]["contour_f1_3px"] == pytest.approx(1)


def test_pooled_normals_with_their_median_and_its_interval(pictures):
    found = scored(pictures, "normals", "dsine", "normals-angle")
    assert found["dsine"]["median_angle"] == pytest.approx(25)  # half are 10, half 40
    assert found["dsine"]["rmse_angle"] == pytest.approx(((10**2 + 40**2) / 2) ** 0.5, rel=1e-4)
    assert found["dsine"]["below_11.25"] == pytest.approx(0.5)
    assert found["normals-angle"]["mean_angle"] == pytest.approx(25, rel=1e-4)
