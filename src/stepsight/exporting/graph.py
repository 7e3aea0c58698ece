"""The answer of a pipeline as a module whose operations depend on its inputs alone.

    picture (second, mask) -> working size -> condition -> n calls of m members -> merge -> units

is what `BatchPipeline.predict` does, and the module runs the same parts. What a graph cannot hold
is settled before: noise is drawn once and then given back as a constant, or is an input; what
follows from no input (times, noise levels, indices) is computed at once and not recorded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from stepsight.errors import UserError
from stepsight.execution.noise import Stream, normal
from stepsight.pipeline.batches import BatchPipeline
from stepsight.pipeline.defaults import SamplingSetting
from stepsight.pipeline.inputs import noise_keys
from stepsight.pipeline.members import MemberOptions
from stepsight.pipeline.working import Size, grid_of, inputs_at
from stepsight.types import Batch, Prediction

Noise = Literal["constant", "input"]
NAMES = {"second": "second", "modal": "mask"}  # of condition images: fields, inputs of a graph
SEED, KEY = 0, 0  # of constant noise, and what stands in it for the pixels of a picture
AT_ONCE = 1 << 20  # rows of a forward pass: all of them


@dataclass(frozen=True)
class AnswerRequest:
    """One answer of a pipeline that was told how to sample.

    size: height and width of the pictures, which are brought to the network's working size and the
    answer back. None: any multiples of `AnswerGraph.stride`, which the network sees as they are.
    noise: None: a constant of pictures of one size, else an input.
    """

    task: str
    setting: SamplingSetting
    size: Size | None
    noise: Noise | None = None


class AnswerGraph(nn.Module):
    """forward(image "1 3 h w" in [0, 1], second likewise, mask bool "1 1 h w", noise "d r c h w")
    -> (values "1 c h w" in physical units, of several members their spread "1 1 h w").

    Inputs that the task or its starts do not need are None. Noise is standard normal: d draws for
    the rows r = (member run) of what is denoised. Raises UserError for what no graph answers.
    """

    def __init__(self, pipeline: BatchPipeline, asked: AnswerRequest) -> None:
        super().__init__()
        self.asked, self.task = asked, pipeline.task(asked.task)
        self.pipeline = pipeline.with_setting(asked.setting)
        self.net, self.codec = pipeline.net, getattr(pipeline.codec, "module", None)
        cell = int(pipeline.net.stride) * pipeline.codec.downsample  # type: ignore[arg-type]
        self.stride = math.lcm(cell, pipeline.profile.multiple, pipeline.profile.pad)
        self.drawn: dict[str, list[Tensor]] = {"sample": [], "posterior": []}  # in order
        self._refuse()
        self._prepare()

    def forward(
        self,
        image: Tensor,
        second: Tensor | None = None,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        drawn = self.drawn if noise is None else self.drawn | {"sample": [*noise]}
        with Constants():
            return _parts(self._answer(_batch(image, second, mask), Replayed(drawn)))

    def expected(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the pipeline itself predicts from the same inputs."""
        pictures = {name: given[name] for name in given if name != "noise"}
        pipeline = copy(self.pipeline)
        if "noise" in given:
            pipeline.drawn = Replayed(self.drawn | {"sample": [*given["noise"]]})
        if self.asked.size is None:
            pipeline = pipeline.at(max(given["image"].shape[-2:]))
        return _parts(pipeline.predict(_batch(**pictures), self.task.name, **self._options))

    def example(self, size: Size, seed: int = 0) -> dict[str, Tensor]:
        """Inputs of a size by name: smooth colours under grain, the same moved, a disc, noise."""
        draw = torch.Generator().manual_seed(seed)
        smooth = F.interpolate(torch.rand(1, 3, 5, 6, generator=draw), size=size, mode="bilinear")
        image = (smooth + 0.1 * torch.rand(smooth.shape, generator=draw)).clamp(0, 1)
        down, across = (torch.linspace(-1, 1, side) for side in size)
        disc = (down[:, None].square() + across.square() < 0.3)[None, None]
        every = {"image": image, "second": image.roll((1, 2), (2, 3)), "mask": disc}
        needed = (NAMES[field] for field in self.task.required_inputs)
        given = {name: every[name] for name in ("image", *needed)}
        if self.takes_noise:
            drawn = self.drawn["sample"]
            cells = [side // self.pipeline.codec.downsample for side in size]
            rest = drawn[0].shape[2:] if self.asked.size else cells
            shape = (len(drawn), *drawn[0].shape[:2], *rest)
            given["noise"] = torch.randn(shape, generator=draw)
        return given

    @property
    def takes_noise(self) -> bool:
        """Whether noise is an input."""
        usual = "constant" if self.asked.size else "input"
        return bool(self.drawn["sample"]) and (self.asked.noise or usual) == "input"

    @property
    def traced(self) -> Size:
        """The size that it is recorded at: where any will do, about that of training."""
        height, width = self.pipeline.sizes[self.task.name]
        return self.asked.size or (self._whole(height), self._whole(width))

    @property
    def sizes(self) -> list[Size]:
        """Sizes to try it at: where any will do, another one too."""
        height, width = self.traced
        other = self._whole(height // 2), width + self.stride
        return [self.traced] if self.asked.size else [self.traced, other]

    def _whole(self, side: int) -> int:
        return max(side // self.stride, 2) * self.stride

    @property
    def _options(self) -> MemberOptions:
        nfe, members = self.asked.setting.nfe, self.asked.setting.members
        return {"nfe": nfe, "members": members, "seed": SEED, "alike": KEY, "chunk_size": AT_ONCE}

    def _answer(self, batch: Batch, noise: Callable[..., Tensor]) -> Prediction:
        """What `BatchPipeline.predict` does; of any size without the comparisons of sizes by which
        that finds out that nothing is to be resized."""
        pipeline, name, grid = copy(self.pipeline), self.task.name, grid_of(batch)
        pipeline.drawn = noise
        if self.asked.size:
            size, seen = pipeline.working_size(name, grid), pipeline.working(batch, name)
        else:
            profile = pipeline.profile.of_task(name)
            size, seen = grid, inputs_at(batch, grid, self.task.required_inputs, profile)
        keys = noise_keys(batch, self.task, KEY)
        members = pipeline.sampler().draw(seen, self.task, keys, **self._options)
        merged = self.task.merge(members[..., : size[0], : size[1]])
        if self.asked.size:
            return pipeline.finish(merged, batch)
        if merged.uncertainty is not None:
            merged.uncertainty = merged.uncertainty * pipeline.calibration.get(name, 1.0)
        return merged

    def _refuse(self) -> None:
        task, pipeline, size = self.task, self.pipeline, self.traced
        if task.label_count > task.splits:
            raise UserError(f"task {task.name} makes pictures of a class: it is not exported.")
        if others := {*task.required_inputs} - {*NAMES}:
            raise UserError(f"task {task.name} needs {', '.join(others)}: it is not exported.")
        if self.asked.size is None and pipeline.at(max(size)).working_size(task.name, size) != size:
            raise UserError(
                f"the profile {pipeline.profile.name} squashes pictures to squares, so that no size"
                " is seen as it is. Give --size HxW in place of --dynamic, or --profile stepsight."
            )

    @torch.no_grad()
    def _prepare(self) -> None:
        """Fix the times of the walk, and keep what noise a first run draws."""
        times = self.pipeline.diffusion.times(self.asked.setting.nfe)
        self.pipeline.diffusion = copy(self.pipeline.diffusion)
        self.pipeline.diffusion.times = lambda nfe, strength=1.0: times  # type: ignore[method-assign]

        def recorded(stream: Stream, rows: Tensor, shape: Sequence[int]) -> Tensor:
            self.drawn[str(stream[0])].append(normal(stream, rows, shape))
            return self.drawn[str(stream[0])][-1]

        self._answer(_batch(**self.example(self.traced)), recorded)
        constant = self.drawn["posterior"] or (self.drawn["sample"] and not self.takes_noise)
        if self.asked.size is None and constant:
            raise UserError(
                "noise that is a constant has one size. Give --size HxW in place of --dynamic, or "
                "--noise input."
            )


class Replayed:
    """Noise that was drawn before, by kind in the order in which it is asked for."""

    def __init__(self, drawn: Mapping[str, Sequence[Tensor]]) -> None:
        self._rest: dict[str, Iterator[Tensor]] = {kind: iter(x) for kind, x in drawn.items()}

    def __call__(self, stream: Stream, rows: Tensor, shape: Sequence[int]) -> Tensor:
        return next(self._rest[str(stream[0])])


class Constants(TorchFunctionMode):
    """While a graph is recorded, what depends on none of its inputs is computed at once, and is a
    constant of the graph where it meets what does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not torch.compiler.is_exporting():
            return func(*args, **kwargs)
        if any(map(_recorded, tree_leaves((args, kwargs)))):
            return func(*tree_map(_constant, args), **tree_map(_constant, kwargs))
        with _disable_current_modes():
            return func(*args, **kwargs)


def _recorded(value: Any) -> bool:
    """Whether it follows from inputs: tensors and numbers of the recording."""
    if isinstance(value, Tensor):
        return type(value) is not Tensor
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)


def _constant(value: Any) -> Any:
    return torch.ops.aten.lift_fresh.default(value) if type(value) is Tensor else value


def _batch(image: Tensor, second: Tensor | None = None, mask: Tensor | None = None) -> Batch:
    """Inputs of a graph as the pipeline has them."""
    batch = Batch(image * 2 - 1, keys=["image"], sources=["input"], modal=mask)
    batch.second = None if second is None else second * 2 - 1
    return batch


def _parts(prediction: Prediction) -> tuple[Tensor, ...]:
    values, spread = prediction.values, prediction.uncertainty
    return (values,) if spread is None else (values, spread)
