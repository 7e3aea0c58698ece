"""The first losses of every default task, alone and together, on the machine that wrote them and on
all others. In float32, which the tests' runs compute in.

They pin the whole chain: order, mirroring, kinds of rows, noise levels, noise, encoding, network,
optimizers. A change that is meant to alter training rewrites them, and says so:

    REGENERATE_GOLDEN=1 uv run pytest tests/training/test_golden.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"
TOGETHER = "depth+flow+amodal+semantic"
TASKS = (*TOGETHER.split("+"), TOGETHER)


@pytest.fixture(scope="module")
def golden() -> dict[str, list[float]]:
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def losses(lab, tmp_path):
    """Of 20 batches of a task, or of several, at 32 x 32."""
    lab.source = lab.Source(count=64, size=(32, 32), seed="golden")

    def of(task: str) -> list[float]:
        lab.train(lab.config(task.split("+"), images=160), tmp_path / task)
        return lab.losses(tmp_path / task)

    return of


@pytest.mark.skipif("REGENERATE_GOLDEN" not in os.environ, reason="only when asked")
def test_regenerate(losses):
    rounded = {task: [float(f"{loss:.7g}") for loss in losses(task)] for task in TASKS}
    GOLDEN.write_text(json.dumps(rounded, indent=1) + "\n")


@pytest.mark.parametrize("task", TASKS)
def test_training_is_what_it_was(losses, golden, task):
    found = losses(task)
    assert found == pytest.approx(golden[task], rel=1e-3)
    assert len(found) == 20 and sum(found[-5:]) < sum(found[:5])  # and it learns
