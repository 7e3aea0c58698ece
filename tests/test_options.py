"""Every option is read somewhere: a setting that nothing reads is a promise that nothing keeps."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from stepsight.cli import convert as convert_door
from stepsight.cli import data as data_door
from stepsight.cli import predict as predict_door
from stepsight.cli import scaling as scaling_door
from stepsight.cli import steps as steps_door
from stepsight.cli.evaluation_flags import Data, Evaluate
from stepsight.cli.train import Train
from stepsight.config import GROUPS, TABLES, from_dict
from stepsight.data.config import FileSettings, ScenesSettings
from stepsight.data.scenes.levels import level_of
from stepsight.diffusion.config import EXACT_SPACINGS
from stepsight.diffusion.objective import Diffusion
from stepsight.diffusion.samplers import SAMPLERS
from stepsight.errors import UserError
from stepsight.tasks.table import build_task

SOURCE = Path(__file__).parents[1] / "src" / "stepsight"

# Where the values of a group may be read, and what they are called there. A task reads its own
# settings as `self`, in its own module, but for what the training loop reads of it; a source reads
# them as `settings`.
READERS: dict[str, set[str]] = {
    "model": {"settings", "model"},
    "codec": {"settings", "codec"},
    "diffusion": {"settings", "s", "diffusion"},
    "training": {"settings", "training"},
    "evaluation": {"settings", "evaluation"},
}
READ_BY_TRAINING = {"image": {"dropout"}}
DIALS: dict[str, Any] = {
    "objects": 2.5,
    "occlusion": 0.25,
    "texture": 0.25,
    "displacement": 2.5,
    "thin": 0.9,
    "camera_only": True,
}


def trees(*folders: str) -> Iterator[ast.Module]:
    for folder in folders:
        path = SOURCE / folder
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name != "config.py" or file.parent == SOURCE:  # definitions are not uses
                yield parsed(file)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def reads(*folders: str, by: set[str]) -> set[str]:
    """Names read as attributes of a variable or attribute called one of `by`."""
    found = set()
    for tree in trees(*folders):
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name in by:
                    found.add(node.attr)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                if len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                    found.add(node.args[1].value)
    return found


def names(kind: type) -> set[str]:
    return {f.name for f in fields(kind)}


def test_the_search_finds_reads_and_only_those(tmp_path, monkeypatch):
    code = "a = settings.lr\nsettings.ema = 1\nother.clip\nx.training.batch\ngetattr(q, 'keep', 0)"
    (tmp_path / "loop.py").write_text(code)
    monkeypatch.setattr(__import__(__name__, fromlist=["x"]), "SOURCE", tmp_path)
    assert reads("loop.py", by={"settings", "training"}) == {"lr", "batch", "keep"}


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_of_a_group_is_read(group):
    unread = names(GROUPS[group]) - reads(
        "models", "diffusion", "training", "evaluation", "schedule.py", "pipeline.py", "cli",
        by=READERS[group],
    )  # fmt: skip
    assert unread == set()


@pytest.mark.parametrize("name", TABLES["tasks"])
def test_every_setting_of_a_task_is_read_by_the_task(name):
    kind = TABLES["tasks"][name]
    module = kind.implementation.partition(":")[0].removeprefix("stepsight.")
    own = reads(f"{module.replace('.', '/')}.py", by={"self"})
    elsewhere = READ_BY_TRAINING.get(name, set())
    assert elsewhere <= reads("training/batches.py", by={"task"})
    assert names(kind) - own - elsewhere == {"weight"}


@pytest.mark.parametrize("name", TABLES["data"])
def test_every_setting_of_a_source_is_read(name):
    kind = TABLES["data"][name]
    own = reads("data", "evaluation", "training", by={"settings", "_settings"})
    assert names(kind) - own - DIALS.keys() == {"weight"}
    if issubclass(kind, FileSettings):
        assert {"split", "eval_split"} <= reads("evaluation/run.py", by={"settings"})


@pytest.mark.parametrize("dial", DIALS)
def test_every_dial_of_the_worlds_changes_the_worlds(dial):
    """The dials are read by a loop over their names."""
    assert level_of(ScenesSettings(**{dial: DIALS[dial]})) != level_of(ScenesSettings())


def test_weights_of_tasks_and_sources_are_read_where_streams_are_made():
    tree = next(trees("training/setup.py"))
    (match,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "match")
    text = ast.unparse(match)
    assert "task.weight" in text and "config.data[one].weight" in text


def test_every_flag_of_a_program_is_read():
    assert names(Train) <= reads("cli/train.py", by={"door"})
    assert names(Evaluate) <= reads("cli/evaluate.py", by={"door"})
    flags = reads("cli/evaluate.py", "cli/evaluation_flags.py", by={"data"})
    assert names(Data) <= flags


def destinations(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for own in action.choices.values():
                found |= destinations(own)
        found.add(action.dest)
    return found - {"help"}


def named(*folders: str) -> set[str]:
    """Names written in functions that read flags of `door` by a name they hold in a variable."""
    found = set()
    for tree in trees(*folders):
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            nodes = list(ast.walk(function))
            by_name = any(
                isinstance(n, ast.Call)
                and getattr(n.func, "id", "") == "getattr"
                and getattr(n.args[0], "id", "") == "door"
                and not isinstance(n.args[1], ast.Constant)
                for n in nodes
            )
            calls = {"_need"}  # which reads the flags it is told
            by_name |= any(
                isinstance(n, ast.Call) and getattr(n.func, "id", "") in calls for n in nodes
            )
            if by_name:
                found |= {n.value for n in nodes if isinstance(n, ast.Constant)}
    return {one for one in found if isinstance(one, str)}


DOORS = [
    (predict_door, ("cli/predict.py",)),
    (data_door, ("cli/data",)),
    (convert_door, ("cli/convert.py",)),
    (scaling_door, ("cli/scaling",)),
    (steps_door, ("cli/steps.py",)),
]


@pytest.mark.parametrize(
    ("door", "files"), DOORS, ids=["predict", "data", "convert", "scaling", "steps"]
)
def test_every_argument_of_a_command_is_read(door, files):
    assert destinations(door._parser()) <= reads(*files, by={"door"}) | named(*files)


# ---------------------------------------------------------------------------- every choice works


def choices(kind: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(kind)
    return {n: get_args(hint) for n, hint in hints.items() if get_origin(hint) is Literal}


def test_the_choices_of_samplers_are_the_samplers():
    assert set(choices(GROUPS["diffusion"])["sampler"]) == set(SAMPLERS)


@pytest.mark.parametrize(
    ("name", "choice"),
    [(n, one) for n, every in choices(GROUPS["diffusion"]).items() for one in every],
)
def test_every_choice_of_the_diffusion_process_builds(name, choice):
    values = {name: choice}
    if choice in EXACT_SPACINGS or (name == "sampling_schedule" and choice != "trained"):
        values |= {"sampling_shift": 1.0}  # they name the levels that a shift would move
    if choice == "custom":
        values |= {"sampling_times": (1.0, 0.5)}
    if choice in ("eps", "leading", "first_level", "trained"):  # rectified flow cannot have these
        values |= {"schedule": "cosine", "sampling_shift": 1.0}
    Diffusion(GROUPS["diffusion"](**values))


@pytest.mark.parametrize("name", TABLES["tasks"])
def test_every_choice_of_a_task_builds(name):
    for option, every in choices(TABLES["tasks"][name]).items():
        for choice in every:
            task = build_task(from_dict({"tasks": {name: {option: choice}}}).tasks[name])
            assert getattr(task, option) == choice


def test_a_value_that_is_no_choice_is_refused():
    for group, kind in GROUPS.items():
        for option in choices(kind):
            with pytest.raises(UserError, match=f"'{group}.{option}'"):
                from_dict({group: {option: "nonsense"}})
