"""Evaluations by two processes: they end as one does, and leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

AT_ONCE = 4  # which is load enough for one process to be far ahead of the other
TWICE = """
import sys
from stepsight.cli.evaluate import main
flags = ["--checkpoint", sys.argv[1], "--task", "depth", "--processes", "2"]
statuses = [main([*flags, "--out", f"{sys.argv[1]}/{name}"]) for name in ("a", "b")]
raise SystemExit(max(statuses))
"""


@pytest.mark.slow
def test_a_program_can_evaluate_with_two_processes_twice(run):
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(run)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((run / name / "results.json").read_text()) for name in "ab")
    assert [row["metrics"] for row in first] == [row["metrics"] for row in second]


@pytest.mark.slow
def test_what_two_processes_are_refused_ends_with_status_2_and_one_line():
    flags = ("--checkpoint", "/nonexistent", "--processes", "2")
    command = ["-m", "stepsight.cli.main", "evaluate", *flags]
    runs = [
        subprocess.Popen([sys.executable, *command], stdout=-1, stderr=-1, text=True)
        for _ in range(AT_ONCE)
    ]
    ends = [(*each.communicate(timeout=120), each.returncode) for each in runs]
    for out, err, status in ends:
        assert (status, out) == (2, ""), err[-2000:]
        assert err.startswith("error: checkpoint /nonexistent") and err.count("\n") == 1
