"""What is measured of a VAE: how well images and targets survive it, and its picture."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from PIL import Image

from stepsight.config import from_dict
from stepsight.data.collate import collate
from stepsight.models.codec import Pixels
from stepsight.tasks.base import Task
from stepsight.tasks.table import build_tasks
from stepsight.training.vae.reconstruction import (
    image_psnr,
    reconstruction,
    reconstruction_grid,
    restored_target,
)

CPU = torch.device("cpu")


def tasks_of(names: Iterable[str], **flow: str) -> dict[str, Task]:
    return build_tasks(from_dict({"tasks": {name: flow if flow else {} for name in names}}).tasks)


def test_psnr_is_its_definition():
    truth = torch.zeros(2, 3, 4, 4)
    x = torch.full_like(truth, 0.2)
    x[1] = 5.0  # clipped to 1
    expected = [10 * math.log10(4 / 0.04), 10 * math.log10(4)]
    assert image_psnr(x, truth).tolist() == pytest.approx(expected, rel=1e-5)


class Dimmed(Pixels):
    """A codec that loses a fifth of everything."""

    def decode(self, z: torch.Tensor, channels: int, clip: bool = False) -> torch.Tensor:
        return 0.8 * z[:, :channels]


def test_reconstruction_counts_valid_entries_of_the_target_only(lab):
    task = tasks_of(["flow"])["flow"]
    target = task.encode(collate(lab.held.samples(range(6))))
    expected = 0.2 * (target.x.abs() * target.valid).sum() / (2 * target.valid.sum())
    found = reconstruction(Dimmed(), task, lab.held, 6, CPU)
    assert found["mae"] == pytest.approx(float(expected), rel=1e-4)
    lossless = reconstruction(Pixels(), task, lab.held, 6, CPU)
    assert lossless["mae"] == 0 and lossless["psnr"] == pytest.approx(10 * math.log10(4e12))


def test_passes_of_a_target_go_through_the_codec_one_by_one(lab):
    task = tasks_of(["flow"], components="separate")["flow"]
    batch = collate(lab.held.samples(range(3)))
    assert torch.equal(restored_target(Pixels(), task, batch), task.encode(batch).x)


def test_the_grid_shows_every_task(lab, tmp_path):
    tasks = tasks_of(["depth", "semantic"]).values()
    held = [(task, lab.held) for task in tasks]
    path = reconstruction_grid(Pixels(), held, tmp_path / "a.png", CPU)
    with Image.open(path) as picture:
        width, height = picture.size
    assert height > 8 * 128 and width > 4 * 128  # four images of each task, enlarged
