"""`stepsight convert`: weights from elsewhere, weights for elsewhere, and dense weights as experts.

import   published weights or a run, as a run folder that everything here opens
upcycle  a DiT checkpoint with a mixture of experts in the place of every MLP
export   a checkpoint in a published layout
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepsight.cli.door import output_folder
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.conversion.foreign import Weights
    from stepsight.conversion.write import Converted

VERBS = ("import", "upcycle", "export")


def run(arguments: list[str]) -> int:
    door = _parser().parse_args(arguments)
    out = output_folder(door.out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} exists and is not empty. Name a new folder.")
    {"import": _import, "upcycle": _upcycle, "export": _export}[door.verb](door, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepsight convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    own = {verb: verbs.add_parser(verb, allow_abbrev=False) for verb in VERBS}
    _import_flags(own["import"])
    _upcycle_flags(own["upcycle"])
    layouts = {"dit": "facebookresearch/DiT", "marigold": "a diffusers folder"}
    about = ", ".join(f"{name}: {what}" for name, what in layouts.items())
    own["export"].add_argument("--format", required=True, choices=list(layouts), help=about)
    for verb in ("upcycle", "export"):
        own[verb].add_argument("--checkpoint", required=True, help="run folder or step folder")
    for one in own.values():
        one.add_argument("--out", required=True, help="folder to make")
    return parser


def _import_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("source", metavar="SRC", help=".pt, .safetensors, diffusers folder or run")
    own.add_argument("--vae", help="folder of the VAE that a DiT was trained with")
    own.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="working size in pixels (a DiT's positions are stretched to it); default: as trained",
    )
    own.add_argument(
        "--scheduler", metavar="FILE", help="scheduler_config.json of a DiT's training"
    )
    own.add_argument("--name", help="of the run; default: the name of --out")


def _upcycle_flags(own: argparse.ArgumentParser) -> None:
    own.add_argument("--experts", type=int, default=8)
    own.add_argument("--top-k", type=int, default=2, help="experts that each token passes")
    own.add_argument("--weights", choices=("softmax", "renormalised"), default="renormalised")
    own.add_argument("--shared", type=int, default=0, help="experts that every token passes")


def _import(door: argparse.Namespace, out: Path) -> None:
    from stepsight.conversion.recognise import recognise

    source = Path(door.source)
    kind, weights = recognise(source)
    name = door.name or out.name
    if weights is None:
        converted = _import_folder(door, kind, source, name)
    else:
        converted = _import_file(door, kind, weights)
    converted.meta["run"] = name
    print(f"found       {kind} in {source}")
    _write(converted, out)


def _import_folder(door: argparse.Namespace, kind: str, source: Path, name: str) -> Converted:
    """A folder says everything itself."""
    for flag in ("vae", "size", "scheduler"):
        if getattr(door, flag):
            raise UserError(
                f"--{flag} is for DiT weights in a file; {source} is a folder ({kind})."
            )
    if kind == "stepsight":
        from stepsight.conversion.fresh import copied

        return copied(source)
    from stepsight.conversion.marigold import import_folder

    return import_folder(source, name)


def _import_file(door: argparse.Namespace, kind: str, weights: Weights) -> Converted:
    from stepsight.conversion.dit import Wishes, import_dit
    from stepsight.conversion.generalist import import_generalist

    wishes = Wishes(
        vae=Path(door.vae) if door.vae else None,
        size=tuple(door.size) if door.size else None,
        scheduler=Path(door.scheduler) if door.scheduler else None,
    )
    return {"dit": import_dit, "generalist": import_generalist}[kind](weights, wishes)


def _upcycle(door: argparse.Namespace, out: Path) -> None:
    from stepsight import checkpoint
    from stepsight.conversion.upcycle import upcycle

    saved = checkpoint.read(door.checkpoint)
    _write(upcycle(saved, door.experts, door.top_k, door.weights, door.shared), out)


def _export(door: argparse.Namespace, out: Path) -> None:
    from stepsight import checkpoint

    saved = checkpoint.read(door.checkpoint)
    if door.format == "dit":
        from stepsight.conversion.dit import export_dit

        notes = export_dit(saved, out)
    else:
        from stepsight.conversion.marigold import export_marigold

        notes = export_marigold(saved, out)
    print(f"model       {saved.config.model.name}")
    _say(notes, out)


def _write(converted: Converted, out: Path) -> None:
    from stepsight.conversion.write import write

    path = write(converted, out)
    parameters = sum(value.numel() for value in converted.weights.values())
    sizes = [f"{task} at {h}x{w}" for task, (h, w) in converted.sizes.items()]
    print(f"model       {converted.config.model.name}, {parameters / 1e6:.1f} M parameters")
    print(f"tasks       {', '.join(sizes)}")
    _say(converted.notes, path)


def _say(notes: Sequence[str], path: Path) -> None:
    for note in notes:
        print(f"note        {note}")
    print(f"written to  {path}")
