"""What lies beside a DiT's weights, in their file or in others, is used, named or refused."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from planting import files_read, refusal, unrefused
from publishing import SCHEDULER, write_json

from stepsight.conversion.dit import Wishes
from stepsight.conversion.importing import import_published
from stepsight.errors import UserError

ARGS = {"model": "DiT-Ti/2", "image_size": 64, "num_classes": 1000, "vae": "ema", "epochs": 1400}


@pytest.mark.parametrize(
    ("kind", "sizes", "task"),
    [
        ("generalist", {}, None),
        ("dense", {"inputs": 8}, "depth"),
        ("dense", {}, None),
    ],
)
def test_no_file_beside_it_has_a_key_that_is_passed_over(
    published, vae, tmp_path: Path, kind: str, sizes: dict[str, int], task: str | None
):
    file, beside = tmp_path / "weights.pt", tmp_path / "stable-diffusion-2"
    torch.save(getattr(published, kind)(**sizes), file)
    shutil.copytree(vae, beside / "vae")
    write_json(beside / "scheduler/scheduler_config.json", SCHEDULER)
    wishes = Wishes(task=task)
    if kind == "dense" and task is None:  # what lies beside it is not looked for
        scheduler = beside / "scheduler/scheduler_config.json"
        wishes = Wishes(vae=beside / "vae", scheduler=scheduler)
    read = {found.name for found in files_read(file, wishes)}
    assert read == {"config.json", "scheduler_config.json"}
    assert unrefused(file, wishes) == []


def trained(published, folder: Path, **args: Any) -> Path:
    file = folder / "DiT.pt"
    state = published.dense()
    torch.save({"ema": state, "opt": {}, "args": argparse.Namespace(**args)}, file)
    return file


def test_args_of_its_training_are_compared_with_the_tensors(published, tmp_path: Path):
    said = import_published(trained(published, tmp_path, **ARGS)).assumed
    assert any("image_size, num_classes were compared" in sentence for sentence in said)
    assert "beside the weights, not imported: opt, args" in said


@pytest.mark.parametrize(
    "change", [{"model": "DiT-XL/2"}, {"image_size": 256}, {"num_classes": 10}]
)
def test_args_of_another_model_are_refused(published, tmp_path: Path, change: dict[str, Any]):
    said = refusal(trained(published, tmp_path, **ARGS | change), Wishes())
    assert f"args.{next(iter(change))} is" in said


@pytest.mark.parametrize(
    ("kind", "wish"),
    [
        ("dense", {"family": "marigold-depth"}),
        ("dense", {"domain": "indoor"}),
        ("generalist", {"task": "depth"}),
    ],
)
def test_flags_that_a_file_leaves_nothing_to_are_refused(
    published, tmp_path: Path, kind: str, wish: dict[str, str]
):
    torch.save(getattr(published, kind)(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match=f"--{[*wish][0]} says nothing"):
        import_published(tmp_path / "weights.pt", Wishes(**wish))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said"),
    [("x_embedder.proj.weight", "should have 4 axes"), ("pos_embed", "not as those of")],
)
def test_tensors_of_other_axes_are_no_traceback(published, tmp_path: Path, name: str, said: str):
    state = published.dense()
    state[name] = state[name].flatten() if name != "pos_embed" else state[name][:, :0]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=said):
        import_published(tmp_path / "weights.pt")
