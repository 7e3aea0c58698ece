"""DensePipeline: from an image to depth, flow, masks, classes or normals.

Strangers call it on a picture; validation, evaluation and the sweep call `sample` and `predict` on
batches. An image is brought to the working size of its task, members are denoised from noise that
is seeded per image and member, and the merged prediction is brought back to the image's own grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.coding import Layout, build_network, code, own_codec, working_channels
from stepsight.config import RunConfig
from stepsight.diffusion.noise import row_noise
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.samplers import SAMPLERS
from stepsight.errors import UserError, suggest
from stepsight.models.codec import Codec, Pixels
from stepsight.tasks.base import Task, resize
from stepsight.tasks.table import build_tasks
from stepsight.types import Batch, Coded, Prediction


class DensePipeline:
    """A trained backbone with everything needed to use it.

    sizes: the working (height, width) each task was trained at.
    statistics: training statistics of the trivial predictors, by task (may be empty).
    """

    def __init__(
        self,
        net: nn.Module,
        tasks: Mapping[str, Task],
        config: RunConfig,
        sizes: Mapping[str, tuple[int, int]],
        statistics: Mapping[str, Tensor] | None = None,
        name: str = "",
        codec: Codec | None = None,
    ) -> None:
        self.net, self.tasks, self.config, self.sizes = net, dict(tasks), config, dict(sizes)
        self.statistics = dict(statistics or {})
        self.name = name  # digest of the weights
        self.diffusion = Diffusion(config.diffusion)
        self.codec = codec or Pixels()
        self.layout = Layout.of(self.tasks, self.codec)

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Open a run folder (its best checkpoint, else its last) or a step folder.

        Raises CheckpointError if it is missing, unfinished, damaged or another model's.
        """
        saved = checkpoint.read(path)
        tasks = build_tasks(saved.config.tasks)
        codec = own_codec(saved)
        net = build_network(saved.config, tasks, codec)
        checkpoint.load_weights(net, saved.tensors(checkpoint.BACKBONE), saved.path)
        sizes = {task: (int(h), int(w)) for task, (h, w) in saved.meta["sizes"].items()}
        statistics = saved.tensors(checkpoint.STATISTICS)
        net.to(device).eval().requires_grad_(False)
        name, codec = saved.digest(), codec.to(device)
        return cls(net, tasks, saved.config, sizes, statistics, name, codec)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def task(self, name: str) -> Task:
        """The task called `name`. Raises UserError if this model was not trained for it."""
        if name not in self.tasks:
            raise UserError(
                f"the checkpoint has {', '.join(self.tasks)}; asked for {name}."
                f"{suggest(name, self.tasks)}"
            )
        return self.tasks[name]

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,
        task: str = "depth",
        *,
        second: Any = None,
        mask: Any = None,
        class_id: int | None = None,
        nfe: int | None = None,
        members: int | None = None,
        sampler: str | None = None,
        seed: int = 0,
        key: str = "image",
    ) -> Prediction:
        """Predict for one image of any size: a path, a PIL image, or an array "h w 3" of uint8.

        second: the next frame (flow). mask: the visible part of the object, bool "h w" or a path
        to a mask image, white on black (amodal). class_id: what to generate (image), where the
        picture given lends its shape alone. nfe, members: default to the run's evaluation settings.
        Returns a Prediction on the image's own grid ("1 c h w"), with `picture` filled in.
        Raises UserError for a task the model lacks or an input the task needs.
        """
        chosen, usual = self.task(task), self.config.evaluation
        batch = Batch(to_tensor(image)[None], keys=[key], sources=["input"])
        if "second" in chosen.asks:
            if second is None:
                raise UserError(f"task {task} needs a second image (second=..., --second FILE).")
            batch.second = to_tensor(second)[None]
        if "modal" in chosen.asks:
            if mask is None:
                raise UserError(f"task {task} needs the visible mask (mask=..., --mask FILE).")
            batch.modal = (to_tensor(mask, grey=True)[None] > 0)[:, :1]
        if chosen.rows > chosen.passes:
            if class_id is None or not 0 <= class_id < chosen.rows:
                raise UserError(f"task {task} needs class_id, 0 to {chosen.rows - 1}.")
            batch.class_id = torch.tensor([class_id])
        for field in chosen.asks:
            grid, own = tuple(getattr(batch, field).shape[-2:]), tuple(batch.image.shape[-2:])
            if grid != own:
                raise UserError(f"task {task}: the image is {own}, its {field} is {grid}.")
        prediction = self.predict(
            batch.to(self.device),
            task,
            nfe=usual.nfe if nfe is None else nfe,
            members=usual.members if members is None else members,
            sampler=sampler,
            seed=seed,
        )
        prediction.picture = chosen.picture(prediction.values, batch.to(self.device))
        return prediction

    @torch.inference_mode()
    def predict(
        self,
        batch: Batch,
        task: str,
        *,
        nfe: int,
        members: int,
        sampler: str | None = None,
        seed: int = 0,
        rows: int = 64,
    ) -> Prediction:
        """The merged prediction on the batch's own grid."""
        samples = self.sample(
            batch, task, nfe=nfe, members=members, sampler=sampler, seed=seed, rows=rows
        )
        return self.finish(self.task(task).merge(samples), batch)

    def finish(self, prediction: Prediction, batch: Batch) -> Prediction:
        """A prediction at working size brought to the grid of `batch`."""
        grid = (int(batch.image.shape[-2]), int(batch.image.shape[-1]))
        task = self.tasks[prediction.task]
        spread = prediction.uncertainty
        if spread is not None and task.name == "flow":  # a length, which grows with the grid
            spread = spread * math.sqrt(grid[0] * grid[1] / math.prod(spread.shape[-2:]))
        return replace(
            prediction,
            values=task.rescale(prediction.values, grid),
            uncertainty=None if spread is None else resize(spread, grid),
        )

    @torch.inference_mode()
    def sample(
        self,
        batch: Batch,
        task: str,
        *,
        nfe: int,
        members: int,
        sampler: str | None = None,
        seed: int = 0,
        rows: int = 64,
    ) -> Tensor:
        """`members` samples "e b c h w" of the task's target, at its working size.

        Noise depends on (seed, key, member, step) alone: members are nested, and a row's result
        does not depend on what else is in the batch. `rows` bounds the forward pass.
        """
        if members < 1:
            raise UserError(f"{members} members: an ensemble needs at least 1.")
        chosen = self.task(task)
        coded = self.code(self.working(batch, task), task)
        keys = [
            (key, member, *([run] if run else []))  # the first run's noise is that of a single run
            for member in range(members)
            for run in range(chosen.passes)
            for key in batch.keys
        ]
        used, channels = working_channels(chosen, self.codec), chosen.channels // chosen.passes
        chunks = []
        for start in range(0, len(keys), rows):
            part = keys[start : start + rows]
            picks = torch.tensor([(start + i) % len(coded.label) for i in range(len(part))])
            z = self._denoise(_take(coded, picks), part, nfe, sampler, seed)
            chunks.append(self.codec.decode(z[:, :used], channels))
        return rearrange(
            torch.cat(chunks), "(e p b) c h w -> e b (p c) h w", e=members, p=chosen.passes
        )

    def _denoise(
        self, coded: Coded, keys: list[tuple[Any, ...]], nfe: int, sampler: str | None, seed: int
    ) -> Tensor:
        settings = self.config.diffusion
        diffusion = self.diffusion
        if sampler is not None and sampler != settings.sampler:
            if sampler not in SAMPLERS:
                raise UserError(f"sampler '{sampler}' is unknown.{suggest(sampler, SAMPLERS)}")
            diffusion = Diffusion(replace(settings, sampler=sampler))  # type: ignore[arg-type]
        shape = (self.layout.target, *coded.cond.shape[-2:])

        def noise(draw: int) -> Tensor:
            rows = [(seed, "sample", *key, draw) for key in keys]
            return row_noise(shape, rows).to(self.device)

        return diffusion.sample(diffusion.denoiser(self.net, coded), noise, nfe)

    def working(self, batch: Batch, task: str) -> Batch:
        """The batch's inputs at the task's working size; the truth is left behind."""
        size = self.working_size(task, (int(batch.image.shape[-2]), int(batch.image.shape[-1])))
        inputs = Batch(resize(batch.image, size), keys=batch.keys, sources=batch.sources)
        inputs.class_id = batch.class_id
        if batch.second is not None:
            inputs.second = resize(batch.second, size)
        if batch.modal is not None:
            inputs.modal = resize(batch.modal.float(), size) > 0.5
        return inputs

    def working_size(self, task: str, grid: tuple[int, int]) -> tuple[int, int]:
        """The size `grid` is processed at: the area of training, the image's own aspect ratio,
        both sides multiples of the stride. An image shaped as in training gets that size."""
        trained = self.sizes[task]
        stride = int(self.net.stride) * self.codec.downsample  # type: ignore[arg-type]
        scale = math.sqrt(trained[0] * trained[1] / (grid[0] * grid[1]))
        height, width = (max(stride, round(side * scale / stride) * stride) for side in grid)
        return height, width

    def code(self, batch: Batch, task: str, target: bool = False) -> Coded:
        """A batch at working size in the working space; with its target when asked."""
        return code(batch, self.tasks[task], self.layout, self.codec, target)


def _take(coded: Coded, picks: Tensor) -> Coded:
    picks = picks.to(coded.cond.device)
    features = None if coded.features is None else coded.features[picks]
    return Coded(None, coded.cond[picks], features, None, coded.label[picks])


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
