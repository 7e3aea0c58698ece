"""Runs that branch off another: bit for bit as if they had been trained from the start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from stepsight import checkpoint
from stepsight.errors import UserError
from stepsight.training.optim import rate

WSD = dict(decay="wsd", decay_share=0.5, warmup=8, validate_every=0, checkpoint_every=0, keep=1)


def end_of(folder: Path) -> dict[str, str]:
    """sha256 of what a run ends with, and of all that it would go on with."""
    (last,) = (folder / "checkpoints").glob("step-*[0-9]")
    names = (checkpoint.BACKBONE, checkpoint.RAW, checkpoint.OPTIMIZER)
    return {name: hashlib.sha256((last / name).read_bytes()).hexdigest() for name in names}


def meta_of(folder: Path) -> dict:
    (last,) = (folder / "checkpoints").glob("step-*[0-9]")
    return json.loads((last / "stepsight.json").read_text())


def test_a_branch_is_the_run_of_its_length(lab, tmp_path):
    trunk = lab.fit(lab.config(images=80, keep_at=(16, 32), **WSD), tmp_path / "trunk")
    steps = sorted(path.name for path in (trunk / "checkpoints").glob("step-*"))
    assert steps == [checkpoint.step_name(n) for n in (2, 4, 10)]  # kept, beside the last

    short = lab.config(images=48, **WSD)
    branch = lab.fit(short, tmp_path / "branch", resume="auto", branch_from=str(trunk))
    alone = lab.fit(short, tmp_path / "alone")
    assert end_of(branch) == end_of(alone)
    flops = [meta_of(folder)["training_flops"] for folder in (branch, alone)]
    assert flops[0] == pytest.approx(flops[1])  # of the whole path
    (entry,) = meta_of(branch)["ledger"]
    assert entry["what"] == "branched" and entry["step"] == 2 and "step-000002" in entry["of"]
    assert meta_of(branch)["best"] is not None


def test_where_nothing_was_kept_in_time_a_branch_begins_anew(lab, tmp_path, capsys):
    trunk = lab.fit(lab.config(images=32, keep_at=(16,), **WSD), tmp_path / "trunk")
    short = lab.config(images=16, **WSD)
    branch = lab.fit(short, tmp_path / "branch", branch_from=str(trunk))
    assert "no checkpoint up to 8 images" in capsys.readouterr().out
    assert end_of(branch) == end_of(lab.fit(short, tmp_path / "alone"))
    with pytest.raises(UserError, match="not found"):
        lab.fit(short, tmp_path / "lost", branch_from=str(tmp_path / "none"))
    other = lab.config(images=64, batch=16, log_every=16, **WSD)
    with pytest.raises(UserError, match="made with other settings: training.batch 8 -> 16"):
        lab.fit(other, tmp_path / "other", branch_from=str(trunk))


def test_what_a_shorter_run_decayed_is_not_taken_over(lab, tmp_path):
    trunk = lab.fit(lab.config(images=32, keep_at=(16, 24), **WSD), tmp_path / "trunk")
    long = lab.config(images=64, **WSD)
    branch = lab.fit(long, tmp_path / "branch", branch_from=str(trunk))
    assert "step-000002" in meta_of(branch)["ledger"][0]["of"]  # the last before its decay
    assert end_of(branch) == end_of(lab.fit(long, tmp_path / "alone"))


def test_a_trunk_of_other_rates_or_another_seed_is_refused(lab, tmp_path):
    trunk = lab.fit(lab.config(images=32, keep_at=(16,), seed=3, **WSD), tmp_path / "trunk")
    for changed, said in (
        ({"seed": 0}, "training.seed 3 -> 0"),
        ({"seed": 3, "lr": 1e-4}, "training.lr .* -> 0.0001"),
    ):
        other = lab.config(images=48, **WSD | changed)
        with pytest.raises(UserError, match=f"made with other settings: {said}"):
            lab.fit(other, tmp_path / "other", branch_from=str(trunk))
    cosine = lab.config(images=32, **WSD | {"decay": "cosine", "keep_at": (16,)})
    trunk = lab.fit(cosine, tmp_path / "cosine")
    with pytest.raises(UserError, match="with training.decay cosine all of its rates"):
        lab.fit(lab.config(images=48, **WSD), tmp_path / "other", branch_from=str(trunk))


def test_the_rate_is_steady_and_falls_by_the_root_at_the_end(lab):
    settings = replace(lab.config().training, decay="wsd", images=1000, batch=10, warmup=0)
    settings = replace(settings, final_lr=0.1, decay_share=0.2)
    assert settings.steady == 800
    assert [rate(settings, images) for images in (0, 400, 800)] == pytest.approx([1, 1, 1])
    assert rate(settings, 850) == pytest.approx(0.1 + 0.9 * 0.5)
    assert rate(settings, 1000) == pytest.approx(0.1)
    longer = replace(settings, images=2000)
    assert all(rate(settings, n) == rate(longer, n) == 1 for n in range(0, 800, 10))
    assert replace(settings, decay="cosine").steady == 0
    assert replace(settings, decay="constant").steady == 1000
