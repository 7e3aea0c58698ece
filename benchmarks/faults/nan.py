"""NaN and Inf, put into losses, gradients, weights, averages, optimizer state and data."""

from __future__ import annotations

import math
import random
import shlex
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.faults import Tally
from benchmarks.faults.kills import side_by_side
from benchmarks.faults.runs import ended, settings, trained, warm
from stepsight import checkpoint, distributed
from stepsight.config import RunConfig
from stepsight.training.dense.objective import DenseObjective
from stepsight.training.learner import Learner

VALUES = (math.nan, math.inf, -math.inf)
STATE = ("weights", "averaged weights", "optimizer state")
WHERE = ("loss", "gradient", "expert", "data", *STATE)
LASTING = ("loss", "data")  # are there again when the run is continued
ATTEMPTS = 4  # advice that is followed


@dataclass
class Trial:
    """What became of a run: how it ended, and what was published on the way."""

    kind: str
    ended: bool = False
    advised: int = 0  # times that advice was needed
    poisoned: int = 0  # checkpoints with a number that is none
    fault: str = ""


def run(quick: bool, folder: Path) -> list[Tally]:
    """A number in a random step of a run, under each policy; what a message advises is done."""
    warm(folder / "warm")
    count = 8 if quick else 500

    def one(number: int) -> dict[str, Any]:
        return asdict(attempt(folder / f"trial-{number}", number))

    trials = [Trial(**found) for found in side_by_side(one, count, folder)]
    clean = [trial for trial in trials if not trial.poisoned]
    good = [trial for trial in trials if trial.ended]
    advised = sum(trial.advised > 0 for trial in trials)
    worst = next((f"{trial.kind}: {trial.fault}" for trial in trials if not trial.ended), "")
    return [
        Tally(
            "NaN and Inf injected, checkpoints stay clean",
            len(trials),
            len(clean),
            "no number in a published checkpoint that is none",
        ),
        Tally(
            "NaN and Inf injected, the run ends",
            len(trials),
            len(good),
            "it goes on by itself, or by the command that its message gives",
            worst or f"{advised} needed advice",
        ),
    ]


def attempt(folder: Path, number: int) -> Trial:
    """A run with one fault, and its continuations as advised."""
    draw = random.Random(number)
    where, value = WHERE[number % len(WHERE)], draw.choice(VALUES)
    policy, step = draw.choice(("stop", "skip", "rewind")), draw.randrange(6)
    processes = 2 if number % 10 == 9 else 1
    trial = Trial(f"{value} in {where} at step {step}, {policy}, {processes} processes")
    training: dict[str, Any] = {"on_spike": policy, "spike_cap": 2, "checkpoint_every": 8}
    options: dict[str, Any] = {}
    for attempts in range(ATTEMPTS):
        lasting = attempts == 0 or where in LASTING
        place = draw.random()

        def before(place: float = place, lasting: bool = lasting) -> None:
            if lasting:
                inject(where, value, step, place)

        config = of_experts(settings(**training)) if where == "expert" else settings(**training)
        statuses = ended(trained(folder, config, processes, before, **options))
        trial.poisoned += poisoned(folder)
        if not any(statuses):
            trial.ended = True
            break
        words = folder.with_suffix(".log").read_text()
        if set(statuses) != {2} or "Go on with: " not in words:
            trial.fault = f"statuses {statuses}: {words[-300:]}"
            break
        trial.advised = attempts + 1
        options, advised = followed(words.rpartition("Go on with: ")[2].splitlines()[0])
        training |= advised
    else:
        trial.fault = "the advice did not help"
    if trial.ended:
        shutil.rmtree(folder)
    return trial


def of_experts(config: RunConfig) -> RunConfig:
    return replace(config, model=replace(config.model, name="DiT-Mi/8-4E2A"))


def inject(where: str, value: float, step: int, place: float) -> None:
    """Let this process meet `value` at `step`; in data and gradients the last of several only.
    place: from 0 to 1, of the spoilt entry."""
    prepare, descend, build = DenseObjective.prepare, Learner.descend, Learner.__init__
    now, last = [-1], distributed.rank() == distributed.world() - 1

    def prepared(self: DenseObjective, read: Any, at: int, rows: range) -> Any:
        now[0], micro = at, prepare(self, read, at, rows)
        if where == "data" and at == step and last:
            spoil([micro[0][0].coded.cond], value, place)
        return micro

    def descended(self: Learner, progress: Any, losses: Tensor) -> Tensor:
        here = now[0] == step
        spoilt = torch.full_like(losses, value) if where == "loss" and here else losses
        verdict = descend(self, progress, spoilt)
        if where in STATE and here:
            spoil(self.parts()[where], value, place)
        return verdict

    def built(self: Learner, *arguments: Any) -> None:
        build(self, *arguments)
        names = dict(self.net.named_parameters())
        of_experts = [p for name, p in names.items() if ".experts." in name]
        among = of_experts if where == "expert" else list(names.values())
        if where in ("gradient", "expert") and last:
            p = among[int(place * len(among))]
            p.register_hook(lambda grad: spoil([grad], value, place)[0] if now[0] == step else grad)

    DenseObjective.prepare, Learner.descend = prepared, descended  # type: ignore[method-assign]
    Learner.__init__ = built  # type: ignore[method-assign]


def spoil(tensors: list[Tensor], value: float, place: float) -> list[Tensor]:
    """Put the value at a place of them, in the order of their entries."""
    at = int(place * sum(one.numel() for one in tensors))
    for one in tensors:
        if 0 <= at < one.numel():
            one.view(-1)[at] = value
        at -= one.numel()
    return tensors


def poisoned(folder: Path) -> int:
    """Checkpoints of a run that hold a number which is none."""
    paths = checkpoint.completed(folder / "checkpoints")
    return sum(not _clean(checkpoint.read(path)) for path in paths)


def _clean(saved: checkpoint.Checkpoint) -> bool:
    names = (checkpoint.RAW, checkpoint.BACKBONE, checkpoint.OPTIMIZER)
    return all(bool(t.isfinite().all()) for name in names for t in saved.tensors(name).values())


def followed(line: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options and settings of a command that a message gives."""
    words = shlex.split(line)
    flags = dict(zip(words, words[1:]))
    settings = {
        key.removeprefix("--training."): value if key.endswith("on_spike") else float(value)
        for key, value in flags.items()
        if key.startswith("--training.")
    }
    anew: dict[str, Any] = {"resume": None, "overwrite": True}
    return {"resume": flags["--resume"]} if "--resume" in flags else anew, settings
