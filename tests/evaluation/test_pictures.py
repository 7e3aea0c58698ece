"""Grids of predictions: which images are shown, and what stands in their tiles."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight.colours import VOID, palette
from stepsight.data.collate import collate
from stepsight.evaluation import pictures
from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.pictures import AS_IT_IS, draw_extremes, sample_grid
from stepsight.evaluation.predictors import Model
from stepsight.evaluation.results import metrics_of
from stepsight.metrics import protocol as protocols
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.grids import PAPER
from stepsight.report.panels import PicturePanel, read_panels
from stepsight.tasks.config import DepthSettings, FlowSettings
from stepsight.tasks.table import build_task
from stepsight.types import IGNORE
from tests.support.pages.panels import write_a_panel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def composed(monkeypatch):
    """What was handed to the drawing of the page, instead of a page."""
    calls = []

    def compose(rows, names, labels, path, scale, keys, note):
        assert note == "grey: no truth"
        calls.append((rows, names, labels, scale, keys))
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


def extremes(lab, pipeline, scores, folder: Path) -> dict[str, PicturePanel]:
    """What is written of the best, the median and the worst image."""
    model, rule = Model(pipeline, scores.task, [2], [2], "ddim"), protocols.get(scores.protocol)
    draw_extremes(folder, model, lab.held, scores.settings[2, 2], rule, range(6))
    found = [*read_panels(folder), *read_panels(folder, "extremes")]
    return {panel.chosen.split()[0]: panel for panel in found}


def picture(folder: Path, panel: PicturePanel, name: str) -> np.ndarray:
    (tile,) = [tile for tile in panel.tiles if tile.name == name]
    kind = "panels" if panel.chosen.startswith("median") else "extremes"
    return np.asarray(Image.open(folder / kind / tile.file))


def tile(picture: torch.Tensor) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy()


def test_every_task_has_its_rows_and_every_row_its_columns(lab, tmp_path, composed):
    pipeline = lab.pipeline()
    sources = {task: lab.held for task in pipeline.tasks}
    sample_grid(pipeline, sources, tmp_path / "grid.png", nfe=2, members=3, images=2)
    ((rows, names, labels, scale, keys),) = composed
    assert names == ["image", "prompt", "truth", "one call", "answer", "error", "spread"]
    tasks = [task for task in sources for _ in range(2)]
    assert [label[:2] for label in labels] == [[task, "2 x 3, T 1"] for task in tasks]
    assert all(tile.shape == (16, 16, 3) and tile.dtype == np.uint8 for row in rows for tile in row)
    assert scale == 8  # small tiles are enlarged to about 128 pixels
    for row, task, index, (_, _, truth, _, _, error, spread) in zip(rows, tasks, [0, 5] * 4, keys):
        sample = lab.held[index]
        assert np.array_equal(row[0], sample.image.permute(1, 2, 0).numpy())
        second = sample.second.permute(1, 2, 0).numpy()
        assert np.array_equal(row[1], second) == (task == "flow")
        if task == "amodal":
            assert np.array_equal(row[1][..., 0] > 0, sample.modal[0].numpy())
        if task in ("depth", "semantic"):
            assert (row[1] == PAPER).all()  # no prompt
        assert row[6].std() > 0  # members differ
        kinds = {"depth": "values", "flow": "flow", "amodal": "mask", "semantic": "classes"}
        assert (truth.kind, spread.kind) == (kinds[task], "values")
        assert error.kind == ("values" if task in ("depth", "flow") else "classes")
    assert {entry.name for entry in keys[-1][2].classes} <= set(lab.held.classes)


def test_where_no_truth_is_the_truth_is_grey_in_truth_and_prediction_alike(lab, tmp_path, composed):
    pipeline = lab.pipeline()
    tasks = {"depth": "depth_valid", "flow": "flow_valid", "normals": "normals_valid"}
    config = lab.config(tasks=[*tasks, "semantic"])
    pipeline = lab.pipeline(config)
    sources = {task: lab.held for task in config.tasks}
    sample_grid(pipeline, sources, tmp_path / "grid.png", nfe=1, members=1, images=1)
    ((rows, names, labels, _, _),) = composed
    sample, grey = lab.held[0], np.array(VOID)
    for (_, truth, _, predicted, error), (task, *_) in zip(
        ([tile for name, tile in zip(names, row) if name != "prompt"] for row in rows), labels
    ):
        known = sample.labels != IGNORE if task == "semantic" else getattr(sample, tasks[task])
        known = known.reshape(16, 16).numpy()
        assert np.array_equal((truth == grey).all(-1), ~known) and not known.all()
        assert np.array_equal((error == grey).all(-1), ~known)
        assert np.array_equal((predicted == grey).all(-1), ~known)
        if task == "semantic":
            colours = {tuple(colour) for colour in palette().tolist()}
            assert {tuple(colour) for colour in predicted[known].tolist()} <= colours


def test_tasks_answer_as_they_usually_do(lab, tmp_path, composed, monkeypatch):
    pipeline, asked = lab.pipeline(), ("depth", "semantic")
    ways = {
        "depth": SamplingSetting(2, 1, 0.0, "none"),
        "semantic": SamplingSetting(1, 2, 1.0, "none"),
    }
    monkeypatch.setattr(DensePipeline, "default_setting", lambda self, task: ways[task])
    sample_grid(pipeline, dict.fromkeys(asked, lab.held), tmp_path / "grid.png", images=1)
    ((rows, names, labels, _, _),) = composed
    assert [label[1] for label in labels] == ["2 x 1, T 0", "1 x 2, T 1"]
    batch = collate([lab.held[0]])
    for row, (name, way) in zip(rows, ways.items()):
        own, task = pipeline.sampling(temperature=way.temperature), pipeline.task(name)
        found = own.predict(batch, name, nfe=way.nfe, members=way.members)
        picture = task.picture(found.values, batch, like=task.truth(batch))[0]
        assert np.array_equal(row[names.index("answer")], picture.permute(1, 2, 0).numpy())


def test_the_figure_of_the_readme_is_made_of_a_runs_panels(tmp_path, composed):
    for task in ("depth", "flow"):
        write_a_panel(tmp_path / "eval", task)
    script = runpy.run_path(str(ROOT / "scripts" / "docs_figures.py"))
    assert script["draw"](tmp_path, tmp_path / "figure.png") == tmp_path / "figure.png"
    ((rows, names, labels, _, _),) = composed
    assert names == ["image", "truth", "one call", "answer", "error", "spread"]
    assert labels[0] == ["depth", "4 x 4, T 1", "AbsRel 0.200"] and len(rows) == 2


@pytest.mark.parametrize("space", ["log", "inverse", "linear"])
def test_depth_up_to_scale_and_shift_is_coloured_as_the_truth(lab, space):
    sample = lab.held[1]
    batch, task = collate([sample]), build_task(DepthSettings(space=space))
    truth = task.truth(batch)
    spaces = {"log": (torch.log, torch.exp), "linear": (lambda x: x, lambda x: x)}
    into, back = spaces.get(space, (lambda x: -1 / x, lambda x: -1 / x))
    distorted = back(0.3 * into(batch.depth) + (0.7 if space == "linear" else -0.2))
    pictures = [task.picture(x, batch, like=truth)[0].int() for x in (truth, distorted)]
    known = sample.depth_valid.expand(3, -1, -1)
    assert (pictures[0] - pictures[1])[known].abs().max() <= 4  # rounding, a step of the map
    alone = task.picture(distorted, batch)[0].int()
    differs = (alone - pictures[0])[known].abs().max() > 4
    assert differs == (space != "log")  # in whose logarithm colours run


def test_metres_are_not_fitted_before_they_are_coloured(lab):
    batch = collate([lab.held[1]])
    task = build_task(DepthSettings(range="metric"))
    truth = task.truth(batch)
    known = batch.depth_valid[0].expand(3, -1, -1)
    twice = task.picture(2 * batch.depth, batch, like=truth)[0].int()
    assert (twice - task.picture(truth, batch, like=truth)[0].int())[known].abs().max() > 20


def test_flow_twice_as_long_is_shown_in_the_truths_range(lab):
    batch = collate([lab.held[1]])
    task = build_task(FlowSettings())
    truth = task.truth(batch)
    known = batch.flow_valid[0].expand(3, -1, -1)
    half = task.picture(batch.flow / 2, batch, like=truth)[0]
    whole = task.picture(truth, batch, like=truth)[0]
    assert half[known].float().mean() > whole[known].float().mean() + 20  # shorter is paler
    assert torch.equal(task.picture(batch.flow / 2, batch), task.picture(batch.flow, batch))


@pytest.mark.parametrize("task", ["depth", "amodal"])
def test_best_median_and_worst_by_the_tasks_own_direction(lab, tmp_path, task):
    pipeline = lab.pipeline()
    scores = scored(lab, pipeline, task)
    panels = extremes(lab, pipeline, scores, tmp_path)
    metric = pipeline.task(task).metric
    values = scores.settings[2, 2][metric].numpy()
    sign = -1 if task == "amodal" else 1
    order = np.argsort(sign * values, kind="stable")[: np.isfinite(values).sum()]  # nan sorts last
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    assert panels.keys() == places.keys()
    for name, place in places.items():
        panel, sample = panels[name], lab.held[int(place)]
        assert panel.chosen.endswith(f"of {len(order)}") and panel.key == sample.key
        assert np.array_equal(picture(tmp_path, panel, "image"), tile(sample.image))
        batch = collate([sample])
        truth = pipeline.task(task).truth(batch)
        for shown, (nfe, members) in {"one call": (1, 1), "answer": (2, 2)}.items():
            found = pipeline.predict(batch, task, nfe=nfe, members=members)
            painted = pipeline.task(task).picture(found.values, batch, like=truth)[0]
            assert np.array_equal(picture(tmp_path, panel, shown), tile(painted))
        answer = panel.tile("answer")
        assert answer.score == pytest.approx(values[place], rel=1e-5)
        assert answer.over_set == metrics_of(scores.settings[2, 2], scores.protocol)[metric]
        assert answer.setting == "2 x 2, T 1" and not answer.best
        assert panel.tile("one call").over_set is None


def test_every_tile_says_what_it_shows(lab, tmp_path):
    pipeline = lab.pipeline()
    panels = extremes(lab, pipeline, scored(lab, pipeline, "flow"), tmp_path)
    names = ["image", "second", "truth", "one call", "answer", "spread", "error"]
    assert [tile.name for tile in panels["median"].tiles] == names
    assert len({tile.alt for tile in panels["median"].tiles}) == len(names)
    assert "2 x 2, T 1" in panels["median"].tile("spread").alt


def test_where_one_call_is_the_answer_more_calls_stand_beside_it(lab):
    model = Model(lab.pipeline(), "depth", [1], [1], "ddim")
    shown = model, lab.held, lab.held[1], AS_IT_IS, protocols.default_for("depth"), "an image"
    panel = pictures.predicted(*shown).panel
    names = ["image", "truth", "one call", "more calls", "error"]
    assert [tile.name for tile in panel.tiles] == names
    assert panel.tile("more calls").setting.startswith("4 x 1")
    assert panel.tile("error").setting.startswith("1 x 1")


def test_nothing_is_drawn_where_nothing_was_measured(lab, tmp_path):
    pipeline = lab.pipeline()
    scores = scored(lab, pipeline, "amodal")
    scores.settings[2, 2]["iou"] = torch.full((6,), torch.nan)
    assert extremes(lab, pipeline, scores, tmp_path) == {} and not list(tmp_path.iterdir())


def test_samples_leave_a_panel_a_task(lab, tmp_path, composed):
    sources = {task: lab.held for task in ("depth", "semantic")}
    sample_grid(lab.pipeline(), sources, tmp_path / "samples" / "a.png", nfe=2, members=1, images=2)
    panels = read_panels(tmp_path / "samples")
    assert [(panel.task, panel.key) for panel in panels] == [
        (task, lab.held[0].key) for task in sources
    ]
    assert all(np.isfinite(panel.tile("answer").score) for panel in panels)


def test_images_of_several_sizes_share_a_page(lab, tmp_path):
    held = replace(lab.held, grids=((24, 32), (16, 16)), count=2)
    path = sample_grid(lab.pipeline(), {"depth": held}, tmp_path / "g.png", nfe=1, members=1)
    with Image.open(path) as page:
        assert page.format == "PNG" and page.width > 6 * 32
