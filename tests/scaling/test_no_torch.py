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
    root = Path(stepsight.scaling.__path__[0])
    files = [file.relative_to(root.parents[1]).with_suffix("") for file in root.rglob("*.py")]
    names = [".".join(file.parts).removesuffix(".__init__") for file in sorted(files)]
    assert len(names) > 40
    command = [sys.executable, "-c", PROBE, *names, "stepsight.cli.scaling.fit"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
