"""What a call may be told: one picture or several, each with what its task needs beside it; where
and in what to compute; and what the arguments of other libraries are called here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from stepsight.errors import UserError, suggest
from stepsight.execution.config import Precision
from stepsight.execution.precision import DTYPES, best_device
from stepsight.pipeline.inputs import single
from stepsight.tasks.base import Task
from stepsight.types import Batch

Device = str | torch.device
DType = str | torch.dtype
NAMES: dict[str, Precision] = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "fp16": "fp16",
    "half": "fp16",
}
# Arguments by the names that other libraries have for them (diffusers and Marigold foremost).
KNOWN_ELSEWHERE = {
    "num_inference_steps": "nfe",
    "denoising_steps": "nfe",
    "steps": "nfe",
    "ensemble_size": "members",
    "processing_resolution": "size",
    "processing_res": "size",
    "resolution": "size",
    "input_size": "size",
    "generator": "seed",
    "class_labels": "class_id",
    "scheduler": "sampler",
    "image2": "second",
    "mask_image": "mask",
}


class UnknownOption(UserError, TypeError):
    """A keyword that a call does not have."""


class CallOptions(TypedDict, total=False):
    """What `DensePipeline.__call__` takes besides pictures and task."""

    second: Any
    mask: Any
    class_id: Any
    nfe: int | None
    members: int | None
    temperature: float | None
    views: str | None
    sampler: str | None
    seed: int
    key: str
    budget: str | None
    sweep: Any
    tolerance: float | None
    size: int | None


class Beside(NamedTuple):
    """What pictures come with: one value each, or in a call on several a list of them."""

    second: Any
    mask: Any
    class_id: Any  # a number, "null" or a list of them
    key: str


def are_several(pictures: Any) -> bool:
    """Whether pictures are a list, a tuple or a tensor "b 3 h w"."""
    return isinstance(pictures, list | tuple) or (
        isinstance(pictures, Tensor) and pictures.ndim == 4
    )


def one_by_one(pictures: Any, task: Task, given: Beside) -> Iterator[Batch]:
    """A batch of one for each of several pictures, read when it is asked for.

    Raises UserError for pictures that `single` refuses, named by their place, and where there are
    more or fewer seconds, masks or classes than pictures.
    """
    count = len(pictures)
    beside = {"second": given.second, "mask": given.mask}
    for name, value in beside.items():
        if value is not None and not (are_several(value) and len(value) == count):
            got = f"{len(value)} of them" if are_several(value) else "one for all"
            raise UserError(f"{count} pictures, and as {name} {got}: give a list of {count}.")
    classes = given.class_id
    if not isinstance(classes, list | tuple):
        classes = [classes] * count
    if len(classes) != count:
        raise UserError(f"{count} pictures, and {len(classes)} classes: give as many.")
    for place in range(count):
        more = {name: value[place] for name, value in beside.items() if value is not None}
        try:
            yield single(pictures[place], task, class_id=classes[place], key=given.key, **more)
        except UserError as error:
            raise type(error)(f"picture [{place}] of {count}: {error}") from error


def refuse_unknown(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise UnknownOption for the first of some keywords, with what it is called here."""
    for name in options:
        own = KNOWN_ELSEWHERE.get(name)
        near = f" It is called {own} here." if own else suggest(name, known)
        raise UnknownOption(f"a call has no argument '{name}'.{near}")


def device_of(device: Device) -> torch.device:
    """The device that is meant; "auto": the fastest there is. Raises UserError for one that this
    machine, or this build of torch, does not have."""
    try:
        found = torch.device(best_device() if device == "auto" else device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise UserError(
            f"device {device}: not to be had here ({reason}). Choose auto, or cpu."
        ) from None
    return found


def precision_of(dtype: DType | None, precision: Precision = "auto") -> Precision:
    """The precision that a dtype is called here: "bfloat16", "float16", "float32", or torch's.

    Raises UserError for another, and for one that contradicts the precision asked for.
    """
    if dtype is None:
        return precision
    name = str(dtype).removeprefix("torch.")
    if name not in NAMES:
        raise UserError(f"dtype {name} is none to compute in.{suggest(name, NAMES)}")
    if precision not in ("auto", NAMES[name]):
        raise UserError(f"dtype {name} and precision {precision} contradict each other: give one.")
    return NAMES[name]


def check_weights(held: str | None, asked: Precision) -> None:
    """Raise UserError where weights that were cast to one precision are to compute in another."""
    if held is not None and asked not in ("auto", held):
        was = str(DTYPES[held]).removeprefix("torch.")
        raise UserError(
            f"the weights were rounded to {was}, and widening them brings nothing back. Open the "
            f"checkpoint anew: from_pretrained(..., dtype={asked!r})."
        )
