"""The run folder: what is written, where, and how a resumed run finds its own past."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepsight import checkpoint, distributed
from stepsight.checkpoint import LOCK, RunLock
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.scaling.plain import plain
from stepsight.training.progress import differing

PACKAGES = ("torch", "torchvision", "diffusers", "accelerate", "timm", "einops", "numpy", "scipy")
# How the rates fall at the end, of what `differing` says: no matter up to there.
ENDS = re.compile(r"training\.(decay|decay_share|final_lr) ")


class RunWriter:
    """`runs/<name>/` and its files. main: whether this process is the one that writes them."""

    def __init__(self, path: Path) -> None:
        self.path, self.main = path, distributed.rank() == 0
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.records = path / "records.jsonl"
        self.lock = RunLock(path)  # what is written once it is acquired has to be this run's
        self.listeners: list[Callable[[dict[str, Any]], None]] = []  # of logged rows
        self._metrics = path / "metrics.jsonl"
        self._began = time.perf_counter()

    def elapsed(self) -> float:
        """Seconds since the run was started, or continued."""
        return time.perf_counter() - self._began

    def create(self, config: RunConfig, anew: bool = False) -> None:
        """Make the folders and write what describes the run; `anew` empties them first.

        Raises UserError where nothing can be written.
        """
        with _writing(self.path):
            if anew:
                for path in self.path.iterdir() if self.path.exists() else ():
                    _remove(path)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
            (self.path / "config.yaml").write_text(config.to_yaml())
            (self.path / "command.txt").write_text(" ".join(sys.argv) + "\n")
            (self.path / "env.json").write_text(json.dumps(environment(config), indent=2) + "\n")

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl, and pass it to the listeners.

        Raises UserError if it cannot be written, or if the folder is another process's by now.
        """
        if not self.main:
            return
        self.lock.check()
        with _writing(self._metrics), self._metrics.open("a") as file:
            file.write(json.dumps(plain(row)) + "\n")
        for listener in self.listeners:
            listener(row)

    def validations(self) -> list[dict[str, Any]]:
        """The lines of all validations so far."""
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        return [row for row in map(json.loads, lines) if row["kind"] == "val"]

    def rewind(self, step: int, say: Callable[[str], None] = print) -> None:
        """Forget what came after `step`: a resumed run writes it again.

        Of metrics.jsonl the lines after it are dropped, and those that cannot be read, whose number
        is said; the checkpoint of that step becomes the one that was written last.
        """
        with _writing(self.path):
            checkpoint.settle(self.checkpoints, step, say)
            if not self._metrics.exists():
                return
            lines = [line for line in self._metrics.read_bytes().split(b"\n") if line.strip()]
            steps = [_step_of(line) for line in lines]
            if bad := steps.count(None):
                say(f"{self._metrics}: {bad} lines that cannot be read are dropped")
            kept = [line for line, at in zip(lines, steps) if at is not None and at <= step]
            staged = self._metrics.with_suffix(".staged")
            staged.write_bytes(b"".join(line + b"\n" for line in kept))
            os.replace(staged, self._metrics)


def _remove(path: Path) -> None:
    """Of a run that is replaced all goes, but for the lock on its folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.name != LOCK:
        path.unlink()


def _step_of(line: bytes) -> int | None:
    """The step of a line of metrics.jsonl; None for one that was cut short or damaged."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise checkpoint.disk_error(path, "writing", error) from None


def choose(run_dir: str | None, name: str, resume: str | None, overwrite: bool) -> Path:
    """The folder of this run: a new numbered one, or `run_dir` if that is allowed.

    An existing run is only touched with --resume or --overwrite; raises UserError otherwise.
    Nothing is written or deleted here: that waits until the run is known to be able to start.
    """
    if run_dir is None and resume not in (None, "auto"):
        run_dir = str(checkpoint.resolve(resume, prefer="last").parent.parent)
    if run_dir is None:
        taken = sorted(Path("runs").glob(f"{name}-[0-9][0-9][0-9][0-9]"))
        if resume and taken:
            return taken[-1]
        number = int(taken[-1].name[-4:]) + 1 if taken else 1
        return Path("runs") / f"{name}-{number:04d}"
    path = Path(run_dir)
    if path.exists() and not path.is_dir():
        raise UserError(f"--run-dir {path} is a file. Name a folder.")
    if path.exists() and any(_is_content(one) for one in path.iterdir()) and not resume:
        if not overwrite:
            raise UserError(
                f"--run-dir {path} exists. Continue it with --resume auto, replace it with "
                f"--overwrite, or name another folder."
            )
        if not (path / "config.yaml").exists():
            if (path / LOCK).exists():
                RunLock(path).check_free()  # one that has just begun, and has no settings yet
            raise UserError(f"--run-dir {path} is not a run folder: --overwrite will not empty it.")
    return path


def _is_content(path: Path) -> bool:
    return not path.name.startswith(LOCK)  # nor the draft of a lock


def latest(run: RunWriter, resume: str | None, say: Callable[[str], None] = print) -> Path | None:
    """The verified checkpoint to continue from: None without --resume, or before the first one.

    For "auto", or a run, it is the newest that is whole; what is passed over is said. A step folder
    that is named and damaged is a UserError, which says which one is whole.
    """
    if resume is None:
        return None
    named = None if resume == "auto" else checkpoint.resolve(resume, prefer="last")
    if named is not None and named.name == Path(resume).name:
        return _named(named)
    saved = checkpoint.read_newest(run.path if named is None else named.parent, say)
    return None if saved is None else saved.path


def branch_point(trunk: str, config: RunConfig, say: Callable[[str], None] = print) -> Path | None:
    """The last checkpoint of another run whose steps are also those of a run with these settings;
    None where it kept none. Raises UserError where there is no such run, or its steps are others.
    """
    newest = checkpoint.read(checkpoint.resolve(trunk, prefer="last"), lazy=True)
    before = newest.config
    if other := [text for text in differing(before, config) if not ENDS.match(text)]:
        raise UserError(
            f"--branch-from {trunk} was made with other settings: {', '.join(other[:6])}. Take "
            "them from its config.yaml, or use --init-from."
        )
    if not before.training.steady:
        raise UserError(
            f"--branch-from {trunk}: with training.decay {before.training.decay} all of its rates "
            "follow from its length. Branch off a run with decay wsd, or use --init-from."
        )
    steady = min(before.training.steady, config.training.steady)
    upto = steady // config.training.batch
    saved = checkpoint.read_newest(newest.path.parents[1], say, upto=upto)
    if saved is None:
        say(f"{trunk} has no checkpoint up to {steady} images: this run begins anew")
    return None if saved is None else saved.path


def _named(path: Path) -> Path:
    try:
        return checkpoint.resumable(path).path
    except UserError as error:
        whole = checkpoint.read_newest(path.parent, say=lambda _: None)
        raise UserError(f"{error} Use {whole.path}." if whole else str(error)) from None


@cache
def revision() -> str:
    """The git revision of the code at the first look, `+` when it differs from it; empty outside a
    checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment(config: RunConfig) -> dict[str, Any]:
    """What the numbers of a run may depend on besides its configuration."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "stepsight": version("stepsight"),
        "revision": revision(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "seed": config.training.seed,
        "fingerprint": config.fingerprint(),
    }


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
