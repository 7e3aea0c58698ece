"""What a stage of a study costs, from its settings: FLOPs by part, hours, memory of a device.

Everything that a stage does for long is a part: training, latents, validation, tuning, the final
evaluation, the sweep. Time is FLOPs / (devices x peak x utilisation), for all parts alike;
`reached` measures that utilisation in a run or a profile, and where nobody measured it is stated.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from stepsight import checkpoint
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.tasks.table import build_tasks
from stepsight.training.latents import CHUNK
from stepsight.training.planning.codec_cost import CodecCost
from stepsight.training.planning.counts import counted
from stepsight.training.planning.dry_run import describe
from stepsight.training.planning.hours import LATENTS, Speed, flops_of
from stepsight.training.planning.judge import GB, Planner, fit_words
from stepsight.training.planning.judge import size as gigabytes
from stepsight.training.planning.memory import FLOAT, MEASURED
from stepsight.training.planning.workload import Workload, target_pictures, workload_of

Kind = Literal["train", "latents", "sweep", "evaluate"]
PARTS: dict[Kind, tuple[str, ...]] = {
    "latents": (LATENTS,),
    "sweep": ("sweep",),
    "evaluate": ("final evaluation",),
}
ALIVE = 4  # tensors as large as the widest that a forward pass without gradients holds at a time


@dataclass(frozen=True)
class Price:
    """Of a stage."""

    parts: dict[str, float]  # FLOPs
    hours: float  # by the clock, of all devices together
    bytes_per_device: int
    verdict: str  # whether a device holds it, and what else would
    fits: bool | None = None  # None: nobody said what a device has
    assumed: tuple[str, ...] = ()  # sentences on what was taken from elsewhere or is not known

    @property
    def flops(self) -> float:
        return sum(self.parts.values())

    @property
    def hours_by_part(self) -> dict[str, float]:
        return {name: self.hours * part / self.flops for name, part in self.parts.items()}


def price(
    config: RunConfig,
    *,
    kind: Kind = "train",
    utilisation: float,
    devices: int,
    peak: float,
    room: float | None = None,
    without: Collection[str] = (),
) -> Price:
    """The price of training a run and all that follows it, or of one of its parts alone.

    utilisation: share of `peak` (FLOP/s of a device) that is reached. room: GB of a device.
    without: parts that another stage pays for, such as "latent coding".
    Raises UserError for settings that no run can have.
    """
    config, tasks = _doing(config, kind), build_tasks(config.tasks)
    work, data = workload_of(config, tasks), counted(config)
    every = describe(config, work)["flops_train_per_image"]
    phases = flops_of(config, tasks, work, every, data.spec)
    named = PARTS.get(kind, tuple(phases))
    parts = {name: phases[name] for name in named if name in phases and name not in without}
    hours = Speed(devices, peak / 1e12, utilisation).hours(sum(parts.values()))
    if kind == "train":
        planner = Planner(config, work, devices, room and room * GB)
        chosen = planner.chosen()
        needed, verdict = chosen.memory.total, fit_words(planner, chosen)
    else:
        needed = _coding(config, work) if kind == "latents" else _answering(config, work)
        verdict = f"{gigabytes(needed)} on each of {devices}"
        if room is not None:
            verdict += f": {'fits' if needed <= room * GB else 'DOES NOT FIT'} {room:g} GB"
    fits = None if room is None else needed <= room * GB
    return Price(parts, hours, needed, verdict, fits, data.assumed)


def _doing(config: RunConfig, kind: Kind) -> RunConfig:
    """The run with that which is to be priced, whether or not it would be done after training."""
    training, evaluation = config.training, config.evaluation
    if kind == "latents":
        training = replace(training, latents=training.latents or "latents")
    elif kind != "train":
        training = replace(training, evaluate=True)
        evaluation = replace(evaluation, sweep=evaluation.sweep or kind == "sweep")
    return replace(config, training=training, evaluation=evaluation)


def _coding(config: RunConfig, work: Workload) -> int:
    """Bytes for making latents: the codec, and a chunk of samples in it."""
    codec = CodecCost.of(config)
    pictures = CHUNK * max(target_pictures(task) for task in build_tasks(config.tasks).values())
    return codec.weights + pictures * codec.coding(work.size)


def _answering(config: RunConfig, work: Workload) -> int:
    """Bytes for answers: weights in float32, and a batch of rows or their decoding. Within 15 % of
    torch's own count for DiT-S/2 and split-32 at 64 x 64."""
    codec, rows = CodecCost.of(config), config.evaluation.batch
    weights = FLOAT * sum(p.numel() for p in work.net.parameters())
    widest = Planner(config, work, 1, None).widest()
    passing, decoding = ALIVE * widest * rows // MEASURED, rows * codec.coding(work.size)
    return weights + codec.weights + max(passing, decoding)


def reached(folder: Path, peak: float) -> tuple[float, str]:
    """The utilisation that a run reached in training, or its profile (`--profile`), as a share of
    `peak` FLOP/s of one of its devices; and whose it is, in words.

    Raises UserError for a folder that holds neither."""
    profiled, measured = folder / "profile" / "profile.json", folder / "metrics.jsonl"
    if profiled.is_file():
        found = json.loads(profiled.read_text(encoding="utf-8"))
        per_second, how = found["flops_per_s"], f"a profile of {found['steps']} steps"
        how += f", {found['model']}, {found['precision']}, {found['device']}"
    elif measured.is_file():
        per_second, how = _in_training(folder, measured)
    else:
        raise UserError(
            f"{folder} holds neither profile/profile.json nor metrics.jsonl: name the folder of a "
            "run that was trained, or profiled with `stepsight train --profile 20`."
        )
    if not 0 < per_second:
        raise UserError(f"{folder}: its speed is {per_second:g} FLOP/s, which measures nothing.")
    return per_second / peak, f"measured in {folder}, {how}: {per_second / 1e12:.3g} TFLOP/s"


def _in_training(folder: Path, log: Path) -> tuple[float, str]:
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line]
    rates = [row["images_per_s"] for row in rows if row.get("images_per_s")]
    meta, told = checkpoint.read(str(folder), lazy=True).meta, folder / "env.json"
    if not rates or not told.is_file() or not meta["images_seen"]:
        raise UserError(f"{folder} was not trained long enough to measure its speed.")
    environment = json.loads(told.read_text(encoding="utf-8"))
    each = meta["training_flops"] / meta["images_seen"]
    where = ", ".join(environment["gpus"][:1]) or "CPU"
    how = f"{len(rates)} lines of its training, {environment['processes']} x {where}"
    return median(rates) * each / environment["processes"], how
