"""Small runs: as one process and as several, and killed on the way. They have to agree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from stepsight import checkpoint
from stepsight.doctor.findings import Finding
from stepsight.doctor.patient import STEPS, Patient

TOLERANCE = 1e-5  # of a loss in float32
PATIENCE = 300.0  # seconds for a small run
LOCAL = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class _Failed(Exception):
    """A small run did not end as it should."""


def processes(patient: Patient) -> Finding:
    """Losses do not depend on the number of processes."""
    check, several = "processes", patient.processes
    if several < 2:
        return Finding(check, "ok", "one core: there is nothing to share out")
    try:
        alone = _losses(_finished(patient, "alone"))
        shared = _losses(_finished(patient, "shared", several))
    except _Failed as error:
        return Finding(check, "fail", str(error), "Run the command above by hand, with --debug.")
    worst = max(abs(x - y) for x, y in zip(alone, shared))
    said = f"1 and {several} agree: losses of {len(alone)} steps differ by {worst:.1e} at most"
    if len(alone) == len(shared) == STEPS and worst <= TOLERANCE:
        return Finding(check, "ok", said)
    said = f"1 and {several} do not agree: losses differ by {worst:.1e} within {STEPS} steps"
    advice = "Do not train on several devices: what is added up is not the batch's. Report it."
    return Finding(check, "fail", said, advice)


def resume(patient: Patient) -> Finding:
    """A run that is killed and continued ends as one that was not."""
    check = "kill and resume"
    try:
        whole = _finished(patient, "alone")
        folder = patient.folder / "killed"
        killed = _killed(patient, folder)
        _finished(patient, "killed", flags=("--resume", "auto"))
    except _Failed as error:
        return Finding(check, "fail", str(error), "Run the command above by hand, with --debug.")
    ends = [checkpoint.read(run, prefer="last") for run in (whole, folder)]
    losses = [_losses(run) for run in (whole, folder)]
    for name in (checkpoint.RAW, checkpoint.BACKBONE, checkpoint.OPTIMIZER):
        one, other = (saved.tensors(name) for saved in ends)
        if one.keys() != other.keys() or not all(torch.equal(one[k], other[k]) for k in one):
            said = f"{name} is not what it would have been without the kill"
            return Finding(check, "fail", said, "Do not rely on resuming here. Report it.")
    if losses[0] != losses[1]:
        said = "the curve of losses is not what it would have been"
        return Finding(check, "fail", said, "Do not rely on resuming here. Report it.")
    if not killed:
        return Finding(check, "warn", "the small run ended before it was killed", "Try again.")
    said = "killed after a checkpoint and continued: weights, optimizer and losses are equal"
    return Finding(check, "ok", said)


def command(patient: Patient, folder: Path, *flags: str) -> list[str]:
    """What trains the small run, as somebody would type it."""
    config = patient.folder / "small.yaml"
    config.write_text(patient.small.to_yaml())
    train = [sys.executable, "-m", "stepsight.cli.main", "train"]
    return [*train, "--config", str(config), "--run-dir", str(folder), *flags]


def _finished(patient: Patient, name: str, several: int = 1, flags: tuple[str, ...] = ()) -> Path:
    """The folder of a small run that has ended, which other checks may have trained already."""
    folder = patient.folder / name
    if folder.exists() and not flags:
        return folder
    patient.say(f"trains a small run ({name})")
    more = (*flags, "--training.processes", str(several))
    words = command(patient, folder, *more)
    try:
        done = subprocess.run(words, capture_output=True, env=_alone(), timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise _Failed(f"`{' '.join(words)}` did not end in {PATIENCE:.0f} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _Failed(f"`{' '.join(words)}` ended with {done.returncode}: {' '.join(last)}")
    return folder


def _killed(patient: Patient, folder: Path) -> bool:
    """Kill a small run once it has a checkpoint; whether that was before it ended."""
    patient.say("trains a small run, and kills it")
    nothing = subprocess.DEVNULL
    words = command(patient, folder)
    child = subprocess.Popen(words, env=_alone(), stdout=nothing, stderr=nothing)
    began, checkpoints = time.monotonic(), folder / "checkpoints"
    try:
        while child.poll() is None and not checkpoint.completed(checkpoints):
            if time.monotonic() - began > PATIENCE:
                raise _Failed(f"no checkpoint in {PATIENCE:.0f} s")
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    return child.returncode == -signal.SIGKILL


def _losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def _alone() -> dict[str, str]:
    """The environment without a launcher's."""
    return {name: value for name, value in os.environ.items() if name not in LOCAL}
