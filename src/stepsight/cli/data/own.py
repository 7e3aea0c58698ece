"""What `train.py PATH` means: settings of a run on a user's own data alone.

A path is a folder of pictures and truth, which is looked at; a list of samples (.jsonl); what
`stepsight data look --out` wrote; or the shards that were made of any of these. Its tasks are those
that it has truth for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stepsight.config import RunConfig
from stepsight.config.files import Origins, read
from stepsight.config.tables import Layer
from stepsight.data.readers.config import FolderSettings
from stepsight.distributed.board import say
from stepsight.errors import UserError, command
from stepsight.tasks.config import TABLE as KNOWN

if TYPE_CHECKING:
    from stepsight.data.looking.found import Answers, FoundTree

LOOKED = "looked"  # below the folder of the runs: what was found in folders
NAMED = 5  # problems in a refusal
COUNTED = re.compile(r"\d+ of \d+ ")  # begins what is a fact, and leaves nothing open


class OwnData(NamedTuple):
    """What a path stands for: settings, as a layer of the configuration; and the list of its
    samples, which further processes take in its place."""

    layer: Layer
    listed: Path


def own_data(path: Path, config: RunConfig, origins: Origins, runs: Path) -> OwnData:
    """The settings of a run on `path` alone. config, origins: as the files and flags have them.
    runs: the folder below which the list of a looked-at folder is kept.

    Raises UserError for what is not there, or where something about it is undecided.
    """
    flags = _flagged(config, origins)
    found = listed(path, flags, runs)
    usual = config.data.get(FolderSettings.name)  # such as the size of a recipe
    usual = usual if isinstance(usual, FolderSettings) else FolderSettings()
    settings = replace(usual, **(_tupled(_stored(found)) | flags))
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(settings).items()}
    data = {FolderSettings.name: values}
    tasks = _tasks(settings, config, origins)
    return OwnData((str(path), {"tasks": tasks, "data": data}), found)


def _flagged(config: RunConfig, origins: Origins) -> dict[str, Any]:
    """The settings of `folder` that flags give."""
    prefix, own = f"data.{FolderSettings.name}.", config.data.get(FolderSettings.name)
    keys = [key for key, origin in origins.items() if origin.startswith(f"--{prefix[:-1]}")]
    if prefix[:-1] in keys:  # `none`: the entry itself
        raise UserError(f"--{prefix[:-1]} none takes away what PATH stands for: leave one out.")
    return {key.removeprefix(prefix): getattr(own, key.removeprefix(prefix)) for key in keys}


def listed(path: Path, flags: dict[str, Any], runs: Path) -> Path:
    """The folder that `look` wrote, or that holds shards: `path` itself, or what is found in it and
    kept below `runs`. Raises UserError where something about it is undecided."""
    from stepsight.data.looking.found import CONFIG, LIST
    from stepsight.data.looking.look import look

    path = path.expanduser()
    if not path.exists():
        what = "Name a folder of pictures and truth, or a list. See train.py --help."
        raise UserError(f"{path}: not found. {what}")
    if path.name == LIST and (path.parent / CONFIG).is_file():
        return path.parent
    if (path / CONFIG).is_file() and (path / LIST).is_file() or _index(path):
        return path
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        raise UserError(f"{path}: settings are given as --config {path}, data as a folder or list.")
    found = look(path, _answers(flags))
    if open_questions := [text for text in found.problems if not COUNTED.match(text)]:
        keys = ("depth_unit", "invalid", "mask_inside", "class_codes", "flow_unit")
        ways = " ".join(f"--data.{FolderSettings.name}.{key}" for key in keys)
        again = command("data look", path, "--out", "DIR")
        raise UserError(
            f"{path}: {' '.join(open_questions[:NAMED])} (Here answers are {ways}.) `{again}` "
            "shows the evidence and writes what opens, for train.py DIR."
        )
    out = runs / LOOKED / _digest(found) / (found.root.name or "data")
    if not (out / CONFIG).is_file():
        found.write(out)
    for sentence in (*found.problems, *found.notes):
        say(f"{path}: {sentence}")
    return out


def _answers(flags: dict[str, Any]) -> Answers:
    """What flags of `folder` say about the files, as answers for looking at them."""
    from stepsight.data.looking.found import Answers

    names = {field.name for field in fields(Answers)} & flags.keys()
    given = {name: flags[name] for name in names - {"classes"}}
    classes = flags.get("class_codes") or flags.get("classes")
    return Answers(**given, classes=str(classes or ""))


def _digest(found: FoundTree) -> str:
    text = json.dumps([str(found.root), found.samples, found.options, found.legend])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def looked_at(root: str | None) -> dict[str, Any]:
    """The settings of `folder` that `look` wrote into a folder; {} for another one."""
    from stepsight.data.looking.found import CONFIG, LIST

    written = root and (Path(root) / CONFIG).is_file() and (Path(root) / LIST).is_file()
    return _tupled(_stored(Path(root))) if root and written else {}


def _stored(listed: Path) -> dict[str, Any]:
    """The settings of `folder` that were written beside the list, or into the index of shards.
    Raises UserError where they are of something else."""
    from stepsight.data.looking.found import CONFIG
    from stepsight.data.sharded.index import read_index

    if index := _index(listed):
        about, root = read_index(index).about, str(listed.resolve())
        if about["source"] != FolderSettings.name:
            ways = f"--data.{about['source']}.root {listed}"
            raise UserError(f"{listed}: shards of {about['source']}; train on them with {ways}.")
        return about["settings"] | {"root": root}
    data = read(str(listed / CONFIG)).get("data")
    own = data.get(FolderSettings.name) if isinstance(data, dict) else None
    if not isinstance(own, dict) or not own.keys() <= {f.name for f in fields(FolderSettings)}:
        raise UserError(f"{listed / CONFIG}: has no settings of data.{FolderSettings.name} alone.")
    return own


def _index(folder: Path) -> Path | None:
    """The index of the shards that a folder, or the first one in it, holds; None without."""
    from stepsight.data.sharded.index import INDEX, tar_name

    tars = (tar for depth in ("", "*/") for tar in sorted(folder.glob(depth + tar_name(0))))
    return next((tar.parent / INDEX for tar in tars), None)


def _tupled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _tasks(
    settings: FolderSettings, config: RunConfig, origins: Origins
) -> dict[str, dict[str, Any]]:
    """The tasks that the pictures have truth for, as the files set them up; classes as there are.

    Raises UserError where there is none.
    """
    from stepsight.data.looking.found import TASKS
    from stepsight.data.table import open_source

    source = open_source(settings, settings.split)
    tasks: dict[str, dict[str, Any]] = {}
    for quantity in sorted(source.quantities, key=[*TASKS, *source.quantities].index):
        if (task := TASKS.get(quantity, quantity)) not in KNOWN:
            continue
        own = config.tasks.get(task)
        tasks[task] = {} if own is None else asdict(own)
        if quantity == "labels" and "tasks.semantic.classes" not in origins:
            tasks[task]["classes"] = len(source.classes)
    if not tasks:
        notes = "; ".join([*getattr(source, "notes", ())])
        raise UserError(
            f"{settings.root}: pictures without truth to train on ({notes or 'none was found'}). "
            f"`{command('predict', '--checkpoint', 'RUN', settings.root)}` answers for them."
        )
    return {task: {k: _plain(v) for k, v in values.items()} for task, values in tasks.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def replaced(arguments: Sequence[str], path: str, by: Path) -> list[str]:
    """The arguments with the positional `path` as `by`."""
    places = [place for place, word in enumerate(arguments) if word == path]
    free = [place for place in places if not place or not arguments[place - 1].startswith("--")]
    place = (free or places)[0] if places else 0
    return [*arguments[:place], str(by), *arguments[place + 1 :]]
