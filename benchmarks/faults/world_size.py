"""The same run by 1, 2 and 4 processes, in one piece or in micro-batches, whole or sharded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState

from benchmarks.faults import Tally
from benchmarks.faults.runs import ended, forked, free_port, settings, warm
from stepsight import distributed
from stepsight.config import RunConfig, from_dict
from stepsight.report.console import Console
from stepsight.training.feed import Feed
from stepsight.training.fit import preflight, prepare
from stepsight.training.folder import RunWriter
from stepsight.training.learner import Learner
from stepsight.training.loop import train
from stepsight.training.progress import Progress
from stepsight.training.sharding import full

PLAIN = {"rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0}, "loss": "squared"}
WALKS = {"rows": {"start": 0.5, "rollout": 0.5, "denoise": 0.5}}  # some of each in two pictures
ADAMW = {"optimizer": "adamw", "lr": 1e-3}
LOSS, WEIGHT = 1e-6, 1e-5


@dataclass(frozen=True)
class Kind:
    """A network, with what it learns and by which optimizer."""

    model: str
    tasks: tuple[str, ...]
    training: dict[str, Any] = field(default_factory=dict)
    objective: str = "denoising"


KINDS = {
    "split": Kind("split-8", ("depth", "flow", "amodal", "semantic"), WALKS),
    "dense": Kind("DiT-Mi/8", ("depth", "flow"), PLAIN | ADAMW),
    "experts": Kind("DiT-Mi/8-4E2A", ("depth", "flow"), PLAIN | ADAMW),
    "U-Net": Kind("unet-tiny", ("depth",), PLAIN),
    "end-to-end": Kind("split-8", ("flow",), WALKS, "end_to_end"),
}


@dataclass(frozen=True)
class Way:
    """How a run is shared out."""

    processes: int
    micro_batches: int
    sharding: str

    @property
    def name(self) -> str:
        return f"{self.processes} x {self.micro_batches} {self.sharding}"


ALONE = Way(1, 1, "none")


def run(quick: bool, folder: Path) -> list[Tally]:
    """Every way beside that of one process in one piece."""
    warm(folder / "warm")
    steps, worlds = (8, (1, 2)) if quick else (50, (1, 2, 4))
    kinds = ("split", "experts") if quick else tuple(KINDS)
    for processes in worlds:

        def work(processes: int = processes) -> None:
            for kind, way in product(kinds, ways(processes)):
                _one(folder / f"{kind} {way.name}", config_of(KINDS[kind], way, steps), steps)

        together(processes, work, folder / f"world-{processes}.log")
    return [_tally(folder, kind, worlds, steps) for kind in kinds]


def ways(processes: int) -> Iterator[Way]:
    for micro_batches, sharding in product((1, 2), ("none", "full")):
        if processes > 1 or sharding == "none":
            yield Way(processes, micro_batches, sharding)


def config_of(kind: Kind, way: Way, steps: int) -> RunConfig:
    """Batches of 16 pictures in float32, and nothing but training."""
    size = str(16 // way.processes // way.micro_batches)
    quiet = {"first_validation": 0, "checkpoint_every": 0, "log_every": 16, "warmup": 32}
    config = settings(
        **quiet | kind.training,
        images=16 * steps,
        batch=16,
        micro_batch=size,
        sharding=way.sharding,
    )
    return replace(
        from_dict(config.to_dict() | {"tasks": {task: {} for task in kind.tasks}}),
        model=replace(config.model, name=kind.model),
        diffusion=replace(config.diffusion, objective=kind.objective),
    )


def together(processes: int, work: Callable[[], None], log: Path) -> None:
    """Copies of this process that do `work` as one group."""
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def joined() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent was alone
        distributed.join()
        work()
        distributed.leave()

    ranks = [str(rank) for rank in range(processes)]
    pids = [forked(joined, log, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ranks]
    statuses = ended(pids, within=1200)
    assert not any(statuses), f"{statuses}: {log.read_text()[-2000:]}"


def begun(folder: Path, config: RunConfig) -> tuple[Learner, Feed, RunWriter]:
    """A run that has not made a step, and scores nothing."""
    writer = RunWriter(folder)
    if writer.main:
        writer.create(config)
    distributed.barrier()
    learner, feed = prepare(preflight(config, folder), Console(enabled=False))
    learner.objective.validate = lambda *_: False  # type: ignore[method-assign]
    return learner, feed, writer


def _one(folder: Path, config: RunConfig, steps: int) -> None:
    """Train, and leave losses, order of the samples and weights."""
    learner, feed, writer = begun(folder, config)
    drawn = [feed.draw(step).indices for step in range(steps)]
    rows = [
        [drawn[step][row] for part in feed.micro_batches for row in part] for step in range(steps)
    ]
    train(learner, feed, Progress(), writer, Console(enabled=False))
    order = [sorted(sum(every, [])) for every in zip(*distributed.gathered(rows))]
    weights = {name: full(p.detach()).clone() for name, p in learner.net.named_parameters()}
    if writer.main:
        (folder / "order.json").write_text(json.dumps([order, [sorted(one) for one in drawn]]))
        torch.save(weights, folder / "weights.pt")


def _tally(folder: Path, kind: str, worlds: tuple[int, ...], steps: int) -> Tally:
    """How many ways agree with one process in one piece."""
    alone, held, tried, worst = folder / f"{kind} {ALONE.name}", 0, 0, [0.0, 0.0]
    for way in (way for world in worlds for way in ways(world) if way != ALONE):
        here = folder / f"{kind} {way.name}"
        losses = [abs(a - b) for a, b in zip(_losses(alone), _losses(here), strict=True)]
        own, wanted = (torch.load(place / "weights.pt") for place in (here, alone))
        apart = max(float((own[name] - wanted[name]).abs().max()) for name in own if _counts(name))
        order, drawn = json.loads((here / "order.json").read_text())
        tried += 1
        held += max(losses) <= LOSS and apart <= WEIGHT and order == drawn
        worst = [max(worst[0], *losses), max(worst[1], apart)]
    return Tally(
        f"ways of sharing out agree, {kind}, {steps} steps",
        tried,
        held,
        f"loss within {LOSS:g}, weights within {WEIGHT:g} (but biases of keys), same samples",
        f"loss {worst[0]:.1e}, weights {worst[1]:.1e}",
    )


def _counts(name: str) -> bool:
    """The bias of keys shifts all logits of a query alike: no output depends on it, its gradient is
    rounding alone, and an optimizer that looks at signs makes weights of that."""
    return not name.endswith(("qkv.bias", "to_k.bias"))


def _losses(folder: Path) -> list[float]:
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
