"""The scaling room and its command run where torch is slow to load or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stepsight.scaling

PROBE = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print([name for name in sys.modules if name.split(".")[0] in ("torch", "diffusers", "accelerate")])
"""


def test_nothing_here_imports_torch():
    files = sorted(Path(stepsight.scaling.__path__[0]).glob("*.py"))
    names = [f"stepsight.scaling.{file.stem}".removesuffix(".__init__") for file in files]
    assert len(names) > 8
    command = [sys.executable, "-c", PROBE, *names, "stepsight.cli.scaling"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
