"""A study of every kind of stage, with the commands as they are: each is done by what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stepsight.cli.main import main
from stepsight.report.study.stages import read_study as read_page
from stepsight.study.graph import read_study
from stepsight.study.running import StudyProgress
from stepsight.study.stages import jobs_of

WORLDS = {"data": {"scenes": {"size": [16, 16], "count": 32, "eval_count": 4}}}
TRAINING = {
    "processes": 1,
    "images": 32,
    "batch": 8,
    "loss": "squared",
    "rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0},
    "precision": "float32",
    "log_every": 16,
    "first_validation": 0,
    "validate_every": 16,
    "checkpoint_every": 16,
    "validation_images": 4,
}
EVALUATION = {"nfe": 1, "sweep": False, "tuning_images": 0}
RUN = WORLDS | {"training": TRAINING, "evaluation": EVALUATION}
TRAIN = {"kind": "train", "set": {"codec.path": "{vae}/vae", "training.latents": "{cache}"}}
STUDY = {
    "name": "Every kind",
    "out": "out",
    "stages": {
        "vae": {"kind": "train", "config": "vae.yaml"},
        "cache": {
            "kind": "latents",
            "config": "depth.yaml",
            "set": {"codec.path": "{vae}/vae"},
        },
        "pre": TRAIN
        | {
            "config": "depth.yaml",
            "labels": {"of": ["pretraining"], "size": "32x1", "task": "depth"},
        },
        "tuned": TRAIN
        | {
            "config": "depth.yaml",
            "from": "pre@0.5",
            "labels": {"of": ["model size"], "size": "32x1", "task": "depth"},
        },
        "mixed": {"kind": "upcycle", "from": "tuned", "options": {"experts": 2, "top-k": 1}},
        "sweep": {
            "kind": "sweep",
            "from": "tuned",
            "options": {"nfe": "1,2", "members": "1,2", "processes": 1},
            "labels": {"of": ["test time"], "task": "depth"},
        },
        "laws": {"kind": "laws", "from": ["pre", "tuned"], "options": {"bootstrap": 0}},
    },
}


@pytest.mark.slow
def test_every_kind_of_stage_is_done_by_what_its_command_leaves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    depth = RUN | {"model": {"name": "DiT-32x1/2"}, "tasks": {"depth": {}}}
    vae = {"model": {"name": "vae-tiny"}, "tasks": {"depth": {}}, **WORLDS}
    vae["training"] = {key: TRAINING[key] for key in ("processes", "images", "batch", "log_every")}
    vae["training"] |= {"validate_every": 0, "first_validation": 0, "checkpoint_every": 16}
    files = {"depth.yaml": depth, "vae.yaml": vae, "study.yaml": STUDY}
    for name, content in files.items():
        Path(name).write_text(yaml.safe_dump(content))
    study = read_study("study.yaml")
    jobs = jobs_of(study)
    progress = StudyProgress(study, jobs)
    for job in jobs:
        assert not job.done, job.name
        assert main(job.shown) == 0, job.name
        assert job.done, job.name
    progress.write()
    points = read_page(study.out).points
    assert {"pretraining", "finetuning", "carried", "steps", "members", "budget"} <= {
        point.figure for point in points
    }
