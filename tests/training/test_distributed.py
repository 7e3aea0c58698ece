"""Several processes compute what one computes, however they were started."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Self

import pytest

from stepsight import checkpoint, distributed
from stepsight.distributed import launching
from stepsight.errors import UserError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def environment(**more: str) -> dict[str, str]:
    """Ours, as if no launcher had started us; a hash seed of its own for every process."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    seed = str(random.randrange(1, 1 << 31))
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed} | more


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err[-3000:]
    return out


def start(*command: str | Path, **more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment(**more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


RUNS = ("adamw", "muon", "micro", "deep", "sharded", "started", "experts", "sharded experts")
RUNS += ("vae", "vae micro")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ranks", HERE / "ranks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    """What both of two processes found, by rank."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
    shared |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    processes = [
        start(HERE / "ranks.py", folder, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    for process in processes:
        finish(process)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(script, tmp_path_factory) -> dict:
    """The same by this process alone."""
    return json.loads(json.dumps(script.everything(tmp_path_factory.mktemp("one"))))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_one(one, two, run):
    """All tasks, flow with what it looks at; starts, walks and noised truth; and rows that differ
    in their valid pixels. Sharded too, experts, and a VAE."""
    assert len(one[run]) == 8 and len({round(loss, 3) for loss in one[run]}) > 4
    for found in two:
        rounding = (
            1e-5 if run.startswith("vae") else 1e-6
        )  # of a VAE, whose losses start at about 1
        assert found[run] == pytest.approx(one[run], abs=rounding)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["scores", "one image"])
def test_two_processes_score_as_one(one, two, what):
    expected = one[what]
    for found in (rank[what] for rank in two):
        assert found["keys"] == expected["keys"] and found["working"] == expected["working"]
        assert found.keys() == expected.keys()
        for table in expected.keys() - {"keys", "working"}:
            assert found[table].keys() == expected[table].keys()
            for name, values in expected[table].items():
                slack = 1e-5 if name in ("n", "epe") else 0.1  # shares: a pixel at a threshold
                assert found[table][name] == pytest.approx(values, abs=slack, nan_ok=True)


@pytest.mark.slow
def test_two_processes_choose_and_calibrate_as_one(one, two):
    assert one["chosen"]["sampling"].keys() == {"depth", "flow"}
    for found in (rank["chosen"] for rank in two):
        for kind, expected in one["chosen"].items():
            assert found[kind].keys() == expected.keys()
            for task, record in expected.items():
                own = found[kind][task]
                assert own.keys() == record.keys()
                for name, value in record.items():
                    close = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
                    assert own[name] == close


@pytest.mark.slow
def test_an_error_of_the_first_process_is_everyones(one, two):
    for rank in two:
        assert "--run-dir" in rank["refused"] and "--overwrite" in rank["refused"]


class Copies:
    """Stands for subprocess.Popen and remembers what was started."""

    def __init__(self) -> None:
        self.started: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, command, env, **_) -> Self:
        self.started.append((command, dict(env)))
        return self

    def poll(self) -> None:
        """It runs."""


@pytest.fixture
def copies(monkeypatch) -> Iterator[Copies]:
    made = Copies()
    monkeypatch.setattr(os, "environ", {"PATH": "", "CUDA_VISIBLE_DEVICES": ""})
    monkeypatch.setattr(launching.subprocess, "Popen", made)
    monkeypatch.setattr(launching.atexit, "register", lambda *_: None)
    for name in ("copies", "listening", "ways_out"):
        monkeypatch.setattr(launching, name, [])
    monkeypatch.setattr(launching, "joined", Event())
    yield made
    launching.joined.set()  # nobody looks any more whether they run
    for bound in launching.listening:
        bound.close()


def test_the_program_starts_its_copies_with_its_own_arguments(copies):
    distributed.start(3, ["train.py", "--training.images", "64"])
    assert [command for command, _ in copies.started] == [
        [sys.executable, "train.py", "--training.images", "64"]
    ] * 2
    ranks = [env["RANK"] for _, env in copies.started] + [os.environ["RANK"]]
    assert ranks == ["1", "2", "0"] and distributed.world() == 3 and distributed.rank() == 0
    for _, env in copies.started:
        assert env["WORLD_SIZE"] == "3" and env["OMP_NUM_THREADS"] == "1"
        assert env["MASTER_PORT"] == os.environ["MASTER_PORT"]


def test_a_launched_program_starts_nothing(copies):
    os.environ |= {"WORLD_SIZE": "2", "RANK": "1"}
    distributed.start(0, ["train.py"])
    assert not copies.started and os.environ["RANK"] == "1"


@pytest.mark.parametrize(
    "environment",
    [{"WORLD_SIZE": "2"}, {"RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "2"}]
    + [{"WORLD_SIZE": count, "RANK": "0"} for count in ("two", "", "0", "-1", "1.5")],
)
def test_half_of_a_launchers_environment_is_refused(copies, environment):
    os.environ |= environment
    with pytest.raises(UserError, match="environment: WORLD_SIZE is .*RANK is .*unset both"):
        distributed.start(0, ["train.py"])
    assert not copies.started


@pytest.mark.parametrize(
    "given", [{}, {"MASTER_ADDR": "a"}, {"MASTER_ADDR": "a", "MASTER_PORT": "x"}]
)
def test_processes_that_do_not_know_where_to_meet_are_refused(copies, given):
    os.environ |= {"WORLD_SIZE": "2", "RANK": "0"} | given
    with pytest.raises(UserError, match="MASTER_ADDR is .* MASTER_PORT is"):
        distributed.join()


@pytest.mark.parametrize("cores, expected", [(1, 1), (2, 2), (64, 2)])
def test_unasked_at_most_one_copy_and_none_on_a_single_core(copies, monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    distributed.start(0, ["train.py"])
    assert distributed.world() == expected and len(copies.started) == expected - 1


def test_asked_for_one_process_it_stays_alone(copies):
    distributed.start(1, ["train.py"])
    assert not copies.started and distributed.world() == 1


TINY = (
    "--model.name split-8 --data.scenes.size 16 16 --data.scenes.count 64 "
    "--training.images 64 --training.batch 8 --training.warmup 16 --training.log-every 8 "
    "--training.validate-every 0 --training.first-validation 0 --training.checkpoint-every 0 "
    "--training.validation-images 4 --training.evaluate False --training.processes 2"
).split()


@pytest.mark.slow
def test_the_programs_own_copies_and_torchrun_train_the_same_weights(tmp_path):
    own = start("train.py", *TINY, "--run-dir", tmp_path / "own")
    finish(own)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    finish(start(*launcher, "train.py", *TINY, "--run-dir", tmp_path / "launched"))
    found = []
    for name in ("own", "launched"):
        saved = tmp_path / name / "checkpoints" / "step-000008"
        files = [saved / file for file in (checkpoint.RAW, checkpoint.BACKBONE)]
        found.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
        assert json.loads((tmp_path / name / "env.json").read_text())["processes"] == 2
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_copies_of_a_run_that_fails_end_with_it(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("precious")
    process = start("train.py", *TINY, "--run-dir", tmp_path / "taken")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: --run-dir") and "Traceback" not in err
