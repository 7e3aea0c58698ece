"""`stepsight convert export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepsight.cli.convert import new_folder, print_notes
from stepsight.errors import UserError


@dataclass(frozen=True)
class Args:
    """A checkpoint in a published layout, or in stepsight's own, to hand over."""

    # stepsight: all of it, with a card; diffusers: a folder as it was imported, else a Marigold;
    # dit: facebookresearch/DiT; ldm: one file of latent diffusion, as it was imported
    format: Literal["stepsight", "diffusers", "marigold", "dit", "ldm"]
    checkpoint: str  # run folder or step folder
    out: Path  # folder to make; with stepsight also a file that ends in .tar
    licence: str | None = None  # of the weights, for the card of stepsight: apache-2.0


def run(args: Args) -> int:
    out = new_folder(args.out)
    if args.licence is not None and args.format != "stepsight":
        raise UserError(f"--licence: {args.format} has no place for it. Leave it out.")
    from stepsight import checkpoint
    from stepsight.conversion.dit import export_dit
    from stepsight.conversion.families.export import export_folder, export_marigold
    from stepsight.conversion.families.ldm_export import export_ldm

    saved = checkpoint.read(args.checkpoint, lazy=True)
    if args.format == "stepsight":
        from stepsight.pipeline.dense import DensePipeline

        whole = DensePipeline.from_pretrained(saved, "cpu", precision="float32")
        whole.save_pretrained(out, licence=args.licence or "")
        notes = [f"pipeline = DensePipeline.from_pretrained({str(out)!r})"]
    else:
        ways = {"dit": export_dit, "diffusers": export_folder, "marigold": export_marigold}
        notes = {**ways, "ldm": export_ldm}[args.format](saved, out)
    print(f"model       {saved.config.model.name}")
    print_notes(notes, out)
    return 0
