"""TERM, USR1, HUP and INT at any moment, a third of them inside a save, to one process or to all.
The run ends with status 75 and every step saved; continued, it is as one that was left alone."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults import Tally
from benchmarks.faults.kills import CALLS, side_by_side
from benchmarks.faults.ranks import commanded
from benchmarks.faults.runs import difference, ended, outcome, settings, warm
from stepsight import checkpoint, signals
from stepsight.signals import INTERRUPTED, PREEMPTED
from stepsight.training.learner import Learner

TRIALS = {1: (4, 48), 2: (2, 20)}  # by processes: quick, full
SOON = 10.0  # seconds
BAR = f"status 75 in {SOON:.0f} s, no step lost or done twice, then equal to a run left alone"


@dataclass
class Trial:
    """A run that was sent a signal, and continued."""

    landed: bool = False  # before it was done
    inside: bool = False  # a save
    seconds: float = 0.0  # from the signal to the end
    fault: str = ""


def run(quick: bool, folder: Path) -> list[Tally]:
    """All four signals, to one process and to one or all of two; and a second INT."""
    warm(folder / "warm")
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    tallies = []
    for processes, counts in TRIALS.items():
        alone = folder / f"alone-{processes}"
        began = time.monotonic()
        assert not any(ended(commanded(alone, settings(), processes))), alone.with_suffix(".log")
        span, wanted = time.monotonic() - began, outcome(alone)
        kinds = [signals.ASKING[n % 4] for n in range(counts[0 if quick else 1])]

        def one(trial: int, kinds: Any = kinds, many: int = processes, span: float = span,
                like: Any = wanted) -> dict[str, Any]:  # fmt: skip
            place = folder / f"trial-{many}-{trial}"
            return asdict(attempt(place, kinds[trial], many, random.Random(place.name), span, like))

        found = [Trial(**trial) for trial in side_by_side(one, len(kinds), folder)]
        trials = [trial for trial in found if trial.landed]
        held = [trial for trial in trials if not trial.fault]
        worst = next((trial.fault for trial in trials if trial.fault), "")
        inside, slowest = sum(t.inside for t in trials), max(t.seconds for t in trials)
        said = f"{inside} of {len(trials)} inside a save, the slowest {slowest:.1f} s"
        name = (
            f"TERM, USR1, HUP and INT, {processes} {'process' if processes == 1 else 'processes'}"
        )
        tallies.append(Tally(name, len(trials), len(held), BAR, worst or said))
    faults = [_twice(folder / f"twice-{number}", processes)
              for number, processes in enumerate((1, 2) if quick else (1, 2) * 5)]  # fmt: skip
    bar = f"status {INTERRUPTED} in 2 s, and the run goes on from its last save"
    worst = next(filter(None, faults), "")
    return [*tallies, Tally("a second INT", len(faults), faults.count(""), bar, worst)]


def attempt(
    folder: Path,
    number: signal.Signals,
    processes: int,
    draw: random.Random,
    span: float,
    wanted: dict[str, Any],
) -> Trial:
    """A run that gets a signal at some time, or at a call inside a save."""
    inside = draw.randrange(3) == 0
    call = draw.randrange(1, 40) if inside else 0
    pids = commanded(folder, settings(), processes, lambda: _laid(folder, number, call))
    if inside:
        _wait(lambda: (folder / "sent").exists() or _over(pids[0]))
    else:
        time.sleep(draw.uniform(0, span))
        for pid in pids if draw.randrange(2) else [draw.choice(pids)]:
            os.kill(pid, number)
    sent = time.monotonic()
    statuses = ended(pids, within=30)
    trial = Trial(PREEMPTED in statuses or any(statuses), inside, time.monotonic() - sent)
    done = _steps(folder)
    told = folder.with_suffix(".log").read_text(errors="replace")
    if trial.landed and set(statuses) != {PREEMPTED}:
        trial.fault = f"{number.name}: statuses {statuses}: {told[-200:]}"
    elif trial.seconds > SOON:
        trial.fault = f"{number.name}: ended after {trial.seconds:.1f} s"
    elif done and (saved := _saved(folder)) != done[-1]:
        trial.fault = f"{number.name}: step {done[-1]} was done, {saved} saved: {told[-200:]}"
    if trial.landed and not trial.fault:
        again = ended(commanded(folder, settings(), processes, lambda: _laid(folder, number, 0)))
        steps = _steps(folder)
        if any(again) or steps != list(range(1, len(steps) + 1)):
            trial.fault = f"{number.name}: continued with {again}, steps {steps}"
        trial.fault = trial.fault or difference(outcome(folder), wanted)
    if not trial.fault:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


def _laid(folder: Path, number: signal.Signals, call: int) -> None:
    """In a process of the run: note its updates, and send itself the signal at a call to the file
    system about checkpoints; 0: at none."""
    descend, home, left = Learner.descend, str(folder / "checkpoints"), [call]

    def noted(learner: Learner, progress: Any, *arguments: Any) -> Any:
        verdict = descend(learner, progress, *arguments)
        if os.environ["RANK"] == "0":
            with (folder / "steps").open("a") as file:
                file.write(f"{progress.step + 1}\n")
        return verdict

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CALLS and str(arguments[0]).startswith(home):
            left[0] -= 1
            if left[0] == 0:
                (folder / "sent").touch()
                os.kill(os.getpid(), number)

    Learner.descend = noted  # pyright: ignore[reportAttributeAccessIssue]
    sys.addaudithook(hook)


def _twice(folder: Path, processes: int) -> str:
    """Two INTs to a step that does not end."""
    descend = Learner.descend

    def endless(learner: Learner, progress: Any, *arguments: Any) -> Any:
        if progress.step == 4:
            (folder / "waits").touch()
            time.sleep(60)
        return descend(learner, progress, *arguments)

    pids = commanded(folder, settings(), processes, lambda: setattr(Learner, "descend", endless))
    _wait(lambda: (folder / "waits").exists())
    began = time.monotonic()
    for _ in range(2):  # as a terminal does, which sends it to all
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
    statuses, seconds = ended(pids, within=20), time.monotonic() - began
    if set(statuses) != {INTERRUPTED} or seconds > 2:
        return f"statuses {statuses} after {seconds:.1f} s"
    again = ended(commanded(folder, settings(), processes))
    return f"continued with {again}" if any(again) else ""


def _steps(folder: Path) -> list[int]:
    file = folder / "steps"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _saved(folder: Path) -> int:
    saved = checkpoint.read_newest(folder, say=lambda _: None)
    return saved.meta["step"] if saved else 0


def _over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        time.sleep(0.005)
