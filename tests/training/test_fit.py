"""Whole runs: the same twice, the same in two halves, and what is left behind."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepsight import checkpoint
from stepsight import config as configuration
from stepsight.data.table import settings_for
from stepsight.errors import UserError
from stepsight.evaluation.pictures import sample_grid
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.panels import read_panels
from stepsight.scaling import records
from stepsight.scaling.sampling.sweeps import read_sweep
from stepsight.training.dense import validation
from stepsight.training.feed import Feed


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def kill_after(monkeypatch):
    """Runs die when they begin batch number `step`, until told None."""
    limit: list[int | None] = [None]
    draw = Feed.draw

    def dying(feed, step):
        if limit[0] is not None and step >= limit[0]:
            raise Killed
        return draw(feed, step)

    monkeypatch.setattr(Feed, "draw", dying)

    def at(step: int | None) -> None:
        limit[0] = step

    return at


def digests(folder: Path, step: int = 8) -> dict[str, str]:
    """sha256 of everything that a later step depends on."""
    saved = folder / "checkpoints" / checkpoint.step_name(step)
    files = (checkpoint.BACKBONE, checkpoint.RAW, checkpoint.OPTIMIZER, checkpoint.STATISTICS)
    return {name: hashlib.sha256((saved / name).read_bytes()).hexdigest() for name in files}


def said(folder: Path) -> list[dict]:
    """What the run measured, without the clock."""
    clocks = ("seconds", "images_per_s", "data_share")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in clocks} for row in lines]


SAVING = dict(checkpoint_every=32, validate_every=32, keep=4)


@pytest.fixture(scope="module")
def saving(laboratory):
    """Eight batches of all tasks; checkpoint and validation in the middle and at the end."""
    return laboratory().config(**SAVING)


@pytest.fixture(scope="module")
def whole(laboratory, saving, tmp_path_factory) -> Path:
    """A finished run that drew its answers, to look at only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "sample_grid", sample_grid)
        return laboratory().fit(saving, tmp_path_factory.mktemp("runs") / "whole")


def test_the_same_seed_gives_the_same_weights_and_another_does_not(lab, tmp_path, saving, whole):
    again = lab.fit(saving, tmp_path / "again")
    assert digests(again) == digests(whole) and said(again) == said(whole)
    other = lab.fit(lab.config(seed=1), tmp_path / "other")
    assert digests(other)[checkpoint.RAW] != digests(whole)[checkpoint.RAW]


@pytest.mark.parametrize("step, resumed_from", [(6, 4), (4, 4), (1, 0)])
def test_a_killed_run_continues_bit_for_bit(
    lab, tmp_path, saving, whole, kill_after, step, resumed_from
):
    """Also when it dies before its first checkpoint."""
    kill_after(step)
    with pytest.raises(Killed):
        lab.fit(saving, tmp_path / "halves")
    assert len(lab.rows(tmp_path / "halves")) == step
    kill_after(None)
    halves = lab.fit(saving, tmp_path / "halves", resume="auto")
    assert digests(halves) == digests(whole)
    assert said(halves) == said(whole)
    continued = "continues from" in (halves / "train.log").read_text()
    assert continued == (resumed_from > 0)


def test_validation_and_pictures_leave_no_trace_in_the_weights(lab, tmp_path, whole):
    quiet = lab.config(first_validation=0, validate_every=0)
    assert digests(lab.fit(quiet, tmp_path / "quiet")) == digests(whole)


def test_what_a_training_run_leaves(lab, saving, whole):
    run = whole
    steps = sorted(run.glob("checkpoints/step-*"))
    assert [step.name for step in steps] == ["step-000004", "step-000008"]
    assert all((step / "COMPLETE").exists() for step in steps)
    assert (run / "checkpoints/last.txt").read_text().strip() == "step-000008"
    best = (run / "checkpoints/best.txt").read_text().strip()
    assert run / "checkpoints" / best in steps
    again = configuration.load([str(run / "config.yaml")])
    assert again == saving
    assert not list(run.rglob(".*"))  # neither banks nor staged files
    pictures = sorted(path.name for path in run.glob("samples/*.png"))
    assert pictures == ["step-000004.png", "step-000008.png"]
    assert {panel.task for panel in read_panels(run / "samples")} == set(saving.tasks)
    rows = lab.rows(run, "val")
    assert [(row["step"], row["task"]) for row in rows] == [
        (step, task) for step in (4, 8) for task in saving.tasks
    ]
    assert set(rows[0]["baselines"]) == {"constant", "mean_map"}


def test_the_saved_weights_are_the_average_and_predict(saving, whole):
    saved = checkpoint.read(whole, prefer="last")
    raw, averaged = saved.tensors(checkpoint.RAW), saved.tensors(checkpoint.BACKBONE)
    assert raw.keys() == averaged.keys()
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)
    pipeline = DensePipeline.from_pretrained(saved.path)
    for name, p in pipeline.net.named_parameters():
        assert torch.equal(p, averaged[name])
    assert pipeline.sizes == {task: (16, 16) for task in saving.tasks}


def test_old_checkpoints_go_but_the_best_stays(lab, tmp_path, monkeypatch):
    scores = iter([-1.0, 1.0])  # of the early validation and of the last
    monkeypatch.setattr(validation, "best_score", lambda rows: next(scores))
    config = lab.config(("depth",), checkpoint_every=8, keep=2, first_validation=8)
    run = lab.fit(config, tmp_path / "run")
    kept = sorted(path.name for path in run.glob("checkpoints/step-*"))
    assert (run / "checkpoints/best.txt").read_text().strip() == "step-000001"
    assert kept == ["step-000001", "step-000007", "step-000008"]
    assert checkpoint.read(run).path.name == "step-000001"


def test_resuming_with_other_settings_is_refused_and_harms_nothing(lab, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        lab.fit(lab.config(**SAVING, lr=0.5, betas=[0.5, 0.9], flip=False), whole, resume="auto")
    assert "training.betas [0.9, 0.99] -> [0.5, 0.9]" in str(caught.value)
    assert "training.flip True -> False" in str(caught.value)
    assert "training.lr" not in str(caught.value)
    assert "--init-from" in str(caught.value)
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_a_finished_run_goes_on_when_it_is_made_longer(lab, tmp_path, whole):
    run = shutil.copytree(whole, tmp_path / "run")
    lab.fit(lab.config(**SAVING | {"images": 80, "validate_every": 0}), run, resume="auto")
    assert [row["step"] for row in lab.rows(run)] == list(range(1, 11))
    assert lab.losses(run)[:8] == lab.losses(whole)
    assert digests(run, 8) == digests(whole, 8)
    assert checkpoint.read(run, prefer="last").meta["images_seen"] == 80


def test_an_existing_run_is_replaced_only_on_request(lab, tmp_path, whole):
    run, other = shutil.copytree(whole, tmp_path / "run"), lab.config(("depth",), images=16)
    with pytest.raises(UserError, match="--overwrite"):
        lab.fit(other, run)
    assert len(lab.rows(run)) == 8
    with pytest.raises(UserError, match="does not divide"):
        lab.fit(lab.config(micro_batch="3"), run, overwrite=True)
    assert len(lab.rows(run)) == 8
    lab.fit(other, run, overwrite=True)
    assert checkpoint.read(run).config == other and len(lab.rows(run)) == 2
    assert [path.name for path in run.glob("checkpoints/step-*")] == ["step-000002"]


def test_starting_from_other_weights_begins_at_step_0(lab, tmp_path, whole):
    frozen = lab.config(lr=0.0, muon_lr=0.0, seed=9, images=16)
    pupil = lab.fit(frozen, tmp_path / "pupil", init_from=str(whole))
    assert [row["step"] for row in lab.rows(pupil)] == [1, 2]
    source = checkpoint.read(whole).tensors(checkpoint.BACKBONE)
    copied = checkpoint.read(pupil)
    for name, weight in source.items():
        assert torch.equal(copied.tensors(checkpoint.RAW)[name], weight)
        torch.testing.assert_close(copied.tensors(checkpoint.BACKBONE)[name], weight)


def test_weights_start_a_run_of_other_tasks_but_not_of_another_backbone(lab, tmp_path, whole):
    config = lab.config(("depth", "normals"), lr=0.0, muon_lr=0.0, images=8)
    pupil = checkpoint.read(lab.fit(config, tmp_path / "pupil", init_from=str(whole)))
    source, copied = (one.tensors(checkpoint.BACKBONE) for one in (checkpoint.read(whole), pupil))
    assert len(copied["label.embedding_table.weight"]) == 3  # depth, normals, null
    assert torch.equal(
        copied["label.embedding_table.weight"][0], source["label.embedding_table.weight"][0]
    )
    assert torch.equal(copied["output.weight"], source["output.weight"][: 4 * 3])  # 2 x 2 pixels
    larger = replace(config, model=replace(config.model, name="split-32"))
    with pytest.raises(UserError, match="another model"):
        lab.fit(larger, tmp_path / "other", init_from=str(whole))


@pytest.mark.slow
def test_a_task_that_has_not_had_its_turn_does_not_hinder_resuming(lab, tmp_path, kill_after):
    """Its own weights have no optimizer state yet."""
    config = lab.config(("depth", "flow"), images=32, checkpoint_every=8, keep=1)
    config.data["folder"] = settings_for("folder", root="/data", size=(16, 16))
    lab.source.quantities = frozenset({"flow"})
    kind = type("Folder", (lab.Source,), {"name": "folder"})
    lab.others["folder"] = kind(count=32, quantities=frozenset({"depth"}))
    whole = lab.fit(config, tmp_path / "whole")
    turns = [key for row in lab.rows(whole) for key in row if key.startswith("loss/")]
    first = turns.index("loss/flow") if turns[0] == "loss/depth" else turns.index("loss/depth")
    kill_after(first)
    with pytest.raises(Killed):
        lab.fit(config, tmp_path / "halves")
    kill_after(None)
    assert digests(lab.fit(config, tmp_path / "halves", resume="auto"), 4) == digests(whole, 4)


def test_a_batch_that_does_not_share_out_is_refused_with_the_nearest(lab, tmp_path):
    with pytest.raises(UserError, match=r"does not divide by 1 processes x 3 .* Nearest: 6, 9"):
        lab.fit(lab.config(micro_batch="3"), tmp_path / "run")


def test_more_processes_than_there_are_is_refused(lab, tmp_path):
    with pytest.raises(UserError, match="expected 2 processes .* got 1"):
        lab.fit(lab.config(processes=2), tmp_path / "run")


def test_a_task_whose_truth_no_source_has_is_refused(lab, tmp_path):
    lab.source.quantities = frozenset({"depth"})
    with pytest.raises(UserError, match="task flow needs flow; no source of this run has it"):
        lab.fit(lab.config(("depth", "flow")), tmp_path / "run")


def test_fewer_classes_than_the_source_has_are_refused(lab, tmp_path):
    for task, has in (("image", 8), ("semantic", 7)):
        config = lab.config((task,))
        config.tasks[task] = replace(config.tasks[task], classes=4)
        with pytest.raises(UserError, match=f"tasks.{task}.classes=4: .* has {has} .* Use {has}"):
            lab.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_complete_run_ends_with_evaluation_sweep_and_report(lab, tmp_path, pictures):
    run = lab.fit(lab.config(("depth", "amodal"), evaluate=True), tmp_path / "run")
    for name in ("results.json", "results.csv", "per_sample.csv", "panels/depth.json"):
        assert (run / "eval" / name).stat().st_size
    for name in ("sweep.csv", "fit.json", "claims.json", "pareto-amodal.png", "per_sample.csv"):
        assert (run / "sweep" / name).stat().st_size
    assert (run / "samples/final.png").exists()
    page = (run / "report.html").read_text()
    assert "depth" in page and "bounding box" in page
    found, notes = records.read(run)
    assert not notes
    cells = read_sweep(run / "sweep" / "sweep.csv")
    for metric in ("abs_rel", "iou"):  # of the evaluation, and of every setting of the sweep
        swept = sum(one.metric == metric for one in cells)
        assert swept > 4 and sum(one.metric == metric for one in found) == 1 + swept
    assert {one.config for one in found} == {checkpoint.read(run).config.fingerprint()}
    moved = shutil.copytree(run, tmp_path / "moved")
    assert DensePipeline.from_pretrained(moved).name == DensePipeline.from_pretrained(run).name
