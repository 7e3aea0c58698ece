"""What errors advise."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import stepsight.errors
from stepsight.errors import command


def test_a_command_to_type_is_that_of_a_checkout():
    assert command("evaluate", "--checkpoint", "a run") == (
        "uv run evaluate.py --checkpoint 'a run'"
    )
    assert command("steps", "--nfe", 4) == "stepsight steps --nfe 4"


def test_without_a_checkout_it_is_that_of_the_package(tmp_path):
    shutil.copy(Path(stepsight.errors.__file__), tmp_path / "errors.py")
    code = "from errors import command; print(command('train', '--config', 'smoke'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.stdout.decode().strip() == "stepsight train --config smoke", done.stderr
