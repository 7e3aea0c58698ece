"""What errors advise."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stepsight.errors
from stepsight.errors import DataFormatError, UserError, command


def test_a_command_to_type_is_that_of_a_checkout():
    assert command("evaluate", "--checkpoint", "a run") == (
        "uv run evaluate.py --checkpoint 'a run'"
    )
    assert command("steps", "--nfe", 4) == "uv run stepsight steps --nfe 4"


def test_without_a_checkout_it_is_that_of_the_package(tmp_path):
    shutil.copy(Path(stepsight.errors.__file__), tmp_path / "errors.py")
    code = "from errors import command; print(command('train', '--config', 'smoke'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.stdout.decode().strip() == "stepsight train --config smoke", done.stderr


@pytest.mark.parametrize("kind", [UserError, DataFormatError])
@pytest.mark.parametrize(
    "name", ["\x1b[2J\x1b]0;x\x07", "a\nerror: b", "\x9b1m", "a\u202eb", "\udcff"]
)
def test_what_a_name_holds_does_not_reach_the_terminal(kind, name):
    said = str(kind(f"{name}.png: damaged."))
    assert said.isprintable() and said.endswith(".png: damaged.") and len(said) > len(name) + 14
    assert str(kind("größe δ1 ✓ 深度.png")) == "größe δ1 ✓ 深度.png"
