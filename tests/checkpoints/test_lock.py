"""One writer for a run folder: the second is refused while the first lives, and only then."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stepsight.checkpoint import LOCK, RunLock
from stepsight.checkpoint import lock as locking
from stepsight.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "runs" / "mine"


def quick(folder: Path) -> RunLock:
    return RunLock(folder, beat=0.05, stale=0.3)


def held_by(folder: Path, **changes: Any) -> Path:
    """The lock of another process."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    holder = locking._self() | {"token": "theirs", "host": "elsewhere"} | changes
    path.write_text(json.dumps(holder))
    return path


def test_the_second_writer_is_refused_and_told_whom_to_ask(folder):
    with RunLock(folder):
        with pytest.raises(UserError) as error:
            RunLock(folder).acquire()
        told = str(error.value)
        assert f"process {os.getpid()} on " in told and "since 20" in told
        assert "--run-dir" in told and LOCK in told
        (folder / "config.yaml").write_text("")
    with RunLock(folder):
        pass
    assert [one.name for one in folder.iterdir()] == ["config.yaml"]


def test_a_folder_made_for_the_lock_alone_goes_with_it(folder):
    with RunLock(folder):
        assert folder.exists()
    assert not folder.exists()


def test_of_many_at_once_one_gets_it(folder):
    """For a free folder, and for one whose holder is gone."""
    for stale in (False, True):
        if stale:
            held_by(folder, pid=2**22 + 1)
        locks, refused = [quick(folder) for _ in range(8)], []

        def enter(lock: RunLock, refused: list[str] = refused) -> None:
            try:
                lock.acquire()
            except UserError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=enter, args=(lock,)) for lock in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 7 and sum(lock.held for lock in locks) == 1
        for lock in locks:
            lock.release()
        assert not (folder / LOCK).exists()


def test_a_killed_holder_is_succeeded_at_once(folder, capfd):
    if not (pid := os.fork()):
        RunLock(folder).acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.monotonic()
    while not (folder / LOCK).exists():
        time.sleep(0.01)
    while locking._born(pid):
        time.sleep(0.01)  # a zombie until it is waited for: a requeue may meet one
    with RunLock(folder, beat=0.1):
        assert time.monotonic() - began < 5
    os.waitpid(pid, 0)
    assert f"taken over from process {pid} on " in capfd.readouterr().out


def test_another_machine_counts_as_gone_when_it_shows_no_sign_of_life(folder, capsys):
    path = held_by(folder, space="another machine")
    os.utime(path, (1, 1))
    with quick(folder):
        assert "taken over from process" in capsys.readouterr().out
    held_by(folder, space="another machine")  # a moment ago: waited for
    began = time.monotonic()
    with quick(folder):
        assert time.monotonic() - began > 0.2
        assert "waiting for a sign of life" in capsys.readouterr().out


def test_another_machine_that_lives_keeps_it(folder):
    path, done = held_by(folder, space="another machine"), threading.Event()

    def live() -> None:
        while not done.wait(0.02):
            path.touch()

    other = threading.Thread(target=live)
    other.start()
    try:
        with pytest.raises(UserError, match="elsewhere"):
            quick(folder).acquire()
    finally:
        done.set()
        other.join()


def test_a_number_that_another_process_has_by_now_does_not_keep_it(folder, capsys):
    held_by(folder, born="1")
    with quick(folder) as lock:
        assert lock.held


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b'{"pid": {}}', b"[" * 10**5])
def test_a_damaged_lock_is_waited_for_and_then_replaced(folder, content):
    folder.mkdir(parents=True)
    (folder / LOCK).write_bytes(content)
    with quick(folder) as lock:
        assert lock.held


def test_signs_of_life_are_given_and_end_with_the_lock(folder):
    lock = quick(folder)
    lock.acquire()
    os.utime(folder / LOCK, (1, 1))
    for _ in range(200):
        time.sleep(0.02)
        if (folder / LOCK).stat().st_mtime > 1:
            break
    else:
        pytest.fail("no sign of life")
    lock.release()
    time.sleep(0.15)
    assert not (folder / LOCK).exists()


def test_a_writer_that_was_succeeded_is_told_and_leaves_the_lock_alone(folder):
    lock = quick(folder)
    lock.acquire()
    lock.check()
    held_by(folder)
    with pytest.raises(UserError, match="taken over by process .* on elsewhere"):
        lock.check()
    lock.release()
    assert locking._holder(folder / LOCK)["token"] == "theirs"


def test_a_copy_of_the_process_does_not_release_what_it_inherits(folder):
    lock = RunLock(folder)
    lock.acquire()
    if not (pid := os.fork()):
        lock.release()
        os._exit(0)
    os.waitpid(pid, 0)
    assert lock.held
    lock.release()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        RunLock(tmp_path).acquire()


def test_a_disk_that_takes_nothing_is_said(folder, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match="Read-only file system.*free"):
        RunLock(folder).acquire()


@pytest.mark.parametrize("links", [True, False])
def test_a_lock_appears_with_its_holder_also_without_links(folder, monkeypatch, links):
    def opened_for_writing(path: Path, *mode: Any, **how: Any) -> Any:
        assert path.name != LOCK or mode[:1] != ("x",), "an empty lock for a moment"
        return opening(path, *mode, **how)

    opening = Path.open
    monkeypatch.setattr(*(Path, "open", opened_for_writing) if links else (os, "link", _refused))
    with RunLock(folder) as lock:
        assert lock.held and [one.name for one in folder.iterdir()] == [LOCK]
    assert not folder.exists()


def _refused(*names: Any) -> None:
    raise PermissionError("no links here")
