"""How long one waits before anything happens: --help, imports, the first training step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from stepsight.bench.protocol import Contest, Row, Setup

PROTOCOL = """Fresh processes of one thread, wall time, the files in the page cache. Help pages
beside an interpreter that does nothing, imports beside torch alone, and a run of one step (2
pictures of 64 x 64, split-8, one process, its checkpoint and validation included) beside torch
alone. --help is meant to stay below 1000 ms on an idle core."""

MAIN = "import sys; from stepsight.cli.main import main; sys.exit(main())"
ONE_STEP = {
    "model.name": "split-8",
    "training.processes": 1,
    "training.batch": 2,
    "training.images": 2,
    "training.warmup": 0,
    "training.validation_images": 1,
    "training.evaluate": False,
    "data.scenes.count": 2,
    "data.scenes.eval_count": 1,
}


def run(setup: Setup) -> Iterator[Row]:
    on_cpu = Setup("cpu", setup.tiny, setup.rounds)
    with tempfile.TemporaryDirectory() as folder:
        contests = [helping(), importing(), beginning(Path(folder))]
        for contest in contests[:1] if setup.tiny else contests:
            yield from on_cpu.timed(contest)


def helping() -> Contest:
    sides = {"python": partial(python, "pass")}
    for command in ("", "train", "evaluate", "predict"):
        words = [command, "--help"] if command else ["--help"]
        sides[f"ours, {' '.join(words)}"] = partial(python, MAIN, words)
    return Contest("help", sides, "python", clock="wall")


def importing() -> Contest:
    sides = {
        "torch": partial(python, "import torch"),
        "diffusers, DiffusionPipeline": partial(python, "from diffusers import DiffusionPipeline"),
        "ours, DensePipeline": partial(python, "from stepsight import DensePipeline"),
        "ours, training loop": partial(python, "import stepsight.training.loop"),
    }
    return Contest("imports", sides, "torch", clock="wall", rounds=3)


def beginning(folder: Path) -> Contest:
    flags = [word for name, value in ONE_STEP.items() for word in (f"--{name}", str(value))]

    def one_step() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as run_dir:
            python(MAIN, ["train", *flags, "--run-dir", run_dir])

    sides = {"torch": partial(python, "import torch"), "ours, a run of one step": one_step}
    return Contest("first step", sides, "torch", clock="wall", rounds=3)


def python(code: str, words: Sequence[str] = ()) -> None:
    """A fresh interpreter. Raises CalledProcessError if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *words]
    subprocess.run(command, check=True, capture_output=True, env=environment)
