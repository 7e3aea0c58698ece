"""Every option is read somewhere: a setting that nothing reads is a promise that nothing keeps."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from stepsight.cli.entry import Group
from stepsight.cli.main import GROUP
from stepsight.cli.sources import Data
from stepsight.config import GROUPS, TABLES, from_dict
from stepsight.data.config import FileSettings, ScenesSettings
from stepsight.data.scenes.levels import level_of
from stepsight.diffusion.config import EXACT_SPACINGS, SAMPLERS
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.tasks.table import build_task

SOURCE = Path(__file__).parents[1] / "src" / "stepsight"

# Where the values of a group may be read, and what they are called there. A task reads its own
# settings as `self`, in its own module; a source reads them as `settings`.
READERS: dict[str, set[str]] = {
    "model": {"settings", "model"},
    "codec": {"settings", "codec"},
    "diffusion": {"settings", "s", "diffusion"},
    "training": {"settings", "training"},
    "evaluation": {"settings", "evaluation"},
}
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
        "models", "diffusion", "training", "evaluation", "testtime", "schedule.py", "pipeline",
        by=READERS[group],
    )  # fmt: skip
    assert unread == set()


@pytest.mark.parametrize("name", TABLES["tasks"])
def test_every_setting_of_a_task_is_read_by_the_task(name):
    kind = TABLES["tasks"][name]
    module = kind.implementation.partition(":")[0].removeprefix("stepsight.")
    own = reads(f"{module.replace('.', '/')}.py", by={"self"})
    assert names(kind) - own == {"weight", "place"}
    assert "place" in reads("coding.py", by={"task"})


@pytest.mark.parametrize("name", TABLES["data"])
def test_every_setting_of_a_source_is_read(name):
    kind = TABLES["data"][name]
    own = reads("data", "evaluation", "training", by={"settings", "_settings"})
    assert names(kind) - own - DIALS.keys() == {"weight"}
    if issubclass(kind, FileSettings):
        assert {"split", "eval_split"} <= reads("evaluation/sources.py", by={"settings"})


@pytest.mark.parametrize("dial", DIALS)
def test_every_dial_of_the_worlds_changes_the_worlds(dial):
    """The dials are read by a loop over their names."""
    assert level_of(ScenesSettings(**{dial: DIALS[dial]})) != level_of(ScenesSettings())


def test_weights_of_tasks_and_sources_are_read_where_streams_are_made():
    text = ast.unparse(next(trees("training/spec.py")))
    assert "task.weight * config.data[key].weight" in text


def modules(group: Group = GROUP) -> Iterator[str]:
    """The modules below stepsight.cli of all commands that have flags."""
    for module, _ in group.commands.values():
        inner = getattr(import_module(f"stepsight.cli.{module}"), "GROUP", None)
        yield from modules(inner) if inner else [module]


def named(*folders: str) -> set[str]:
    """Names written in functions that read flags of `args` by a name they hold in a variable."""
    found = set()
    for tree in trees(*folders):
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            nodes = list(ast.walk(function))
            by_name = any(
                isinstance(n, ast.Call)
                and getattr(n.func, "id", "") == "getattr"
                and getattr(n.args[0], "id", "") == "args"
                and not isinstance(n.args[1], ast.Constant)
                for n in nodes
            )
            calls = {"_needed", "_columns", "exactly_one"}  # which read the flags they are given
            by_name |= any(
                isinstance(n, ast.Call) and getattr(n.func, "id", "") in calls for n in nodes
            )
            if by_name:
                found |= {n.value for n in nodes if isinstance(n, ast.Constant)}
    return {name for name in found if isinstance(name, str)}


@pytest.mark.parametrize("module", list(modules()))
def test_every_flag_of_a_command_is_read(module):
    """By the command itself, or by a module that it shares with others."""
    files = (f"cli/{module.replace('.', '/')}.py", "cli/sources.py", "cli/imported.py")
    files += ("cli/evaluation_args.py",)
    kind = import_module(f"stepsight.cli.{module}").Args
    found = reads(*files, by={"args", "self"}) | named(files[0])
    if any(name == "configured" for name in vars(import_module(f"stepsight.cli.{module}"))):
        found |= {"config"}  # read by `flags.configured`, before the command
    assert names(kind) <= found


def test_every_flag_of_the_data_to_score_on_is_read():
    assert names(Data) <= reads("cli/sources.py", "cli/evaluate.py", by={"self", "data"})


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
    levels = ("eps", "leading", "leading_less", "first_level", "trained")
    if choice in levels:  # rectified flow cannot have these
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
