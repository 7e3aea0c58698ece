"""A run from beginning to end: folder, set-up, training, final evaluation, report."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from stepsight import checkpoint
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.loader import readers_watched
from stepsight.errors import UserError
from stepsight.report.console import Console
from stepsight.training.folder import RunWriter, choose, latest
from stepsight.training.loop import finish, train
from stepsight.training.setup import Setup, preflight, prepare
from stepsight.training.state import initialise, load_run, same_settings
from stepsight.training.stores import drop_banks
from stepsight.training.tracker import Tracker


def fit(
    config: RunConfig,
    *,
    name: str,
    run_dir: str | None = None,
    resume: str | None = None,
    init_from: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Train as `config` says; returns the run folder.

    Raises UserError for anything the user can mend; nothing is left half written.
    """
    began = time.perf_counter()
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    join()
    run = RunWriter(_agreed(run_dir, name, resume, overwrite))
    past = _past(run, config, resume)
    start = checkpoint.read(init_from) if init_from is not None and past is None else None
    preflight(config, run.path, past, start)
    if _first():
        run.create(config, anew=past is None and overwrite)
        run.rewind(past.meta["step"] if past else 0)
    _barrier()
    with Console(run.path / "train.log", enabled=_first()) as console:
        tracker = Tracker(config, run) if _first() else None
        try:
            s = _set_up(config, run, console, past, start)
            s.began = began
            with readers_watched():
                train(s, run, console)
            _counts(s, console)
            _costs(s, console)
            result = run.path
            if config.training.evaluate:
                result = finish(s, run, console)
        finally:
            if tracker is not None:
                tracker.close()
            if _first():
                drop_banks(run.path)
        seconds = time.perf_counter() - began
        console.done(seconds, result, f"uv run evaluate.py --checkpoint {run.path}")
    leave()
    return run.path


def _past(run: RunWriter, config: RunConfig, resume: str | None) -> Checkpoint | None:
    """The checkpoint to continue from. Raises UserError if other settings made it."""
    start = latest(run, resume)
    if start is None:
        return None
    saved = checkpoint.read(start, prefer="last")
    same_settings(saved, config)
    return saved


def _set_up(
    config: RunConfig,
    run: RunWriter,
    console: Console,
    past: Checkpoint | None,
    start: Checkpoint | None,
) -> Setup:
    """Build the run and say what it is."""
    s = prepare(config, run, past, console)
    if _first() and not (run.path / checkpoint.CODEC).exists():
        s.codec.save(run.path / checkpoint.CODEC)
    if past is not None:
        load_run(s, past)
        console.note(f"continues from {past.path}")
    elif start is not None:
        initialise(s, start)
        console.note(f"starts from the weights of {start.path}")
        for name in ("schedule", "prediction"):
            old, new = (getattr(one.config.diffusion, name) for one in (start, s))
            if old != new:
                console.note(f"those answered {name} {old}, this run {new}: expect a step back")
    settings = config.training
    parameters = sum(p.numel() for p in s.net.parameters())
    flops = sum(s.forward_flops.values()) / len(s.forward_flops)
    shares = ", ".join(f"{task} {share:.0%}" for task, share in s.mixture.shares().items())
    threads = torch.get_num_threads()
    console.header(
        [
            f"stepsight  run {run.path}   seed {settings.seed}",
            f"model  {config.model.name}  {parameters / 1e6:.2f} M parameters, "
            f"{flops / 1e9:.3f} GFLOP/image forward",
            f"tasks  {shares}    data {', '.join(config.data)}",
            f"device {s.device}, {s.accelerator.num_processes} processes x {threads} threads, "
            f"precision {s.accelerator.mixed_precision}    "
            f"batch {settings.batch}, {settings.images} images",
        ]
    )
    return s


def _counts(s: Setup, console: Console) -> None:
    """How often each source was seen, beside what the weights declared."""
    declared, counts = s.mixture.declared(), s.mixture.counts(s.step)
    total = max(s.step * s.config.training.batch, 1)  # pictures, each of which serves several tasks
    lines = [
        f"{task} on {source} {count} ({count / total:.1%}, declared {declared[task, source]:.1%})"
        for (task, source), count in counts.items()
    ]
    console.note(f"images seen: {', '.join(lines)}")


def _costs(s: Setup, console: Console) -> None:
    """Processor time of training, of making samples and of validation, over all processes."""
    whole = time.process_time() - s.cpu_began
    own = [whole - s.rendering_s - s.validation_s, s.rendering_s, s.validation_s]
    mine = torch.tensor(own)
    spent = s.summed(mine.to(s.device)).tolist()
    console.note(
        f"training {spent[0]:.0f} core-seconds, making samples {spent[1]:.0f}, "
        f"validation {spent[2]:.0f}; start-up {s.start_up_s:.0f} s, wall {s.elapsed():.0f} s"
    )


def join() -> None:
    """Join the processes that were launched beside this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():  # before the first collective, which would take device 0
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        # The others wait while one reads or codes a data set.
        kind = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(kind, timeout=timedelta(hours=12))


def leave() -> None:
    """Wait for the others and part from them."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _agreed(run_dir: str | None, name: str, resume: str | None, overwrite: bool) -> Path:
    """The first process chooses the folder; all hear of it, or of the error."""
    told: list[object] = [None]
    if _first():
        try:
            told[0] = choose(run_dir, name, resume, overwrite)
        except (UserError, OSError) as error:
            told[0] = error
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    assert isinstance(told[0], Path)
    return told[0]


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()
