"""The stages of study.yaml, with commands that leave what the real ones do."""

from __future__ import annotations

import sys
from dataclasses import replace

from stepsight.study.graph import Study, read_study
from stepsight.study.stages import StageJob, jobs_of

# Stands for the commands: leaves what tells that a stage is done, unless it is to fail or to wait.
COMMAND = """
import json, signal, sys, time
from pathlib import Path
folder, kind, images = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write("x")
if Path(f"fail-{folder.name}").exists():
    sys.exit(f"error: {folder.name} does not fit")
def save(*_):
    (folder / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "began").touch()
if Path(f"slow-{folder.name}").exists() and not (folder / "saved").exists():
    time.sleep(float(Path(f"slow-{folder.name}").read_text()))
def left(name, text=""):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
if kind == "train":
    left("metrics.jsonl", json.dumps({"kind": "val", "images_seen": images, "loss": 0.5}))
    record = dict(run="r", config="c", revision="", seed=0, model="m", params_total=1,
        params_active=1, training_flops=4e9, images_seen=images, task="image", dataset="scenes",
        protocol="p", sampler="ddim", nfe=1, members=1, inference_flops=1.0, metric="energy",
        value=1.0, images=8, schema=2)
    left("records.jsonl", json.dumps(record))
    left("sweep/claims.json")
    left("config.yaml")
elif kind == "latents":
    import numpy
    left("scenes/store.json")
    numpy.save(folder / "scenes/done.npy", numpy.ones(64, numpy.uint8))
else:
    left({"upcycle": "checkpoints/step", "sweep": "claims.json", "laws": "report.html"}[kind])
"""


def stand_ins() -> tuple[Study, list[StageJob]]:
    """The study, and its stages with a command that stands for theirs."""
    study = read_study("study.yaml")

    def stand_in(job: StageJob) -> StageJob:
        images = job.config.training.images if job.config else 0
        words = (sys.executable, "-c", COMMAND, str(job.folder), job.kind, str(images))
        return replace(job, command=words)

    return study, [stand_in(job) for job in jobs_of(study)]
