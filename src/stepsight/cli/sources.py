"""A data set named on the command line: its flags, its settings, and the source itself."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from stepsight.cli.entry import at_least
from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.data.config import SourceSettings
    from stepsight.data.table import Source

WORLDS = "scenes"
# Exactly two values: what tyro makes of the optional pair would take the positionals after it too.
Size = Annotated[
    tuple[int, int] | None,
    PrimitiveConstructorSpec(
        nargs=2,
        metavar="HEIGHT WIDTH",
        instance_from_str=lambda sides: (int(sides[0]), int(sides[1])),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda size: [str(side) for side in size or ()],
    ),
]


@dataclass(frozen=True, kw_only=True)
class SourceArgs:
    """A data set, and what is chosen of it."""

    name: Positional[Annotated[str, arg(metavar="NAME")]] = WORLDS  # of the data set
    root: Positional[Annotated[str | None, arg(metavar="ROOT")]] = None  # folder that holds it
    split: str | None = None  # default: all that there is; of the worlds, those for evaluation
    size: Size = None  # working height and width; default: the data set's
    option: tuple[str, ...] = ()  # a setting of the data set, KEY=VALUE (see NAME --help)
    level: str = "standard"  # of the procedural worlds: easy, standard, hard, shifted
    seed: int = 0  # of the procedural worlds

    @classmethod
    def more_help(cls, arguments: Sequence[str]) -> str:
        return options_help(arguments)

    def settings(self, images: int | None = None) -> SourceSettings:
        """The settings of the source; worlds are made in that number. Raises UserError."""
        at_least(1, "--images", images)
        at_least(1, "--size", min(self.size or (1,)))
        options: dict[str, Any] = {} if self.size is None else {"size": self.size}
        if self.name != WORLDS:
            return settings_of(self.name, options | {"root": self.root or ""}, self.option)
        if self.root is not None:
            raise UserError(f"{WORLDS} are made, not read: leave out {self.root}.")
        options |= {"level": self.level, "seed": self.seed}
        return settings_of(
            WORLDS, options | ({} if images is None else {"eval_count": images}), self.option
        )

    @property
    def chosen_split(self) -> str:
        """The split named, or else all of a data set; of the worlds, those for evaluation."""
        if self.name == WORLDS:
            return split_of_worlds("--split", self.split)
        return self.split or "all"

    def open(self, images: int | None = None) -> Source:
        """The source; so many `images` of the worlds. Raises UserError."""
        from stepsight.data.table import open_source

        return open_source(self.settings(images), self.chosen_split)


@dataclass(frozen=True)
class Data:
    """What to score on; without a name, the evaluation split of the run's own data."""

    name: str | None = None  # of a data set, such as hypersim, or scenes
    root: str | None = None  # folder of the data set
    split: str | None = None  # default: the source's evaluation split
    option: tuple[str, ...] = ()  # a setting of the data set, KEY=VALUE
    images: int = 0  # at most so many; 0 = all

    def open(self, quantities: frozenset[str]) -> tuple[Source, SourceSettings, str]:
        """The data set of that name, its settings and its split. Raises UserError."""
        from stepsight.data.config import FileSettings
        from stepsight.data.table import open_source

        assert self.name is not None
        options = {} if self.root is None else {"root": self.root}
        settings = settings_of(self.name, options, self.option)
        if isinstance(settings, FileSettings):
            split = self.split or settings.eval_split
            settings = replace(settings, eval_split=split)
        else:
            split = split_of_worlds("--data.split", self.split)
        return open_source(settings, split, quantities), settings, split


def split_of_worlds(flag: str, split: str | None) -> str:
    """That split of the worlds, or else the one for evaluation. Raises UserError."""
    if split not in (None, "train", "eval"):
        raise UserError(f"{flag} {split}: the splits of {WORLDS} are train and eval.")
    return split or "eval"


def settings_of(name: str, options: Mapping[str, Any], pairs: Sequence[str]) -> SourceSettings:
    """The settings of a source: `options`, then what `pairs` say. Raises UserError."""
    from stepsight.cli.data.own import looked_at
    from stepsight.data.readers.config import FolderSettings
    from stepsight.data.table import settings_for

    if name == FolderSettings.name:  # of what `data look --out` wrote, as it found out
        options = {**options, **looked_at(options.get("root"))}
    return with_options(settings_for(name, **options), pairs)


def with_options(settings: SourceSettings, pairs: Sequence[str]) -> SourceSettings:
    """`settings` with `key=value` of each pair, read as in a configuration file.

    Raises `UserError` for a pair without `=`, an unknown key, and a value of another type.
    """
    import yaml

    from stepsight.config import from_dict

    values = asdict(settings)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"option {pair}: write key=value, such as depth_scale=256.")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"option {pair}: {' '.join(str(error).split())}") from error
    return from_dict({"data": {settings.name: values}}, "--option").data[settings.name]


def options_help(arguments: Sequence[str]) -> str:
    """The options of the data set that the arguments name, as keys; "" where they name none."""
    import tyro

    from stepsight.data.config import TABLE

    words = [argument.removeprefix("--data.name=") for argument in arguments]
    name = next((word for word in words if word in TABLE), None)
    if name is None:
        return ""
    page = io.StringIO()
    with redirect_stdout(page), suppress(SystemExit):
        tyro.cli(tyro.conf.FlagConversionOff[TABLE[name]], args=["--help"])
    lines = re.sub(r"[^\x00-\x7f]", " ", page.getvalue()).splitlines()  # without a frame
    first = next(number for number, line in enumerate(lines) if "-h, --help" in line) + 1
    keys = [re.sub("--[a-z0-9-]+", lambda x: x[0][2:].replace("-", "_"), x) for x in lines[first:]]
    about = f"settings of {name}, as --option KEY=VALUE:"
    return "\n".join(["", about, *(key.rstrip() for key in keys if key.strip()), ""])


def picture_path(name: Path) -> Path:
    """Where `--out` puts a picture. Raises `UserError` unless it is a .png."""
    if name.suffix != ".png":
        raise UserError(f"--out {name}: name a .png file.")
    return name
