"""Weights of one run as the start of another: other tasks, more condition images, other outputs.

What has the same name and shape is taken as it is. Three parts depend on the tasks of a run:

* label rows go by task name. A new task starts from its share of the old classes (the mean of the
  i-th of n parts, as the paper's four tasks do), or from the null row.
* the input convolution sees target and condition images side by side. A generator without condition
  gets its kernel repeated over all images and divided by their number, so that equal images give
  what the generator gave ("Scaling Properties of Diffusion Models for Perceptual Tasks"). Further
  condition images of a model that has some start at zero, and change nothing.
* outputs that are new start at zero; surplus ones, such as a learned variance, are dropped.

A split backbone reads the picture apart from the target, and further images and features by
convolutions of their own: those that are new start at zero, and what is left of one that has no use
any more, its bias, goes to the picture's.

Tasks that both runs have give the same output before and after, unless the target loses channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from stepsight.checkpoint import BACKBONE, CODEC, Checkpoint, CheckpointError
from stepsight.coding import Layout
from stepsight.models.codec import Codec, CodecShape, described_codec
from stepsight.tasks.table import build_tasks

INPUTS = ("x_embedder.proj", "unet.conv_in")
LABELS = (
    "y_embedder.embedding_table.weight",
    "label.embedding_table.weight",
    "unet.class_embedding.weight",
    "prompt",
    "switch",
)
OUTPUTS = ("final_layer.linear", "unet.conv_out")
# Of a split backbone, whose channels lie in blocks of 4 places: along which dimension.
SPLIT = {"input.weight": 1, "input_images.weight": 1, "output.weight": 0, "output.bias": 0}
IMAGES, PICTURE = "input_images.bias", "pictured.bias"
OPTIONAL = ("features.", "input_images.", "input_features.", "input_coarse.", "input_looked.")


def adapt(saved: Checkpoint, net: nn.Module, layout: Layout, codec: Codec) -> dict[str, Tensor]:
    """The averaged weights of `saved` for `net`, a backbone with `layout` on latents of `codec`.

    Raises CheckpointError if the latents are another VAE's. What does not fit is left as it is, for
    `checkpoint.load_weights` to list.
    """
    trained = saved.meta.get("codec", codec.name)
    if trained != codec.name:
        raise CheckpointError(
            f"{saved.path} was trained in the latents of {trained}, this run has {codec.name}. "
            f"Set codec.path to the VAE it was trained with."
        )
    change = Change(layout_of(saved), layout, codec.channels(3), int(net.stride))  # type: ignore[arg-type]
    return change.apply(saved.tensors(BACKBONE), net.state_dict())


def layout_of(saved: Checkpoint) -> Layout:
    """Channels and rows of the backbone in a checkpoint."""
    shape: CodecShape = described_codec(saved.config.codec, saved.home / CODEC)
    return Layout.of(build_tasks(saved.config.tasks), shape)


@dataclass(frozen=True)
class Change:
    """From the layout of a checkpoint to that of a run."""

    old: Layout
    new: Layout
    slot: int  # working channels of one condition image
    stride: int  # of the backbone: a DiT's patch side

    def apply(self, weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` in the shapes of `ours`, as far as the layouts explain the difference."""
        adapted = {n: w for n, w in weights.items() if not n.startswith(OPTIONAL) or n in ours}
        for name, like in ours.items():
            if name.startswith(OPTIONAL) and name not in weights:
                adapted[name] = torch.zeros_like(like, device="cpu")
            elif name in weights:
                adapted[name] = self._part(name, weights[name], like)
        if IMAGES in weights and IMAGES not in ours and PICTURE in ours:
            adapted[PICTURE] = weights[PICTURE] + weights[IMAGES]
        return adapted

    def _part(self, name: str, value: Tensor, like: Tensor) -> Tensor:
        module = name.rpartition(".")[0]
        if name in LABELS:
            return self._rows(value)
        if name in SPLIT:
            return _fitted(value, like.shape[SPLIT[name]], SPLIT[name])
        if module in INPUTS and _outer(value, self.old) != _outer(like, self.new):
            return value  # another backbone's
        if module in INPUTS and name.endswith("weight"):
            return self._kernel(value, like, cond_first=module == "unet.conv_in")
        if module in INPUTS:
            return self._route(value[None] if value.ndim == 1 else value, like)
        if module in OUTPUTS:
            cells = self.stride**2 if module == "final_layer.linear" else 1
            return self._outputs(value, like, cells)
        return value

    def _rows(self, table: Tensor) -> Tensor:
        """Label rows "r ..." by task, the null row last."""
        null = table[self.old.labels]
        fresh = [task for task in self.new.rows if not self._shared(task)]
        generates = self.old.cond == 0 and self.old.labels > 1  # so that its rows are classes
        classes = table[: self.old.labels] if generates else null[None]
        starts = {task: part.mean(dim=0) for task, part in zip(fresh, _shares(classes, len(fresh)))}
        rows = [
            repeat(starts[task], "... -> r ...", r=self._count(task))
            if task in starts
            else table[self.old.span(task)]
            for task in self.new.rows
        ]
        return torch.cat([*rows, null[None]])

    def _shared(self, task: str) -> bool:
        """Whether both runs have the task, with as many rows."""
        return task in self.old.rows and _len(self.old.span(task)) == self._count(task)

    def _count(self, task: str) -> int:
        return _len(self.new.span(task))

    def _kernel(self, value: Tensor, like: Tensor, cond_first: bool) -> Tensor:
        """An input convolution: shared "o i h w" or routed "r o (i h w)"."""
        inputs = self.old.target + self.old.cond
        kernel = (
            rearrange(value, "o i h w -> 1 o i (h w)")
            if value.ndim == 4
            else rearrange(value, "r o (i k) -> r o i k", i=inputs)
        )
        if cond_first:
            kernel = kernel.roll(-self.old.cond, dims=2)
        kernel = self._widen(kernel)
        if cond_first:
            kernel = kernel.roll(self.new.cond, dims=2)
        return self._route(kernel, like)

    def _widen(self, kernel: Tensor) -> Tensor:
        """ "r o i k" with the target's channels first, to the new channels."""
        target, cond = kernel.split([self.old.target, self.old.cond], dim=2)
        images = self.new.cond // self.slot
        kept = any(map(self._shared, self.new.rows))
        if images and not self.old.cond and not kept:  # a generator learns to look
            share = target / (1 + images)
            cond = repeat(_fitted(share, self.slot, 2), "r o i k -> r o (n i) k", n=images)
            target = share
        return torch.cat([_fitted(target, self.new.target, 2), _fitted(cond, self.new.cond, 2)], 2)

    def _route(self, value: Tensor, like: Tensor) -> Tensor:
        """One "1 ..." or one per label row "r ..." -> the kind that `like` is."""
        if like.ndim in (1, 4):  # shared; a routed one cannot become it and is reported
            return value[0].reshape(like.shape) if len(value) == 1 else value
        if len(value) > 1:
            value = torch.cat(
                [
                    value[self.old.span(task)]
                    if self._shared(task)
                    else value.mean(dim=0, keepdim=True).expand(self._count(task), *value.shape[1:])
                    for task in self.new.rows
                ]
            )
        return value.expand(len(like), *value.shape[1:]).reshape(like.shape)

    def _outputs(self, value: Tensor, like: Tensor, cells: int) -> Tensor:
        """Rows "(k c) ..." of the last layer: the answer's channels, then those of a variance."""
        if len(value) % (cells * self.old.target):
            return value  # another patch side
        rows = value.unflatten(0, (cells, -1))
        answer = _fitted(rows[:, : self.old.target], self.new.target, 1)
        if len(like) > cells * self.new.target:
            variance = _fitted(rows[:, self.old.target :], self.new.target, 1)
            answer = torch.cat([answer, variance], dim=1)
        return answer.flatten(0, 1)


def _outer(value: Tensor, layout: Layout) -> tuple[int, ...]:
    """Outputs and kernel cells of an input convolution, "o i h w" or "r o (i k)"; of a bias,
    "o" or "r o", its outputs."""
    if value.ndim == 4:
        return value.shape[0], value.shape[2:].numel()
    if value.ndim == 3:
        return value.shape[1], value.shape[2] // (layout.target + layout.cond)
    return (value.shape[-1],)


def _shares(rows: Tensor, parts: int) -> list[Tensor]:
    """`rows` in consecutive parts; all of them for each where they are fewer."""
    if not parts or len(rows) < parts:
        return [rows] * parts
    return list(rows.tensor_split(parts))


def _len(span: slice) -> int:
    return span.stop - span.start


def _fitted(x: Tensor, channels: int, dim: int) -> Tensor:
    """`x` with so many channels along `dim`: cut, or filled with zeros."""
    have = x.shape[dim]
    if have >= channels:
        return x.narrow(dim, 0, channels)
    zeros = x.new_zeros(1).expand(*x.shape[:dim], channels - have, *x.shape[dim + 1 :])
    return torch.cat([x, zeros], dim)
