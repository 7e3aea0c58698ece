"""What the tests of the command line share: a finished run that was never trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stepsight import checkpoint
from stepsight.coding import build_network
from stepsight.config import RunConfig, from_dict
from stepsight.models.codec import Pixels
from stepsight.tasks.table import build_tasks


def tiny() -> RunConfig:
    return from_dict(
        {
            "model": {"name": "split-8"},
            "tasks": {task: {} for task in ("depth", "flow", "amodal")},
            "data": {"scenes": {"level": "easy", "size": [16, 24], "count": 8, "eval_count": 3}},
            "training": {"images": 16, "log_every": 16, "first_validation": 0},
            "evaluation": {"nfe": 2, "members": 2, "sweep_nfe": [1, 2], "sweep_members": [1, 2]},
        }
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A run folder with one checkpoint of random weights. Read it only: all tests share it."""
    run = tmp_path_factory.mktemp("runs") / "tiny-0001"
    config = tiny()
    tasks = build_tasks(config.tasks)
    torch.manual_seed(0)
    net = build_network(config, tasks, Pixels())
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    weights = dict(net.state_dict())
    meta = {"sizes": {task: [16, 24] for task in tasks}, "tasks": list(tasks), "losses": {}}
    meta |= {"images_seen": 16, "training_flops": 1e6, "best": None, "run": run.name}
    checkpoint.write(
        run / "checkpoints",
        1,
        config=config,
        meta=meta | {"revision": ""},
        tensors={checkpoint.BACKBONE: weights, checkpoint.RAW: weights, checkpoint.STATISTICS: {}},
    )
    (run / "config.yaml").write_text(config.to_yaml())
    return run


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A copy of the finished run, to be damaged or written to."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def picture(tmp_path):
    """Write a picture "h w" of random colours and return its path."""

    def write(name: str = "a.png", height: int = 19, width: int = 30) -> Path:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3))
        path = tmp_path / name
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path) -> None:
    """One process, in an empty folder; what a program sets in the environment is undone."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys, tmp_path) -> Callable[..., str]:
    """Run a program, hold that it refuses as it should, and return its message."""

    def check(program: Callable[[list[str]], int], *arguments: object) -> str:
        before = everything(tmp_path)
        assert program([str(word) for word in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
        assert everything(tmp_path) == before
        return error

    return check


def everything(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}
