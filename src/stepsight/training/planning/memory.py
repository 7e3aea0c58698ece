"""What a run needs of each device's memory, from its settings alone.

With P parameters (T of them trained, M of those by Muon), and S devices that share the weights:

* weights and their average: 4 P / S bytes each; gradients 4 T / S; AdamW 8 T / S, Muon 4 M / S;
* activations: what a forward pass of a micro-batch keeps (`models.activations`); where blocks are
  computed again, what is kept of all and the rest of one; and its widest tensor, for the gradient
  that comes in and, where it is computed again, for that which goes out;
* where weights are not sharded, the copies of them that autocast makes in half precision: of all,
  among the activations; under recomputation of one block, as it is computed again;
* gathered: where they are, the weights outside of blocks in float32; of the largest block three
  copies (in use, as the next one arrives, and cut into its parameters), and its gradient in float32
  as it is sent, less the activations that its block has let go by then;
* step: what Muon holds beside the gradients while it steps: whole matrices, three times over;
* codec: the VAE's weights, and what it needs for coding a micro-batch where no cache is used;
* validation: the whole average in float32, which every device gathers where weights are sharded.

Gradients of a process that takes its batch in one piece come as activations go: the larger of both
counts (DDP has room for all of them from the start). Activations, coding, Muon's step and
validation come after one another: the largest counts. Not counted: the allocator's fragments, the
libraries' own memory (1 to 2 GB on a GPU), a VAE's decoder in end-to-end training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from stepsight.config import RunConfig
from stepsight.models.activations import Activations, activations
from stepsight.models.config import VAE_PREFIX
from stepsight.models.factory import repeated_blocks
from stepsight.tasks.base import Task
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import is_matrix
from stepsight.training.planning.codec_cost import CodecCost
from stepsight.training.planning.workload import Workload, workload_of
from stepsight.training.recompute import COSTLY

FLOAT = 4  # bytes; weights, gradients, moments and the average are kept in float32
MEASURED = 4  # rows that activations are measured at, to be scaled
MACHINE = 8  # devices that "hybrid" sharding shares weights among, unless there are fewer
DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int  # kept through the forward pass
    again: int = 0  # of one block at a time, and gradients on their way
    gathered: int = 0
    step: int = 0
    codec: int = 0  # weights
    coding: int = 0
    validation: int = 0
    once: bool = False  # a batch in one piece: gradients come as activations go
    pinned: bool = False  # gradients have their room all the time

    @property
    def total(self) -> int:
        """At the worst moment of a run."""
        kept = self.weights + self.optimizer + self.average + self.codec
        if self.once and not self.pinned:
            alive = max(self.activations, self.gradients)
        else:
            alive = self.activations + self.gradients
        backward = alive + self.gathered + self.again
        between = max(self.coding, self.validation) + self.gradients * self.pinned
        return kept + max(backward, self.gradients + self.step, between)

    def parts(self) -> dict[str, int]:
        """By name, those that are needed at all."""
        return {name: value for name, value in asdict(self).items() if type(value) is int and value}


def memory_of(
    config: RunConfig,
    tasks: Mapping[str, Task],
    world: int,
    micro_batch: float,
    device: str = "cuda",
    work: Workload | None = None,
) -> Memory:
    """Of a device that `world` processes of a run have one each of, and take `micro_batch` pictures
    at a time. device: "cuda" or "cpu". work: `workload_of(config, tasks)`, if it is at hand."""
    training, work = config.training, work or workload_of(config, tasks)
    every = dict(work.net.named_parameters())
    trained = {name: p for name, p in every.items() if p.requires_grad}
    muon = training.optimizer == "muon"
    matrices = {name: p for name, p in trained.items() if muon and is_matrix(name, p)}
    parts, precision = shards(training, world), planned_precision(config, device)
    whole, trainable, by_muon = map(_bytes, (every, trained, matrices))
    found = _activations(work, device, precision)
    codec, mode = CodecCost.of(config), training.recompute
    rows = micro_batch * work.kept_rows / MEASURED
    kept = int(found.kept(mode) * rows)
    casts = found.casts if parts == 1 else 0
    again = (found.again(mode) + found.widest * (1 if mode == "none" else 2)) * rows
    cached = bool(training.latents)
    return Memory(
        weights=whole // parts,
        gradients=trainable // parts,
        optimizer=(2 * trainable - by_muon) // parts,
        average=whole // parts,
        activations=kept + (casts if mode == "none" else 0),
        again=int(again) + (casts // max(len(work.blocks), 1) if mode != "none" else 0),
        gathered=_gathered(work, whole, precision, kept) if parts > 1 else 0,
        step=(2 if world == 1 else 3) * by_muon,
        codec=codec.weights,
        coding=0 if cached else int(codec.coding(work.size) * micro_batch),
        validation=whole if parts > 1 else 0,
        once=micro_batch * world >= training.batch,
        pinned=world > 1 and parts == 1,
    )


def micro_batches(training: TrainingSettings, world: int) -> list[int]:
    """The micro-batches that share out a process's pictures evenly, the largest first."""
    mine = max(training.batch // world, 1)
    return [size for size in range(mine, 0, -1) if mine % size == 0]


def fitting(
    config: RunConfig,
    tasks: Mapping[str, Task],
    world: int,
    room: int,
    device: str = "cuda",
    work: Workload | None = None,
) -> int | None:
    """The largest micro-batch with which a device of `room` bytes is enough; None if none is."""
    work = work or workload_of(config, tasks)
    for size in micro_batches(config.training, world):
        if memory_of(config, tasks, world, size, device, work).total <= room:
            return size
    return None


def shards(training: TrainingSettings, world: int) -> int:
    """Devices that share one copy of the weights."""
    return {"none": 1, "full": world, "hybrid": min(world, MACHINE)}[training.sharding]


def planned_precision(config: RunConfig, device: str) -> str:
    """What a run computes in on a device of a kind that need not be here: on a GPU "auto" is
    bfloat16."""
    asked, vae = config.training.precision, config.model.name.startswith(VAE_PREFIX)
    if asked != "auto":
        return asked
    fast = device == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast and not vae else "float32"


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    """The same run with other settings of training."""
    return replace(config, training=replace(config.training, **changes))


def widest_of(work: Workload, device: str, precision: str) -> int:
    """Bytes of the largest tensor of a forward pass of `MEASURED` rows."""
    return _activations(work, device, precision).widest


@lru_cache(maxsize=16)
def _activations(work: Workload, device: str, precision: str) -> Activations:
    def rows(one: Tensor) -> Tensor:
        return one.repeat(MEASURED, *[1] * (one.ndim - 1))

    example = tree_map_only(Tensor, rows, work.example)
    return activations(work.build, example, repeated_blocks, COSTLY, device, DTYPES[precision])


def _gathered(work: Workload, whole: int, precision: str, kept: int) -> int:
    """See the head of this file."""
    blocks = [_bytes(dict(block.named_parameters())) for block in work.blocks]
    if not blocks:
        return whole
    largest, outside = max(blocks), whole - sum(blocks)
    low = largest if DTYPES[precision] is None else largest // 2
    return outside + 3 * low + max(largest - kept // len(blocks), 0)


def _bytes(parameters: Mapping[str, Tensor]) -> int:
    return FLOAT * sum(p.numel() for p in parameters.values())
