"""Profiling a run: it measures what is there, and changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity

from stepsight.cli import train
from stepsight.errors import UserError
from stepsight.training import profile
from stepsight.training.planning.dry_run import describe
from stepsight.training.profile import PARTS, TRACED, WARM_UP, StepProfile, ceiling, memory, run
from stepsight.training.progress import Progress

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
STEPS = 2
LENGTH = WARM_UP + STEPS + TRACED


@pytest.fixture(scope="module")
def setting(laboratory):
    """Eight steps more than are profiled, with a validation and a checkpoint in their midst."""
    images = 8 * (LENGTH + 4)
    every = {"first_validation": 40, "validate_every": 48, "checkpoint_every": 16}
    return laboratory().config(("depth", "flow"), images=images, **every)


@pytest.fixture(scope="module")
def profiled(laboratory, setting, tmp_path_factory) -> Path:
    return laboratory().fit(setting, tmp_path_factory.mktemp("runs") / "run", profile=STEPS)


@pytest.fixture(scope="module")
def figures(profiled) -> dict:
    return json.loads((profiled / "profile/profile.json").read_text())


def test_parts_make_up_the_step(figures, setting):
    parts, batch = figures["parts_s"], setting.training.batch
    assert [*parts] == [*PARTS, "rest"] and all(value > 0 for value in parts.values())
    in_step = sum(value for name, value in parts.items() if name != profile.CHECKPOINT)
    assert in_step == pytest.approx(figures["step_s"])
    assert parts["forward"] + parts["backward"] > 0.5 * figures["step_s"]
    assert figures["images_per_s"] == pytest.approx(batch / figures["step_s"])
    assert parts["checkpoint"] == pytest.approx(figures["checkpoint_s"] * batch / 16)


def test_utilisation_is_of_the_models_flops(figures, setting):
    flops = describe(setting)["flops_train_per_image"] * setting.training.batch
    assert figures["flops_per_step"] == pytest.approx(flops, rel=1e-6)
    used = flops / figures["step_s"] / figures["matmul_flops_per_s"]
    assert 0 < figures["mfu"] == pytest.approx(used, rel=1e-6)
    assert figures["mfu"] < 1


def test_the_trace_is_of_the_steps_after_those_that_are_measured(profiled):
    events = json.loads((profiled / "profile/trace.json").read_text())["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert names.count("forward") == names.count("backward") == TRACED
    assert names.count("clip, optimizer") >= TRACED


def test_measuring_changes_nothing_and_the_run_goes_on(lab, setting, profiled, tmp_path):
    assert not list(profiled.glob("samples/*")) and not (profiled / "report.html").exists()
    assert (profiled / "checkpoints/last.txt").read_text().strip() == f"step-{LENGTH:06d}"
    assert len(lab.rows(profiled)) == LENGTH and lab.rows(profiled, "val") == []
    whole = lab.fit(setting, tmp_path / "whole")
    assert lab.losses(lab.fit(setting, profiled, resume="auto")) == lab.losses(whole)


def test_it_is_said_in_a_table(profiled):
    log = (profiled / "train.log").read_text()
    for name in (*PARTS, "rest", "images/s", "MFU", "planned"):
        assert name in log


def test_a_part_lasts_as_long_as_its_block_and_processors_rest_in_it(tmp_path):
    found = StepProfile(3, CPU, Progress(), tmp_path / "profile/trace.json")
    with profile.working(found):
        while not profile.over():
            with profile.part("data wait"):
                time.sleep(0.02)
            assert profile.stepped()
    spans = found.spans["data wait"]
    waits = [ended.seconds(began) for began, ended in spans]
    assert len(spans) == 3  # of ten steps
    assert all(0.02 <= wall < 0.2 and busy < 0.01 for wall, busy in waits)
    assert found.whole[1].wall - found.whole[0].wall >= 3 * 0.02
    assert not profile.stepped() and not profile.over()  # of a loop that is not profiled


def test_a_trace_tells_the_most_that_was_allocated(tmp_path):
    old = [torch.empty(500_000)]
    for _ in range(2):  # a second profile counts from its own beginning
        with torch.profiler.profile(
            activities=[ProfilerActivity.CPU], profile_memory=True
        ) as traced:
            one, two = torch.empty(250_000), torch.empty(1_000_000)  # 1 and 4 MB
            del two
            three = torch.empty(500_000)
        traced.export_chrome_trace(str(tmp_path / "trace.json"))
        assert memory.allocated(tmp_path / "trace.json") == 5_000_000
        del one, three
    old.clear()


def test_the_ceiling_is_the_best_round_of_a_product(monkeypatch):
    rounds = iter([0.5, 0.25, *[1.0] * ceiling.ROUNDS])
    monkeypatch.setattr(ceiling, "_seconds", lambda *given: next(rounds))
    assert ceiling.matmul_flops(CPU, "bf16", side=10) == 2 * 10**3 / 0.25
    monkeypatch.undo()
    assert ceiling.matmul_flops(CPU, "float32", side=128) > 1e8


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--profile", "0"], "at least 1"),
        (["--profile", "x"], "--profile"),
        (["--profile", "2", "--dry-run"], "--dry-run"),
        (["--profile", "2", "--print-config"], "--print-config"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, said):
    assert train.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_more_steps_than_the_run_has_are_refused_before_it_begins(lab, setting, tmp_path):
    run.enough_steps(setting.training, 0, STEPS + 4)
    run.enough_steps(setting.training, 4, STEPS)
    with pytest.raises(UserError, match=f"{LENGTH + 5}, the run has {LENGTH + 4} left"):
        lab.fit(setting, tmp_path / "run", profile=STEPS + 5)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("name", ["float32", "bf16", "fp16", "auto"])
def test_precision_is_a_flag(name):
    given = train.Args.parse(["--precision", name, "--config", "smoke"], "train.py")
    assert given.config.training.precision == name


def test_a_precision_that_is_given_twice_is_refused():
    twice = ["--precision", "bf16", "--training.precision", "float32"]
    with pytest.raises(UserError, match="short for --training.precision"):
        train.Args.parse(twice, "train.py")


@pytest.mark.slow
def test_of_several_processes_the_first_one_speaks(tmp_path):
    small = ["--model.name", "split-8", "--data.scenes.size", "32", "32"]
    small += ["--data.scenes.count", "64", "--data.scenes.eval-count", "4"]
    small += ["--training.processes", "2", "--training.images", "256", "--run-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--profile", "3", *small],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clip, optimizer") == 1
    found = json.loads((tmp_path / "profile/profile.json").read_text())
    assert found["processes"] == 2
    traces = sorted(path.name for path in (tmp_path / "profile").glob("*trace.json"))
    assert traces == ["1-trace.json", "trace.json"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_mark_does_not_wait_for_the_gpu(tmp_path):
    gpu = torch.device("cuda")
    found = StepProfile(STEPS, gpu, Progress(), tmp_path / "profile/trace.json")
    a = torch.randn(4096, 4096, device=gpu)
    with profile.working(found):
        while not profile.over():
            before = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("error")
            try:
                with profile.part("forward"):
                    for _ in range(10):
                        torch.mm(a, a)
            finally:
                torch.cuda.set_sync_debug_mode(before)
            profile.stepped()
    torch.cuda.synchronize()
    (began, ended), *_ = found.spans["forward"]
    device, _ = ended.seconds(began)
    assert device > ended.wall - began.wall  # the host was through with it before the device
