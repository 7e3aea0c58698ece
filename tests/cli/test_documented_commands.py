"""Every command that the documentation and the configurations show has flags that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from stepsight.cli.entry import parse
from stepsight.cli.main import GROUP

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.yaml"))
RUN = "your-data.md"  # whose commands are run, by tests/cli/training
PROGRAM = r"(?:(?<![\w/.-])stepsight [a-z]|(?<![\w/.-])(?:train|evaluate)\.py )"
# What stands for something else, and flags that are spoken of.
PLACEHOLDER = re.compile(r"\.\.\.|<|>|\||\[|\b(?:my|matte)\.yaml|--predictions$")


def documented() -> Iterator[str]:
    for page in (page for page in PAGES if page.name != RUN):
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        if page.suffix == ".yaml":
            text = re.sub(r"^# ", "", text.partition("\n")[0]).partition("  (")[0]
        for quoted in re.findall(r"`[^`\n]+`|^.*$", text, re.M):
            line = quoted.strip("`").partition(" #")[0]
            if found := re.search(PROGRAM, line):
                command = line[found.start() :].partition("`")[0].partition("   ")[0].strip()
                yield command


COMMANDS = sorted(
    {command for command in documented() if not PLACEHOLDER.search(command) and "--" in command}
)


def test_there_are_commands_to_check():
    assert len(COMMANDS) > 60
    programs = {" ".join(command.split()[:2]) for command in COMMANDS}
    assert {"stepsight predict", "stepsight data", "stepsight scaling"} < programs


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command.replace("train.py", "stepsight train", 1).replace(
        "evaluate.py", "stepsight evaluate", 1))  # fmt: skip
    group, module = GROUP, None
    while module is None or hasattr(module, "GROUP"):
        group = module.GROUP if module else group
        name, *words = words
        module = import_module(f"stepsight.cli.{group.commands[name][0]}")
    kind, prog = module.Args, f"{group.prog} {name}"
    try:
        assert kind.parse(words, prog) if hasattr(kind, "parse") else parse(kind, words, prog)
    except SystemExit as exit:
        assert exit.code == 0  # of --help
