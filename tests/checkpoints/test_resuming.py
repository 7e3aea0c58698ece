"""What a run goes on from: the newest whole checkpoint, whatever is damaged and whatever the marks
say; and which marks it then has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, STATISTICS, CheckpointError, reading
from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError

CONFIG = from_dict({"model": {"name": "split-8"}})


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Settings are checked once only."""
    known = cache(lambda text, where: from_dict(json.loads(text), where))
    yaml = CONFIG.to_yaml()
    monkeypatch.setattr(
        reading, "from_dict", lambda values, where: known(json.dumps(values), where)
    )
    monkeypatch.setattr(RunConfig, "to_yaml", lambda _: yaml)


def write(folder: Path, step: int, best: bool = False) -> Path:
    """A checkpoint of which every weight is the step."""
    weights = {"weight": torch.full((9,), float(step)), "bias": torch.ones(2)}
    tensors = dict.fromkeys((BACKBONE, RAW, STATISTICS, OPTIMIZER), weights)
    path = checkpoint.write(
        folder,
        step,
        config=CONFIG,
        meta={"images_seen": step, "training_flops": 1.0, "losses": {}, "best": None},
        tensors=tensors,
        best=best,
    )
    checkpoint.mark(folder, "last", path.name)
    if best:
        checkpoint.mark(folder, "best", path.name)
    return path


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """Steps 10 (the best), 20 and 30."""
    run = tmp_path_factory.mktemp("template")
    for step in (10, 20, 30):
        write(run / "checkpoints", step, best=step == 10)
    return run


@pytest.fixture
def run(template, tmp_path) -> Path:
    return shutil.copytree(template, tmp_path / "run")


def newest(run: Path) -> tuple[str, list[str]]:
    """The checkpoint that a run goes on from, and what is said about that."""
    told: list[str] = []
    saved = checkpoint.read_newest(run, told.append)
    assert saved is not None
    assert saved.tensors(RAW)["weight"].eq(saved.meta["step"]).all()
    return saved.path.name, told


def _flip(data: bytes) -> bytes:
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": _flip,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"\0",
    "gone": lambda _: None,
}
FILES = [BACKBONE, RAW, STATISTICS, OPTIMIZER, "config.yaml", "stepsight.json", "manifest.json"]


def damage(file: Path, kind: str) -> None:
    data = DAMAGES[kind](file.read_bytes())
    file.unlink() if data is None else file.write_bytes(data)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", [*FILES, "COMPLETE"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_one_line(run, name, kind):
    path = run / "checkpoints" / "step-000030"
    damage(path / name, kind)
    name_used, told = newest(run)
    assert name_used == "step-000020" and len(told) == 1
    assert "step-000030 is passed over, step-000020 is used in its place" in told[0]
    assert Path(name).name in told[0] and "\n" not in told[0]
    with pytest.raises(UserError):  # named, it is refused
        checkpoint.resumable(path)


def test_two_damaged_ones_are_two_lines(run):
    for step, kind in ((30, "gone"), (20, "flipped")):
        damage(run / "checkpoints" / f"step-0000{step}" / RAW, kind)
    name, told = newest(run)
    assert name == "step-000010" and len(told) == 2


def test_when_none_is_whole_that_is_said_and_nothing_begins_anew(run):
    for step in (10, 20, 30):
        damage(run / "checkpoints" / f"step-0000{step}" / RAW, "cut")
    with pytest.raises(CheckpointError, match="no whole checkpoint: .*step-000030.*--overwrite"):
        checkpoint.read_newest(run)


def test_a_run_without_checkpoints_has_none(tmp_path):
    (tmp_path / "checkpoints" / "step-000003").mkdir(parents=True)
    assert checkpoint.read_newest(tmp_path) is None


def test_a_checkpoint_without_training_state_cannot_be_continued(tmp_path):
    tensors = {BACKBONE: {"weight": torch.ones(1)}}
    path = checkpoint.write(tmp_path, 0, config=CONFIG, meta={}, tensors=tensors)
    with pytest.raises(CheckpointError, match="holds no raw.*--init-from"):
        checkpoint.resumable(path)


# ---------------------------------------------------------------------------- marks

MARKS: dict[str, bytes | None] = {
    "gone": None,
    "empty": b"",
    "not UTF-8": b"\xff\xfe step",
    "outside": b"../../x\n",
    "absolute": b"/etc",
    "stale": b"step-000010\n",
    "unknown": b"step-000031\n",
    "another letter": b"stap-000030\n",
    "zeros": bytes(12),
    "long": b"step-" + b"1" * 5000,
}


@pytest.mark.parametrize("kind", MARKS)
def test_a_run_goes_on_from_its_newest_checkpoint_whatever_the_marks_say(run, kind):
    for which in ("last.txt", "best.txt"):
        file, content = run / "checkpoints" / which, MARKS[kind]
        file.unlink() if content is None else file.write_bytes(content)
    assert newest(run) == ("step-000030", [])
    assert checkpoint.resolve(run, prefer="last").name == "step-000030"
    checkpoint.settle(run / "checkpoints", 30, say=lambda _: None)
    assert marks(run) == {"last.txt": "step-000030", "best.txt": "step-000010"}


def marks(run: Path) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (run / "checkpoints").glob("*.txt")}


def test_a_run_taken_up_at_an_earlier_step_goes_on_from_there(run):
    folder = run / "checkpoints"
    checkpoint.settle(folder, 20)  # as a resume from step 20 does
    assert newest(run) == ("step-000020", []) and marks(run)["last.txt"] == "step-000020"
    write(folder, 25)
    assert newest(run) == ("step-000025", [])
    assert checkpoint.completed(folder)[-1].name == "step-000025"
    checkpoint.prune(folder, keep=1)
    left = {path.name for path in folder.glob("step-*")}
    assert left == {"step-000010", "step-000025", "step-000030"}


def test_the_best_is_none_that_came_later(run):
    folder, told = run / "checkpoints", []
    write(folder, 40, best=True)
    checkpoint.settle(folder, 30, told.append)
    assert marks(run) == {"last.txt": "step-000030", "best.txt": "step-000010"}
    shutil.rmtree(folder / "step-000010")
    checkpoint.settle(folder, 30, told.append)
    assert "best.txt" not in marks(run) and "up to step 30" in told[0]
    checkpoint.settle(folder, 40)  # where it was the best
    assert marks(run) == {"last.txt": "step-000040", "best.txt": "step-000040"}


def test_a_damaged_best_is_not_marked_and_not_read(run):
    folder, told = run / "checkpoints", []
    damage(folder / "step-000010" / BACKBONE, "flipped")
    with pytest.raises(CheckpointError):
        checkpoint.read(run)
    assert checkpoint.read_best(run, told.append).path.name == "step-000030"
    checkpoint.settle(folder, 30, told.append)
    assert "best.txt" not in marks(run) and len(told) == 2
    assert checkpoint.read(run).path.name == "step-000030"


def test_the_newest_intact_checkpoint_is_never_deleted(run):
    folder = run / "checkpoints"
    (folder / "best.txt").unlink()
    damage(folder / "step-000030" / RAW, "flipped")
    checkpoint.prune(folder, keep=1)
    assert {path.name for path in folder.glob("step-*")} == {"step-000020", "step-000030"}


def test_what_is_known_to_be_intact_is_not_hashed_again(run, monkeypatch):
    """Neither after it was written, nor after it was verified to go on from it."""
    folder, seen, digest = run / "checkpoints", [], checkpoint.format.digest
    monkeypatch.setattr(
        checkpoint.format, "digest", lambda file: seen.append(file.name) or digest(file)
    )
    checkpoint.mark(folder, "best", "step-000030")
    checkpoint.prune(folder, keep=1, sound=folder / "step-000030")
    assert not seen and [path.name for path in folder.glob("step-*")] == ["step-000030"]
    write(folder, 40, best=True)
    seen.clear()
    checkpoint.settle(folder, 40)
    assert not seen and marks(run)["best.txt"] == "step-000040"


def test_checkpoints_of_versions_that_did_not_count_saves_are_ordered_by_step(run):
    for path in (run / "checkpoints").glob("step-*"):
        old_style(path)
    assert newest(run) == ("step-000030", [])
    write(run / "checkpoints", 25)
    assert newest(run)[0] == "step-000025"


def old_style(path: Path) -> None:
    """As versions wrote it before there was a serial, a list of contents, and a seal."""
    meta = json.loads((path / "stepsight.json").read_text())
    for key in ("serial", "held", "tensors", "is_best"):
        del meta[key]
    (path / "stepsight.json").write_text(json.dumps(meta))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["stepsight.json"] = checkpoint.format.entry(path / "stepsight.json")
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "COMPLETE").write_text("complete\n")


def test_an_old_checkpoint_is_read_whole(run):
    path = run / "checkpoints" / "step-000030"
    old_style(path)
    saved = checkpoint.resumable(path)
    state = {"weight": torch.zeros(9), "bias": torch.zeros(2)}
    checkpoint.load_into(state, path / RAW)
    assert saved.meta["format"] == 1 and state["weight"].eq(30).all()
    checkpoint.amend(path, sampling={})
    assert checkpoint.read(path).meta["sampling"] == {}


# ---------------------------------------------------------------------------- what is read


def test_opening_reads_nothing_but_what_is_asked_for(run, monkeypatch):
    path, seen = run / "checkpoints" / "step-000030", []
    digest = checkpoint.format.digest

    def noted(file: Path) -> str:
        seen.append(str(file.relative_to(path)))
        return digest(file)

    monkeypatch.setattr(checkpoint.format, "digest", noted)
    saved = checkpoint.read(path, lazy=True)
    assert set(seen) == {"manifest.json", "config.yaml", "stepsight.json"}
    assert saved.tensors(BACKBONE) and saved.tensors(BACKBONE)
    assert seen.count(BACKBONE) == 1 and RAW not in seen
    damage(path / RAW, "flipped")
    with pytest.raises(CheckpointError, match="sha256"):
        saved.tensors(RAW)


def _without(files: list[str], names: list[Any]) -> list[tuple[str, str]]:
    return [(file, name) for file in files for name in names]


@pytest.mark.parametrize("file, name", _without(FILES[:4], ["weight", "bias"]))
def test_a_tensor_that_was_removed_is_missed_even_under_a_new_manifest(run, file, name):
    from safetensors.torch import load_file, save_file

    path = run / "checkpoints" / "step-000030"
    kept = load_file(path / file)
    del kept[name]
    save_file(kept, path / file)
    resealed(path)
    with pytest.raises(CheckpointError, match="does not hold the tensors that were written"):
        checkpoint.resumable(path)


@pytest.mark.parametrize("file", FILES[:6])
def test_a_file_that_was_removed_is_missed_even_under_a_new_manifest(run, file):
    path = run / "checkpoints" / "step-000030"
    (path / file).unlink()
    resealed(path)
    with pytest.raises(CheckpointError, match="missing|does not name"):
        checkpoint.resumable(path)


@pytest.mark.parametrize("key", ["step", "images_seen", "losses", "best", "serial", "tensors"])
def test_a_fact_that_was_removed_is_missed_even_under_a_new_manifest(run, key):
    path = run / "checkpoints" / "step-000030"
    meta = json.loads((path / "stepsight.json").read_text())
    del meta[key]
    (path / "stepsight.json").write_text(json.dumps(meta))
    resealed(path)
    with pytest.raises(CheckpointError, match=f"stepsight.json lacks {key}"):
        checkpoint.resumable(path)


def test_an_empty_manifest_verifies_nothing(run):
    path = run / "checkpoints" / "step-000030"
    checkpoint.format.seal(path, {})
    with pytest.raises(CheckpointError, match="manifest.json does not name stepsight.json"):
        checkpoint.read(path)


def resealed(path: Path) -> None:
    files = [str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()]
    names = set(files) - {"manifest.json", "COMPLETE"}
    checkpoint.format.seal(path, {name: checkpoint.format.entry(path / name) for name in names})
