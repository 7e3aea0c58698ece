"""`train.py --dry-run` judges: memory, hours, data, and where the run starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepsight.cli import train
from stepsight.config import from_dict
from stepsight.evaluation.records import cost_of
from stepsight.training.planning.hours import Speed, flops_of
from stepsight.training.planning.judge import judged, told
from stepsight.training.planning.memory import with_training
from stepsight.training.planning.workload import workload_of
from stepsight.training.spec import RunSpec

SMALL = ["--model.name", "DiT-64x2/2", "--training.precision", "bf16", "--training.batch", "8"]
SMALL += ["--training.optimizer", "adamw", "--data.scenes.size", "32", "32"]


def asked(capsys, *flags: str) -> dict:
    assert train.main(["--dry-run", "--json", *SMALL, *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_says_whether_it_fits_and_what_would(capsys):
    needed = asked(capsys, "--device-memory", "80")
    assert needed["fits"] is True and needed["hours"] > 0 and needed["problems"] == []
    total, rows = needed["memory_per_device"], needed["alternatives"]
    assert total == needed["plan"]["memory_per_device"] > 1e6
    by_way = {row["recompute"]: row["memory_per_device"] for row in rows if row["micro_batch"] == 8}
    assert by_way["block"] < by_way["selective"] < total
    tight = ("--device-memory", str(1.01 * by_way["block"] / 1e9), "--training.micro_batch", "8")
    found = asked(capsys, *tight)
    assert found["fits"] is False and found["memory_per_device"] == total
    fitting = [row for row in found["alternatives"] if row["fits"]]
    assert any(row["recompute"] == "block" for row in fitting)
    assert train.main(["--dry-run", *SMALL, *tight]) == 0
    text = capsys.readouterr().out
    assert "DOES NOT FIT" in text and "fits with --training.sharding none" in text
    best = fitting[0]
    change = ("--training.recompute", best["recompute"], "--training.micro_batch")
    assert asked(capsys, *tight[:2], *change, str(best["micro_batch"]))["fits"]  # advice holds


def test_auto_takes_what_fits(capsys):
    whole = asked(capsys)["memory_per_device"]
    found = asked(capsys, "--device-memory", str(0.5 * whole / 1e9))
    assert found["fits"] and found["plan"]["micro_batch"] < 8
    assert asked(capsys)["fits"] is None  # nothing was asked


def test_sharding_is_among_the_ways_of_several_devices(capsys):
    found = asked(capsys, "--devices", "4")
    assert {row["sharding"] for row in found["alternatives"]} == {"none", "full"}
    sharded = asked(capsys, "--devices", "4", "--training.sharding", "full")
    assert sharded["memory_parts"]["weights"] == found["memory_parts"]["weights"] // 4
    assert sharded["memory_parts"]["validation"] == found["memory_parts"]["weights"]


def test_hours_are_flops_over_speed(capsys):
    slow, fast = (asked(capsys, "--device-tflops", x, "--mfu", "0.5") for x in ("1", "100"))
    total = sum(slow["flops_by_phase"].values())
    assert slow["hours"] == pytest.approx(total / 0.5e12 / 3600)
    assert fast["hours"] == pytest.approx(slow["hours"] / 100)
    assert slow["hours"] == pytest.approx(sum(slow["hours_by_phase"].values()))
    phases = {"training", "validation", "tuning", "final evaluation", "sweep"}
    assert slow["hours_by_phase"].keys() == phases
    assert slow["flops_by_phase"]["training"] == pytest.approx(slow["flops_train"])
    shorter = asked(capsys, "--training.evaluate", "False")
    assert shorter["hours_by_phase"].keys() == {"training", "validation"}


def test_the_final_evaluation_counts_every_call(lab):
    run = lab.config(("depth",), evaluate=True)
    pipeline = lab.pipeline(run)
    work = workload_of(run, pipeline.tasks)
    with lab.serving():
        spec = RunSpec.of(run, Path())
    found = flops_of(run, pipeline.tasks, work, 1.0, spec)
    cost = cost_of(pipeline, "depth")
    images, calls = 6, run.evaluation.nfe * run.evaluation.members
    assert found["final evaluation"] == images * (2 * cost.encode + calls * cost.call)


@pytest.mark.slow
def test_codes_and_decodes_of_a_vae_are_counted():
    latent = {"tasks": {"depth": {}}, "data": {"scenes": {"size": [64, 64]}}}
    latent |= {"model": {"name": "DiT-64x2/2"}, "codec": {"path": "no-such-vae"}}
    run = from_dict(latent | {"training": {"loss": "squared"}})
    found = judged(run, Speed(), device_memory=80)
    assert found["flops_by_phase"]["coding"] > found["flops_by_phase"]["training"]
    assert found["memory_parts"]["codec"] == 4 * 83_653_863
    assert any("no-such-vae" in problem for problem in found["problems"])
    cached = judged(with_training(run, latents="cache"), Speed(), device_memory=80)
    assert "coding" not in cached["memory_parts"]


def test_data_that_are_not_there_are_a_problem_and_no_error(tmp_path):
    run = {"model": {"name": "DiT-32x1/4"}, "tasks": {"depth": {}}}
    found = judged(from_dict(run | {"data": {"nyuv2": {"root": str(tmp_path / "no")}}}), Speed())
    assert "not found" in found["problems"][0] and "654 samples of test" in found["assumed"][0]
    assert not found["assumptions"]["every_truth"] and found["flops_by_phase"]["final evaluation"]
    assert any(line.startswith("problem   nyuv2") for line in told(found))


def test_the_start_is_looked_at(capsys, lab, tmp_path):
    assert train.main(["--dry-run", *SMALL, "--init-from", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    run = lab.fit(lab.config(("depth",)), tmp_path / "run")
    config = lab.config(("depth",))
    found = judged(config, Speed(), init_from=str(run))["init_from"]
    assert found["same_model"] and found["inherited_flops"] > 0
    assert judged(config, Speed(), init_from=str(run))["problems"] == []
    other = lab.config(("depth",))
    other = from_dict(other.to_dict() | {"model": {"name": "split-32"}})
    refused = judged(other, Speed(), init_from=str(run))
    assert refused["problems"] and not refused["init_from"]["same_model"]


@pytest.mark.parametrize("flag", ["--device-memory", "--mfu", "--device-tflops", "--devices"])
def test_numbers_that_cannot_be_are_refused(capsys, flag):
    assert train.main(["--dry-run", *SMALL, flag, "0"]) == 2
    assert flag in capsys.readouterr().err
