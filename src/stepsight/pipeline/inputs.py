"""What users hand to the pipeline: pictures in any of the usual forms, made a batch of one.

Nothing is resized here: the pipeline brings a batch to the working size of its task.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from stepsight.errors import UserError
from stepsight.execution.noise import digest
from stepsight.seeding import seed_of
from stepsight.tasks.base import Task
from stepsight.types import NULL, Batch


def single(
    image: Any,
    task: Task,
    *,
    second: Any = None,
    mask: Any = None,
    class_id: int | Literal["null"] | None = None,
    key: str = "image",
) -> Batch:
    """The batch of one image for `task`, from whatever `to_tensor` reads.

    second: the next frame. mask: the visible part of the object, bool "h w" or a mask image, white
    on black. class_id: what to generate; "null": of no class. `key` distinguishes generated
    pictures. Raises UserError for an input that the task needs and does not get, or one of another
    size than the image.
    """
    batch = Batch(to_tensor(image)[None], keys=[key], sources=["input"])
    if "second" in task.required_inputs:
        if second is None:
            raise UserError(f"task {task.name} needs a second image (second=..., --second FILE).")
        batch.second = to_tensor(second)[None]
    if "modal" in task.required_inputs:
        if mask is None:
            raise UserError(f"task {task.name} needs the visible mask (mask=..., --mask FILE).")
        batch.modal = (to_tensor(mask, grey=True)[None] > 0)[:, :1]
    if others := set(task.required_inputs) - {"second", "modal"}:
        raise UserError(
            f"task {task.name} also needs {', '.join(sorted(others))}: score a data set."
        )
    if task.label_count > task.splits:
        batch.class_id = torch.tensor([_class_of(task, class_id)])
    for field in task.required_inputs:
        grid, size = tuple(getattr(batch, field).shape[-2:]), tuple(batch.image.shape[-2:])
        if grid != size:
            raise UserError(f"task {task.name}: the image is {size}, its {field} is {grid}.")
    return batch


def _class_of(task: Task, class_id: int | Literal["null"] | None) -> int:
    """The class to generate, or NULL. Raises UserError for one that the task does not have."""
    if class_id == "null" and task.hidden_share:
        return NULL
    if class_id is None or class_id == "null" or not 0 <= class_id < task.label_count:
        null = ", or null: of no class" if task.hidden_share else "; it was trained with all shown"
        raise UserError(f"task {task.name} needs class_id, 0 to {task.label_count - 1}{null}.")
    return class_id


def content_keys(images: Tensor) -> Tensor:
    """A key int64 for each picture "b 3 h w" in [-1, 1], on its device, that follows from its
    pixels alone, in 8 bits: equal for equal pictures, whatever they are called."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return digest(pixels.flatten(1))


def name_keys(names: Sequence[str], device: torch.device) -> Tensor:
    """A key int64 for each name."""
    return torch.tensor([seed_of(name) for name in names], device=device)


def to_tensor(image: Any, grey: bool = False) -> Tensor:
    """A path, PIL image or array to float32 "3 h w" (grey: "1 h w") in [-1, 1]."""
    if isinstance(image, (str, Path)):
        from stepsight.data.decoding.images import read_image

        pixels = read_image(Path(image))
    else:
        if getattr(image, "mode", "") in ("P", "PA", "LA", "CMYK"):  # PIL images of other colours
            image = image.convert("RGBA").convert("RGB")
        array = np.asarray(image)
        array = array.astype(np.uint8) * 255 if array.dtype == bool else array
        if array.dtype != np.uint8 or not (array.ndim == 2 or array.shape[2:] in ((3,), (4,))):
            raise UserError(
                f"an image must be uint8 of shape h w or h w 3, not {array.dtype} {array.shape}."
            )
        array = repeat(array, "h w -> h w 3") if array.ndim == 2 else array[..., :3]
        pixels = rearrange(torch.from_numpy(array.copy()), "h w c -> c h w")
    x = pixels.float() / 127.5 - 1
    return x.mean(dim=0, keepdim=True) if grey else x
