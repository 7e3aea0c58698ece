"""`stepsight convert`: weights from elsewhere, weights for elsewhere, dense weights as experts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.entry import Group, output_folder
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.conversion.write import Converted

GROUP = Group(
    "stepsight convert",
    "Weights from elsewhere, weights for elsewhere, and dense weights as experts.",
    {
        "import": ("convert.reading", "published weights or a run, as a run folder"),
        "upcycle": ("convert.upcycle", "a DiT with a mixture of experts in place of every MLP"),
        "export": ("convert.export", "a checkpoint in a published layout, or as one that travels"),
    },
)


def new_folder(name: Path) -> Path:
    """A folder to make. Raises UserError for one that holds something."""
    out = output_folder(name)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} exists and is not empty. Name a new folder.")
    return out


def write_run(converted: Converted, out: Path, as_json: bool = False) -> None:
    """Write the run folder, and print what it holds."""
    from stepsight.conversion.write import write

    path = write(converted, out)
    parameters = sum(value.numel() for value in converted.weights.values())
    profile = converted.profile.differences() if converted.profile else {}
    if as_json:
        found = {"family": converted.family, "profile": profile, "assumed": [*converted.assumed]}
        found |= {"tasks": {task: list(size) for task, size in converted.sizes.items()}}
        found |= {"model": converted.config.model.name, "parameters": parameters}
        print(json.dumps(found | {"notes": [*converted.notes], "written": str(path)}, indent=2))
        return
    sizes = [f"{task} at {h}x{w}" for task, (h, w) in converted.sizes.items()]
    if converted.family:
        print(f"found       {converted.family}")
    print(f"model       {converted.config.model.name}, {parameters / 1e6:.1f} M parameters")
    print(f"tasks       {', '.join(sizes)}")
    for name, value in profile.items():
        print(f"published   {name.replace('_', ' ')}: {value}")
    for sentence in converted.assumed:
        print(f"assumed     {sentence}")
    print_notes(converted.notes, path)


def print_notes(notes: Sequence[str], path: Path) -> None:
    for note in notes:
        print(f"note        {note}")
    print(f"written to  {path}")
