"""`--weights raw`: other numbers, under another name; and what is said of averages that hold much
of the weights that a run began with."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from stepsight import checkpoint
from stepsight.cli import evaluate, main
from stepsight.pipeline.dense import DensePipeline


@pytest.fixture
def two(run):
    """The run, whose raw weights are others than the averaged ones, and which calibrated these."""
    saved = checkpoint.read(run)
    weights = saved.tensors(checkpoint.BACKBONE)
    raw = {name: value + 0.05 * torch.randn_like(value) for name, value in weights.items()}
    meta = {name: saved.meta[name] for name in saved.meta.keys() - {"format", "step", "tensors"}}
    meta |= {"losses": {"depth": 0.5}, "calibration": {"depth": {"scale": 2.0}}}
    checkpoint.write(
        run / "checkpoints",
        2,
        config=saved.config,
        meta=meta | {"images_seen": 16 * 40},
        tensors={checkpoint.BACKBONE: weights, checkpoint.RAW: raw, checkpoint.STATISTICS: {}},
    )
    return run


def scored(run, out, *flags: str) -> dict:
    arguments = ["--checkpoint", run, "--task", "depth", "--data.images", 2, "--processes", 1]
    assert evaluate.main([str(one) for one in [*arguments, *flags, "--out", out]]) == 0
    (row,) = json.loads((out / "results.json").read_text())[:1]
    return row


def test_raw_weights_are_scored_under_their_own_name(two, tmp_path, capsys):
    usual, raw = scored(two, tmp_path / "a"), scored(two, tmp_path / "b", "--weights", "raw")
    assert raw["options"] == usual["options"] | {"weights": "raw"}
    assert raw["checkpoint"] != usual["checkpoint"] and raw["metrics"] != usual["metrics"]
    assert usual["calibration"]["scale"] == 2.0 and not raw["calibration"]["scale"]
    one, other = (
        json.loads((tmp_path / name / "records.jsonl").read_text().splitlines()[0]) for name in "ab"
    )
    assert (one["sampler"], other["sampler"]) == ("ddim", "ddim raw")
    assert (one["loss"], other["loss"]) == (0.5, None)
    said = "66.9 % of the averaged weights are still those that the run began with"
    assert said in usual["label"] and said not in str(raw["label"])
    assert capsys.readouterr().out.count(f"{two}: {said}") == 1


@pytest.mark.slow
def test_a_sweep_of_raw_weights_says_so(two, tmp_path):
    scored(two, tmp_path, "--weights", "raw", "--sweep", "--nfe", "1", "--members", "1")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["checkpoint"] for row in rows} == {f"{two} (raw weights)"}
    assert {row["weights"] for row in rows} == {
        DensePipeline.from_pretrained(two, weights="raw").name
    }


def test_predictions_of_raw_weights(two, picture, tmp_path):
    path = picture()
    for weights in ("ema", "raw"):
        flags = ["predict", path, "--checkpoint", two, "--weights", weights, "--nfe", 1]
        assert main.main([str(one) for one in [*flags, "--out", tmp_path / weights]]) == 0
        pipeline = DensePipeline.from_pretrained(two, weights=weights)
        found = np.load(tmp_path / weights / "a-depth.npy")
        np.testing.assert_array_equal(found, pipeline(path, "depth", nfe=1).values[0].numpy())
    usual, raw = (np.load(tmp_path / name / "a-depth.npy") for name in ("ema", "raw"))
    assert np.abs(usual - raw).max() > 1e-4
