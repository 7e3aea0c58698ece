"""`stepsight convert export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stepsight.cli.convert import new_folder, print_notes


@dataclass(frozen=True)
class Args:
    """A checkpoint in a published layout."""

    # facebookresearch/DiT; a folder in diffusers' layout: as it was imported, else a Marigold; one
    # file of latent diffusion, as it was imported
    format: Literal["dit", "folder", "marigold", "ldm"]
    checkpoint: str  # run folder or step folder
    out: Path  # folder to make


def run(args: Args) -> int:
    out = new_folder(args.out)
    from stepsight import checkpoint
    from stepsight.conversion.dit import export_dit
    from stepsight.conversion.families.export import export_folder, export_marigold
    from stepsight.conversion.families.ldm_export import export_ldm

    saved = checkpoint.read(args.checkpoint, lazy=True)
    ways = {"dit": export_dit, "folder": export_folder, "marigold": export_marigold}
    notes = {**ways, "ldm": export_ldm}[args.format](saved, out)
    print(f"model       {saved.config.model.name}")
    print_notes(notes, out)
    return 0
