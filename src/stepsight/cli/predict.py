"""`stepsight predict`: depth, flow, masks, classes or normals of any picture of any size."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.door import output_folder
from stepsight.cli.evaluation_flags import times
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline

TOLERANCE = "stop adding members to an image once its merge's standard error is this small"
BUDGET = "cost an image: the best that the run's sweep measured sets sampler, NFE and members"


def run(arguments: list[str]) -> int:
    door = _parser().parse_args(arguments)
    missing = [
        name for name in [*door.images, door.second, door.mask] if name and not Path(name).is_file()
    ]
    if missing:
        raise UserError(f"{missing[0]}: no such picture.")
    if len(door.images) > 1 and (door.second or door.mask):
        raise UserError("--second and --mask belong to one picture: give one at a time.")
    names = [Path(name).stem for name in door.images]
    if len(set(names)) < len(names):
        raise UserError(
            "two pictures have the same name: their results would overwrite each other."
        )
    _predict(door)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight predict", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--checkpoint", required=True, help="run folder or step folder")
    parser.add_argument("--task", default="depth")
    parser.add_argument("--second", help="the next frame (flow)")
    parser.add_argument("--mask", help="mask of the visible part, white on black (amodal)")
    parser.add_argument("--class-id", type=int, help="what to generate (image)")
    parser.add_argument("--nfe", type=int, help="model calls a member; default: the run's")
    parser.add_argument("--members", type=int, help="default: the run's")
    parser.add_argument("--sampler", help="default: the run's")
    parser.add_argument("--spacing", help="of the sampler's steps; default: the run's")
    parser.add_argument("--schedule", help="whose noise levels are visited; default: trained")
    parser.add_argument("--times", help="visit these times, such as 1.0,0.6,0.2; NFE follows")
    parser.add_argument("--eta", type=float, help="stochasticity of ddim, 0 to 1")
    parser.add_argument("--temperature", type=float, help="of the start noise; 0: from zeros")
    parser.add_argument("--views", help="what further calls see: none, mirror, mirror+shift")
    parser.add_argument("--merge", help="rule for the members; default: the run's")
    parser.add_argument("--tolerance", type=float, help=TOLERANCE)
    parser.add_argument("--budget", metavar="16nfe|50gflop|200ms", help=BUDGET)
    parser.add_argument(
        "--sweep", metavar="FILE", help="sweep.csv for --budget; default: the run's"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="predictions", help="folder for PNG and .npy")
    return parser


def _predict(door: argparse.Namespace) -> None:
    import numpy as np
    import torch
    from einops import rearrange

    from stepsight.data.decoding.images import write_image
    from stepsight.pipeline.dense import DensePipeline

    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = output_folder(door.out)
    pipeline, nfe, members = _dialled(DensePipeline.from_pretrained(door.checkpoint, device), door)
    for name in door.images:
        found = pipeline(
            Path(name),
            door.task,
            second=Path(door.second) if door.second else None,
            mask=Path(door.mask) if door.mask else None,
            class_id=door.class_id,
            nfe=nfe,
            members=members,
            temperature=door.temperature,
            views=door.views,
            tolerance=door.tolerance,
            seed=door.seed,
        )
        out.mkdir(parents=True, exist_ok=True)
        stem = f"{out / Path(name).stem}-{door.task}"
        assert found.picture is not None
        write_image(f"{stem}.png", found.picture[0].cpu())
        np.save(f"{stem}.npy", found.values[0].cpu().numpy())
        if found.uncertainty is not None:
            spread = rearrange(found.uncertainty, "1 1 h w -> h w").cpu().numpy()
            np.save(f"{stem}-uncertainty.npy", spread)
        print(f"{name} -> {stem}.png, {stem}.npy")


def _dialled(
    pipeline: DensePipeline, door: argparse.Namespace
) -> tuple[DensePipeline, int | None, int | None]:
    """The pipeline sampling as asked, with its NFE and members; None: the run's."""
    from stepsight.diffusion.config import nfe
    from stepsight.pipeline.budget import check_dials

    ways = {"sampler": door.sampler, "spacing": door.spacing, "schedule": door.schedule}
    ways |= {"eta": door.eta}
    looks = {"temperature": door.temperature, "views": door.views}
    dials = ways | looks | {"nfe": door.nfe, "members": door.members, "times": door.times}
    check_dials(door.budget, door.sweep, merge=door.merge, **dials)
    if door.budget is None:
        merge = {door.task: door.merge} if door.merge else None
        visits = times(door.times)
        own = pipeline.sampling(**ways, times=visits, merge=merge)
        usual = nfe(own.diffusion.settings.sampler, len(visits)) if visits else None
        return own, usual if door.nfe is None else door.nfe, door.members
    plan = pipeline.plan(door.task, door.budget, door.sweep)
    print(f"{plan.budget}: {plan}")
    return pipeline.planned(door.task, plan), plan.nfe, plan.members
