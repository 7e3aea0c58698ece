"""Do learning rates carry over from a small model to a large one? A sweep at several widths.

    python benchmarks/transfer.py docs/data/transfer.csv [--optimizers muon] [--seeds 0 1 2] ...
    python benchmarks/transfer.py docs/data/transfer.csv --read

Depth on procedural worlds, 64 x 64, patch 8, noised truth alone, cosine decay, as in
configs/ladder-depth.yaml. All rates are the default ones times a factor. The loss is that of the
averaged weights on held-out pictures, at levels and with noise that are the same for every run.
What the table holds is not run again, so that a sweep can be stopped and widened.

--read: the best factor of each width, the lowest point of a parabola through the losses (means over
seeds) at the `NEAR` factors around the lowest, against the logarithm of the factor; and what the
largest width loses by the best factor of the smallest.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from stepsight.config import from_dict
from stepsight.report.console import Console
from stepsight.training.config import TrainingSettings
from stepsight.training.dense.validation import validation_loss
from stepsight.training.fit import preflight, prepare
from stepsight.training.folder import RunWriter
from stepsight.training.loop import train
from stepsight.training.progress import Progress

NEAR = 5
HELD_OUT = 512  # pictures
TRAINED = 8192  # distinct pictures


class Setting(NamedTuple):
    """A run, a line of the table but for its loss."""

    width: int
    depth: int
    optimizer: str
    parametrisation: str
    images: int
    factor: float
    seed: int


class Kept:
    """A source of the procedural worlds whose pictures are drawn once for all runs."""

    def __init__(self, source: Any) -> None:
        self.source, self.name, self.drawn = source, source.name, dict[int, Any]()

    def __len__(self) -> int:
        return len(self.source)

    def samples(self, indices: Sequence[int]) -> list[Any]:
        new = [index for index in indices if index not in self.drawn]
        self.drawn |= dict(zip(new, self.source.samples(new), strict=True))
        return [self.drawn[index] for index in indices]


def config_of(run: Setting, cache: str) -> dict[str, Any]:
    usual = TrainingSettings()
    model = f"DiT-{run.width}x{run.depth}/8"
    return {
        "model": {"name": model, "parametrisation": run.parametrisation},
        "tasks": {"depth": {}},
        "data": {"scenes": {"count": TRAINED, "cache": cache}},
        "diffusion": {"shift": 4.0, "sampling_shift": 1.0},
        "training": {
            "images": run.images,
            "processes": 1,
            "precision": "float32",
            "rows": {"start": 0.0, "rollout": 0.0, "denoise": 1.0},
            "loss": "squared",
            "optimizer": run.optimizer,
            "lr": usual.lr * run.factor,
            "muon_lr": usual.muon_lr * run.factor,
            "seed": run.seed,
            "log_every": run.images,
            "first_validation": 0,
            "validate_every": 0,
            "checkpoint_every": 0,
            "validation_images": HELD_OUT,
            "evaluate": False,
        },
    }


def loss_of(run: Setting, cache: str, kept: dict[str, Any]) -> float:
    """The validation loss at the end; infinite where it is no number. kept: held-out pictures, for
    the runs that follow."""
    with tempfile.TemporaryDirectory() as folder:
        spec, found = preflight(from_dict(config_of(run, cache)), Path(folder)), []
        writer, console = RunWriter(Path(folder)), Console(enabled=False)
        writer.create(spec.config)
        learner, feed = prepare(spec, console)
        objective: Any = learner.objective

        def validate(*_: object) -> bool:
            for task, source in objective.held.items():
                held = kept.setdefault(task, Kept(source))
                found.append(validation_loss(objective.pipeline, task, held)[0])
            return True

        objective.validate = validate  # the loss alone, without scores and pictures
        train(learner, feed, Progress(), writer, console)
    return found[-1] if math.isfinite(found[-1]) else math.inf


def read(path: Path) -> dict[Setting, float]:
    if not path.exists():
        return {}
    with path.open() as file:
        rows = list(csv.DictReader(file))
    kinds: tuple[Any, ...] = (int, int, str, str, int, float, int)
    return {
        Setting(*(kind(row[name]) for kind, name in zip(kinds, Setting._fields))): float(
            row["loss"]
        )
        for row in rows
    }


def sweep(path: Path, runs: Sequence[Setting], cache: str) -> None:
    """Run what is not in the table, a line after the other."""
    kept: dict[str, Any] = {}
    for number, run in enumerate(runs):
        if run in read(path):
            continue
        loss = loss_of(run, cache, kept)
        anew = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([[*Setting._fields, "loss"]] if anew else [])
            writer.writerow([*run, f"{loss:.6g}"])
        print(f"{number + 1}/{len(runs)}  {run}  {loss:.5f}", flush=True)


class Best(NamedTuple):
    """The lowest point of a parabola, in log2 of the factor."""

    factor: float
    loss: float
    coefficients: tuple[float, ...]

    def at(self, factor: float) -> float:
        return float(np.polyval(self.coefficients, math.log2(factor)))


def best_of(losses: dict[float, float]) -> Best:
    """Of losses by factor. Raises ValueError where it is not between them."""
    factors = sorted(losses)
    lowest = min(factors, key=losses.__getitem__)
    near = sorted(factors, key=lambda one: abs(math.log2(one / lowest)))[:NEAR]
    if len(near) < 3:
        raise ValueError(f"{len(near)} factors: three or more are needed")
    logs = [math.log2(one) for one in near]
    curve = np.polyfit(logs, [losses[one] for one in near], 2)
    place = -curve[1] / (2 * curve[0])
    if curve[0] <= 0 or not min(logs) <= place <= max(logs):
        raise ValueError(f"the lowest loss, at {lowest:g}, is at an end of the factors: widen them")
    return Best(2**place, float(np.polyval(curve, place)), tuple(map(float, curve)))


def summary(table: dict[Setting, float]) -> Iterator[str]:
    """A line a width, and what the transfer costs."""
    kinds: dict[tuple[Any, ...], dict[int, dict[float, list[float]]]] = defaultdict(dict)
    for run, loss in table.items():
        key = run.depth, run.images, run.optimizer, run.parametrisation
        kinds[key].setdefault(run.width, {}).setdefault(run.factor, []).append(loss)
    for key, widths in sorted(kinds.items()):
        yield "depth {}, {} images, {}, {}".format(*key)
        found: dict[int, Best] = {}
        for width, losses in sorted(widths.items()):
            means = {factor: fmean(several) for factor, several in losses.items()}
            points = "  ".join(f"{one:g}: {means[one]:.5f}" for one in sorted(means))
            try:
                found[width] = best_of(means)
            except ValueError as error:
                yield f"  width {width:4}  {error}  ({points})"
                continue
            yield f"  width {width:4}  best factor {found[width].factor:.3f}  ({points})"
        if len(found) > 1:
            small, large = found[min(found)], found[max(found)]
            ratio = large.factor / small.factor
            lost = large.at(small.factor) / large.loss - 1
            yield f"  best factors {max(ratio, 1 / ratio):.2f}x apart; transferred: {lost:+.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("table", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--depths", type=int, nargs="+", default=[4])
    parser.add_argument("--optimizers", nargs="+", default=["muon", "adamw"])
    parser.add_argument("--parametrisations", nargs="+", default=["mup", "standard"])
    parser.add_argument("--images", type=int, default=4096)
    steps = [round(2 ** (step / 2), 4) for step in range(-4, 5)]
    parser.add_argument("--factors", type=float, nargs="+", default=steps)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cache", default="runs/transfer/scenes")
    parser.add_argument("--read", action="store_true")
    args = parser.parse_args()
    if not args.read:
        axes = (args.seeds, args.optimizers, args.parametrisations, args.factors, args.widths)
        for depth in args.depths:
            runs = [
                Setting(width, depth, optimizer, how, args.images, factor, seed)
                for seed, optimizer, how, factor, width in product(*axes)
            ]
            sweep(args.table, runs, args.cache)
    print("\n".join(summary(read(args.table))))


if __name__ == "__main__":
    main()
