"""What predict wrote scores as the model itself does, to the last digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepsight.cli import evaluate, main


@pytest.fixture
def data(tmp_path) -> Path:
    """Three pictures with their next frames and flow, in folders."""
    draw = np.random.default_rng(0)
    for i in range(3):
        for kind in ("images", "second", "flow"):
            path = tmp_path / "data" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (19, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path) if kind != "flow" else np.save(
                path.with_suffix(".npy"), 4 * draw.random((2, 19, 30), np.float32) - 2
            )
    return tmp_path / "data"


def test_flow_scores_as_the_models_own(run, data, tmp_path):
    sampling = ["--nfe", 1, "--members", 2]
    flags = ["predict", data / "images", "--second", data / "second", "--task", "flow"]
    flags += ["--checkpoint", run, "--out", tmp_path / "answers", "--save", "flo", *sampling]
    assert main.main([str(word) for word in flags]) == 0
    epe = []
    for whose in (["--predictions", tmp_path / "answers"], ["--checkpoint", run, *sampling]):
        out = tmp_path / str(len(whose))
        flags = [*whose, "--task", "flow", "--data.name", "folder", "--data.root", data]
        flags += ["--processes", 1, "--out", out]
        assert evaluate.main([str(word) for word in flags]) == 0
        (row,) = json.loads((out / "results.json").read_text())
        epe.append(row["metrics"]["epe"])
    assert epe[0] == pytest.approx(epe[1], rel=1e-5)
