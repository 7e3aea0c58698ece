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
from PIL import Image
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
    batch = Batch(picture_of(image)[None], keys=[key], sources=["input"])
    if "second" in task.required_inputs:
        if second is None:
            raise UserError(f"task {task.name} needs a second image (second=..., --second FILE).")
        batch.second = picture_of(second)[None]
    if "modal" in task.required_inputs:
        if mask is None:
            raise UserError(f"task {task.name} needs the visible mask (mask=..., --mask FILE).")
        batch.modal = mask_of(mask)[None]
    if others := set(task.required_inputs) - {"second", "modal"}:
        raise UserError(
            f"task {task.name} also needs {', '.join(sorted(others))}: score a data set."
        )
    if task.label_count > task.splits:
        batch.class_id = torch.tensor([_class_of(task, class_id)])
    batch = batch.to(batch.image.device)  # tensors may come from several
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


def noise_keys(batch: Batch, task: Task, alike: int | None = None) -> Tensor:
    """The keys int64 "b" of the pictures' noise: of their pixels where `task` sees them, else of
    their names; or `alike` for all."""
    device = batch.image.device
    if alike is not None:
        return torch.full((len(batch),), alike, device=device)
    return content_keys(batch.image) if task.images else name_keys(batch.keys, device)


def content_keys(images: Tensor) -> Tensor:
    """A key int64 for each picture "b 3 h w" in [-1, 1], on its device, that follows from its
    pixels alone, in 8 bits: equal for equal pictures, whatever they are called."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return digest(pixels.flatten(1))


def name_keys(names: Sequence[str], device: torch.device) -> Tensor:
    """A key int64 for each name."""
    return torch.tensor([seed_of(name) for name in names], device=device)


def picture_of(image: Any) -> Tensor:
    """Whatever `to_tensor` reads, or a tensor "3 h w" of uint8 or of floats in [0, 1], as float32
    "3 h w" in [-1, 1]; a tensor stays on its device. Raises UserError for tensors of other shapes
    and ranges."""
    if not isinstance(image, Tensor):
        return to_tensor(image)
    if image.ndim != 3 or len(image) != 3:
        raise UserError(f"a picture as a tensor is 3 h w, not {' '.join(map(str, image.shape))}.")
    if image.dtype == torch.uint8:
        return image.float() / 127.5 - 1
    if not image.is_floating_point():
        raise UserError(f"a picture as a tensor is of uint8 or of floats, not of {image.dtype}.")
    low, high = image.aminmax() if image.numel() else (torch.zeros(()), torch.zeros(()))
    if not (low >= 0 and high <= 1):  # nor NaN
        raise UserError(
            f"a picture of floats holds 0 to 1; this one {low.item():g} to {high.item():g}. Bring "
            "it there: x / 255 of 8 bits, (x + 1) / 2 of what is in -1 to 1."
        )
    return image.float() * 2 - 1


def mask_of(mask: Any) -> Tensor:
    """A mask, bool "1 h w": a path, PIL image, array or tensor of one meaning, as
    `data.decoding.masks` says. Raises UserError for one that has several, or nothing inside."""
    from stepsight.data.decoding import masks

    named = isinstance(mask, (str, Path))
    found = masks.read_mask(mask) if named else masks.mask_of(mask, "", "the mask")
    if not found.any():
        raise UserError(f"{mask if named else 'the mask'}: nothing is inside this mask.")
    return found


def to_tensor(image: Any) -> Tensor:
    """A path, PIL image or array to float32 "3 h w" in [-1, 1], upright.

    Arrays are uint8 or bool "h w", "h w 3" or "h w 4", or floats in [0, 1] of these shapes; alpha
    is dropped. Raises UserError for others, and for PIL images without one meaning as colours.
    """
    from stepsight.data.decoding import images, pixels

    if isinstance(image, (str, Path)):
        return images.read_image(Path(image)).float() / 127.5 - 1
    if isinstance(image, Image.Image):
        try:
            image.load()  # before it is asked how it lies: Pillow turns a TIFF while it is loaded
            return pixels.rgb(image, pixels.orientation_of(image)).float() / 127.5 - 1
        except (ValueError, OSError) as error:
            raise UserError(f"a PIL image that is not read: {error}. Convert it to RGB.") from error
    array = np.asarray(image)
    if not (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (3, 4)):
        raise UserError(f"a picture as an array is h w or h w 3, not {array.shape}.")
    array = repeat(array, "h w -> h w 3") if array.ndim == 2 else array[..., :3]
    array = array.astype(np.uint8) * 255 if array.dtype == bool else array
    return picture_of(rearrange(torch.from_numpy(array.copy()), "h w c -> c h w"))
