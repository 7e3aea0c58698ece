"""`stepsight predict`: depth, flow, masks, classes or normals of any pictures and films."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from tyro.conf import Positional, arg

from stepsight.cli.entry import at_least, given_by, going_on, output_folder, parse
from stepsight.cli.sampling import check_sampling, check_setting, times
from stepsight.data.bad import QUARANTINE, BadItems
from stepsight.errors import UserError, printable
from stepsight.execution.config import Precision
from stepsight.pipeline.config import Which
from stepsight.predicting.film.config import FilmSettings

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.predicting.item import Item
    from stepsight.predicting.run import Totals
    from stepsight.predicting.wanted import Limits

# What a budget sets; the first seven are settings of the sampler.
BUDGETED = ("sampler", "spacing", "schedule", "eta", "temperature", "views", "guidance")
BUDGETED += ("nfe", "members", "times", "merge", "size")
PACKAGED = (
    "no --checkpoint is given: the small one that comes with stepsight answers. It was trained on "
    "procedural worlds of 64 x 64 pixels and has seen no photographs: expect shapes, no more."
)
NAMED = 20  # pictures that were skipped and are named at the end


@dataclass(frozen=True)
class Args:
    """Depth, flow, masks, classes or normals of pictures and films of any size. Answers lie
    upright, as pictures are seen, in a tree that mirrors theirs. The same command again goes on
    where it was stopped. Exit status 0: all are answered; 1: some were skipped; 2: it stopped."""

    # pictures, films, folders of them, 'patterns/**/*.jpg', or lists: a path a line (.txt), or an
    # object a line with image, and second, modal, key where they matter (.jsonl)
    paths: Positional[Annotated[tuple[str, ...], arg(metavar="PATH...")]]
    # run folder, step folder, tar, or user/name of the hub; default: the small one that comes with
    # stepsight, which knows procedural worlds, and no photographs
    checkpoint: str | None = None
    weights: Literal["ema", "raw"] = "ema"  # those averaged over training, or those being trained
    device: str = "auto"  # cuda, mps, cpu, ...; auto: the fastest that is there
    precision: Precision = "auto"  # of the network; auto: as the run was trained, on this device
    # sizes, clipping and merging of checkpoints from elsewhere: their authors', or ours
    profile: Which = "published"
    task: str = "depth"  # one that the checkpoint has
    # the next frame (flow), or a folder of them, called as the pictures; default: the next one in a
    # folder of frames, by name
    second: str | None = None
    mask: str | None = None  # mask of the visible part (amodal), or a folder of them, likewise
    # what is inside in the mask: bright, dark, nonzero, alpha, or a stored value such as 1 or
    # 255,0,0; default: the one meaning that a file has, or it is refused
    mask_inside: str = ""
    class_id: int | Literal["null"] | None = None  # what to generate (image); null: of no class
    size: int | None = None  # pixels of the longer side at work; default: the area of training
    tile: int | None = None  # answer large pictures in parts of so many pixels, blended
    batch: int = 8  # pictures at a time, the most
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
    on_bad: Literal["stop", "skip"] = "stop"  # at a picture that cannot be read or answered
    bad_cap: float = 1.0  # share of the pictures that may be skipped, each answer being its own
    out: Path = Path("predictions")  # folder for the answers
    # what is written of each, as npy,picture: npy, picture (PNG in colours), png16 (16-bit PNG),
    # exr, flo, ply (points), mp4 (of films), or what a benchmark takes (kitti-depth, sintel, ...);
    # default: npy and picture, of films npy and mp4
    save: str | None = None
    # LOW,HIGH of the colours, or common: one range for all pictures; default: each picture's own,
    # and one for all frames of a film
    range: str | None = None
    fov: float | None = None  # horizontal field of view for ply, degrees; default: of the EXIF data
    as_film: bool = False  # each folder of pictures is a film, its frames in the order of names
    film: FilmSettings = field(default_factory=FilmSettings)  # how frames follow one another
    intrinsics: str | None = None  # FX,FY,CX,CY of the camera for ply in pixels, in place of it

    @classmethod
    def parse(cls, arguments: Sequence[str], prog: str) -> Asked:
        return Asked(parse(cls, arguments, prog), arguments)


class Asked(NamedTuple):
    """The flags, and the arguments as they were given."""

    args: Args
    arguments: Sequence[str]


def run(given: Asked) -> int:
    args = given.args
    least = {"nfe": 1, "members": 1, "tolerance": 0, "size": 1, "tile": 1, "batch": 1, "fov": 1}
    for flag, value in least.items():
        at_least(value, f"--{flag}", getattr(args, flag))
    if (args.fov is not None or args.intrinsics) and "ply" not in (args.save or ""):
        raise UserError("--fov and --intrinsics are the camera of points: add --save ply.")
    limits = None
    if args.range is not None:
        limits = "common" if args.range == "common" else _range(args.range)
    out = output_folder(args.out)
    with going_on("predict", given.arguments):
        outcome = _predict(args, limits, out)
    total = outcome.answered + outcome.before + len(outcome.skipped)
    there = f" ({outcome.before} of them before)" if outcome.before else ""
    print(f"{outcome.answered + outcome.before} of {total} answered in {out}{there}")
    if not outcome.skipped:
        return 0
    print(f"{len(outcome.skipped)} of {total} pictures skipped: see {out / QUARANTINE}")
    for path, why in [*outcome.skipped.items()][:NAMED]:
        print(f"  {printable(path)}: {why.removeprefix(path).removeprefix(': ')}")
    if len(outcome.skipped) > NAMED:
        print(f"  and {len(outcome.skipped) - NAMED} more")
    return 1


def _range(text: str) -> tuple[float, float]:
    low, high, *more = [*_numbers("--range", text), 0.0, 0.0]
    if len(more) != 2 or not low < high:
        raise UserError(f"--range {text}: give two rising numbers such as 0.5,20, or common.")
    return low, high


def _numbers(flag: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} {text}: give numbers separated by commas.") from error


def _items(args: Args) -> list[Item]:
    from stepsight.predicting.gathering import gather, with_other

    items = gather(args.paths)
    items = with_other(items, "second", args.second) if args.second else items
    return with_other(items, "mask", args.mask) if args.mask else items


def _predict(args: Args, limits: Limits | Literal["common"] | None, out: Path) -> Totals:
    from stepsight import checkpoint
    from stepsight.evaluation.sources import remark
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.predicting.gathering import as_films, consecutive
    from stepsight.predicting.run import predict_all
    from stepsight.predicting.wanted import Wanted
    from stepsight.report.console import Console

    items = _items(args)
    saved = checkpoint.read(args.checkpoint or checkpoint.PACKAGED, lazy=True)
    opened = DensePipeline.from_pretrained(
        saved, args.device, None, args.weights, args.precision, args.profile
    )
    if args.checkpoint is None:
        print(f"note: {PACKAGED}", file=sys.stderr)
    pipeline, nfe, members = _sampling(opened, args)
    needs = pipeline.task(args.task).required_inputs
    for flag, read in {"second": "second", "mask": "modal", "mask_inside": "modal"}.items():
        if getattr(args, flag) and read not in needs:
            raise UserError(f"--{flag.replace('_', '-')}: {args.task} reads none. Leave it out.")
    if args.as_film:
        items = as_films(items)
    elif "second" in needs:
        items = consecutive(items)
    how: dict[str, Any] = {"nfe": nfe, "members": members}
    passed = ("class_id", "size", "temperature", "views", "tolerance", "seed")
    how |= {name: getattr(args, name) for name in passed}
    parts: dict[str, Any] = {name: getattr(args, name) for name in ("save", "batch", "tile")}
    given = _numbers("--intrinsics", args.intrinsics) if args.intrinsics else None
    camera = {"fov": args.fov, "given": given}
    parts |= {"limits": limits, "camera": camera, "inside": args.mask_inside, "film": args.film}
    wanted = Wanted(args.task, items, out, how, **parts)
    (out / QUARANTINE).unlink(missing_ok=True)
    bad = BadItems(args.on_bad, args.bad_cap, out / QUARANTINE)
    with Console() as console:
        outcome = predict_all(pipeline, wanted, bad, console)
    if said := remark(saved, [], args.weights):
        print(f"warning: {said}", file=sys.stderr)
    return outcome


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
        pipeline,
        args.task,
        args.checkpoint or "the packaged checkpoint",
        calls,
        args.members,
        args.temperature,
        args.views,
    )
    return pipeline, calls, args.members
