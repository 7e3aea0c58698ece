"""What the tests of training and evaluation share: synthetic samples and tiny runs on them.

`training/ranks.py` imports this file too, so that several processes do what one process does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.coding import build_network
from stepsight.config import RunConfig, from_dict
from stepsight.data.fields import QUANTITIES
from stepsight.evaluation.pictures import sample_grid
from stepsight.models.codec import Pixels
from stepsight.models.config import CodecSettings
from stepsight.pipeline import calling
from stepsight.pipeline.dense import DensePipeline
from stepsight.report.console import Console
from stepsight.seeding import generator, seed_of
from stepsight.tasks.table import build_tasks
from stepsight.training import fit, spec
from stepsight.training.dense import tuning, validation
from stepsight.training.feed import Feed
from stepsight.training.folder import RunWriter
from stepsight.training.learner import Learner
from stepsight.training.loop import train
from stepsight.training.progress import Progress
from stepsight.types import IGNORE, Sample

TASKS = ("depth", "flow", "amodal", "semantic")

torch.set_num_threads(1)  # the networks of tests are too small to share out


def pytest_configure() -> None:
    """Keep compiled modules for the workers and for the commands that tests start, where the
    environment forbids Python to write any: each would compile torch anew, a third of its time.
    As it may not want them beside the modules, they lie with the temporary files."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        sys.dont_write_bytecode = False
        kept = Path(tempfile.gettempdir()) / f"bytecode-{os.getuid()}"
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(kept)


@dataclass
class Synthetic:
    """Random pictures with random truth of every kind: sample i is a function of (seed, i).

    Samples differ widely in how many of their pixels are valid, and every eighth has none.
    grids: native heights and widths, taken in turn; empty for the working size.
    """

    count: int = 32
    size: tuple[int, int] = (16, 16)
    seed: int | str = 0
    grids: tuple[tuple[int, int], ...] = ()
    quantities: frozenset[str] = QUANTITIES

    name = "scenes"
    classes = tuple("abcdefg")
    categories = tuple("stuvwxyz")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        draw = generator(self.seed, "synthetic", index)
        height, width = self.grids[index % len(self.grids)] if self.grids else self.size

        def smooth(channels: int) -> Tensor:
            coarse = torch.rand(1, channels, 4, 4, generator=draw)
            return F.interpolate(coarse, size=(height, width), mode="bilinear")[0]

        def mask(share: float) -> Tensor:
            return torch.rand(1, height, width, generator=draw) < share

        share = 0.0 if index % 8 == 5 else float(torch.rand((), generator=draw))
        labels = smooth(7).argmax(0).masked_fill(mask(1 - share)[0], IGNORE)
        amodal = torch.zeros(1, height, width, dtype=torch.bool)
        top, left = (int(seed_of(self.seed, index, side) % (height // 2)) for side in "yx")
        amodal[:, top : top + height // 2, left : left + width // 2] = True
        modal = amodal.clone()
        modal[:, :, left + width // 4 :] = False
        sample = Sample(
            image=(smooth(3) * 255).to(torch.uint8),
            second=(smooth(3) * 255).to(torch.uint8),
            key=f"synthetic-{self.seed}-{index}",
            source=self.name,
            depth=1.5 + 8 * smooth(1),
            depth_valid=mask(share),
            flow=4 * smooth(2) - 2,
            flow_valid=mask(share),
            labels=labels,
            modal=modal,
            amodal=amodal,
            amodal_valid=mask(share),
            normals=F.normalize(smooth(3) - 0.5, dim=0),
            normals_valid=mask(share),
            class_id=index % len(self.categories),
        )
        picture = (smooth(3) * 200).to(torch.uint8)  # nowhere as white as what is around it
        sample.whole = torch.where(amodal, picture, torch.full_like(picture, 255))
        return sample

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        return [self[int(index)] for index in indices]


@dataclass
class Run:
    """A run in progress."""

    learner: Learner
    feed: Feed
    progress: Progress
    writer: RunWriter

    @property
    def config(self) -> RunConfig:
        return self.objective.config

    @property
    def objective(self) -> Any:
        return self.learner.objective

    @property
    def pipeline(self) -> DensePipeline:
        return self.objective.pipeline

    @property
    def net(self) -> Any:
        return self.learner.net

    def train(self) -> Self:
        """To the end, through the loop itself."""
        train(self.learner, self.feed, self.progress, self.writer, Console(enabled=False))
        return self

    def roughen(self, scale: float = 0.05) -> Self:
        """Untrained networks answer zero, and most of their gradients are zero."""
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.net.parameters():
                p.add_(scale * torch.randn(p.shape, generator=draw))
        return self

    def weights(self) -> Tensor:
        """Of the network, "p"."""
        return torch.cat([p.detach().flatten() for p in self.net.parameters()])

    def step(self, number: int = 0, scale: float = 0.05) -> Tensor:
        """The gradient "p" that batch number `number` gives to rough weights, through the loop: the
        run is to end with it, without clipping and warm-up."""
        before = self.roughen(scale).weights()
        self.progress.step = number
        self.progress.images_seen = number * self.config.training.batch
        self.learner.optimizers = [torch.optim.SGD(self.net.parameters(), lr=1.0, fused=True)]
        return before - self.train().weights()


@cache
def _composed(values: str) -> RunConfig:
    return from_dict(json.loads(values))


def composed(values: dict[str, Any]) -> RunConfig:
    """`from_dict`, whose tenth of a second a file of tests pays once for equal settings."""
    return deepcopy(_composed(json.dumps(values)))


class Lab:
    """Tiny runs on synthetic samples: the smallest network, 16 x 16 pixels, batches of 8."""

    Source = Synthetic
    plain: ClassVar[dict[str, Any]] = {  # training settings: noised truth and squared errors alone
        "rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0},
        "loss": "squared",
    }

    def __init__(self) -> None:
        self.source = Synthetic(count=32, seed="train")
        self.held = Synthetic(count=6, seed="held")
        self.others: dict[str, Synthetic] = {}  # further sources of training, by name

    def config(self, tasks: Iterable[str] = TASKS, **changes: Any) -> RunConfig:
        """A run of 8 batches that logs each of them; `changes` are training settings."""
        training = {"images": 64, "batch": 8, "warmup": 16, "log_every": 8, "validation_images": 4}
        training |= {"validate_every": 0, "first_validation": 0, "checkpoint_every": 0}
        training |= {"precision": "float32"}  # the same numbers on every processor
        small = {"nfe": 2, "members": 2, "sweep_nfe": [1, 2], "sweep_members": [1, 2]}
        small |= {"tuning_images": 3}
        return composed(
            {
                "model": {"name": "split-8"},
                "tasks": {task: {} for task in tasks},
                "data": {"scenes": {"size": list(self.source.size)}},
                "training": training | {"evaluate": False} | changes,
                "evaluation": small | {"batch": 8, "sweep_images": 5},
            }
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """While the block lasts, runs read the synthetic sources."""

        def opened(config: RunConfig, quantities: frozenset[str], split: str) -> dict[str, Any]:
            return (
                {"scenes": self.source} | self.others if split == "train" else {"scenes": self.held}
            )

        with (
            mock.patch.object(spec, "open_sources", opened),
            mock.patch.object(tuning, "open_sources", opened),
        ):
            yield

    def begin(self, config: RunConfig, folder: Path) -> Run:
        """A run that has not made a step."""
        writer = RunWriter(folder)
        writer.create(config)
        with self.serving():
            opened = spec.RunSpec.of(config, folder)
            return Run(*fit.prepare(opened, Console(enabled=False)), Progress(), writer)

    def train(self, config: RunConfig, folder: Path) -> Run:
        """The training loop alone."""
        return self.begin(config, folder).train()

    def fit(self, config: RunConfig, folder: Path, **options: Any) -> Path:
        """The whole program below the command line."""
        with self.serving():
            return fit.fit(config, name="tiny", run_dir=str(folder), **options)

    def rows(self, folder: Path, kind: str = "train") -> list[dict[str, Any]]:
        """Lines of metrics.jsonl."""
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    def losses(self, folder: Path) -> list[float]:
        return [row["loss"] for row in self.rows(folder)]

    def pipeline(
        self,
        config: RunConfig | None = None,
        size: tuple[int, int] = (16, 16),
        statistics: bool = True,
    ) -> DensePipeline:
        """An untrained pipeline whose predictions depend on everything they may depend on."""
        from stepsight.evaluation.bounds import statistics as gather

        config = config or self.config()
        tasks = build_tasks(config.tasks)
        net = build_network(config, tasks, Pixels()).eval().requires_grad_(False)
        draw = generator("weights")
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
        sizes = {task: size for task in tasks}
        learned = gather(tasks, self.source)
        return DensePipeline(net, tasks, config, sizes, learned if statistics else None, "digest")


@pytest.fixture(autouse=True, scope="session")
def everywhere_the_same():
    """What tests compute is the same on all machines: "auto" is float32, on the CPU. Runs draw no
    pictures of their answers, a third of what they cost, but where a test asks for `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "sample_grid", lambda *_, **__: None)
        patch.setattr(calling, "best_device", lambda: "cpu")
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw their answers, as they do for users."""
    monkeypatch.setattr(validation, "sample_grid", sample_grid)


@pytest.fixture(scope="session")
def laboratory() -> type[Lab]:
    return Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture(scope="session")
def vae_of() -> Callable[[int], Any]:
    """An untrained VAE from a seed: 2 x 2 pixels a cell, 4 latents."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from stepsight.models.vae import VAE

    options: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
    }

    def make(seed: int) -> VAE:
        torch.manual_seed(seed)
        return VAE.from_module(AutoencoderKL(**options), CodecSettings())

    return make
