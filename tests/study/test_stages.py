"""Stages as commands: what is typed, with which settings, and when one is done."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml

from stepsight import config as configuration
from stepsight.errors import UserError
from stepsight.study.graph import read_study
from stepsight.study.stages import ALL, jobs_of, shortened


def jobs(scale: Fraction = Fraction(1), **kwargs):
    return {job.name: job for job in jobs_of(read_study("study.yaml", scale), **kwargs)}


def test_every_kind_is_a_command(study_file):
    found = {name: " ".join(job.shown) for name, job in jobs().items()}
    at = "runs/study"
    assert found["cache"] == f"data latents --config {at}/configs/cache.yaml"
    assert found["pre-64x1"] == (
        f"train --config {at}/configs/pre-64x1.yaml --run-dir {at}/pre-64x1 --resume auto"
    )
    assert found["depth"].endswith(f"--init-from {at}/pre-32x1/checkpoints/step-000100")
    assert found["mixed"] == (
        f"convert upcycle --checkpoint {at}/depth --out {at}/mixed --experts 4"
    )
    assert found["sweep"] == (
        f"evaluate --sweep --out {at}/sweep --checkpoint {at}/depth --nfe 1,2 --members 1"
    )
    assert found["laws"] == f"scaling report {at}/pre-32x1 {at}/pre-64x1 --out {at}/laws"


def test_settings_are_laid_over_files_entry_by_entry(study_file):
    config = jobs()["pre-32x1"].config
    assert config is not None and config.model.name == "DiT-32x1/2"
    assert config.training.latents == "runs/study/cache" and config.training.seed == 1
    assert [*config.data] == ["scenes"] and config.training.images == 1600


def test_a_launcher_gives_processes_to_what_takes_them(study_file):
    told = yaml.safe_load((study_file.parent / "pre.yaml").read_text())
    told["training"]["processes"] = 4
    (study_file.parent / "pre.yaml").write_text(yaml.safe_dump(told))
    found = jobs(launcher="torchrun")
    assert "torch.distributed.run --standalone --nproc-per-node 4 -m stepsight.cli.main train" in (
        " ".join(found["pre-32x1"].command)
    )
    assert "--nproc-per-node" in found["cache"].command
    assert "--nproc-per-node" not in (*found["depth"].command, *found["laws"].command)


def test_a_share_that_no_checkpoint_is_of_is_refused(study_file):
    told = yaml.safe_load(study_file.read_text())
    told["stages"]["depth"]["from"] = "pre-32x1@0.3"
    study_file.write_text(yaml.safe_dump(told))
    with pytest.raises(UserError, match="pre-32x1@0.3: it saves every 400 of its 1600 images"):
        jobs()


def test_a_run_that_others_start_from_on_its_way_keeps_all_checkpoints(study_file):
    found = jobs()
    assert found["pre-32x1"].config.training.keep == ALL
    assert found["pre-64x1"].config.training.keep == 2


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 1000)])
def test_a_shorter_run_keeps_its_batches_and_its_intervals(share):
    training = {"images": 1600, "batch": 8, "checkpoint_every": 400, "validate_every": 0}
    config = configuration.from_dict({"training": training})
    short = shortened(config, share).training
    assert short.images == 4 * short.checkpoint_every and short.validate_every == 0
    assert short.checkpoint_every == max(round(50 * share), 1) * 8
    assert shortened(config, Fraction(1)) is config


def test_a_stage_is_done_by_what_it_left(study_file):
    found = jobs(Fraction(1, 100))
    assert not any(job.done for job in found.values())

    def left(name: str, content: str = "") -> None:
        path = Path("runs/study-1-100") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    row = {"kind": "val", "images_seen": 160, "loss": 0.5}
    left("vae/vae/diffusion_pytorch_model.safetensors")
    left("pre-32x1/report.html")  # of a run that has validated once
    left("pre-64x1/metrics.jsonl", json.dumps(row) + "\n")
    left("pre-64x1/records.jsonl")
    left("mixed/checkpoints/step-000000/COMPLETE")
    left("sweep/sweep.csv")  # without what follows from it
    left("laws/report.html")
    assert [name for name, job in found.items() if job.done] == ["vae", "mixed", "laws"]
    left("pre-64x1/sweep/claims.json")
    left("sweep/claims.json")
    assert found["pre-64x1"].done and found["sweep"].done and not found["pre-32x1"].done


def test_a_cache_is_done_when_the_rows_that_are_drawn_are_there(study_file):
    (job,) = (job for job in jobs_of(read_study("study.yaml")) if job.kind == "latents")
    store = job.folder / "scenes"
    store.mkdir(parents=True)
    for made, done in ((63, False), (64, True)):
        np.save(store / "done.npy", (np.arange(64) < made).astype(np.uint8))
        assert job.done is done
