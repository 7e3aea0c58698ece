"""Published checkpoints opened here, and asked with the publisher's own noise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from conformance.rows import relative
from stepsight.conversion.dit import Wishes
from stepsight.conversion.importing import import_published
from stepsight.conversion.write import write
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import Prediction

LAST_DIGITS = 1e-5  # what float32 leaves of one answer computed in two orders


@contextmanager
def imported(source: Path, wishes: Wishes | None = None) -> Iterator[DensePipeline]:
    """A published checkpoint as `stepsight convert import` makes it a run, opened as any run is."""
    with tempfile.TemporaryDirectory() as folder:
        write(import_published(source, wishes), Path(folder, "run"))
        yield DensePipeline.from_pretrained(Path(folder, "run"), "cpu")


@contextmanager
def drawing(
    noise: Tensor, steps: Tensor | None = None, posterior: Tensor | None = None
) -> Iterator[None]:
    """Where members are drawn, `noise` "e c h w" starts member e, `steps` "e s c h w" are its draws
    on the way, and `posterior` "1 c h w" is the draw from that of the picture."""

    def drawn(stream: Any, rows: Tensor, shape: Sequence[int]) -> Tensor:
        if stream[0] == "posterior":
            assert posterior is not None, "the picture's latent is not drawn"
            return posterior
        member, draw = rows[:, 1], rows[:, 2] % (1 << 32)
        given = [noise[m] if d == 0 else steps[m, d - 1] for m, d in zip(member, draw)]  # type: ignore[index]
        return torch.stack(given).float()

    with mock.patch("stepsight.pipeline.members.normal", drawn):
        yield


@contextmanager
def recorded(owner: Any, name: str) -> Iterator[list[Any]]:
    """What a function answers while this lasts."""
    answers: list[Any] = []
    real: Callable[..., Any] = getattr(owner, name)

    def recording(*args: Any, **options: Any) -> Any:
        answers.append(real(*args, **options))
        return answers[-1]

    with mock.patch.object(owner, name, recording):
        yield answers


@contextmanager
def latents_of(pipeline: DensePipeline) -> Iterator[list[Tensor]]:
    """The latents "b c h w" that are decoded while this lasts."""
    seen: list[Tensor] = []
    decode = pipeline.codec.decode

    def decoding(z: Tensor, *more: Any) -> Tensor:
        seen.append(z)
        return decode(z, *more)

    with mock.patch.object(pipeline.codec, "decode", decoding):
        yield seen


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Mean difference of directions "3 h w": that of a vector near zero is undecided."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm(dim=0).mean())


def settled(merge: Callable[[Tensor], Tensor], members: Tensor, theirs: Tensor) -> float:
    """How far what is merged of members lies from theirs; or, where that is less, the same times
    `LAST_DIGITS` over twice how far it moves where the members move by their last digits.

    Published merging stops BFGS after two steps along float32's rounding: the same code answers
    otherwise on another processor. Within twice the largest of 32 moves nothing more can be told.
    """
    ours, draw = merge(members), torch.Generator().manual_seed(0)
    apart = relative(ours, theirs)
    if apart <= LAST_DIGITS:
        return apart
    noise = [torch.rand(members.shape, generator=draw).sub(0.5) * 2**-22 for _ in range(32)]
    moved = max(relative(merge(members * (1 + one)), ours) for one in noise)
    return min(apart, LAST_DIGITS * apart / max(2 * moved, LAST_DIGITS))


def members_of(pipeline: DensePipeline, image: Tensor, task: str, **options: Any) -> Tensor:
    """Samples "e c h w" of a picture, uint8 "h w 3"."""
    from stepsight.pipeline.inputs import single

    batch = single(image.numpy(), pipeline.task(task))
    return pipeline.sample(batch, task, **options)[:, 0]


def whole(pipeline: DensePipeline, image: Tensor, task: str, **options: Any) -> Prediction:
    """The answer to a picture, uint8 "h w 3", as users get it."""
    return pipeline(image.numpy(), task, **options)


__all__ = ["drawing", "imported", "members_of", "latents_of", "recorded", "relative", "whole"]
