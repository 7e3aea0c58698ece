"""Whatever befalls one of two processes: the cause is named once, and both end, soon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TIMEOUT = 5.0
QUIET = {"CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}
FAULTS = ("refused", "bug", "torch", "SIGKILL", "SIGSTOP", "hang", "SIGTERM")
STAGES = ("setup", "step", "write", "end")
PHASE = {"setup": "setup", "step": r"step \d", "write": "save", "end": "end"}
CASES = [f"{fault}:{rank}:{stage}" for fault in FAULTS for rank in "01" for stage in STAGES]
CASES = [case for case in CASES if not re.match("SIGTERM:.:(write|end)", case)]  # nobody looks
USUAL = [case for number, case in enumerate(CASES) if number % 5 == 0] + ["refused:all:step"]

Found = dict[str, dict[str, Any]]


def raised(cases: list[str], folder: Path) -> Found:
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    run = subprocess.run(
        [sys.executable, str(HERE / "nursery.py"), str(folder), *cases],
        env=kept | {"STEPSIGHT_TIMEOUT": str(TIMEOUT), **QUIET},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> Found:
    return raised(USUAL, tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Found:
    return raised([case for case in CASES if case not in USUAL], tmp_path_factory.mktemp("others"))


def check(case: str, found: dict[str, Any]) -> None:
    """That the cause is named, once, by rank, and how both ended."""
    fault, rank, stage = case.split(":")
    said = found["stderr"]
    who = rf"rank {rank} of 2 \([^)]+\)"
    gone = rf"error: {who}, process {found['pids'].get(rank)}, "
    last = rf"it was last in '{PHASE[stage]}'"
    expected: dict[str, tuple[list[int], str]] = {
        "refused": ([2, 2], rf"error: {who}: {stage}\.png is damaged\."),
        "bug": ([1, 1], rf"error: {who}: KeyError: 'no such thing'"),
        "torch": ([1, 1], rf"error: {who}: RuntimeError: shapes cannot be multiplied"),
        "SIGKILL": ([1, 1], rf"{gone}died without a word \(.*\); {last}"),
        "SIGSTOP": ([1, 1], rf"{gone}is stopped: it has not answered for \d+ s; {last}"),
        "hang": ([1, 1], rf"error: no progress for 5 s: {who}, process \d+, hangs in '"),
        "SIGTERM": ([75, 75], r"preempted: .*(saved at step|before there was anything to save)"),
    }
    statuses, line = expected[fault]
    if fault in ("SIGKILL", "SIGSTOP"):  # one that is stopped does not stay
        statuses[int(rank)] = -9
    if rank == "all":
        line = rf"error: {stage}\.png is damaged\."
    assert found["statuses"] == statuses, said
    lines = [text for text in said.splitlines() if re.match("(error|preempted): ", text)]
    assert len(lines) == 1 and re.match(line, lines[0]), said
    assert said.count("Traceback") == (fault in ("bug", "torch"))
    assert found["seconds"] <= TIMEOUT + 5


@pytest.mark.parametrize("case", USUAL)
def test_a_fault_of_one_process_is_named_and_ends_both(usual, case):
    check(case, usual[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in USUAL])
def test_every_fault_of_one_process_is_named_and_ends_both(others, case):
    check(case, others[case])


@pytest.mark.slow
def test_processes_without_their_launcher_save_and_end(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    member = (str(HERE / "member.py"), "2", "SIGUSR1 to the parent", "0", "step")
    with (tmp_path / "err").open("w+") as err:
        run = subprocess.Popen(
            [sys.executable, *launcher, *member], env=os.environ | QUIET, stderr=err
        )
        assert run.wait(60) == -signal.SIGUSR1
        deadline = time.monotonic() + 10
        while (tmp_path / "err").read_text().count("preempted: saved") < 2:
            assert time.monotonic() < deadline, (tmp_path / "err").read_text()
            time.sleep(0.1)
