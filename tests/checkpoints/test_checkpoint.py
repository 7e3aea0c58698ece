"""The checkpoint format: whole or absent, every damage named, and the same bytes for the same
weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stepsight import checkpoint
from stepsight.checkpoint import (
    BACKBONE,
    OPTIMIZER,
    RAW,
    STATISTICS,
    CheckpointError,
    format,
    snapshot,
)
from stepsight.config import RunConfig, from_dict
from stepsight.errors import UserError


def weights(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 2, 3, 3, generator=draw).to(
            memory_format=torch.channels_last
        ),
        "map.weight": torch.randn(3, 5, generator=draw).T,  # not contiguous
        "bias": torch.randn(3, generator=draw, requires_grad=True),
        "steps": torch.tensor(3.0),
    }


def write(folder: Path, step: int = 3, seed: int = 0, **more) -> Path:
    tensors = {
        BACKBONE: weights(seed),
        RAW: weights(seed + 1),
        STATISTICS: {
            "depth": torch.ones(2, 4, 4, dtype=torch.float64),
            "amodal": torch.zeros(0, 4),
        },
        OPTIMIZER: {},
    }
    meta = {"sizes": {"depth": [16, 24]}, "tasks": ["depth"], "images_seen": 16 * step}
    return checkpoint.write(
        folder, step, config=more.pop("config", config()), meta=meta | more, tensors=tensors
    )


def config(**changes) -> RunConfig:
    return from_dict({"model": {"name": "split-8"}, **changes})


@pytest.fixture
def folder(tmp_path) -> Path:
    """The checkpoints of a run."""
    return tmp_path / "run" / "checkpoints"


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, and its digest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# ---------------------------------------------------------------------------- round trip


def test_what_is_written_is_read(folder):
    path = write(folder, step=3, run="r")
    saved = checkpoint.read(path)
    assert path == folder / "step-000003" and saved.path == path
    assert saved.config == config()
    assert saved.meta["step"] == 3 and saved.meta["run"] == "r" and saved.meta["format"] == 1
    assert same(saved.tensors(BACKBONE), weights(0)) and same(saved.tensors(RAW), weights(1))
    assert saved.tensors(STATISTICS)["depth"].dtype == torch.float64
    assert saved.tensors(STATISTICS)["amodal"].shape == (0, 4)
    assert saved.tensors(OPTIMIZER) == {} and saved.tensors("other.safetensors") == {}
    assert saved.digest() == hashlib.sha256((path / BACKBONE).read_bytes()).hexdigest()[:12]


def test_the_manifest_lists_every_file_with_its_size_and_digest(folder):
    path = write(folder)
    manifest = json.loads((path / "manifest.json").read_text())
    files = listing(path)
    assert files.keys() - manifest.keys() == {"manifest.json", "COMPLETE"}
    for name, entry in manifest.items():
        assert entry == {"bytes": (path / name).stat().st_size, "sha256": files[name]}


def test_equal_weights_are_equal_files_whatever_the_run(tmp_path):
    """The digest of the weights names a model: nothing of the run may be in their file."""
    first = write(tmp_path / "a", step=3, run="one", config=config())
    second = write(tmp_path / "b", step=40, run="two", config=config(training={"seed": 9}))
    for name in (BACKBONE, RAW, STATISTICS, OPTIMIZER):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert checkpoint.read(first).digest() == checkpoint.read(second).digest()
    other = write(tmp_path / "c", seed=5)
    assert checkpoint.read(other).digest() != checkpoint.read(first).digest()


def test_the_header_holds_names_shapes_and_types_only(folder):
    data = (write(folder) / BACKBONE).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.keys() - {"__metadata__"} == weights().keys()
    assert all(set(one) == {"dtype", "shape", "data_offsets"} for one in header.values())


def test_nothing_is_pickled(folder):
    write(folder)
    names = {Path(name).suffix for name in listing(folder)}
    assert names == {".safetensors", ".json", ".yaml", ""}


# ---------------------------------------------------------------------------- whole or absent


STEPS = [(snapshot, "save_file"), (format, "digest"), (snapshot, "flush"), (snapshot, "seal")]


@pytest.mark.parametrize("module, failing", STEPS)
def test_a_write_that_fails_midway_leaves_the_old_checkpoint(module, failing, folder, monkeypatch):
    write(folder, step=3, seed=0)
    checkpoint.mark(folder, "last", "step-000003")
    before = listing(folder)

    def broken(*_, **__):
        raise OSError(28, "no space left on device")

    for step in (3, 6):  # over the old one, and beside it
        with monkeypatch.context() as patch:
            patch.setattr(module, failing, broken)
            with pytest.raises(
                UserError, match=f"checkpoints.*step {step}.*no space.*MiB are free"
            ):
                write(folder, step=step, seed=8)
        after = listing(folder)
        assert {name: after[name] for name in before} == before
        assert checkpoint.resolve(folder.parent).name == "step-000003"
        assert same(checkpoint.read(folder.parent).tensors(BACKBONE), weights(0))
        assert sorted(path.name for path in folder.glob("step-*")) == ["step-000003"]


def test_a_rename_that_fails_leaves_the_old_checkpoint(folder, monkeypatch):
    path, replace = write(folder, step=3, seed=0), os.replace
    before = listing(path)

    def broken(source, target):
        if Path(source).name.startswith(".staged"):
            raise OSError("interrupted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(UserError, match="interrupted"):
        write(folder, step=3, seed=8)
    assert listing(path) == before


def test_what_a_killed_write_leaves_is_swept_away_by_the_next(folder):
    staged = folder / ".staged-step-000003" / "backbone"
    staged.mkdir(parents=True)
    (staged / "stale.safetensors").write_bytes(b"half")
    path = write(folder, step=3)
    assert [one.name for one in folder.iterdir()] == ["step-000003"]
    assert not list(path.rglob("stale*"))


def test_writing_a_step_again_replaces_it(folder):
    write(folder, step=3, seed=0)
    path = write(folder, step=3, seed=8)
    assert same(checkpoint.read(path).tensors(BACKBONE), weights(8))
    assert [one.name for one in folder.iterdir()] == ["step-000003"]


# ---------------------------------------------------------------------------- damage

FILES = [BACKBONE, RAW, STATISTICS, OPTIMIZER, "config.yaml", "stepsight.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_and_named(name, folder):
    file = write(folder) / name
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x01
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{file.name}.*(sha256|JSON|another)"):
        checkpoint.read(folder.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found_and_named(name, folder):
    file = write(folder) / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=f"{file.name}.*(truncated|JSON)"):
        checkpoint.read(folder.parent)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_found_and_named(name, folder):
    file = write(folder) / name
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{file.name} is missing"):
        checkpoint.read(folder.parent)


def test_damage_is_one_line_for_the_user(folder):
    path = write(folder)
    (path / BACKBONE).write_bytes(b"")
    with pytest.raises(UserError) as error:
        checkpoint.read(path)
    assert "\n" not in str(error.value) and "another" in str(error.value)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "backbone/../../outside.txt"])
def test_a_manifest_cannot_point_outside_the_folder(name, folder):
    path = write(folder)
    (folder / "outside.txt").write_text("secret")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[name] = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    format.seal(path, manifest)
    with pytest.raises(CheckpointError, match="outside the folder"):
        checkpoint.read(path)


def test_an_unfinished_checkpoint_is_refused_with_one_that_is_finished(folder):
    write(folder, step=3)
    (write(folder, step=6) / "COMPLETE").unlink()
    with pytest.raises(CheckpointError, match="step-000006 has no COMPLETE .* Use step-000003"):
        checkpoint.read(folder / "step-000006")
    assert checkpoint.read(folder.parent).path.name == "step-000003"


def test_the_format_of_another_version_is_refused(folder):
    path = write(folder)
    meta = json.loads((path / "stepsight.json").read_text())
    (path / "stepsight.json").write_text(json.dumps(meta | {"format": 3}))
    with pytest.raises(CheckpointError, match="format 3, this version reads 1 and 2"):
        checkpoint.read(path)


def test_a_file_that_is_no_safetensors_is_named(folder):
    path = write(folder)
    (path / BACKBONE).write_bytes(b"x" * 64)
    entries = format.manifest_of(path) | {BACKBONE: format.entry(path / BACKBONE)}
    format.seal(path, entries)
    with pytest.raises(CheckpointError, match=f"{BACKBONE}: not a readable safetensors"):
        checkpoint.read(path).tensors(BACKBONE)


def test_a_file_that_the_manifest_does_not_name_is_not_read(folder):
    path = write(folder)
    shutil.copy(path / BACKBONE, path / "extra.safetensors")
    assert checkpoint.read(path).tensors("extra.safetensors") == {}


# ---------------------------------------------------------------------------- which one


def test_a_run_means_its_best_checkpoint_else_its_last(folder):
    run = folder.parent
    for step in (3, 9, 6):
        write(folder, step)
    assert checkpoint.resolve(run).name == "step-000006"  # nothing marked: the last written
    checkpoint.mark(folder, "last", "step-000009")
    assert checkpoint.resolve(run).name == "step-000006"
    checkpoint.mark(folder, "best", "step-000003")
    assert checkpoint.resolve(run).name == "step-000003"
    assert checkpoint.resolve(run, prefer="last").name == "step-000006"
    assert checkpoint.resolve(folder).name == "step-000003"
    assert checkpoint.resolve(folder / "step-000009").name == "step-000009"


def test_a_mark_on_what_is_gone_or_unfinished_is_passed_over(folder):
    write(folder, 3)
    checkpoint.mark(folder, "best", "step-000099")
    checkpoint.mark(folder, "last", "step-000003")
    assert checkpoint.resolve(folder.parent).name == "step-000003"
    (write(folder, 6) / "COMPLETE").unlink()
    checkpoint.mark(folder, "last", "step-000006")
    assert checkpoint.resolve(folder.parent).name == "step-000003"


def test_steps_are_ordered_as_numbers(folder):
    for step in (999_999, 1_000_000):
        write(folder, step)
    assert checkpoint.resolve(folder.parent).name == "step-1000000"
    checkpoint.prune(folder, keep=1)
    assert [path.name for path in folder.iterdir()] == ["step-1000000"]


def test_a_run_may_be_called_like_a_step(tmp_path):
    run = tmp_path / "step-by-step"
    write(run / "checkpoints", 3)
    assert checkpoint.resolve(run) == run / "checkpoints" / "step-000003"


@pytest.mark.parametrize("made", [False, True])
def test_no_checkpoint_at_all_is_said(made, tmp_path):
    path = tmp_path / "run"
    if made:
        (path / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no complete checkpoint" if made else "not found"):
        checkpoint.read(path)


def test_pruning_keeps_the_newest_and_the_best(folder):
    for step in range(1, 7):
        write(folder, step)
    checkpoint.mark(folder, "best", "step-000002")
    checkpoint.mark(folder, "last", "step-000006")
    checkpoint.prune(folder, keep=2)
    left = sorted(path.name for path in folder.glob("step-*"))
    assert left == ["step-000002", "step-000005", "step-000006"]
    checkpoint.prune(folder, keep=5)
    assert sorted(path.name for path in folder.glob("step-*")) == left


def test_pruning_keeps_what_a_run_continued_from_an_earlier_step_wrote_last(folder):
    for step in (4, 5, 6, 3):
        write(folder, step)
    checkpoint.mark(folder, "last", "step-000003")
    checkpoint.prune(folder, keep=2)
    assert sorted(path.name for path in folder.glob("step-*")) == [
        "step-000003",
        "step-000005",
        "step-000006",
    ]
