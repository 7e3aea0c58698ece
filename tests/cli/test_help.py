"""`--help` of every command: quick, without torch, and every flag says what it is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest

from stepsight.cli.entry import Group
from stepsight.cli.main import GROUP, main
from stepsight.config import TABLES

NO_WORDS = r"\((default: [^()]*|required|repeatable)\)"
HEAVY = {"torch", "timm", "accelerate", "diffusers", "matplotlib", "wandb", "scipy.optimize"}
PROBE = f"""
import sys
from stepsight.cli.main import main
for command in sys.argv[1:]:
    assert main([*command.split(), "--help"]) == 0
print("HEAVY", sorted({HEAVY!r} & sys.modules.keys()))
"""


def commands(group: Group = GROUP) -> Iterator[str]:
    """`train`, `data check`, ...: every command that has flags."""
    for name, (module, _) in group.commands.items():
        inner = getattr(import_module(f"stepsight.cli.{module}"), "GROUP", None)
        prefix = group.prog.removeprefix("stepsight").strip()
        words = " ".join(filter(None, [prefix, name]))
        yield from commands(inner) if inner else [words]


ALL = list(commands())
# A run with all tasks and sources, so that the flags of all of them are there.
EVERYTHING = [
    word
    for table, rows in TABLES.items()
    for row in rows
    for word in (f"--{table}.{row}.weight", "1")
]


def entries(page: str) -> dict[str, str]:
    """The words of each flag and argument of a help page, without defaults and the like."""
    found: dict[str, str] = {}
    name = ""
    for line in re.sub(r",\s*\n  (?=[a-z])", ",", page).splitlines():  # choices go on below
        if match := re.match(r"  (-{1,2}[a-z]\S*.*?|[A-Z.\[\]]+)(?:\s{2,}(.*))?$", line.rstrip()):
            name, words = match[1], match[2] or ""
            found[name] = words
        elif name and line.startswith("    "):
            found[name] += " " + line.strip()
        elif line.strip():
            name = ""
    return {name: re.sub(NO_WORDS, "", words).strip() for name, words in found.items()}


def help_of(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main([*arguments, "--help"]) == 0
    page = capsys.readouterr().out
    return re.sub(r"[│╭╮╰╯─]", " ", page)


def test_entries_of_a_page_are_found_with_their_words():
    page = "  --a INT   how many (default: 3)\n  --b STR\n        (default: '')\n  --long-one\n"
    page += "        what it\n        means (required)\n  NAME      of it\n"
    assert entries(page) == {
        "--a INT": "how many", "--b STR": "", "--long-one": "what it means", "NAME": "of it"
    }  # fmt: skip


def test_the_commands_are_those_of_the_documentation():
    assert {"train", "evaluate", "predict", "data check", "scaling fit", "convert import"} < {*ALL}
    assert len(ALL) == len(set(ALL)) == 14 + 8 + 7 + 3  # of stepsight, data, scaling, convert


@pytest.mark.parametrize("command", ALL)
def test_every_flag_has_words(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    more = EVERYTHING if command == "train" else []
    found = entries(help_of(capsys, *command.split(), *more))
    assert "-h, --help" in found
    assert [flag for flag, words in found.items() if not re.search(r"\w{2}", words)] == []
    assert len(found) > 400 or command != "train"


def test_readers_have_their_options_in_the_help(capsys):
    page = help_of(capsys, "data", "check", "nyuv2")
    assert "settings of nyuv2" in page and "depth {raw,filled}" in page
    assert {"NAME", "ROOT"} <= entries(page).keys()
    assert "crop_scale FLOAT" in help_of(capsys, "evaluate", "--data.name", "kitti")
    assert "settings of" not in help_of(capsys, "data", "check")
    assert "--data.kitti.crop-scale" in help_of(capsys, "train", "--data.kitti.root", "/data")


def test_the_sizes_of_models_are_named(capsys):
    page = help_of(capsys, "train")
    assert "split-8 -32 -64, DiT-Ti to -XL" in " ".join(page.split())


def test_help_loads_nothing_heavy():
    command = [sys.executable, "-c", PROBE, *ALL, "", "data", "scaling", "convert"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "HEAVY []"
