"""`stepsight convert import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from stepsight.cli.convert import new_folder, write_run
from stepsight.cli.sources import Size
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.conversion.foreign import Weights
    from stepsight.conversion.write import Converted


@dataclass(frozen=True)
class Args:
    """Published weights or a run, as a run folder that everything here opens."""

    source: Positional[Annotated[Path, arg(metavar="SRC")]]  # .pt, .safetensors or a folder
    out: Path  # folder to make
    vae: Path | None = None  # folder of the VAE that a DiT was trained with
    # working height and width in pixels (a DiT's positions are stretched to it); default: as
    # trained
    size: Size = None
    scheduler: Path | None = None  # scheduler_config.json of a DiT's training
    name: str | None = None  # of the run; default: the name of --out


def run(args: Args) -> int:
    out = new_folder(args.out)
    from stepsight.conversion.recognise import recognise

    kind, weights = recognise(args.source)
    name = args.name or out.name
    if weights is None:
        converted = _from_folder(args, kind, name)
    else:
        converted = _from_file(args, kind, weights)
    converted.meta["run"] = name
    print(f"found       {kind} in {args.source}")
    write_run(converted, out)
    return 0


def _from_folder(args: Args, kind: str, name: str) -> Converted:
    """A folder says everything itself."""
    for flag in ("vae", "size", "scheduler"):
        if getattr(args, flag):
            raise UserError(
                f"--{flag} is for DiT weights in a file; {args.source} is a folder ({kind})."
            )
    if kind == "stepsight":
        from stepsight import checkpoint
        from stepsight.conversion.write import copied

        return copied(checkpoint.read(args.source, lazy=True))
    from stepsight.conversion.marigold import import_folder

    return import_folder(args.source, name)


def _from_file(args: Args, kind: str, weights: Weights) -> Converted:
    from stepsight.conversion.dit import Wishes, import_dit
    from stepsight.conversion.generalist import import_generalist

    wishes = Wishes(vae=args.vae, size=args.size, scheduler=args.scheduler)
    return {"dit": import_dit, "generalist": import_generalist}[kind](weights, wishes)
