"""What a stage costs: the same figures as `--dry-run`, data or no data, measured or stated."""

from __future__ import annotations

import json

import pytest
import torch

from stepsight.config import from_dict, load
from stepsight.errors import UserError
from stepsight.training.planning.hours import Speed
from stepsight.training.planning.judge import judged, told
from stepsight.training.planning.pricing import price, reached

HALF = {"utilisation": 0.5, "devices": 2, "peak": 1e12}


@pytest.fixture(scope="module")
def paper():
    """The paper's depth, whose data are not here, with the smallest network of its kind."""
    config = load(["configs/paper/depth.yaml"]).to_dict()
    return from_dict(config | {"model": config["model"] | {"name": "DiT-64x2/2"}})


def test_what_the_dry_run_says_is_what_it_costs(lab):
    run = lab.config(("depth",), evaluate=True)
    run = from_dict(run.to_dict() | {"data": {"scenes": {"size": [16, 16]}}})
    found, asked = judged(run, Speed(2, 1.0, 0.5), 80), price(run, **HALF, room=80)
    assert asked.parts == found["flops_by_phase"] and asked.hours == found["hours"]
    assert asked.bytes_per_device == found["memory_per_device"]
    assert asked.verdict == found["verdict"] and asked.fits
    assert asked.hours == pytest.approx(asked.flops / 1e12 / 3600)
    assert asked.hours_by_part == pytest.approx(found["hours_by_phase"])


def test_data_that_are_not_there_count_as_published(paper):
    """The final evaluation of depth costs more than its training: it must not be left out."""
    whole = price(paper, **HALF)
    assert whole.parts["final evaluation"] > whole.parts["training"]
    assert whole.assumed == (
        "data.hypersim is not there: 53,885 samples of train, as published; "
        "7,370 samples of val, as published",
    )
    told_of = told(judged(paper, Speed()))
    here = [line for line in told_of if "not of this machine, which has none" in line]
    assert len(here) == (not torch.cuda.is_available())
    assert any("53,885" in line for line in told_of)
    assert not any(line.startswith("trains") for line in told_of)
    unknown = {"data": {"kins": {"root": "none"}}, "tasks": {"amodal": {}}, "codec": {"path": ""}}
    (said,) = price(from_dict(paper.to_dict() | unknown), **HALF).assumed
    assert "is not known, counted as none" in said


def test_a_stage_of_its_own_costs_its_part_of_the_whole(paper):
    whole = price(paper, **HALF)
    for kind, part in (("latents", "latent coding"), ("evaluate", "final evaluation")):
        alone = price(paper, kind=kind, **HALF, room=80)
        assert alone.parts == {part: whole.parts[part]} and alone.fits
        assert alone.bytes_per_device > 4 * 83_653_863  # the VAE, and what it works on
    swept = price(paper, kind="sweep", **HALF, room=1e-3)
    assert swept.parts == {"sweep": whole.parts["sweep"]}
    assert swept.fits is False and "DOES NOT FIT 0.001 GB" in swept.verdict
    rest = price(paper, **HALF, without=["latent coding"])
    assert rest.flops == pytest.approx(whole.flops - whole.parts["latent coding"])


def test_what_was_reached_is_read_from_a_profile_and_from_a_run(lab, tmp_path):
    (tmp_path / "profile").mkdir()
    figures = {"flops_per_s": 3e11, "steps": 20, "model": "DiT-S/2", "precision": "bf16"}
    figures |= {"device": "H200"}
    (tmp_path / "profile" / "profile.json").write_text(json.dumps(figures))
    share, how = reached(tmp_path, 1e12)
    assert share == 0.3 and "a profile of 20 steps, DiT-S/2, bf16, H200: 0.3 TFLOP/s" in how
    run = lab.fit(lab.config(("depth",)), tmp_path / "run")
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    share, how = reached(run, 1e12)
    assert share > 0 and f"{sum('images_per_s' in row for row in log)} lines" in how
    assert str(run) in str(Speed(1, 1.0, share, how))
    with pytest.raises(UserError, match="profile 20"):
        reached(tmp_path / "none", 1e12)
