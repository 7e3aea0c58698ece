"""Every command that documentation, configurations, studies and reports show has flags that there
are, and settings that a run can have; and what one configuration starts from another one makes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from fractions import Fraction
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from stepsight.cli.entry import parse
from stepsight.cli.main import GROUP
from stepsight.report.page import write_report
from stepsight.study.graph import read_study
from stepsight.study.stages import jobs_of

ROOT = Path(__file__).parents[2]
CONFIGS = tuple(ROOT.glob("configs/**/*.yaml"))
PAGES = (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *CONFIGS)
RUN = "your-data.md"  # whose commands are run, by tests/cli/training
PROGRAM = r"(?:(?<![\w/.-])stepsight [a-z]|(?<![\w/.-])(?:train|evaluate)\.py )"
# What stands for something else, and flags that are spoken of.
PLACEHOLDER = re.compile(r"\.\.\.|<|>|\||\[|\b(?:my|matte)\.yaml|--predictions$")


def documented() -> Iterator[str]:
    for page in (page for page in PAGES if page.name != RUN):
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        if page.suffix == ".yaml":
            text = _head(text)
        for quoted in re.findall(r"`[^`\n]+`|^.*$", text, re.M):
            line = quoted.strip("`").partition(" #")[0]
            if found := re.search(PROGRAM, line):
                command = line[found.start() :].partition("`")[0].partition("   ")[0].strip()
                yield command


def _head(text: str) -> str:
    """The comment that a configuration opens with: its command, and below it what it is about, as
    one line."""
    rows = [row.removeprefix("# ") for row in re.findall(r"\A(?:#.*\n)*", text)[0].splitlines()]
    return rows[0].partition("  (")[0] + "\n" + " ".join(rows[1:])


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
    words = command.replace("train.py", "stepsight train", 1).replace(
        "evaluate.py", "stepsight evaluate", 1
    )
    _understood(shlex.split(words)[1:])


def _understood(words: Sequence[str]) -> None:
    """Parse the words of a command, with the configuration that they give."""
    words = [word for word in words if word != "--allow-download"]  # which every command has
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


@pytest.mark.parametrize("scale", ["1", "1/1000"])
def test_every_stage_of_the_study_is_understood(scale, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read_study("configs/paper/study.yaml", Fraction(scale), str(tmp_path))
    (tmp_path / "configs").mkdir()
    kinds = set[tuple[str, int]]()
    for job in jobs_of(study):
        if (job.kind, len(job.shown)) in kinds:
            continue  # one of them in other sizes
        kinds.add((job.kind, len(job.shown)))
        if job.config is not None:
            (tmp_path / "configs" / f"{job.name}.yaml").write_text(job.config.to_yaml())
        _understood(job.shown)
    assert {kind for kind, _ in kinds} == {"train", "latents", "upcycle", "sweep", "laws"}


def test_the_commands_of_a_report_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "config.yaml").write_text(Path("configs/smoke.yaml").read_text())
    (tmp_path / "command.txt").write_text("train.py --config configs/smoke.yaml\n")
    page = write_report(tmp_path).read_text()
    blocks = "\n".join(re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.S))
    commands = re.findall(
        r"^(?:uv run )?(?:stepsight )?((?:train|evaluate)\b.*)$", unescape(blocks), re.M
    )
    assert len(commands) > 2
    for command in commands:
        name, *words = shlex.split(command)
        _understood([name.removesuffix(".py"), *words])


def test_what_a_configuration_starts_from_another_command_makes():
    """Folders of runs/: each that is read is one that a documented command, or a ladder, writes."""
    commands = [shlex.split(command) for command in COMMANDS]
    pairs = [pair for words in commands for pair in zip(words, words[1:])]
    made = [Path(value) for flag, value in pairs if flag in ("--run-dir", "--out")]
    ladders = [path for path in CONFIGS if path.name.startswith("ladder-")]
    made += [Path(yaml.safe_load(path.read_text())["out"]) for path in ladders]
    heads = [_head(path.read_text()) for path in CONFIGS]
    made += [Path(name) for head in heads for name in re.findall(r"--out (runs/[\w/.-]+)", head)]
    read = [name for head in heads for name in re.findall(r"--init-from (runs/\S+)", head)]
    read += [
        name
        for path in CONFIGS
        for name in re.findall(r"^codec: .*?(runs/[^\s}]+)", path.read_text(), re.M)
    ]
    assert len(read) > 5
    lost = {name for name in read if not any(Path(name).is_relative_to(one) for one in made)}
    assert not lost
