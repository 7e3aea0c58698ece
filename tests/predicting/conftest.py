"""What the tests of collections share: a model that learned nothing, pictures, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepsight.data.bad import QUARANTINE, BadItems
from stepsight.pipeline.dense import DensePipeline
from stepsight.predicting.gathering import gather
from stepsight.predicting.run import Totals, predict_all
from stepsight.predicting.wanted import Wanted
from stepsight.report.console import Console


@pytest.fixture(scope="session")
def model(laboratory) -> DensePipeline:
    """Of depth, flow, amodal, semantic and normals; read only."""
    lab = laboratory()
    config = lab.config(("depth", "flow", "amodal", "semantic", "normals"))
    return lab.pipeline(config, statistics=False)


@pytest.fixture
def picture(tmp_path) -> Callable[..., Path]:
    """Write a picture of random colours, those of its number, and return its path."""

    def write(name: str, number: int = 0, height: int = 18, width: int = 24, **how: Any) -> Path:
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path, **how)
        return path

    return write


@pytest.fixture
def predict(model, tmp_path) -> Callable[..., Totals]:
    """Answer what is named in one call of the model each, into `out`."""

    def call(
        *named: object,
        task: str = "depth",
        out: Path = tmp_path / "out",
        on_bad: Any = "stop",
        how: Any = None,
        change: Callable[[Any], Any] = lambda items: items,
        pipeline: DensePipeline = model,
        **options: Any,
    ) -> Totals:
        items = change(gather([str(one) for one in named]))
        wanted = Wanted(task, items, out, {"nfe": 1, "members": 1} | (how or {}), **options)
        bad = BadItems(on_bad, 1.0, out / QUARANTINE)
        return predict_all(pipeline, wanted, bad, Console(enabled=False))

    return call
