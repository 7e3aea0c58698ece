"""Pushed to a hub and fetched from it, over the wire of its own client; nothing is fetched that was
not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from stepsight import checkpoint
from stepsight.checkpoint import CheckpointError
from stepsight.cli.main import main
from stepsight.pipeline.dense import DensePipeline


def answer(pipeline: DensePipeline) -> torch.Tensor:
    return pipeline(torch.full((3, 24, 24), 0.3), task="depth").values


def test_what_is_pushed_is_fetched_with_equal_bits(hub, lab, tmp_path, monkeypatch):
    repositories, asked = hub
    made = lab.pipeline()
    address = made.push_to_hub("someone/small", licence="mit")
    assert address.endswith("/someone/small")
    assert {"README.md", "COMPLETE", "stepsight.json"} <= repositories["someone/small"].keys()
    asked.clear()
    with pytest.raises(CheckpointError, match="only fetched with --allow-download"):
        DensePipeline.from_pretrained("someone/small")
    assert asked == []
    again = DensePipeline.from_pretrained("someone/small", allow_download=True)
    assert torch.equal(answer(again), answer(made))
    asked.clear()
    cached = DensePipeline.from_pretrained("someone/small")
    assert torch.equal(answer(cached), answer(made)) and asked == []
    name = f"someone/small@{Path(again.home).name}"  # by its commit
    assert checkpoint.read(name).digest() == again.name


def test_commands_fetch_what_they_are_allowed_to(hub, lab, capsys):
    lab.pipeline().push_to_hub("someone/small")
    steps = ["steps", "--nfe", "2", "--checkpoint", "someone/small"]
    assert main(steps) == 2 and "--allow-download" in capsys.readouterr().err
    assert main([*steps, "--allow-download"]) == 0
    assert main(steps) == 0  # it is here by now
    other = [*steps[:-1], "someone/other"]
    assert main(other) == 2  # an allowance ends with its command
    assert "someone/other not found" in capsys.readouterr().err


def test_what_cannot_be_fetched_is_one_line(hub):
    repositories, _ = hub
    with pytest.raises(CheckpointError, match="fetching no/such failed") as error:
        DensePipeline.from_pretrained("no/such", allow_download=True)
    assert "\n" not in str(error.value)
    repositories["prs-eth/marigold"] = {"model_index.json": b"{}"}
    with pytest.raises(CheckpointError, match="none of stepsight's.*convert import"):
        DensePipeline.from_pretrained("prs-eth/marigold", allow_download=True)


def test_a_hub_that_is_not_there_is_one_line(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="pushing to someone/small failed"):
        lab.pipeline().push_to_hub("someone/small")
