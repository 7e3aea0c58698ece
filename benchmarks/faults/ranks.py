"""One of two processes fails, is killed or is stopped, in each phase of a run. Whoever lives says
the cause, once, and all are gone soon. And what `torchrun` starts again goes on by itself."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState

from benchmarks.faults import Tally
from benchmarks.faults.runs import (
    RESUMED,
    difference,
    ended,
    forked,
    free_port,
    outcome,
    settings,
    warm,
)
from stepsight import signals
from stepsight.cli.entry import guarded
from stepsight.config import RunConfig
from stepsight.errors import UserError
from stepsight.evaluation.scoring.items import Items
from stepsight.training import fit
from stepsight.training.feed import Feed
from stepsight.training.learner import Learner

TIMEOUT, SLACK = 6.0, 5.0  # seconds: STEPSIGHT_TIMEOUT, and what comes on top
AT_ONCE = 3  # cases
RESTARTS = (2, 20)  # quick, full
STEP = 2  # in which things happen
BAR = f"cause and rank named once, both gone within the timeout + {SLACK:.0f} s, nothing left"

# Where each phase can be met: the name of a function, and what holds it.
PHASES: dict[str, tuple[object, str]] = {
    "set-up": (fit, "prepare"),
    "step": (Feed, "draw"),
    "save": (Learner, "save"),
    "evaluation": (Items, "scored"),
}
# How each fault is told, and the statuses of (its process, the other).
FAULTS: dict[str, tuple[str, int, int]] = {
    "user error": (r"error: rank {rank} of 2 \(.*\): 05\.png is damaged\.", 2, 2),
    "bug": (r"error: rank {rank} of 2 \(.*\): ZeroDivisionError: ", 1, 1),
    "SIGKILL": (r"error: rank {rank} of 2 \(.*\), process {pid}, died without a word", -9, 1),
    "SIGSTOP": (r"error: rank {rank} of 2 \(.*\), process {pid}, is stopped", -9, 1),
}


@dataclass(frozen=True)
class Case:
    """What befalls whom, and when."""

    fault: str
    rank: int
    phase: str

    def commit(self) -> None:
        """In that process, in that phase."""
        if self.fault == "user error":
            raise UserError("05.png is damaged.")
        if self.fault == "bug":
            print(1 // 0)
        os.kill(os.getpid(), getattr(signal, self.fault))

    def lay(self, stamp: Path) -> None:
        """Have it happen, in this process if it is the one."""
        if os.environ["RANK"] != str(self.rank):
            return
        holder, name = PHASES[self.phase]
        usual = getattr(holder, name)

        def met(*arguments: Any, **options: Any) -> Any:
            if name != "draw" or arguments[1] == STEP:
                stamp.write_text(str(time.time()))
                self.commit()
            return usual(*arguments, **options)

        setattr(holder, name, met)


def run(quick: bool, folder: Path) -> list[Tally]:
    """Every fault in each rank and phase; in the quick run a fifth of that. Then restarts."""
    warm(folder / "warm")
    os.environ |= {"STEPSIGHT_TIMEOUT": str(TIMEOUT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    cases = [Case(fault, rank, phase) for fault in FAULTS for rank in (0, 1) for phase in PHASES]
    if quick:
        cases = [case for number, case in enumerate(cases) if number % 5 == 0]
    places = [folder / f"case-{number}" for number in range(len(cases))]
    found: dict[Case, str] = {}
    for start in range(0, len(cases), AT_ONCE):
        part = cases[start : start + AT_ONCE]
        found |= judged(part, places[start : start + AT_ONCE])
    tallies = [_tally(fault, {c: why for c, why in found.items() if c.fault == fault})
               for fault in FAULTS]  # fmt: skip
    return [*tallies, _restarts(folder, RESTARTS[0 if quick else 1])]


def judged(cases: Sequence[Case], places: Sequence[Path]) -> dict[Case, str]:
    """What was wrong with the end of each case, "" for nothing; all run side by side."""
    runs = [
        commanded(place, settings(evaluate=case.phase == "evaluation"), 2,
                  lambda case=case, place=place: case.lay(place.with_suffix(".stamp")))
        for case, place in zip(cases, places)
    ]  # fmt: skip
    found = {}
    with ThreadPoolExecutor(len(runs)) as pool:
        ends = pool.map(_ended_at, runs)
        for case, place, pids, (statuses, at) in zip(cases, places, runs, ends):
            stamp = place.with_suffix(".stamp")
            began = float(stamp.read_text()) if stamp.exists() else at
            found[case] = _fault(case, place, pids, statuses, at - began)
            if not found[case] and not stamp.exists():
                found[case] = "it did not come to that"
    return found


def _ended_at(pids: list[int]) -> tuple[list[int], float]:
    return ended(pids, within=60), time.time()


def _fault(case: Case, place: Path, pids: list[int], statuses: list[int], seconds: float) -> str:
    """What is wrong with how a case ended."""
    words, own, other = FAULTS[case.fault]
    told = place.with_suffix(".log").read_text(errors="replace")
    line = words.format(rank=case.rank, pid=pids[case.rank])
    if (case.fault, case.phase) == ("user error", "evaluation"):  # gathered, and raised in all
        line = r"error: (rank \d of 2 \(.*\): )?05\.png is damaged\."
    errors = re.findall(r"^error: .*", told, re.MULTILINE)
    name = f"{case.fault} of rank {case.rank} in {case.phase}"
    if len(errors) != 1 or not re.match(line, errors[0]):
        return f"{name}: said {errors or told[-300:]}"
    if ("Traceback" in told) != (case.fault == "bug"):
        return f"{name}: a traceback, or none: {told[-300:]}"
    expected = [own, other] if case.rank == 0 else [other, own]
    if statuses != expected:
        return f"{name}: statuses {statuses}"
    return f"{name}: {seconds:.1f} s" if seconds > TIMEOUT + SLACK else ""


def _tally(fault: str, found: dict[Case, str]) -> Tally:
    held = [why for why in found.values() if not why]
    worst = next((why for why in found.values() if why), "")
    return Tally(f"{fault}, each rank and phase", len(found), len(held), BAR, worst)


def commanded(
    folder: Path,
    config: RunConfig,
    processes: int = 1,
    before: Callable[[], Any] = lambda: None,
    **options: Any,
) -> list[int]:
    """The numbers of processes that train in `folder` as train.py does, each of which does
    something `before`; their words go to `folder`.log."""

    def work() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # the parent was alone
        raise SystemExit(guarded(lambda _: _trained(folder, config, RESUMED | options, before), []))

    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = map(str, range(processes))
    log = folder.with_suffix(".log")
    return [forked(work, log, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ranks]


def _trained(
    folder: Path,
    config: RunConfig,
    options: dict[str, Any],
    before: Callable[[], Any] = lambda: None,
) -> int:
    with signals.heeded():
        before()
        fit.fit(config, name="tiny", run_dir=str(folder), **options)
    return 0


def _restarts(folder: Path, count: int) -> Tally:
    """What `torchrun --max-restarts 1` starts, and starts again when one of it is killed."""
    alone = folder / "restart-alone"
    assert not any(ended(commanded(alone, settings(), 2))), alone.with_suffix(".log")
    wanted = outcome(alone)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    places, faults = [folder / f"restart-{number}" for number in range(count)], list[str]()
    for start in range(0, count, AT_ONCE):
        part = places[start : start + AT_ONCE]
        agents = [
            forked(lambda place=place: _launch(place), place.with_suffix(".log")) for place in part
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            ends = pool.map(_killed_once, part, agents)
            faults += [fault or difference(outcome(at), wanted) for at, fault in zip(part, ends)]
    bar = "it ends with status 0, equal to a run that was left alone"
    worst = next(filter(None, faults), "")
    return Tally("torchrun --max-restarts 1", count, faults.count(""), bar, worst)


def _launch(place: Path) -> None:
    """The agent of torchrun, whose processes are copies of this one in place of new programs."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        1, 1, 2, run_id=place.name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=1, start_method="fork",
    )  # fmt: skip
    elastic_launch(launch, _launched)(place)


def _launched(place: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    (place.parent / f"{place.name}.{os.environ['RANK']}").write_text(str(os.getpid()))
    if status := guarded(lambda _: _trained(place, settings(), RESUMED), []):
        sys.exit(status)


def _killed_once(place: Path, agent: int) -> str:
    """Kill a process of a run that has saved; what was wrong with the end of the run."""
    deadline = time.monotonic() + 60
    while not (place / "checkpoints/last.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    victim = place.parent / f"{place.name}.{int(place.name[-1]) % 2}"
    try:
        os.kill(int(victim.read_text()), signal.SIGKILL)
    except (OSError, ValueError) as error:
        return f"it was not there to be killed: {error}"
    statuses = ended([agent], within=120)
    told = place.with_suffix(".log").read_text()
    if any(statuses):
        return f"statuses {statuses}: {told[-300:]}"
    return "" if told.count("died without a word") == 1 else f"said: {told[-300:]}"
