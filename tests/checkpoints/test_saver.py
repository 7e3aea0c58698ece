"""Writing beside the training: what was taken is what is written, one at a time, and what goes
wrong is told."""

from __future__ import annotations

import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, Saver, Snapshot, snapshot
from stepsight.config import from_dict
from stepsight.errors import UserError

CONFIG = from_dict({"model": {"name": "split-8"}})


def taken(folder: Path, step: int, weight: torch.Tensor) -> Snapshot:
    return Snapshot.of(folder, step, config=CONFIG, meta={}, tensors={BACKBONE: {"weight": weight}})


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """Until this is set, nothing is written."""
    go, save = threading.Event(), snapshot.save_file

    def wait(*arguments: Any, **options: Any) -> None:
        assert go.wait(30)
        save(*arguments, **options)

    monkeypatch.setattr(snapshot, "save_file", wait)
    return go


def test_what_was_taken_is_written_whatever_becomes_of_the_weights(tmp_path, held):
    weight, saver, done = torch.nn.Parameter(torch.ones(4, 3)), Saver(), []
    saver.start(taken(tmp_path, 3, weight.T), done.append)
    with torch.no_grad():
        weight.zero_()  # training goes on
    assert not done and not list(tmp_path.glob("step-*"))
    held.set()
    saver.wait()
    assert done == [tmp_path / "step-000003"]
    assert checkpoint.read(done[0]).tensors(BACKBONE)["weight"].equal(torch.ones(3, 4))


def test_one_is_written_at_a_time_and_in_order(tmp_path, held):
    saver, done = Saver(), []
    saver.start(taken(tmp_path, 3, torch.ones(1)), done.append)
    threading.Timer(0.2, held.set).start()
    saver.start(taken(tmp_path, 6, torch.ones(1)), done.append)  # waits for the first
    assert [path.name for path in done] == ["step-000003"]
    saver.wait()
    assert [path.name for path in done] == ["step-000003", "step-000006"]


def test_a_snapshot_that_waits_is_not_swept_away(tmp_path, held):
    saver = Saver()
    first, second = (taken(tmp_path, step, torch.ones(1)) for step in (3, 6))
    second.staged.mkdir(parents=True)  # as another process may have begun to
    held.set()
    saver.start(first, lambda _: None)
    saver.wait()
    assert second.staged.exists() and second.commit() == tmp_path / "step-000006"
    assert {one.name for one in tmp_path.iterdir()} == {"step-000003", "step-000006"}


def test_the_next_snapshot_takes_the_memory_of_one_that_is_written(tmp_path, held):
    saver, done = Saver(), []

    def take(step: int, size: int) -> Snapshot:
        tensors = {BACKBONE: {"a": torch.full((2, 3), float(step)), "b": torch.ones(size)}}
        facts: dict[str, Any] = {"config": CONFIG, "meta": {}, "tensors": tensors}
        return Snapshot.of(tmp_path, step, **facts, room=saver.room())

    def places(snapshot: Snapshot) -> list[int]:
        return [value.data_ptr() for value in snapshot.files[BACKBONE][0].values()]

    first = take(3, 4)
    saver.start(first, done.append)
    threading.Timer(0.2, held.set).start()
    second = take(6, 5)  # waits: until it is written, the memory is not free
    assert done == [tmp_path / "step-000003"]
    assert places(second)[0] == places(first)[0] and places(second)[1] != places(first)[1]
    saver.start(second, done.append)
    saver.close()
    for step, path in zip((3, 6), done, strict=True):
        assert checkpoint.read(path).tensors(BACKBONE)["a"].eq(step).all()
    assert places(take(9, 5))[0] != places(second)[0]  # given back


@pytest.mark.parametrize("ask", ["start", "wait"])
def test_a_full_disk_is_told_at_the_next_moment_and_nothing_is_lost(tmp_path, monkeypatch, ask):
    saver = Saver()
    saver.start(taken(tmp_path, 3, torch.ones(1)), lambda _: None)
    saver.wait()

    def full(*_: Any, **__: Any) -> None:
        raise snapshot.SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "save_file", full)
        saver.start(taken(tmp_path, 6, torch.ones(1)), lambda _: pytest.fail("not written"))
        assert saver._thread is not None
        saver._thread.join()
    with pytest.raises(UserError, match=f"{tmp_path}.*step 6 failed.*No space.* MiB .*--resume"):
        saver.wait() if ask == "wait" else saver.start(
            taken(tmp_path, 9, torch.ones(1)), lambda _: None
        )
    saver.wait()  # it is told once
    assert [one.name for one in tmp_path.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("size", [10, 200, 2000])
def test_files_that_the_system_cuts_short_leave_what_was_saved(tmp_path, size):
    """Of weights, of the configuration, of the manifest."""
    save = taken(tmp_path, 3, torch.ones(1))
    path = save.commit()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    big = taken(tmp_path, 6, torch.ones(900))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(UserError, match="step 6 failed: .*File too large"):
            big.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [one for one in tmp_path.iterdir()] == [path] and checkpoint.read(tmp_path)


def test_a_fault_of_the_thread_is_not_lost(tmp_path):
    saver = Saver()

    def broken(_: Path) -> None:
        raise RuntimeError("a bug")

    saver.start(taken(tmp_path, 3, torch.ones(1)), broken)
    with pytest.raises(RuntimeError, match="a bug"):
        saver.wait()


def test_where_nothing_may_be_written_that_is_said(tmp_path, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match="Read-only file system"):
        taken(tmp_path / "run", 3, torch.ones(1)).commit()
