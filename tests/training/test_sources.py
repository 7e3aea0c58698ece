"""Sources and the tasks that they serve: one draw is pictures with all the truth that they have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsight.data.table import settings_for
from stepsight.training.dense.batches import read_parts


@pytest.fixture
def two(lab):
    """A run on scenes with all truths, and on a folder of depth alone."""
    config = lab.config(("depth", "flow", "semantic"))
    weights = {"depth": 1.0, "flow": 3.0, "semantic": 2.0}
    for task, weight in weights.items():
        config.tasks[task] = replace(config.tasks[task], weight=weight)
    config.data["folder"] = settings_for("folder", root="/data", size=(16, 16))
    folder = type("Folder", (lab.Source,), {"name": "folder"})
    lab.others["folder"] = folder(count=16, seed="folder", quantities=frozenset({"depth"}))
    return config


def test_a_source_serves_the_tasks_whose_truth_it_has(lab, two, tmp_path):
    """The weight of a task is shared by its sources; a source is drawn by the sum over tasks."""
    run = lab.begin(two, tmp_path)
    found = {stream.source: stream for stream in run.feed.mixture.streams}
    assert found["scenes"].tasks == ("depth", "flow", "semantic")
    assert found["folder"].tasks == ("depth",) and found["folder"].length == 16
    assert found["scenes"].weight == pytest.approx(1 / 2 + 3 + 2)
    assert found["folder"].weight == pytest.approx(1 / 2)


def test_over_all_batches_losses_weigh_as_their_tasks_do(lab, two, tmp_path):
    """Depth also has batches of its own; the mean over all losses is 1."""
    run = lab.begin(two, tmp_path)
    sums, losses = dict.fromkeys(run.pipeline.tasks, 0.0), 0.0
    for stream in run.feed.mixture.streams:
        for task, weight in zip(stream.tasks, run.feed.weights(stream).tolist(), strict=True):
            sums[task] += stream.weight * weight
            losses += stream.weight
    assert sums["flow"] == pytest.approx(3 * sums["depth"])
    assert sums["semantic"] == pytest.approx(2 * sums["depth"])
    assert sum(sums.values()) == pytest.approx(losses)


def test_of_one_source_losses_weigh_as_their_tasks_do_with_a_mean_of_one(lab, two, tmp_path):
    del two.data["folder"], lab.others["folder"]
    run = lab.begin(two, tmp_path)
    (scenes,) = run.feed.mixture.streams
    assert run.feed.weights(scenes).tolist() == pytest.approx([0.5, 1.5, 1.0])


def test_pictures_without_a_truth_have_no_rows_of_its_task(lab, two, tmp_path):
    run = lab.begin(two, tmp_path)
    seen = set()
    for step in range(60):
        draw = run.feed.draw(step)
        parts = read_parts(run.pipeline, run.feed, draw, step, range(2))
        assert tuple(part.task.name for part in parts) == draw.stream.tasks
        assert len({tuple(part.batch.keys) for part in parts if part.batch is not None}) == 1
        seen.add(draw.stream.source)
    assert seen == {"scenes", "folder"}


def test_a_run_on_both_counts_and_logs_what_each_gave(lab, two, tmp_path):
    config = replace(two, training=replace(two.training, images=8 * 60, log_every=8 * 60))
    mixture = lab.train(config, tmp_path).feed.mixture
    (row,) = lab.rows(tmp_path)
    drawn = [mixture.draw(step).stream.source for step in range(60)]
    scenes, folder = 8 * drawn.count("scenes"), 8 * drawn.count("folder")
    assert folder == 8 * 60 * 0.5 / 6 and scenes + folder == 480
    counted = {key: value for key, value in row.items() if key.startswith("counts/")}
    assert counted == {
        "counts/depth/scenes": scenes,
        "counts/flow/scenes": scenes,
        "counts/semantic/scenes": scenes,
        "counts/depth/folder": folder,
    }
    assert mixture.shares()["depth"] == 1 and all(row[f"loss/{task}"] > 0 for task in two.tasks)
