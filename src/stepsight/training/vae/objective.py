"""Training a small VAE on the images and the encoded targets of a run's tasks.

A batch shows the VAE its images and its targets, as the pictures that the codec will make of them
(`models.vae.to_pictures`). With x a picture, x' decoded from a sample of its posterior, e = x' - x
and D finite differences along an axis, all of them means over entries:

    loss = |e| + e^2 + EDGES (|D_h e| + |D_w e|) + KL kl(posterior, N(0, 1))

An autoencoder with the tiny KL weight of Rombach et al. 2022 (section 3.1); the third term keeps
the edges of masks and depth sharp. There is no perceptual and no adversarial term: both need a
second network. At the end the latents are brought to mean 0 and deviation 1 (ibid., appendix G) by
`shift_factor` and `scaling_factor` of the saved configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from stepsight import checkpoint, distributed
from stepsight.checkpoint import Checkpoint, CheckpointError
from stepsight.data.mixture import Draw, Mixture, Stream
from stepsight.data.table import having
from stepsight.errors import UserError, command
from stepsight.execution.noise import normal
from stepsight.measures import number
from stepsight.models.config import VAE_PREFIX, CodecSettings
from stepsight.models.factory import flops_by_group
from stepsight.models.vae import VAE, build_vae, to_pictures
from stepsight.report.console import Console
from stepsight.training.feed import Feed, open_banks
from stepsight.training.folder import RunWriter
from stepsight.training.planning.dry_run import describe
from stepsight.training.planning.workload import target_pictures
from stepsight.training.progress import Progress
from stepsight.training.spec import RunSpec, streamed
from stepsight.training.vae.reconstruction import encode_passes, reconstruction, reconstruction_grid

EDGES = 0.1
KL = 1e-6
SCALED_BY = 256  # training images, with their targets, that set the scale of the latents
FOLDER = "vae"  # of the run folder: what codec.path takes

Pictures = tuple[Tensor, Tensor]  # "n 3 h w" in [-1, 1], and their numbers "n" within the batch


class VaeObjective:
    """An autoencoder of pictures and targets. See `training.objective.Objective`."""

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        self.config, self.tasks, self.device = spec.config, spec.tasks, device
        self.held = [
            (task, held)
            for source in spec.held.values()
            for task in spec.tasks.values()
            if (held := having(source, frozenset({task.target_field}))) is not None
        ]
        torch.manual_seed(spec.config.training.seed)  # the initial weights
        self.net: Any = build_vae(spec.config.model.name)
        self.net.to(device, memory_format=torch.channels_last)
        self.errors = PictureErrors(self.net)
        self.statistics: dict[str, Tensor] = {}  # there are no trivial predictors

    @classmethod
    def check(cls, spec: RunSpec) -> None:
        config, parent = spec.config, spec.parent
        if config.codec.path:
            raise UserError("codec.path: a VAE is trained on pixels. Leave it empty.")
        if config.model.parametrisation != "standard":
            raise UserError("model.parametrisation: a VAE has one size. Leave it standard.")
        if streamed(config):
            raise UserError("data: a VAE is trained on samples that are kept. Set stream to False.")
        Mixture(spec.streams, config.training.batch, config.training.seed)
        describe(config)  # which refuses unknown names and sizes that do not fit
        if parent is not None:
            checkpoint.check_weights(build_vae(config.model.name), _weights(parent), parent.path)

    @classmethod
    def open(cls, spec: RunSpec, device: torch.device, console: Console) -> tuple[Self, Feed]:
        return cls(spec, device), TurnFeed(spec, open_banks(spec), device, console)

    @property
    def forward_flops(self) -> float:
        return fmean(map(self._flops, self.tasks))

    def flops(self, stream: Stream) -> float:
        return fmean(map(self._flops, stream.tasks))

    def _flops(self, task: str) -> float:
        picture = _picture_flops(self.config.model.name, self.held[0][1].size)
        return picture * (1 + target_pictures(self.tasks[task]))

    def facts(self) -> dict[str, Any]:
        sizes = {task.name: list(source.size) for task, source in self.held}
        return {"sizes": sizes, "tasks": list(self.tasks), "codec": "pixels"}

    def adapted(self, parent: Checkpoint) -> dict[str, Tensor]:
        return _weights(parent)

    def read(self, feed: Feed, draw: Draw, step: int, rows: range) -> Pictures:
        """What the VAE sees of a draw: its images, then their targets of the task whose turn it
        is, in the order "(pass image group)"."""
        task, count = self.tasks[draw.stream.tasks[0]], self.config.training.batch
        batch = feed.batch(draw, step, rows)
        pictures = torch.cat([batch.image, to_pictures(encode_passes(task, batch))])
        targets = count + torch.arange(count * target_pictures(task))
        targets = targets.reshape(task.splits, count, -1)
        numbers = torch.cat([torch.tensor([*rows]), targets[:, rows.start : rows.stop].flatten()])
        return pictures, numbers

    def prepare(self, read: Pictures, step: int, rows: range) -> tuple[Tensor, Tensor]:
        """The pictures, and the noise of their posteriors' samples."""
        pictures, numbers = read
        config, numbers = self.net.config, numbers.to(pictures.device)
        stride = 2 ** (len(config.block_out_channels) - 1)
        shape = config.latent_channels, *(side // stride for side in pictures.shape[-2:])
        stream = "posterior", self.config.training.seed
        addresses = torch.stack([torch.full_like(numbers, step), numbers], dim=1)
        return pictures, normal(stream, addresses, shape)

    def validate(self, net: Any, progress: Progress, writer: RunWriter, console: Console) -> bool:
        """How well held-out images and targets survive the VAE. There is no best one: its loss
        falls as long as it is trained, and the last one is what is wanted."""
        if not writer.main:
            return False
        codec = VAE.from_module(net, CodecSettings())
        for task, source in self.held:
            count = min(self.config.training.validation_images, len(source))
            metrics = reconstruction(codec, task, source, count, self.device)
            console.note(
                f"val@{progress.step}  {task.name} on {source.name}: image PSNR "
                f"{number(metrics['psnr'])} dB, target MAE {number(metrics['mae'])}  [{count} img]"
            )
            row = {"task": task.name, "data": source.name, "n": count, "metrics": metrics}
            writer.log(progress.stamp("val") | row | {"seconds": writer.elapsed()})
        return False

    def finish(self, feed: Feed, writer: RunWriter, console: Console) -> tuple[Path, str]:
        """Set the scale of the latents, save the averaged VAE, and draw what it does."""
        saved, folder = checkpoint.read(writer.path, "last", lazy=True), writer.path / FOLDER
        net: Any = build_vae(self.config.model.name)
        checkpoint.load_weights(net, saved.tensors(checkpoint.BACKBONE), saved.path)
        net.register_to_config(**self._latent_scale(VAE.from_module(net, CodecSettings()), feed))
        if writer.main:
            codec = VAE.from_module(net, CodecSettings()).to(self.device)
            codec.save(folder)
            reconstruction_grid(codec, self.held, writer.samples / "final.png", self.device)
        distributed.barrier()
        return folder, command("train", "--codec.path", folder)

    def _latent_scale(self, codec: VAE, feed: Feed) -> dict[str, float]:
        """Shift and scale that give latents of training pictures mean 0 and deviation 1."""
        codec.to(self.device)
        batch, latents = self.config.training.batch, []
        for step in range(-(-SCALED_BY // batch)):
            pictures, _ = self.read(feed, feed.draw(step), step, range(batch))
            latents.append(codec.encode(pictures).flatten())
        raw = torch.cat(latents) / codec.scale + codec.shift
        return {"shift_factor": float(raw.mean()), "scaling_factor": 1 / float(raw.std())}


class TurnFeed(Feed):
    """A feed whose batches are of one of the tasks of their stream: they take turns."""

    def draw(self, step: int) -> Draw:
        draw = super().draw(step)
        names = draw.stream.tasks
        stream = replace(draw.stream, tasks=(names[step % len(names)],), shares=())
        return replace(draw, stream=stream)

    def counts(self, step: int) -> Mapping[tuple[str, str], int]:
        return {}  # those of the mixture are of all tasks at once

    def weights(self, stream: Stream) -> Tensor:
        return torch.ones(1)


class PictureErrors(nn.Module):
    """The loss of pictures, summed: what several processes wrap."""

    def __init__(self, net: AutoencoderKL) -> None:
        super().__init__()
        self.net = net
        self.routing, self.usage = None, dict[str, Tensor]()  # there are no experts

    def counts(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """What the errors are divided by, "1 1"."""
        return noise.new_full((1, 1), len(pictures))

    def forward(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """Of pictures "n 3 h w" and the noise "n l h' w'" of their posteriors' samples: "1 1"."""
        return picture_errors(self.net, pictures, noise).sum().reshape(1, 1)


def picture_errors(net: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """The loss at the head of this module of each picture, "n"."""
    posterior = net.encode(pictures).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
    z = posterior.mean + posterior.std * noise
    error = net.decode(z).sample.float() - pictures  # pyright: ignore[reportAttributeAccessIssue]
    edges = _means(error.diff(dim=-2).abs()) + _means(error.diff(dim=-1).abs())
    kl = posterior.kl().float() / posterior.mean[0].numel()
    return _means(error.abs()) + _means(error.square()) + EDGES * edges + KL * kl


def _means(x: Tensor) -> Tensor:
    """Over the entries of each picture, "n"."""
    return x.mean(dim=(1, 2, 3))


@lru_cache(maxsize=16)
def _picture_flops(name: str, size: tuple[int, int]) -> float:
    """FLOPs of a picture on its way through encoder and decoder."""
    example = (torch.empty(1, 3, *size, device="meta"),)
    return sum(flops_by_group(partial(build_vae, name), example).values())


def _weights(parent: Checkpoint) -> dict[str, Tensor]:
    """The averaged weights of another VAE's run."""
    if not parent.config.model.name.startswith(VAE_PREFIX):
        raise CheckpointError(f"{parent.path} holds a backbone. Start from the run of a VAE.")
    return parent.tensors(checkpoint.BACKBONE)
