"""Saving and opening checkpoints beside bare safetensors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from stepsight import checkpoint
from stepsight.bench.opening import STATUS, config_of, network, opened, opened_plainly
from stepsight.bench.protocol import Contest, Row, Setup, assert_close
from stepsight.conversion.write import Converted, write
from stepsight.training.config import TrainingSettings
from stepsight.training.optim import build_optimizers, pack_optimizers

PROTOCOL = """A DiT and the state of AdamW after a step. Save: the seconds that a training waits
(ours, waits: a copy is taken, and written, hashed and flushed in the background), and all of it,
beside save_file of safetensors, which neither hashes nor flushes. Open: DensePipeline, which
verifies the digest of what it reads, beside load_file into a network without memory; every weight
is then looked at, as files are mapped. Wall time. Memory: the largest that a fresh process grows
by while it opens the weights, as multiples of their file. What is read back is equal to the last
bit. CPU and GPU: S/2."""


def run(setup: Setup) -> Iterator[Row]:
    on_cpu = Setup("cpu", setup.tiny, setup.rounds)
    with tempfile.TemporaryDirectory() as name:
        both = KeptTwice(setup.pick("DiT-32x2/2", "DiT-S/2", "DiT-S/2"), Path(name))
        yield from on_cpu.timed(both.saving())
        yield from on_cpu.timed(both.opening())
        yield from both.memory(rounds=1 if setup.tiny else 3)


class KeptTwice:
    """A run's weights and optimizer state, here and in plain files."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.folder, self.plain = model, folder, folder / "plain.safetensors"
        self.config = config_of(model)
        self.net = network(self.config)
        sizes = dict.fromkeys(self.config.tasks, (64, 64))
        weights = dict(self.net.state_dict())
        self.run = folder / "run"
        write(Converted(self.config, weights, sizes), self.run)
        save_file(weights, self.plain)
        settings = TrainingSettings(optimizer="adamw")
        optimizers = build_optimizers(self.net, settings)
        for p in self.net.parameters():
            p.grad = torch.full_like(p, 1e-3)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.tensors = {
            checkpoint.BACKBONE: {name: value.clone() for name, value in weights.items()},
            checkpoint.RAW: weights,
            checkpoint.OPTIMIZER: pack_optimizers(optimizers),
        }
        self.meta = checkpoint.read(self.run).meta
        self.saver = checkpoint.Saver()

    def snapshot(self) -> checkpoint.Snapshot:
        meta = {name: value for name, value in self.meta.items() if name != "tensors"}
        steps, facts = self.folder / "steps", {"config": self.config, "meta": meta}
        return checkpoint.Snapshot.of(steps, 1, **facts, tensors=self.tensors)

    def saving(self) -> Contest:
        flat = {
            f"{file}:{key}": v for file, part in self.tensors.items() for key, v in part.items()
        }
        whole = self.folder / "whole.safetensors"

        def clear() -> None:
            self.saver.wait()
            shutil.rmtree(self.folder / "steps", ignore_errors=True)
            whole.unlink(missing_ok=True)

        path = self.snapshot().commit()
        assert path is not None
        for file, wanted in self.tensors.items():
            found = checkpoint.read(path).tensors(file)
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[key], value) for key, value in wanted.items()), file
        clear()
        sides = {
            "save_file": lambda: save_file(flat, whole),
            "ours, waits": lambda: self.saver.start(self.snapshot(), lambda path: None),
            "ours, whole": lambda: self.snapshot().commit(),
        }
        size = sum(value.nbytes for value in flat.values()) / 1e6
        case = f"save {self.model}, {size:.0f} MB"
        return Contest(case, sides, "save_file", clock="wall", after=clear, rounds=5)

    def opening(self) -> Contest:
        theirs = opened_plainly(self.config, self.plain).state_dict()
        ours = opened(self.run).state_dict()
        for name, value in theirs.items():
            assert_close(ours[name], value, 0, f"weights {name}")
        sides = {
            "load_file": lambda: opened_plainly(self.config, self.plain),
            "ours": lambda: opened(self.run),
        }
        case = f"open {self.model}, {self.plain.stat().st_size / 1e6:.0f} MB"
        return Contest(case, sides, "load_file", clock="wall")

    def memory(self, rounds: int) -> Iterator[Row]:
        """The rows of the memory that opening takes; none where the system does not tell it."""
        if not STATUS.is_file():
            return
        size = self.plain.stat().st_size
        case = f"open {self.model}, memory"
        for side, how, path in (("load_file", "plain", self.plain), ("ours", "ours", self.run)):
            grown = sorted(_grown(how, self.model, path) / size for _ in range(rounds))
            middle = grown[len(grown) // 2]
            spread = (grown[-1] - grown[0]) / middle
            reference = 1.0 if side == "ours" and rounds > 1 else None
            yield Row(case, side, "its file", middle, spread, "memory", reference)


def _grown(how: str, model: str, path: Path) -> int:
    """Bytes that a process grows by at most while it opens `path`."""
    command = [sys.executable, "-m", "stepsight.bench.opening", how, model, str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(found.stdout.split()[0])
