"""`stepsight predict`: depth, flow, masks, classes or normals of any picture of any size."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from tyro.conf import Positional, arg

from stepsight import signals
from stepsight.cli.entry import at_least, given_by, output_folder, parse
from stepsight.cli.sampling import check_sampling, check_setting, times
from stepsight.data.bad import QUARANTINE, BadItems
from stepsight.errors import UserError, command
from stepsight.execution.config import Precision
from stepsight.pipeline.config import Which

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline

# What a budget sets; the first seven are settings of the sampler.
BUDGETED = ("sampler", "spacing", "schedule", "eta", "temperature", "views", "guidance")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm")  # of the pictures in a folder
BUDGETED += ("nfe", "members", "times", "merge")


@dataclass(frozen=True)
class Args:
    """Depth, flow, masks, classes or normals of pictures of any size."""

    # your pictures, or folders of them
    images: Positional[Annotated[tuple[Path, ...], arg(metavar="IMAGE...")]]
    checkpoint: str  # run folder or step folder
    weights: Literal["ema", "raw"] = "ema"  # those averaged over training, or those being trained
    precision: Precision = "auto"  # of the network; auto: as the run was trained, on this device
    # sizes, clipping and merging of checkpoints from elsewhere: their authors', or ours
    profile: Which = "published"
    task: str = "depth"  # one that the checkpoint has
    second: Path | None = None  # the next frame (flow)
    mask: Path | None = None  # mask of the visible part, white on black (amodal)
    class_id: int | Literal["null"] | None = None  # what to generate (image); null: of no class
    nfe: int | None = None  # model calls per member; default: the run's
    members: int | None = None  # answers that are merged; default: the run's
    sampler: str | None = None  # ddim, euler, heun, dpmpp_2m, ...; default: the run's
    spacing: str | None = None  # of the sampler's steps; default: the run's
    schedule: str | None = None  # whose noise levels are visited; default: trained
    times: str | None = None  # visit these times, such as 1.0,0.6,0.2; NFE follows
    eta: float | None = None  # stochasticity of ddim, 0 to 1
    temperature: float | None = None  # of the start noise; 0: from zeros
    views: str | None = None  # what further calls see: none, mirror, mirror+shift
    # away from the answer without class (image), 1: off; each model call then is two passes
    guidance: float | None = None
    merge: str | None = None  # rule for the members; default: the run's
    tolerance: float | None = None  # add no member once its merge's standard error is this small
    # cost per image, as 16nfe, 50gflop or 200ms: what the run's sweep measured as best sets
    # sampler, NFE and members
    budget: str | None = None
    sweep: str | None = None  # sweep.csv for --budget; default: the run's
    seed: int = 0  # of the noise
    on_bad: Literal["stop", "skip"] = "stop"  # at a picture that cannot be read
    bad_cap: float = 0.01  # share of the pictures that may be skipped
    out: Path = Path("predictions")  # folder for PNG and .npy

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Asked:
        return Asked(parse(cls, arguments, prog), arguments)


class Asked(NamedTuple):
    """The flags, and the arguments as they were given."""

    args: Args
    arguments: Sequence[str]


def run(given: Asked) -> int:
    args = given.args
    pictures = _pictures(args.images)
    for path in filter(None, (args.second, args.mask)):
        if not path.is_file():
            raise UserError(f"{path}: no such picture.")
    if len(pictures) > 1 and (args.second or args.mask):
        raise UserError("--second and --mask belong to one picture: give one at a time.")
    if len({path.stem for path in pictures}) < len(pictures):
        raise UserError(
            "two pictures have the same name: their results would overwrite each other."
        )
    for flag, least in {"nfe": 1, "members": 1, "tolerance": 0}.items():
        at_least(least, f"--{flag}", getattr(args, flag))
    with signals.caught():
        left = _predict(args, pictures)
        if left:
            words = zip(["", *given.arguments], given.arguments)  # each with the one before it
            flags = [b for a, b in words if a.startswith("--") or Path(b) not in args.images]
            raise signals.Preempted(
                f"{signals.requested()}: {len(pictures) - len(left)} of {len(pictures)} pictures "
                f"are predicted, in {args.out}. Go on with `{command('predict', *flags, *left)}`."
            )
    return 0


def _pictures(named: Sequence[Path]) -> list[Path]:
    """The pictures named, and those in the folders named, in order of their names. Raises UserError
    where there are none."""
    if not named:
        raise UserError("name the pictures to predict from.")
    found: list[Path] = []
    for path in named:
        inside = [path] if path.is_file() else sorted(path.glob("*"))
        inside = [one for one in inside if one == path or one.suffix.lower() in SUFFIXES]
        if not inside:
            raise UserError(f"{path}: no such picture, nor a folder of {', '.join(SUFFIXES)}.")
        found += inside
    return found


def _predict(args: Args, pictures: Sequence[Path]) -> list[Path]:
    """Predict; returns the pictures that are left to do when this program is asked to end."""
    import numpy as np
    from einops import rearrange

    from stepsight import checkpoint
    from stepsight.data.decoding.images import read_image, write_image
    from stepsight.evaluation.sources import remark
    from stepsight.pipeline.dense import DensePipeline

    out = output_folder(args.out)
    opened = DensePipeline.from_pretrained(
        args.checkpoint, "auto", None, args.weights, args.precision, args.profile
    )
    pipeline, nfe, members = _sampling(opened, args)
    (out / QUARANTINE).unlink(missing_ok=True)
    bad, skipped = BadItems(args.on_bad, args.bad_cap, out / QUARANTINE), list[Path]()
    for number, path in enumerate(pictures):
        if signals.requested():
            return skipped + [*pictures[number:]]
        try:
            picture = rearrange(read_image(path), "c h w -> h w c").numpy()
        except UserError as error:
            bad.met("pictures", str(path), error, of=len(pictures))
            skipped.append(path)
            continue
        prediction = pipeline(
            picture,
            args.task,
            second=args.second,
            mask=args.mask,
            class_id=args.class_id,
            nfe=nfe,
            members=members,
            temperature=args.temperature,
            views=args.views,
            tolerance=args.tolerance,
            seed=args.seed,
        )
        out.mkdir(parents=True, exist_ok=True)
        stem = f"{out / path.stem}-{args.task}"
        assert prediction.picture is not None
        write_image(f"{stem}.png", prediction.picture[0].cpu())
        np.save(f"{stem}.npy", prediction.values[0].cpu().numpy())
        if prediction.uncertainty is not None:
            spread = rearrange(prediction.uncertainty, "1 1 h w -> h w").cpu().numpy()
            np.save(f"{stem}-uncertainty.npy", spread)
        print(f"{path} -> {stem}.png, {stem}.npy")
        if not prediction.values.isfinite().all():
            print(f"warning: {path}: the answer holds NaN or infinity", file=sys.stderr)
    if said := remark(checkpoint.read(args.checkpoint, lazy=True), [], args.weights):
        print(f"warning: {said}", file=sys.stderr)
    if skipped:
        print(f"{len(skipped)} of {len(pictures)} pictures skipped: see {out / QUARANTINE}")
    return []


def _sampling(pipeline: DensePipeline, args: Args) -> tuple[DensePipeline, int | None, int | None]:
    """The pipeline sampling as asked, with its NFE and members; None: the run's. Raises UserError
    naming the flag that cannot be."""
    from stepsight.diffusion.config import nfe
    from stepsight.pipeline.budget import check_budget

    with given_by(f"--task {args.task}"):
        pipeline.task(args.task)
    check_budget(args.budget, args.sweep, **{name: getattr(args, name) for name in BUDGETED})
    if args.budget is not None:
        plan = pipeline.plan(args.task, args.budget, args.sweep)
        print(f"{plan.budget}: {plan}")
        return pipeline.planned(args.task, plan), plan.nfe, plan.members
    visits = times(args.times)
    given = {name: getattr(args, name) for name in BUDGETED[:7]}
    given = {name: [value] for name, value in given.items() if value is not None}
    check_sampling(pipeline.diffusion.settings, given, visits)
    with given_by(f"--merge {args.merge}"):
        pipeline = pipeline.sampling(
            sampler=args.sampler,
            spacing=args.spacing,
            schedule=args.schedule,
            times=visits,
            eta=args.eta,
            guidance=args.guidance,
            merge={args.task: args.merge} if args.merge else None,
        )
    usual = nfe(pipeline.diffusion.settings.sampler, len(visits)) if visits else None
    calls = usual if args.nfe is None else args.nfe
    check_setting(
        pipeline, args.task, args.checkpoint, calls, args.members, args.temperature, args.views
    )
    return pipeline, calls, args.members
