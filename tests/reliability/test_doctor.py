"""`stepsight doctor`: each check finds what it is there to find, and advice that follows helps."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from stepsight.cli import main as command_line
from stepsight.config import RunConfig, from_dict
from stepsight.doctor import examine, machine, runs, settings
from stepsight.doctor.findings import Finding, page
from stepsight.doctor.patient import STEPS, Patient, shrunk, small_name
from stepsight.errors import UserError
from stepsight.training.planning.memory import memory_of, with_training
from stepsight.training.planning.workload import Workload
from stepsight.training.spec import RunSpec

TINY = {"model": {"name": "split-8"}, "data": {"scenes": {"size": [32, 32], "count": 64}}}


def patient(tmp_path: Path, config: RunConfig | None = None, **training) -> Patient:
    config = config or from_dict(TINY)
    return Patient(with_training(config, **training), tmp_path, tmp_path / "runs")


# ---------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "training, status, word",
    [
        ({}, "ok", ""),
        ({"warmup": 6000}, "warn", "training.warmup"),
        ({"warmup": 0, "optimizer": "adamw", "lr": 3e-3}, "warn", "training.warmup"),
        ({"images": 800, "warmup": 16}, "warn", "training.images"),
        ({"clip": 0.0}, "warn", "training.clip"),
    ],
)
def test_learning_rates_are_looked_at(tmp_path, training, status, word):
    found = settings.learning_rate(patient(tmp_path, **training))
    assert found.status == status and word in found.advice and bool(found.advice) == bool(word)


def test_the_rates_told_are_those_of_training(tmp_path):
    adamw = {"optimizer": "adamw", "lr": 1e-3, "warmup": 160, "decay": "constant", "clip": 1.0}
    seen = settings.learning_rate(patient(tmp_path, **adamw)).seen
    assert "500 updates of 16" in seen and "0.0001 at the start" in seen and "0.001 at most" in seen


@pytest.mark.parametrize("updates, status", [(500, "ok"), (20, "ok"), (2, "warn")])
def test_an_average_that_holds_its_start_is_found(tmp_path, updates, status):
    found = settings.average(patient(tmp_path, images=16 * updates, ema=0.9999))
    assert found.status == status


class Idle(nn.Module):
    """With a layer that no answer depends on."""

    def __init__(self, idle: bool) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.idle = nn.Linear(4, 4) if idle else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


@pytest.mark.parametrize("idle", [True, False])
def test_a_tensor_that_no_gradient_reaches_is_named(tmp_path, idle):
    someone = patient(tmp_path)
    with torch.device("meta"):
        net, example = Idle(idle), (torch.empty(1, 4),)
    shape = [1, 4]
    work = Workload(net, "", partial(Idle, idle), example, 1.0, shape, shape, {}, None, (4, 4))
    someone.__dict__["workload"] = work
    found = settings.reached(someone)
    assert found.status == ("fail" if idle else "ok") and ("idle.weight" in found.seen) == idle


def test_the_default_model_is_reached_everywhere(tmp_path):
    found = settings.reached(patient(tmp_path))
    assert found.status == "ok", found


def test_memory_that_is_not_there_is_found_and_the_advice_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(settings.torch.cuda, "is_available", lambda: False)
    someone = replace(patient(tmp_path, precision="float32", processes=1), processes=1)
    assert settings.memory(someone).status == "ok"
    work = someone.workload
    needed = memory_of(someone.config, someone.tasks, 1, 16, "cpu", work).total
    monkeypatch.setattr(settings, "available", lambda: int(0.7 * needed))
    found = settings.memory(someone)
    assert found.status == "warn", found
    words = found.advice.removeprefix("Set ").rstrip(".").split(", ")
    advised = dict(word.removeprefix("training.").split() for word in words)
    mended = replace(someone, config=with_training(someone.config, **advised))
    assert settings.memory(mended).status == "ok"
    monkeypatch.setattr(settings, "available", lambda: 1000)
    assert settings.memory(someone).status == "fail"


# ---------------------------------------------------------------------------- machine


def test_a_disk_without_room_or_speed_is_found(tmp_path, monkeypatch):
    someone = patient(tmp_path)
    assert machine.disk(someone).status == "ok" and not list(tmp_path.glob(".stepsight*"))
    monkeypatch.setattr(machine, "_timed", lambda folder: (100.0, 0.01))  # bytes a second
    assert machine.disk(someone).status == "warn"
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    assert machine.disk(someone).status == "fail"


def test_data_that_are_not_there_or_slow_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "_read_rate", lambda source: 1e-3)
    slow = machine.data(patient(tmp_path))
    assert slow.status == "ok" and "once" in slow.seen  # scenes are kept
    missing = from_dict({"tasks": {"depth": {}}, "data": {"nyuv2": {"root": str(tmp_path / "no")}}})
    found = machine.data(patient(tmp_path, missing))
    assert found.status == "fail" and "not found" in found.seen


def test_kernels_agree_here_and_one_that_does_not_is_found(tmp_path, monkeypatch):
    assert machine.kernels(patient(tmp_path)).status == "ok"
    monkeypatch.setattr(machine, "_attention", lambda device: float("inf"))
    found = machine.kernels(patient(tmp_path))
    assert found.status == "fail" and "flash attention" in found.advice


def test_a_tracker_without_a_key_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": None}))
    assert machine.tracker(patient(tmp_path, tracker="wandb")).status == "warn"
    assert machine.tracker(patient(tmp_path, tracker="wandb-offline")).status == "ok"
    assert machine.tracker(patient(tmp_path)).status == "ok"


# ---------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    "name", ["split-64", "DiT-XL/2", "DiT-XL/2-8E2A", "DiT-96x4/8", "unet-sd2", "unet-tiny"]
)
def test_the_small_run_has_the_parts_of_the_large_one(tmp_path, name):
    config = from_dict({"model": {"name": name}, "tasks": {"depth": {}, "amodal": {}}})
    small = shrunk(config)
    RunSpec.of(small, tmp_path)
    assert small.tasks.keys() == config.tasks.keys() and small.codec.path == ""
    assert ("A" in name and "E" in name) == ("4E" in small_name(name))
    assert small.training.images // small.training.batch == STEPS


def losses(monkeypatch, alone: list[float], shared: list[float]) -> None:
    monkeypatch.setattr(runs, "_finished", lambda someone, name, *_: name)
    monkeypatch.setattr(runs, "_losses", {"alone": alone, "shared": shared}.__getitem__)


@pytest.mark.parametrize(
    "shared, status",
    [([1.0] * STEPS, "ok"), ([1.0] * 5 + [1.001], "fail"), ([1.0] * 5, "fail")],
)
def test_processes_that_do_not_agree_are_found(tmp_path, monkeypatch, shared, status):
    losses(monkeypatch, [1.0] * STEPS, shared)
    assert runs.processes(patient(tmp_path)).status == status


def test_a_small_run_that_fails_is_a_finding_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "command", lambda *_: ["sh", "-c", "echo error: no >&2; exit 2"])
    for check in (runs.processes, runs.resume):
        found = check(patient(tmp_path))
        assert found.status == "fail" and "ended with 2: error: no" in found.seen


@pytest.mark.slow
def test_a_small_run_survives_a_kill(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--only", "resume", "--model.name", "DiT-XL/2-8E2A"]
    assert command_line.main(["doctor", "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in found["checks"]] == ["ok"], found


# ---------------------------------------------------------------------------- the command


def test_checks_that_cannot_be_made_are_findings_and_the_others_are_made(tmp_path, monkeypatch):
    def broken(_: Patient) -> Finding:
        raise RuntimeError("no such thing")

    def refused(_: Patient) -> Finding:
        raise UserError("a setting is wrong.")

    checks = {"broken": broken, "refused": refused, "tracker": machine.tracker}
    monkeypatch.setattr(examine, "CHECKS", checks)
    found = list(examine.examined(patient(tmp_path)))
    assert [one.status for one in found] == ["fail", "fail", "ok"]
    assert "RuntimeError: no such thing" in found[0].seen and found[1].seen == "a setting is wrong."


def test_the_command_ends_with_one_where_a_check_fails(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ["--only", "learning-rate", "--only", "average", "--only", "gradients"]
    assert command_line.main(["doctor", "--json", *quick]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and [row["status"] for row in found["checks"]] == ["ok"] * 3
    paper = ["--config", "configs/paper/depth.yaml", "--only", "data", "--only", "average"]
    assert command_line.main(["doctor", *paper]) == 1
    text = capsys.readouterr().out
    assert "fail" in text and "-> Training would stop" in text and "1 to mend" in text
    assert command_line.main(["doctor", "--only", "nose"]) == 2
    assert "--only nose" in capsys.readouterr().err


def test_the_page_shows_what_was_seen_as_it_is():
    text = page("doctor", [Finding("disk", "warn", "[red]/x[/]", "Move [it].")])
    assert "[red]/x[/]" in text and "-> Move [it]." in text and "1 to think about" in text
    assert "all well" in page("doctor", [Finding("disk", "ok", "fine")])
