"""SIGKILL at any moment and, half of them, at a call to the file system inside a save; then
`--resume auto`, until the run is done. It has to end as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults import Tally
from benchmarks.faults.runs import difference, ended, forked, outcome, settings, trained, warm

CALLS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree")
WORKERS = 2  # trials side by side
KILLS = 4  # at most, in a trial
BAR = "weights, average, optimizer state, curve and marks equal those of a run left alone"


@dataclass(frozen=True)
class Kind:
    """How a run is shared out."""

    name: str
    processes: int
    trials: tuple[int, int]  # quick, full
    training: dict[str, Any] = field(default_factory=dict)


KINDS = (
    Kind("one process", 1, (3, 50)),
    Kind("two processes", 2, (1, 10)),
    Kind("two processes, sharded", 2, (0, 8), {"sharding": "full"}),
)


@dataclass
class Trial:
    """How many kills landed, how many of them inside a save, and what differs in the end."""

    kills: int = 0
    inside: int = 0
    fault: str = ""


def run(quick: bool, folder: Path) -> list[Tally]:
    """At least 200 kills in the full run, at least a quarter of them inside a save."""
    warm(folder / "warm")
    tallies = []
    for kind in KINDS:
        count = kind.trials[0 if quick else 1]
        if not count:
            continue
        config = settings(**kind.training)
        alone = folder / f"alone-{kind.processes}-{len(kind.training)}"
        began = time.monotonic()
        assert not any(ended(trained(alone, config, kind.processes))), alone.with_suffix(".log")
        seconds, wanted = time.monotonic() - began, outcome(alone)

        def one(number: int, kind: Kind = kind, span: float = seconds, like: Any = wanted) -> Any:
            place = folder / f"trial-{kind.processes}-{len(kind.training)}-{number}"
            return asdict(attempt(place, kind, random.Random(place.name), span, like))

        trials = [Trial(**found) for found in side_by_side(one, count, folder)]
        kills, inside = sum(t.kills for t in trials), sum(t.inside for t in trials)
        lost = sum(trial.kills for trial in trials if trial.fault)
        worst = next((trial.fault for trial in trials if trial.fault), "")
        share = f"{inside} of {kills} inside a save"
        tallies.append(
            Tally(f"SIGKILLs survived, {kind.name}", kills, kills - lost, BAR, worst or share)
        )
        assert quick or kills * 0.25 <= inside, share
    return tallies


def attempt(
    folder: Path, kind: Kind, draw: random.Random, seconds: float, wanted: dict[str, Any]
) -> Trial:
    """A run that is killed up to `KILLS` times, then continued to its end."""
    trial, config = Trial(), settings(**kind.training)
    for number in range(KILLS):
        if (number + draw.randrange(2)) % 2:
            at = draw.randrange(150)
            pids = trained(folder, config, kind.processes, lambda at=at: killed_at_call(folder, at))
        else:
            pids = trained(folder, config, kind.processes)
            wait = time.monotonic() + draw.uniform(0, seconds)
            while time.monotonic() < wait and not _over(pids[0]):
                time.sleep(0.002)
            trial.inside += any(folder.glob("checkpoints/.staged-*"))
            for pid in pids if draw.randrange(2) else [draw.choice(pids)]:
                os.kill(pid, signal.SIGKILL)
        statuses = ended(pids)
        trial.kills += -signal.SIGKILL in statuses
        trial.inside += (folder / "inside").exists() and -signal.SIGKILL in statuses
        (folder / "inside").unlink(missing_ok=True)
        if not any(statuses):
            break
    statuses = ended(trained(folder, config, kind.processes))
    trial.fault = f"statuses {statuses}" if any(statuses) else difference(outcome(folder), wanted)
    if not trial.fault:
        shutil.rmtree(folder)
    return trial


def _over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def killed_at_call(folder: Path, number: int) -> None:
    """Let this process be killed at a call about the checkpoints of a run."""
    home, left = str(folder / "checkpoints"), [number]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CALLS and str(arguments[0]).startswith(home):
            left[0] -= 1
            if left[0] == 0:
                (folder / "inside").touch()
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def side_by_side(one: Callable[[int], dict[str, Any]], count: int, folder: Path) -> list[Any]:
    """What `one` gives for the numbers up to `count`, worked out by copies of this process."""

    def work(worker: int) -> None:
        found = [one(number) for number in range(worker, count, WORKERS)]
        (folder / f"worker-{worker}.json").write_text(json.dumps(found))

    logs = [folder / f"worker-{worker}.log" for worker in range(WORKERS)]
    pids = [forked(lambda w=w: work(w), log) for w, log in enumerate(logs)]
    assert not any(ended(pids, within=3600)), f"see {logs[0]}"
    files = [folder / f"worker-{worker}.json" for worker in range(WORKERS)]
    return [found for file in files for found in json.loads(file.read_text())]
