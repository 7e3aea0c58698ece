"""What the verbs of `stepsight data` share: naming a source on the command line, and progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight.cli.options import with_options
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source

WORLDS = "scenes"


def add_source_flags(own: argparse.ArgumentParser, split: str = "all that there is") -> None:
    """NAME, ROOT and what chooses the samples."""
    own.add_argument(
        "name", nargs="?", default=WORLDS, help="of the data set; default: %(default)s"
    )
    own.add_argument("root", nargs="?", default=None, help="folder that holds the data set")
    own.add_argument("--split", default=None, help=f"default: {split}")
    own.add_argument("--size", type=int, nargs=2, default=None, metavar=("H", "W"))
    own.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data set"
    )
    own.add_argument("--level", default="standard", help="of the procedural worlds")
    own.add_argument("--seed", type=int, default=0, help="of the procedural worlds")


def add_images_flag(own: argparse.ArgumentParser, images: int | None) -> None:
    own.add_argument("--images", type=int, default=images, help=f"default: {images or 'all'}")


def settings_of(door: argparse.Namespace, images: int | None = None) -> SourceSettings:
    """The settings of the source that the flags name; worlds are made in that number."""
    from stepsight.data.table import settings_for

    at_least_one("--images", images)
    at_least_one("--size", min(door.size or (1,)))
    options: dict[str, Any] = {} if door.size is None else {"size": tuple(door.size)}
    if door.name == WORLDS:
        if door.root is not None:
            raise UserError(f"{WORLDS} are made, not read: leave out {door.root}.")
        options |= {"level": door.level, "seed": door.seed}
        options |= {} if images is None else {"eval_count": images}
    else:
        options |= {"root": door.root or ""}
    return with_options(settings_for(door.name, **options), door.option)


def split_of(door: argparse.Namespace, worlds: str = "eval") -> str:
    """The split that the flags name, or else all of a data set; of the worlds, `worlds`."""
    if door.name != WORLDS:
        return door.split or "all"
    if door.split not in (None, "train", "eval"):
        raise UserError(f"--split {door.split}: the splits of {WORLDS} are train and eval.")
    return door.split or worlds


def open_named(door: argparse.Namespace, images: int | None = None, worlds: str = "eval") -> Source:
    """The source that the flags name; so many `images` of the worlds, whose split is `worlds`."""
    from stepsight.data.table import open_source

    return open_source(settings_of(door, images), split_of(door, worlds))


def at_least_one(flag: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{flag} {value}: must be at least 1.")


def at_least_none(flag: str, value: int) -> None:
    if value < 0:
        raise UserError(f"{flag} {value}: must be at least 0.")


def picture_path(name: str) -> Path:
    """Where `--out` puts a picture. Raises `UserError` unless it is a .png."""
    if Path(name).suffix != ".png":
        raise UserError(f"--out {name}: name a .png file.")
    return Path(name)


def progress(what: str) -> Callable[[int, int], None]:
    """A line on a terminal that counts up; silent where nobody is watching."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{what} {done} of {total}", end=end, file=sys.stderr, flush=True)

    return show
