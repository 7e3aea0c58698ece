"""How a checkpoint reaches the disk: in which order, and what is left when the process is killed
between any two calls. Each rule is broken once, to see that it is looked at."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, format, locate, snapshot
from stepsight.config import from_dict

CONFIG = from_dict({"model": {"name": "split-8"}})
META = {"images_seen": 8, "training_flops": 1.0, "losses": {}, "best": None}
Event = tuple[str, ...]  # fsync, path | write, path | replace, from, to | delete, path


def save(folder: Path, step: int, best: bool = True) -> Path:
    """As training does it: a checkpoint of which every weight is the step."""
    weights = {"weight": torch.full((3,), float(step))}
    tensors = {BACKBONE: weights, RAW: weights, OPTIMIZER: weights}
    path = checkpoint.write(folder, step, config=CONFIG, meta=META, tensors=tensors, best=best)
    checkpoint.mark(folder, "last", path.name)
    if best:
        checkpoint.mark(folder, "best", path.name)
    checkpoint.prune(folder, keep=1)
    return path


# ---------------------------------------------------------------------------- order


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Configurations are not what is tested here."""
    monkeypatch.setattr("stepsight.checkpoint.reading._config", lambda _: CONFIG)
    monkeypatch.setattr(type(CONFIG), "to_yaml", lambda _: "model: {}\n")


@pytest.fixture
def events(monkeypatch) -> list[Event]:
    """What reaches the operating system, in order."""
    seen: list[Event] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    text, tree, tensors = Path.write_text, shutil.rmtree, snapshot.save_file

    def fsync(handle: int) -> None:
        seen.append(("fsync", os.readlink(f"/proc/self/fd/{handle}")))
        real["fsync"](handle)

    def replace(source: Path, target: Path) -> None:
        seen.append(("replace", str(source), str(target)))
        real["replace"](source, target)

    def write_text(path: Path, *arguments: Any) -> int:
        seen.append(("write", str(path)))
        return text(path, *arguments)

    def rmtree(path: Path, **options: Any) -> None:
        if Path(path).exists():
            seen.append(("delete", str(path)))
        tree(path, **options)

    def save_file(values: Any, path: Path, **options: Any) -> None:
        seen.append(("write", str(path)))
        tensors(values, path, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    monkeypatch.setattr(snapshot, "save_file", save_file)
    return seen


def broken(seen: list[Event], path: Path) -> list[str]:
    """Rules that a save of `path`, after an earlier checkpoint, has not kept."""
    folder, faults = path.parent, []
    renamed = next(n for n, e in enumerate(seen) if e[0] == "replace" and e[2] == str(path))
    staged = Path(seen[renamed][1])

    def when(*event: str, last: bool = False) -> int:
        found = [n for n, one in enumerate(seen) if one == event]
        return -1 if not found else found[-1 if last else 0]

    files = [staged / one.relative_to(path) for one in path.rglob("*")]
    for one in [*files, staged]:
        flushed, written = when("fsync", str(one), last=True), when("write", str(one), last=True)
        if not written <= flushed < renamed or flushed < 0:
            faults.append(f"{one.name} is not flushed before the rename")
    others = [when("write", str(one), last=True) for one in files if one.name != "COMPLETE"]
    if when("write", str(staged / "COMPLETE")) < max(others):
        faults.append("COMPLETE is not written last")
    if when("fsync", str(staged / "manifest.json")) > when("write", str(staged / "COMPLETE")):
        faults.append("COMPLETE is written before the manifest is flushed")
    parent = [n for n, one in enumerate(seen) if one == ("fsync", str(folder)) and n > renamed]
    marks = [n for n, e in enumerate(seen) if e[0] == "replace" and e[2].endswith(".txt")]
    deleted = [n for n, e in enumerate(seen) if e[0] == "delete" and "/step-" in e[1]]
    if not parent or parent[0] > min(marks):
        faults.append("the rename is not flushed before the marks")
    if len(marks) != 2 or not deleted or max(marks) > min(deleted):
        faults.append("older checkpoints go before the marks are set")
    for n in marks:
        if when("fsync", seen[n][1]) not in range(n):
            faults.append("a mark is not flushed before its rename")
    if not checkpoint.read_newest(folder) or not format.manifest_of(path):
        faults.append("it is not verified")
    return faults


def test_a_save_keeps_every_rule(tmp_path, events):
    save(tmp_path, 3)
    events.clear()
    assert broken(events, save(tmp_path, 6)) == []


def _no_flush_of(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        flush = format.flush
        for module in (format, snapshot, locate):
            patch.setattr(module, "flush", lambda path: None if name in path.name else flush(path))

    return mutate


def _complete_first(patch: pytest.MonkeyPatch) -> None:
    seal = format.seal

    def early(folder: Path, entries: Any) -> None:
        seal(folder, entries)
        (folder / "manifest.json").write_text((folder / "manifest.json").read_text())
        format.flush(folder / "manifest.json")

    patch.setattr(snapshot, "seal", early)


def _prune_first(patch: pytest.MonkeyPatch) -> None:
    put = snapshot.put

    def later(staged: Path, final: Path) -> None:
        for older in final.parent.glob("step-*"):
            shutil.rmtree(older)
        put(staged, final)

    patch.setattr(snapshot, "put", later)


def _flushed_after(patch: pytest.MonkeyPatch) -> None:
    put, flush, held = snapshot.put, format.flush, []
    patch.setattr(snapshot, "flush", lambda path: held.append(path))

    def then(staged: Path, final: Path) -> None:
        put(staged, final)
        for path in held:
            if (final / path.name).exists():
                flush(final / path.name)

    patch.setattr(snapshot, "put", then)


MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "weights are not flushed": _no_flush_of("diffusion"),
    "the optimizer is not flushed": _no_flush_of("optimizer"),
    "the manifest is not flushed": _no_flush_of("manifest"),
    "COMPLETE is not flushed": _no_flush_of("COMPLETE"),
    "the folder is not flushed": _no_flush_of("step-"),
    "folders inside are not flushed": _no_flush_of("raw"),
    "the rename is not flushed": _no_flush_of("checkpoints"),
    "marks are not flushed": _no_flush_of(".txt"),
    "flushed after the rename": _flushed_after,
    "COMPLETE is not last": _complete_first,
    "pruned before the rename": _prune_first,
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_save_that_breaks_a_rule_is_found_out(tmp_path, events, monkeypatch, name):
    folder = tmp_path / "checkpoints"
    save(folder, 3)
    events.clear()
    with monkeypatch.context() as patch:
        MUTATIONS[name](patch)
        path = save(folder, 6)
    assert broken(events, path) != []


def test_a_checkpoint_without_digests_is_found_out(tmp_path, monkeypatch):
    """Were the checksum dropped, a flipped bit would pass."""
    path = save(tmp_path, 3)
    file = path / RAW
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert not locate.intact(path)
    with monkeypatch.context() as patch:
        patch.setattr(format, "digest", lambda _: "0")
        assert not locate.intact(path)


# ---------------------------------------------------------------------------- killed anywhere

CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"}


def killed_at(number: int, work: Callable[[], Any], folder: Path) -> bool:
    """Do `work` in a copy of this process that is killed at its call number `number` to the file
    system below `folder`; whether it came that far."""
    if not (pid := os.fork()):
        left = [number]

        def hook(event: str, arguments: Any) -> None:
            if event in CALLS and str(folder) in str(arguments[0]):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def points(work: Callable[[Path], Any], before: Path, folder: Path) -> Iterator[int]:
    """A fresh copy of `before` in `folder`, on which `work` is killed at each call in turn."""
    number = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        if not killed_at(number, lambda: work(folder), folder):
            break
        yield number
        number += 1


def test_a_save_killed_at_any_call_leaves_the_old_checkpoint_or_the_new_one(tmp_path):
    """It replaces a checkpoint, becomes the best, and the one that was best before goes."""
    before, folder = tmp_path / "before", tmp_path / "checkpoints"
    save(before, 3)
    save(before, 6, best=False)
    counted, told, best = 0, [], set()
    for counted in points(lambda where: save(where, 6), before, folder):
        newest = checkpoint.read_newest(folder, told.append)
        assert newest is not None and newest.tensors(RAW)["weight"].eq(6).all()
        checkpoint.settle(folder, 6)
        best.add((newest.meta["is_best"], checkpoint.resolve(folder).name))
        if counted % 10 == 0:
            save(folder, 6)
            assert {one.name for one in folder.iterdir()} == {"step-000006", "last.txt", "best.txt"}
    assert best == {(False, "step-000003"), (True, "step-000006")}
    assert counted > 40 and told == []


def test_an_amendment_killed_at_any_call_is_made_or_not(tmp_path):
    before, folder = tmp_path / "before", tmp_path / "checkpoints"
    save(before, 3)
    counted, made = 0, set()
    work = lambda where: checkpoint.amend(where / "step-000003", sampling={})  # noqa: E731
    for _ in points(work, before, folder):
        counted += 1
        saved = checkpoint.read(folder / "step-000003")
        made.add("sampling" in saved.meta)
        assert saved.tensors(RAW)["weight"].eq(3).all()
    assert counted > 10 and made == {False, True}
