"""The tests that are marked `gpu`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gpu.row import Row

ROOT = Path(__file__).parents[2]
OPTIONS = "addopts=--import-mode=importlib -p no:cacheprovider"  # the rest may not be installed


def run(size: str) -> Iterator[Row]:
    every = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [str(path) for path in every if "mark.gpu" in path.read_text("utf-8")]
    more = ["-m", "gpu", "-q", "-W", "default", "-o", OPTIONS, "-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *more, *files], capture_output=True, text=True, cwd=ROOT
    )
    print(done.stdout, done.stderr)
    counts = dict(re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)[::1])
    found = {what: int(count) for count, what in counts.items()}
    for what in ("passed", "failed", "error", "skipped"):
        if what in found or what == "passed":
            yield Row(f"tests {what}", found.get(what, 0))
    if done.returncode:
        raise SystemExit(done.returncode)
