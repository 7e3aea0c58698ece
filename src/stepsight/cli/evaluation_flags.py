"""What `evaluate.py` is told: its flags, and the data and protocols that they name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from stepsight.cli.options import with_options
from stepsight.errors import UserError

if TYPE_CHECKING:  # torch is imported once the number of its threads is set
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source
    from stepsight.metrics.protocol import Protocol


@dataclass(frozen=True)
class Data:
    """What to score on; without a name, the evaluation split of the run's own data."""

    name: str | None = None
    root: str | None = None  # folder of the data set
    split: str | None = None  # default: the source's evaluation split
    option: tuple[str, ...] = ()  # settings of the data set, key=value; may be repeated
    images: int = 0  # at most so many; 0 = all


@dataclass(frozen=True)
class Evaluate:
    """Score a checkpoint, or predictions that another program wrote, against trivial predictors;
    or sweep the test-time compute of one or several checkpoints."""

    # a run folder (its best checkpoint, else its last) or a step folder; repeated with --sweep
    checkpoint: tuple[str, ...] = ()
    predictions: str | None = None  # instead: a folder with a file for each image of --data.name
    task: tuple[str, ...] = ()  # may be repeated; default: all that the data has truth for
    protocol: tuple[
        str, ...
    ] = ()  # may be repeated, see `stepsight protocols`; default: the task's
    data: Data = field(default_factory=Data)
    nfe: str | None = None  # model calls a member: 4, or 1,2,4,8 with --sweep
    members: str | None = None
    sampler: str | None = None  # these may be several, separated by commas, with --sweep
    spacing: str | None = None  # of the steps; default: the run's
    schedule: str | None = None  # of the noise levels visited; default: the trained one
    times: str | None = None  # visit these, such as 1.0,0.6,0.2, in place of a spacing
    eta: float | None = None  # stochasticity of ddim, 0 to 1
    temperature: str | None = None  # of the start noise: 0 from zeros, 1 the diffusion's own
    views: str | None = None  # of further calls: none, mirror, mirror+shift
    starts: Literal["independent", "antithetic"] | None = None  # of members
    size: str | None = None  # longer side at work, pixels; default: as the protocol says
    merge: str | None = None  # rules; each task takes those that it knows, default: its own
    sweep: bool = False  # all combinations: sweep.csv, frontier, fits, statements, pictures
    strategies: bool = False  # with --sweep: also what else could be done with the largest budget
    save_predictions: bool = False  # keep them, in the layout that --predictions reads
    given: Literal["depth", "disparity", "log"] = "depth"  # what files of predicted depth hold
    scale: float = 1000.0  # units of an integer depth file a metre
    pattern: str | None = None  # where a prediction is, e.g. {key}_disp.npy or {name}.png
    resize: bool = False  # predictions of another size than their image's
    partial: bool = False  # score although predictions are missing; the scores say so
    out: str | None = None  # default: eval/ or sweep/ of the run; with --predictions, needed
    seed: int | None = None  # of the initial noise
    batch: int | None = None  # rows (images x members) a forward pass
    processes: int = 0  # 0: one a core on CPU (at most 2)


def numbers(flag: str, text: str | None) -> list[int]:
    """`1,2,4` as a list; [] when not given. Raises UserError."""
    if text is None:
        return []
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{flag} {text}: give a positive number, or several such as 1,2,4.")
    return sorted({int(part) for part in parts})


def fractions(flag: str, text: str | None) -> list[float]:
    """`0,0.5,1` as a list; [] when not given. Raises UserError."""
    try:
        found = sorted({float(part) for part in text.split(",")}) if text else []
    except ValueError:
        found = [math.nan]
    if not all(0 <= one < math.inf for one in found):
        raise UserError(f"{flag} {text}: give a number from 0 up, or several such as 0,1.")
    return found


def times(text: str | None) -> tuple[float, ...]:
    """`1.0,0.6,0.2` as numbers; () when not given. Raises UserError."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UserError(f"--times {text}: give falling times such as 1.0,0.6,0.2.") from error


def names(text: str | None) -> list[str]:
    """`ddim,heun` as a list, each name once; [] when not given."""
    return list(dict.fromkeys(part.strip() for part in text.split(","))) if text else []


def protocols_by_task(names: Sequence[str], tasks: Sequence[str]) -> dict[str, list[Protocol]]:
    """The protocols of those names by their task. Raises UserError for an unknown name, or one of
    another task than `tasks`, the tasks asked for; () is any."""
    from stepsight.metrics.protocol import get

    found: dict[str, list[Protocol]] = {}
    for name in dict.fromkeys(names):
        rule = get(name)
        if tasks and rule.task not in tasks:
            raise UserError(
                f"--protocol {name} scores {rule.task}, --task says {' and '.join(tasks)}."
            )
        found.setdefault(rule.task, []).append(rule)
    return found


def open_data(data: Data, quantities: frozenset[str]) -> tuple[Source, SourceSettings, str]:
    """The data set named on the command line, its settings and its split. Raises UserError."""
    from stepsight.data.config import FileSettings
    from stepsight.data.table import open_source, settings_for

    assert data.name is not None
    options = {} if data.root is None else {"root": data.root}
    settings = with_options(settings_for(data.name, **options), data.option)
    split = data.split or (settings.eval_split if isinstance(settings, FileSettings) else "eval")
    if isinstance(settings, FileSettings):
        settings = replace(settings, eval_split=split)
    elif split not in ("train", "eval"):
        raise UserError(f"--data.split {split}: {data.name} has train and eval.")
    return open_source(settings, split, quantities), settings, split
