"""A run from beginning to end: folder, set-up, training, final evaluation, report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stepsight import checkpoint, distributed, signals
from stepsight.checkpoint import Checkpoint
from stepsight.config import RunConfig
from stepsight.data.config import FileSettings
from stepsight.data.loader import readers_watched
from stepsight.data.plausible.judging import FIRST, first_look
from stepsight.errors import UserError, command
from stepsight.report.console import Console
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings
from stepsight.training.dense.rows import kinds_of
from stepsight.training.feed import Feed, drop_banks, micro_batches
from stepsight.training.folder import RunWriter, branch_point, choose, latest
from stepsight.training.learner import Learner, check_processes
from stepsight.training.loop import resuming, train
from stepsight.training.objective import objective_of
from stepsight.training.planning.memory import fitting, with_training
from stepsight.training.profile.run import enough_steps, profiled
from stepsight.training.progress import Progress, check_settings
from stepsight.training.sharding import check_sharding, make_accelerator
from stepsight.training.spec import RunSpec
from stepsight.training.tracker import Tracker

ROOM = 0.9  # share of a GPU's free memory that is planned with
REMEDIES = (
    "a smaller --training.micro_batch, --training.recompute block or --training.sharding full"
)


def fit(
    config: RunConfig,
    *,
    name: str,
    run_dir: str | None = None,
    resume: str | None = None,
    init_from: str | None = None,
    branch_from: str | None = None,
    overwrite: bool = False,
    profile: int | None = None,
) -> Path:
    """Train as `config` says, a backbone or a VAE; returns the run folder.

    branch_from: a run of the same settings and another length, whose steps are taken over as far as
    they are those of this run (`TrainingSettings.steady`).
    profile: measure so many steps and stop, see `training.profile`.
    Raises UserError for anything the user can fix; nothing is left half written.
    """
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    distributed.join()
    with distributed.watching():
        distributed.phase("set-up", patience=distributed.SETUP)
        path = distributed.agreed(lambda: choose(run_dir, name, resume, overwrite))
        writer = RunWriter(path)
        distributed.agreed(writer.lock.acquire)
        try:
            _fit(config, writer, resume, init_from, branch_from, overwrite, profile)
        finally:
            writer.lock.release()
    distributed.leave()
    return path


def _fit(
    config: RunConfig,
    writer: RunWriter,
    resume: str | None,
    init_from: str | None,
    branch_from: str | None,
    overwrite: bool,
    profile: int | None,
) -> None:
    """A run in its folder, which is this run's alone."""
    path, past = writer.path, _past(writer, config, resume, branch_from)
    start = init_from if past is None else None
    parent = None if start is None else checkpoint.read(start, lazy=True)
    spec = preflight(config, path, past, parent)
    if profile:
        enough_steps(spec.config.training, past.meta["step"] if past else 0, profile)
    if writer.main:
        writer.create(config, anew=past is None and overwrite)
        writer.rewind(past.meta["step"] if past else 0)
    distributed.barrier()
    with Console(path / "train.log", enabled=writer.main) as console:
        console.header(spec.words())
        if writer.main and past is None:
            _look(spec, console)
        tracker = Tracker(config, writer) if writer.main else None
        try:
            learner, feed = prepare(spec, console)
            progress = _begin(learner, spec, console)
            console.header(_header(learner, feed, path))
            with signals.caught():  # before, there is nothing to save
                with readers_watched(), learner.saving(), _within_memory(spec.config.training):
                    if profile:
                        result = profiled(learner, feed, progress, writer, console, profile)
                        following = resuming(path)
                    else:
                        train(learner, feed, progress, writer, console)
                        result, following = _finished(learner, feed, writer, console)
        finally:
            if tracker is not None:
                tracker.close()
            if writer.main:
                drop_banks(path)
        console.done(writer.elapsed(), result, following)


def _look(spec: RunSpec, console: Console) -> None:
    """Say what is implausible about the first few samples of the files that are trained on."""
    for name, source in spec.sources.items():
        if isinstance(spec.config.data[name], FileSettings):
            for remark in first_look(source):
                tell = console.warn if remark.grave else console.note
                tell(f"{name}, of the first {min(FIRST, len(source))} samples: {remark}")


def _finished(
    learner: Learner, feed: Feed, writer: RunWriter, console: Console
) -> tuple[Path, str]:
    """What comes after the last step; see `Objective.finish`. Raises Preempted with the way on."""
    distributed.phase("final evaluation", patience=distributed.SETUP)
    try:
        return learner.objective.finish(feed, writer, console)
    except signals.Preempted as asked:
        raise signals.Preempted(f"{asked} Go on with: {resuming(writer.path)}") from None


def preflight(
    config: RunConfig,
    folder: Path,
    past: Checkpoint | None = None,
    parent: Checkpoint | None = None,
) -> RunSpec:
    """The run that is to be (see `RunSpec`). Raises UserError for what would stop it later, before
    anything is written."""
    world = distributed.world()
    check_processes(config.training, world)
    config = sized(config, world)
    spec = RunSpec.of(config, folder, past, parent)
    objective_of(config).check(spec)
    parts = [micro_batches(config.training, rank, world) for rank in range(world)]
    kinds = [kinds_of(config.training, rows) for every in parts for rows in every]
    check_sharding(config.training, kinds)
    return spec


def free_memory() -> int | None:
    """Bytes of the fullest of the processes' GPUs that can be planned with; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    return int(ROOM * min(distributed.gathered(torch.cuda.mem_get_info()[0])))


def sized(config: RunConfig, world: int) -> RunConfig:
    """With the pictures that a process takes at a time, where they follow from a GPU's memory.

    Raises UserError where one picture is too many.
    """
    room = free_memory() if config.training.micro_batch == "auto" else None
    if room is None:
        return config
    pictures = fitting(config, build_tasks(config.tasks), world, room)
    if pictures is None:
        raise UserError(
            f"out of memory: one picture at a time does not fit in {room / 1e9:.0f} GB. "
            f"{command('train', '...', '--dry-run')} says what would: {REMEDIES}."
        )
    return with_training(config, micro_batch=str(pictures))


@contextmanager
def _within_memory(settings: TrainingSettings) -> Iterator[None]:
    """Turn the end of a device's memory into a UserError; what was saved is untouched."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory: {str(error).splitlines()[0]} Continue with --resume auto and "
            f"{REMEDIES} (training.micro_batch is {settings.micro_batch})."
        ) from error


def prepare(spec: RunSpec, console: Console) -> tuple[Learner, Feed]:
    """A new network on its processes, and what it learns from."""
    # Passes of one micro-batch with the same tasks use the same parameters each time.
    in_one = len(micro_batches(spec.config.training, 0, distributed.world())) == 1
    alike = len({stream.tasks for stream in spec.streams}) == 1
    accelerator = make_accelerator(static=in_one and alike)
    objective, feed = objective_of(spec.config).open(spec, accelerator.device, console)
    return Learner(objective, accelerator), feed


def _past(
    writer: RunWriter, config: RunConfig, resume: str | None, branch_from: str | None
) -> Checkpoint | None:
    """The checkpoint to continue from: of this run, or the one that it branches off. Raises
    UserError if other settings made it."""

    def found() -> Path | None:
        own = latest(writer, resume)
        return own if own or not branch_from else branch_point(branch_from, config)

    path = distributed.agreed(found)  # the first process verifies it
    if path is None:
        return None
    saved = checkpoint.read(path, lazy=True)  # `latest` has verified it
    check_settings(saved, config)
    return saved


def _begin(learner: Learner, spec: RunSpec, console: Console) -> Progress:
    """The weights of a run and where it stands. Continuing it goes before starting from another,
    and that before a new network."""
    if spec.past is not None:
        console.note(f"continues from {spec.past.path}")
        progress = learner.resume(spec.past, console)
        if not spec.past.path.resolve().is_relative_to(spec.folder.resolve()):
            progress.best = None  # of what this folder holds there is none yet
            progress.note("branched", of=str(spec.past.path))
        return progress
    if spec.parent is None:
        return Progress()
    console.note(f"starts from the weights of {spec.parent.path}")
    old, new = spec.parent.config.diffusion, spec.config.diffusion
    for name in ("schedule", "prediction"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            console.note(f"{name}: the parent has {before}, this run {now}: expect a loss jump")
    return learner.start_from(spec.parent)


def _sharing(settings: TrainingSettings) -> str:
    """How the work fits in memory, where that was asked for."""
    asked = {"sharding": settings.sharding, "recompute": settings.recompute}
    return "".join(f", {name} {value}" for name, value in asked.items() if value != "none")


def _header(learner: Learner, feed: Feed, path: Path) -> list[str]:
    """What is about to happen."""
    objective, settings = learner.objective, learner.settings
    config, accelerator = objective.config, learner.accelerator
    parameters = sum(p.numel() for p in learner.net.parameters())
    shares = ", ".join(f"{task} {share:.0%}" for task, share in feed.mixture.shares().items())
    return [
        f"stepsight  run {path}   seed {settings.seed}",
        f"model  {config.model.name}  {parameters / 1e6:.2f} M parameters, "
        f"{objective.forward_flops / 1e9:.3f} GFLOP/image forward",
        f"tasks  {shares}    data {', '.join(config.data)}",
        f"device {learner.device}, {accelerator.num_processes} processes x "
        f"{torch.get_num_threads()} threads, precision {learner.precision}    "
        f"batch {settings.batch}, {settings.images} images{_sharing(settings)}",
    ]
