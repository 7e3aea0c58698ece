"""`stepsight convert import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from stepsight.cli.convert import new_folder, write_run
from stepsight.cli.sources import Size


@dataclass(frozen=True)
class Args:
    """Published weights or a run, as a run folder that everything here opens."""

    source: Positional[Annotated[Path, arg(metavar="SRC")]]  # .pt, .safetensors or a folder
    out: Path  # folder to make
    # folder of the VAE that a DiT was trained with, or of the model that GenPercept set out from
    vae: Path | None = None
    # working height and width in pixels (a DiT's positions are stretched to it); default: as
    # trained
    size: Size = None
    scheduler: Path | None = None  # scheduler_config.json of a DiT's or GenPercept's training
    task: str | None = None  # of a single-task DiT, whose file does not say it: depth or amodal
    family: str | None = None  # of a folder that does not say which it is of
    domain: str | None = None  # of a GeoWizard's pictures: indoor, outdoor or object
    name: str | None = None  # of the run; default: the name of --out
    json: bool = False  # print what was found and assumed as JSON


def run(args: Args) -> int:
    out = new_folder(args.out)
    from stepsight.conversion.dit import Wishes
    from stepsight.conversion.importing import import_published

    said = ("vae", "size", "scheduler", "task", "family", "domain")
    wishes = Wishes(**{name: getattr(args, name) for name in said})
    converted = import_published(args.source, wishes)
    converted.meta["run"] = args.name or out.name
    write_run(converted, out, args.json)
    return 0
