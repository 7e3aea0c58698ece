"""`stepsight export`: the whole answer of a checkpoint as one file, for use without stepsight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from stepsight.cli.entry import at_least, given_by, output_folder, setting
from stepsight.cli.sampling import check_sampling, check_setting
from stepsight.errors import UserError
from stepsight.pipeline.config import Which

if TYPE_CHECKING:
    from stepsight.exporting.graph import AnswerGraph


@dataclass(frozen=True)
class Args:
    """The whole answer of a checkpoint as one graph: condition, model calls, members, merge and
    decoding to physical units. What was written is compared with the pipeline, in answers and in
    seconds. Exit status 0: written; 1: written answers differ, and no file is left; 2: it stopped.
    """

    format: Literal["torch", "onnx"]  # torch.export's .pt2, or for runtimes of ONNX
    out: Path  # file to write: .pt2 or .onnx
    # run folder, step folder, tar, or user/name of the hub; default: the small one that comes with
    # stepsight, which knows procedural worlds, and no photographs
    checkpoint: str | None = None
    task: str = "depth"  # one that the checkpoint has
    nfe: int | None = None  # model calls per member; default: the run's
    members: int | None = None  # answers that are merged; default: the run's
    sampler: str | None = None  # ddim, euler, heun, dpmpp_2m, ...; default: the run's
    temperature: float | None = None  # of the start noise; 0: from zeros; default: the run's
    views: str | None = None  # what further calls see: none, mirror, mirror+shift
    merge: str | None = None  # rule for the members; default: the run's
    # HEIGHTxWIDTH of the pictures, such as 480x640; the graph brings them to the size that the
    # network works at, and the answer back; default: the size of training
    size: str | None = None
    dynamic: bool = False  # pictures of any size in whole cells, seen as they are
    # of members that start from some: the same for all pictures, or an input of the graph;
    # default: constant, with --dynamic an input
    noise: Literal["constant", "input"] | None = None
    profile: Which = "published"  # sizes and merging of checkpoints from elsewhere, or ours


def run(args: Args) -> int:
    at_least(1, "--nfe", args.nfe)
    at_least(1, "--members", args.members)
    size = _size(args)
    _check_file(args)
    from stepsight.exporting import files, parity

    if args.format == "onnx":
        files.needed("onnx", "onnxscript", "onnxruntime")
    answer = _answer(args, size)
    _say(answer)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=args.out.parent, prefix=".export-") as folder:
        made = files.write(answer, Path(folder, args.out.name), args.format)
        compared = [parity.compare(answer, made, one) for one in answer.sizes]
        for one in compared:
            print(f"parity      {one}", flush=True)
        if not all(one.holds for one in compared):
            print(f"the file answers otherwise than the pipeline: {args.out} is not written")
            return 1
        took = parity.clock(answer, made, answer.traced)
        for part in Path(folder).iterdir():
            part.replace(args.out.parent / part.name)
    runtime = "onnxruntime" if args.format == "onnx" else "the graph"
    print(
        f"speed       {runtime} {1e3 * took.file:.1f} ms a picture, the pipeline "
        f"{1e3 * took.pipeline:.1f} ms: {took.file / took.pipeline:.2f} of it, on the CPU, median "
        f"of {took.turns} turns"
    )
    print(f"written to  {args.out}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _check_file(args: Args) -> None:
    suffix = {"torch": ".pt2", "onnx": ".onnx"}[args.format]
    if args.out.suffix != suffix or args.out.is_dir():
        raise UserError(f"--out {args.out}: name a file that ends in {suffix}.")
    output_folder(args.out.parent)


def _size(args: Args) -> tuple[int, int] | None:
    """The size of the pictures that is asked for. Raises UserError for none that can be."""
    if args.size is None:
        return None
    if args.dynamic:
        raise UserError("--size and --dynamic exclude each other: pictures of one size, or of any.")
    height, width = setting("--size", args.size)
    at_least(1, "--size", min(height, width))
    return height, width


def _answer(args: Args, size: tuple[int, int] | None) -> AnswerGraph:
    """The module to record. Raises UserError naming the flag that cannot be."""
    from stepsight.exporting.graph import AnswerGraph, AnswerRequest
    from stepsight.pipeline.dense import DensePipeline

    pipeline = DensePipeline.from_pretrained(
        args.checkpoint, "cpu", "float32", profile=args.profile
    )
    with given_by(f"--task {args.task}"):
        pipeline.task(args.task)
    given = {"sampler": args.sampler, "temperature": args.temperature, "views": args.views}
    asked = {name: [value] for name, value in given.items() if value is not None}
    check_sampling(pipeline.diffusion.settings, asked)
    with given_by(f"--merge {args.merge}"):
        merge = {args.task: args.merge} if args.merge else None
        pipeline = pipeline.sampling(sampler=args.sampler, merge=merge)
    how = args.nfe, args.members, args.temperature, args.views
    check_setting(pipeline, args.task, args.checkpoint or "the packaged checkpoint", *how)
    usual = pipeline.sizes[args.task]
    size = None if args.dynamic else size or usual
    return AnswerGraph(
        pipeline, AnswerRequest(args.task, pipeline.setting(args.task, *how), size, args.noise)
    )


def _say(answer: AnswerGraph) -> None:
    from stepsight.exporting.describing import described

    found = described(answer)
    sizes = found["pictures"]
    if isinstance(sizes, list):
        sizes = f"{sizes[0]} x {sizes[1]}, seen at {' x '.join(map(str, found['seen']))}"
    merged = f", merged by {found['merge']}" if found["merge"] else ""
    calls = f"{found['nfe']} call{'s' * (found['nfe'] > 1)}"
    members = f"{found['members']} member{'s' * (found['members'] > 1)}"
    print(f"answer      {found['task']}: {calls} of {members}{merged}, from {found['starts']}")
    print(f"unit        {found['unit']}")
    print(f"pictures    {sizes}")
    for name, form in found["inputs"].items():
        print(f"input       {name}: {form}")
    print(f"output      {', '.join(found['outputs'])}", flush=True)
