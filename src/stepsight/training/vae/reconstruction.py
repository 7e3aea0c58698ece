"""What images and targets lose on their way through a codec: numbers and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from stepsight.colours import colour_image
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import Source
from stepsight.models.codec import Codec
from stepsight.models.vae import to_pictures
from stepsight.report.grids import compose
from stepsight.tasks.base import Task
from stepsight.types import Batch

ROWS = 32  # images that pass the codec at a time
SHOWN = 4  # images per task in the picture
COLUMNS = ["image", "restored", "target", "restored"]


@torch.inference_mode()
def reconstruction(
    codec: Codec, task: Task, source: Source, count: int, device: torch.device
) -> dict[str, float]:
    """Over the first `count` samples of a source, at its working size:

    psnr: of the images, in dB, the mean over images. mae: mean absolute error of the task's target
    where it is valid, in the units of the target.
    """
    psnr = total = valid = 0.0
    for start in range(0, count, ROWS):
        batch = read(source, range(start, min(start + ROWS, count)), device)
        psnr += float(image_psnr(restored(codec, batch.image), batch.image).sum())
        target = task.encode(batch)
        error = (restored_target(codec, task, batch) - target.x).abs()
        total += float((error * target.valid).sum())
        valid += float(target.valid.sum()) * target.x.shape[1]
    return {"psnr": psnr / count, "mae": total / max(valid, 1.0)}


def image_psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio "b", dB, of images "b c h w" whose range is [-1, 1]."""
    mse = (x.clamp(-1, 1) - truth).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / mse.clamp_min(1e-12))


def read(source: Source, picks: range, device: torch.device) -> Batch:
    """Samples at working size."""
    samples = [resize_sample(one, source.size) for one in source.samples(picks)]
    return collate(samples).to(device)


def restored(codec: Codec, x: Tensor) -> Tensor:
    """An image "b c h w" through the codec and back."""
    return codec.decode(codec.encode(x), x.shape[1])


def encode_passes(task: Task, batch: Batch) -> Tensor:
    """The target as a codec meets it, "(p b) c h w": each of the task's p passes is an image."""
    return rearrange(task.encode(batch).x, "b (p c) h w -> (p b) c h w", p=task.splits)


def restored_target(codec: Codec, task: Task, batch: Batch) -> Tensor:
    """The target "b c h w" through the codec and back."""
    x = restored(codec, encode_passes(task, batch))
    return rearrange(x, "(p b) c h w -> b (p c) h w", p=task.splits)


@torch.inference_mode()
def reconstruction_grid(
    codec: Codec, held: Sequence[tuple[Task, Source]], path: Path, device: torch.device
) -> Path:
    """Images and targets (of many channels the first three) before and after the codec."""
    rows, labels = [], []
    for task, source in held:
        batch = read(source, range(min(SHOWN, len(source))), device)
        targets = task.encode(batch).x, restored_target(codec, task, batch)
        pictures = [batch.image, restored(codec, batch.image)]
        pictures += [to_pictures(target[:, :3]) for target in targets]
        tiles = [rearrange(colour_image(x), "b c h w -> b h w c").cpu().numpy() for x in pictures]
        rows += [list(row) for row in zip(*tiles)]
        labels += [task.name] * len(batch)
    return compose(rows, COLUMNS, labels, path, scale=max(1, 128 // rows[0][0].shape[0]))
