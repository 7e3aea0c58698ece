"""Grids of predictions: which images are shown, and what stands in their tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.data.collate import collate
from stepsight.evaluation import pictures
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.pictures import extremes_grid, sample_grid
from stepsight.evaluation.predictors import Model
from stepsight.metrics import protocol as protocols


@pytest.fixture
def composed(monkeypatch):
    """What was handed to the drawing of the page, instead of a page."""
    calls = []

    def compose(rows, names, labels, path, scale):
        calls.append((rows, names, labels, scale))
        return path

    monkeypatch.setattr(pictures, "compose", compose)
    return calls


def scored(lab, pipeline, task: str):
    return score_source(
        pipeline,
        lab.held,
        task,
        protocol=protocols.default_for(task).name,
        indices=range(len(lab.held)),
        nfe=[2],
        members=[2],
    )


def draw_extremes(lab, pipeline, scores, path):
    model = Model(pipeline, scores.task, [2], [2], "ddim")
    rule = protocols.get(scores.protocol)
    return extremes_grid(model, lab.held, scores.settings[2, 2], rule, range(6), path)


def test_every_task_has_its_rows_and_every_row_its_columns(lab, tmp_path, composed):
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in pipeline.tasks}
    sample_grid(pipeline, sources, tmp_path / "grid.png", nfe=2, members=3, images=2)
    ((rows, names, labels, scale),) = composed
    assert names == ["image", "prompt", "truth", "1 x 1", "2 x 3", "spread"]
    assert labels == [task for task in sources for _ in range(2)]
    assert all(tile.shape == (16, 16, 3) and tile.dtype == np.uint8 for row in rows for tile in row)
    assert scale == 8  # small tiles are enlarged to about 128 pixels
    for row, task, index in zip(rows, labels, [0, 5] * 4):
        sample = lab.held[index]
        assert np.array_equal(row[0], sample.image.permute(1, 2, 0).numpy())
        second = sample.second.permute(1, 2, 0).numpy()
        assert np.array_equal(row[1], second) == (task == "flow")
        if task == "amodal":
            assert np.array_equal(row[1][..., 0] > 0, sample.modal[0].numpy())
        if task in ("depth", "semantic"):
            assert row[1].min() == 255  # no prompt
        assert row[5].std() > 0  # members differ


@pytest.mark.parametrize("task", ["depth", "amodal"])
def test_best_median_and_worst_by_the_tasks_own_direction(lab, tmp_path, composed, task):
    pipeline = lab.pipeline()
    scores = scored(lab, pipeline, task)
    draw_extremes(lab, pipeline, scores, tmp_path / "grid.png")
    ((rows, _, labels, _),) = composed
    values = scores.settings[2, 2][pipeline.task(task).metric].numpy()
    order = np.argsort(values)[: np.isfinite(values).sum()]  # nan sorts last
    order = order[::-1] if task == "amodal" else order
    assert [label.split()[0] for label in labels] == ["best", "median", "worst"]
    for row, place in zip(rows, (order[0], order[len(order) // 2], order[-1])):
        assert np.array_equal(row[0], lab.held[int(place)].image.permute(1, 2, 0).numpy())
    batch = collate([lab.held[int(order[0])]])
    predicted = pipeline.predict(batch, task, nfe=2, members=2)
    truth = pipeline.task(task).truth(batch)
    picture = pipeline.task(task).picture(predicted.values, batch, like=truth)[0]
    assert np.array_equal(rows[0][-2], picture.permute(1, 2, 0).numpy())


def test_nothing_is_drawn_where_nothing_was_measured(lab, tmp_path):
    pipeline = lab.pipeline()
    scores = scored(lab, pipeline, "amodal")
    scores.settings[2, 2]["iou"] = torch.full((6,), torch.nan)
    path = tmp_path / "grid.png"
    assert draw_extremes(lab, pipeline, scores, path) is None
    assert not path.exists()


def test_images_of_several_sizes_share_a_page(lab, tmp_path):
    held = replace(lab.held, grids=((24, 32), (16, 16)), count=2)
    path = sample_grid(lab.pipeline(), {"depth": held}, tmp_path / "g.png", nfe=1, members=1)
    with Image.open(path) as page:
        assert page.format == "PNG" and page.width > 6 * 32
