"""What predict wrote is scored with no further flag, and as the model itself is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight.cli import evaluate, main


@pytest.fixture
def data(tmp_path) -> Path:
    """Three pictures with depth and flow, in folders."""
    draw = np.random.default_rng(0)
    for i in range(3):
        files = {
            "depth": 1 + 9 * draw.random((1, 19, 30), np.float32),
            "flow": 4 * draw.random((2, 19, 30), np.float32) - 2,
        }
        for kind in ("images", "second", *files):
            path = tmp_path / "data" / kind / f"{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind in files:
                np.save(path, files[kind])
            else:
                pixels = draw.integers(0, 256, (19, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path.with_suffix(".png"))
    return tmp_path / "data"


@pytest.fixture
def scored(data, tmp_path):
    """The metrics by task of an evaluation on the data."""

    def call(*flags: object) -> dict[str, dict[str, float]]:
        arguments = [*flags, "--data.name", "folder", "--data.root", data, "--processes", 1]
        out = tmp_path / "scores" / str(len(list(tmp_path.glob("scores/*"))))
        assert evaluate.main([str(word) for word in [*arguments, "--out", out]]) == 0
        results = json.loads((out / "results.json").read_text())
        return {one["task"]: one["metrics"] for one in results}

    return call


SAMPLING = ("--nfe", 1, "--members", 2)


def test_what_was_predicted_scores_as_the_model_does(run, data, scored, tmp_path):
    model = scored("--checkpoint", run, "--task", "depth", *SAMPLING)["depth"]
    for saved in ("npy,picture", "exr", "png16"):
        out = tmp_path / saved
        flags = ["predict", data / "images", "--checkpoint", run, "--out", out, *SAMPLING]
        assert main.main([str(word) for word in [*flags, "--save", saved]]) == 0
        found = scored("--predictions", out)["depth"]
        if saved == "png16":  # at the scale that the manifest states, in whole steps
            assert found["abs_rel"] == pytest.approx(model["abs_rel"], rel=1e-2)
        else:
            assert found == pytest.approx(model, rel=1e-4)


def test_flow_with_its_second_frames(run, data, scored, tmp_path):
    out = tmp_path / "answers"
    flags = ["predict", data / "images", "--checkpoint", run, "--out", out, *SAMPLING]
    flags += ["--task", "flow", "--second", data / "second", "--save", "flo"]
    assert main.main([str(word) for word in flags]) == 0
    model = scored("--checkpoint", run, "--task", "flow", *SAMPLING)["flow"]
    assert scored("--predictions", out)["flow"]["epe"] == pytest.approx(model["epe"], rel=1e-4)
