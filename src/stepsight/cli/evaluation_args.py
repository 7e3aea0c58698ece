"""The flags of `stepsight evaluate`, and the protocols that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from stepsight.cli.entry import parse
from stepsight.cli.sampling import fractions, names, numbers
from stepsight.cli.sources import Data, options_help
from stepsight.data.bad import BadItems
from stepsight.errors import UserError
from stepsight.execution.config import Precision
from stepsight.pipeline.config import Which

if TYPE_CHECKING:  # torch is imported once the number of its threads is set
    from stepsight.metrics.protocol import Protocol

Values = Mapping[str, list[Any]]  # by flag, the values it was given


class Given(NamedTuple):
    """The flags, and the arguments as they were given."""

    args: Args
    arguments: Sequence[str]


@dataclass(frozen=True)
class Args:
    """Score a checkpoint, or predictions that another program wrote, against trivial predictors;
    or sweep the test-time compute of one or several checkpoints."""

    # a run folder (its best checkpoint, else its last) or a step folder; repeated with --sweep
    checkpoint: tuple[str, ...] = ()
    predictions: Path | None = None  # instead: a folder with a file for each image of --data.name
    weights: Literal["ema", "raw"] = "ema"  # those averaged over training, or those being trained
    precision: Precision = "auto"  # of the network; auto: as the run was trained, on this device
    # sizes, clipping and merging of checkpoints from elsewhere: their authors', or ours
    profile: Which = "published"
    task: tuple[str, ...] = ()  # default: all that the data has truth for
    protocol: tuple[str, ...] = ()  # see `stepsight protocols`; default: the task's
    data: Data = field(default_factory=Data)
    nfe: str | None = None  # model calls per member: 4, or 1,2,4,8 with --sweep
    members: str | None = None  # answers that are merged; as all below, several with --sweep
    sampler: str | None = None  # ddim, euler, heun, dpmpp_2m, ...; default: the run's
    spacing: str | None = None  # of the steps; default: the run's
    schedule: str | None = None  # of the noise levels visited; default: the trained one
    times: str | None = None  # visit these, such as 1.0,0.6,0.2, in place of a spacing
    eta: float | None = None  # stochasticity of ddim, 0 to 1
    guidance: float | None = None  # away from the answer without label, 1: off
    temperature: str | None = None  # of the start noise: 0 from zeros, 1 the diffusion's own
    views: str | None = None  # of further calls: none, mirror, mirror+shift
    starts: Literal["independent", "antithetic"] | None = None  # of members
    size: str | None = None  # longer side at work, pixels; default: as the protocol says
    merge: str | None = None  # rules; each task takes those that it knows, default: its own
    sweep: bool = False  # all combinations: sweep.csv, frontier, fits, statements, pictures
    strategies: bool = False  # with --sweep: also what else could be done with the largest budget
    save_predictions: bool = False  # keep them, in the layout that --predictions reads
    # what files of predicted depth hold
    given: Literal["depth", "disparity", "log", "log1p"] = "depth"
    # units per metre of an integer depth file; default: as predict's manifest says, else 1000
    scale: float | None = None
    # what class ids in files are: classes from 0, 1.. (1 is the first), Cityscapes' labelIds;
    # default: classes, or a benchmark's own where its files plainly hold those
    codes: Literal["classes", "1..", "cityscapes"] | None = None
    pattern: str | None = None  # where a prediction is, e.g. {key}_disp.npy or {name}.png
    resize: bool = False  # predictions of another size than their image's
    partial: bool = False  # score although predictions are missing; the scores say so
    # at an image or a prediction that cannot be scored: stop, or leave it out, count it in the
    # results and name it in quarantine.jsonl
    on_bad: Literal["stop", "skip"] = "stop"
    bad_cap: float = 0.01  # share of the images that may be skipped
    out: str | None = None  # default: eval/ or sweep/ of the run; evaluation/ of the predictions
    seed: int | None = None  # of the initial noise; default: the run's
    batch: int | None = None  # images x members in a forward pass; default: the run's
    processes: int = 0  # 0: one per core on CPU (at most 2)

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Given:
        return Given(parse(cls, arguments, prog), arguments)

    @classmethod
    def more_help(cls, arguments: Sequence[str]) -> str:
        return options_help(arguments)

    def bad_items(self) -> BadItems:
        """The policy of --on-bad and --bad-cap. Raises UserError for a cap that is no share."""
        return BadItems(self.on_bad, self.bad_cap)

    def axes(self) -> Values:
        """How to sample, in the order in which the flags are named in messages."""
        return {
            "nfe": numbers("--nfe", self.nfe),
            "members": numbers("--members", self.members),
            "sampler": names(self.sampler),
            "spacing": names(self.spacing),
            "schedule": names(self.schedule),
            "size": numbers("--size", self.size),
            "merge": names(self.merge),
            "temperature": fractions("--temperature", self.temperature),
            "views": names(self.views),
        }


def protocols_by_task(args: Args) -> dict[str, list[Protocol]]:
    """The protocols of --protocol by their task. Raises UserError for an unknown name, or one of
    another task than those of --task."""
    from stepsight.metrics.protocol import get

    chosen: dict[str, list[Protocol]] = {}
    for name in dict.fromkeys(args.protocol):
        protocol = get(name)
        if args.task and protocol.task not in args.task:
            asked = " and ".join(args.task)
            raise UserError(f"--protocol {name} scores {protocol.task}, --task says {asked}.")
        chosen.setdefault(protocol.task, []).append(protocol)
    return chosen
