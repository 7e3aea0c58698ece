"""Tensors spread over processes: written by any number of them and read by any other, to the last
bit; and a save in which one of the processes fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, CheckpointError, format, snapshot
from stepsight.config import from_dict
from stepsight.errors import UserError

RUNS = ("one", "two", "four", "hybrid")  # of shard_ranks.py
FILES = (BACKBONE, RAW, OPTIMIZER)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder per run, with its checkpoint, and what its first process read of all of them."""
    folder = tmp_path_factory.mktemp("shards")
    script = Path(__file__).with_name("shard_ranks.py")
    done = subprocess.run(
        [sys.executable, script, folder], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("reader", RUNS)
def test_any_number_of_processes_reads_what_any_other_wrote(saved, reader):
    found = json.loads((saved / f"{reader}.json").read_text())
    wanted = json.loads((saved / "one.json").read_text())["one"]
    assert set(wanted) == set(FILES) and len(set(wanted.values())) == 3
    assert {writer: found[writer] for writer in (*RUNS, "assembled")} == dict.fromkeys(
        (*RUNS, "assembled"), wanted
    )


def test_each_process_writes_its_own_part_and_copies_write_nothing(saved):
    sizes: dict[str, list[int]] = {}
    for run in ("four", "hybrid"):
        files = sorted((saved / run / "step-000003" / "raw").iterdir())
        assert [file.name for file in files] == [
            f"shard-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)
        ]
        sizes[run] = [sum(t.numel() for t in _opened(file).values()) for file in files]
    assert sum(sizes["four"]) == sum(sizes["hybrid"]) == 3 * 5 + 5 + 5 * 2 + 2
    assert max(sizes["four"]) < 20 and sizes["hybrid"][2:] == [0, 0]
    assert [name for name in (saved / "one" / "step-000003" / "raw").iterdir()] == [
        saved / "one" / "step-000003" / RAW
    ]


def _opened(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}


@pytest.fixture
def path(saved, tmp_path) -> Path:
    """A copy of a sharded checkpoint."""
    return shutil.copytree(saved / "four", tmp_path / "run" / "checkpoints") / "step-000003"


def resealed(path: Path) -> None:
    """As a stranger would make the manifest anew."""
    files = [one for one in path.rglob("*") if one.is_file()]
    names = {str(one.relative_to(path)) for one in files} - {"manifest.json", "COMPLETE"}
    format.seal(path, {name: format.entry(path / name) for name in names})


SHARDS = [str(Path(name).with_name(f"shard-0000{n}-of-00004.safetensors"))
          for name in FILES for n in (1, 3, 4)]  # fmt: skip


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_that_is_gone_is_missed(path, name, sealed):
    (path / name).unlink()
    if sealed:
        resealed(path)
    with pytest.raises(CheckpointError, match="missing|not all"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", SHARDS[3:])
def test_a_tensor_that_is_gone_from_a_shard_is_missed(path, name):
    held = _opened(path / name)
    if not held:
        pytest.skip("this process holds no part")
    with safe_open(path / name, framework="pt") as opened:
        metadata = opened.metadata()
    del held[min(held)]
    save_file(held, path / name, metadata=metadata)
    resealed(path)
    whole = next(file for file in FILES if Path(file).parent == Path(name).parent)
    with pytest.raises(CheckpointError, match="whole|does not hold|not fit"):
        checkpoint.read(path).tensors(whole)
    with pytest.raises(CheckpointError):
        checkpoint.read_newest(path.parent.parent)


def test_a_network_without_memory_is_opened_from_shards(path):
    with torch.device("meta"):
        net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    saved = checkpoint.read(path, lazy=True)
    saved.load(net, RAW)
    shards = {f"raw/shard-0000{n}-of-00004.safetensors" for n in (1, 2, 3, 4)}
    assert saved.verified == {"config.yaml", "stepsight.json"} | shards
    wanted, found = saved.tensors(RAW), net.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_files_that_the_checkpoint_does_not_name_are_not_read(path):
    save_file({"0.weight": torch.zeros(5, 3)}, path / "raw" / "mine.safetensors")
    assert "0.weight" in checkpoint.read(path).tensors(RAW)
    assert checkpoint.read(path).tensors(RAW)["0.weight"].any()


def test_another_network_is_refused_with_what_differs(path):
    wanted = {"0.weight": torch.zeros(5, 4), "2.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"missing 2.bias.*0.weight is \(5, 3\)"):
        checkpoint.load_into(wanted, path / RAW)
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.load_into(wanted, path / "other/file.safetensors")


def test_an_amended_sharded_checkpoint_is_whole(path):
    before = checkpoint.read(path)
    checkpoint.amend(path, sampling={})
    after = checkpoint.read(path)
    assert after.meta["sampling"] == {} and after.digest() == before.digest()
    assert all(torch.equal(a, after.tensors(RAW)[k]) for k, a in before.tensors(RAW).items())


# ---------------------------------------------------------------------------- parts that fail


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Any:
    """Snapshots of two processes, taken in one."""
    monkeypatch.setattr(snapshot.secrets, "token_hex", lambda _: "token")

    def take(rank: int) -> snapshot.Snapshot:
        return snapshot.Snapshot.of(
            tmp_path / "checkpoints",
            3,
            config=from_dict({}),
            meta={},
            tensors={BACKBONE: {"weight": torch.ones(2)}},
            part=(rank, 2),
        )

    return take


def test_the_first_process_waits_for_the_others(parts):
    first, second = parts(0), parts(1)
    later = threading.Timer(0.3, second.commit)
    later.start()
    path = first.commit()
    later.join()
    assert path is not None and checkpoint.read(path).tensors(BACKBONE)["weight"].sum() == 2
    assert not list(path.rglob(".parts*"))


def test_a_part_that_does_not_come_is_named_and_nothing_is_left(parts):
    first = parts(0)
    with pytest.raises(UserError, match="step 3 is abandoned: rank 1 of 2.*--resume auto"):
        first.commit(patience=0.1)
    assert not list(first.folder.iterdir())


def test_a_part_that_fails_ends_the_wait_with_its_reason(parts, monkeypatch):
    first, second, write = parts(0), parts(1), snapshot.Snapshot._write

    def full(self: snapshot.Snapshot) -> Any:
        if self.part[0]:
            raise OSError(28, "No space left on device")
        return write(self)

    monkeypatch.setattr(snapshot.Snapshot, "_write", full)
    failures: list[UserError] = []

    def fail() -> None:
        try:
            second.commit()
        except UserError as error:
            failures.append(error)

    later = threading.Timer(0.3, fail)
    later.start()
    with pytest.raises(UserError, match="rank 1: .*No space left"):
        first.commit(patience=30)
    later.join()
    assert failures and not list(first.folder.iterdir())
