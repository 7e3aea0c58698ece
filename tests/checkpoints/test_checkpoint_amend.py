"""Facts added to a checkpoint that is complete: whole or not at all, and without copying it; and
checkpoints of earlier versions, which do what they did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, CheckpointError, format, snapshot
from stepsight.config import as_it_was, from_dict
from stepsight.errors import UserError
from stepsight.training.config import RowsSettings

CHOSEN = {"sampling": {"depth": {"nfe": 4, "members": 1, "temperature": 0.0, "views": "mirror"}}}


@pytest.fixture
def path(tmp_path) -> Path:
    """A checkpoint of a run."""
    weights = {"weight": torch.arange(6.0)}
    return checkpoint.write(
        tmp_path / "run" / "checkpoints",
        3,
        config=from_dict({"model": {"name": "split-8"}}),
        meta={"sizes": {"depth": [16, 24]}, "images_seen": 48},
        tensors={BACKBONE: weights, RAW: weights, OPTIMIZER: {}},
    )


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_what_is_added_is_read_and_the_rest_is_as_before(path):
    before, digest = contents(path), checkpoint.read(path).digest()
    checkpoint.amend(path, **CHOSEN)
    saved = checkpoint.read(path)  # which compares every file with the manifest
    assert saved.meta["sampling"] == CHOSEN["sampling"]
    assert saved.meta["images_seen"] == 48 and saved.meta["step"] == 3
    assert saved.digest() == digest
    after = contents(path)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        "stepsight.json",
        "manifest.json",
        "COMPLETE",
    }
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # nothing hidden either


def test_a_second_amendment_keeps_the_first_and_renews_its_own(path):
    checkpoint.amend(path, **CHOSEN)
    checkpoint.amend(path, calibration={"depth": {"scale": 1.5}}, images_seen=49)
    meta = checkpoint.read(path).meta
    assert meta["sampling"] == CHOSEN["sampling"] and meta["images_seen"] == 49
    assert meta["calibration"] == {"depth": {"scale": 1.5}}


def test_damage_to_an_amended_checkpoint_is_still_found(path):
    checkpoint.amend(path, **CHOSEN)
    meta = path / "stepsight.json"
    meta.write_text(meta.read_text().replace("mirror", "MIRROR"))
    with pytest.raises(CheckpointError, match="stepsight.json does not match its sha256"):
        checkpoint.read(path)


def test_weights_are_not_copied(path):
    """The same files by number; and the new facts are not written into files that others hold."""
    kept = path.parent / "elsewhere"
    os.link(path / "stepsight.json", kept)
    before = {name: (path / name).stat().st_ino for name in (BACKBONE, RAW, OPTIMIZER)}
    checkpoint.amend(path, **CHOSEN)
    assert {name: (path / name).stat().st_ino for name in before} == before
    assert "sampling" not in kept.read_text()


def test_where_files_have_one_name_only_they_are_copied(path, monkeypatch):
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("no links on this file system")

    monkeypatch.setattr(os, "link", refused)
    checkpoint.amend(path, **CHOSEN)
    assert checkpoint.read(path).meta["sampling"] == CHOSEN["sampling"]


@pytest.mark.parametrize("failing", ["put", "flush", "seal", "entry"])
def test_a_kill_before_the_swap_leaves_the_checkpoint_and_the_next_try_succeeds(
    path, failing, monkeypatch
):
    before = contents(path)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, failing, killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.amend(path, **CHOSEN)
    assert contents(path) == before
    assert checkpoint.read(path.parent.parent).path == path
    checkpoint.amend(path, **CHOSEN)
    assert checkpoint.read(path).meta["sampling"] == CHOSEN["sampling"]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_swap_that_fails_leaves_the_checkpoint(path, monkeypatch):
    before, replace = contents(path), os.replace

    def broken(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".staged"):
            raise OSError("interrupted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(UserError, match="interrupted"):
        checkpoint.amend(path, **CHOSEN)
    assert contents(path) == before


def test_a_kill_in_the_middle_of_the_swap_loses_nothing(path, monkeypatch):
    """What was there is read under its old name, until the next try puts the new one in place."""
    before, replace = contents(path), os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".staged"):
            raise KeyboardInterrupt
        replace(source, target)

    checkpoint.mark(path.parent, "best", path.name)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        for _ in range(2):  # killed again while it is put right
            with pytest.raises(KeyboardInterrupt):
                checkpoint.amend(checkpoint.resolve(path), **CHOSEN)
    assert not path.exists()
    for named in (path, path.parent, path.parent.parent):
        saved = checkpoint.read(named)
        assert contents(saved.path) == before and saved.meta["images_seen"] == 48
    assert len(checkpoint.completed(path.parent)) == 1
    checkpoint.amend(saved.path, **CHOSEN)
    assert checkpoint.read(path.parent).path == path
    assert checkpoint.read(path).meta["sampling"] == CHOSEN["sampling"]
    assert {one.name for one in path.parent.iterdir()} == {path.name, "best.txt"}


def test_an_unfinished_or_missing_checkpoint_is_not_amended(path, tmp_path):
    with pytest.raises((CheckpointError, OSError)):
        checkpoint.amend(tmp_path / "run" / "checkpoints" / "step-000009", **CHOSEN)
    assert not (path.parent / "step-000009").exists()


# ---------------------------------------------------------------------------- earlier versions

YOUNGER = {
    "tasks": {"flow": ("fine_window", "costs", "look", "look_radius")},
    "training": {"training": ("rows", "loss")},
    "diffusion": {"diffusion": ("temperature", "starts", "views")},
    "evaluation": {
        "evaluation": (
            "temperature",
            "views",
            "sweep_temperatures",
            "sweep_views",
            "tuning_images",
        )  # fmt: skip
    },
}


def stored(tasks: tuple[str, ...] = ("depth", "flow")) -> dict[str, Any]:
    """A configuration as versions before these settings stored it."""
    values = from_dict({"tasks": {task: {} for task in tasks}}).to_dict()
    for group, tables in YOUNGER.items():
        for name, keys in tables.items():
            table = values["tasks"].get(name, {}) if group == "tasks" else values[group]
            for key in keys:
                table.pop(key, None)
    return values


def test_an_old_configuration_does_what_its_version_did():
    values = stored()
    kept = yaml.safe_dump(values)
    config = from_dict(as_it_was(values))
    assert yaml.safe_dump(values) == kept  # what was read is not changed
    flow, training = config.tasks["flow"], config.training
    assert (flow.fine_window, flow.costs, flow.look) == (0, False, False)  # type: ignore[attr-defined]
    assert training.rows == RowsSettings(start=0.0, rollout=0.0, denoise=1.0)
    assert training.loss == "squared"
    assert (config.evaluation.temperature, config.evaluation.views) == (1.0, "none")
    diffusion = config.diffusion
    assert (diffusion.temperature, diffusion.starts) == (1.0, "independent")
    assert diffusion.views == "none"


def test_a_configuration_of_today_stays_as_it_is():
    values = from_dict({"training": {"rows": {"deep": 0.5}}, "evaluation": {"nfe": 2}}).to_dict()
    assert as_it_was(values) == values
    assert from_dict(as_it_was(values)).training.rows.deep == 0.5


def test_tasks_that_a_run_lacks_are_not_added():
    values = as_it_was(stored(("depth",)))
    assert list(from_dict(values).tasks) == ["depth"]


def test_an_old_checkpoint_is_read_as_it_was(path):
    """Its configuration has none of the younger settings, and its manifest fits it."""
    file = path / "config.yaml"
    file.write_text(yaml.safe_dump(stored()))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest[file.name] = {"bytes": file.stat().st_size, "sha256": format.digest(file)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "COMPLETE").write_text("complete\n")  # as before it held a digest
    config = checkpoint.read(path).config
    assert config.training.loss == "squared" and config.training.rows.denoise == 1
    assert config.evaluation.temperature == 1 and not config.tasks["flow"].look  # type: ignore[attr-defined]
