"""Training on files that are read anew each time: three sharded sources, with workers or not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from stepsight import checkpoint
from stepsight.config import RunConfig
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import settings_for
from stepsight.errors import UserError
from stepsight.training import fit
from stepsight.training.dense.objective import DenseObjective
from stepsight.training.feed import Feed
from stepsight.training.fit import preflight
from stepsight.training.log import LAST, StallMonitor, advice
from stepsight.training.spec import check_reading

WEIGHTS = {"hypersim": 1.0, "sintel": 2.0, "folder": 1.0}
GRIDS = ((20, 28), (28, 20), (24, 24))


@pytest.fixture(scope="module")
def shards(laboratory, tmp_path_factory) -> Path:
    """A folder of sharded sources, each with the splits train and val."""
    root = tmp_path_factory.mktemp("sharded")
    for name in WEIGHTS:
        kind = type(name, (laboratory.Source,), {"name": name})
        for split, length in (("train", 20), ("val", 4)):
            source = kind(length, seed=f"{name} {split}", grids=GRIDS)
            write_shards(source, root / name / split, split=split, per_shard=6)
    return root


def streamed(
    lab, shards: Path, options: dict | None = None, tasks=("depth", "flow"), **changes
) -> RunConfig:
    """A tiny run on the three sources, all streamed."""
    own = {"size": (16, 16), "stream": True, "eval_split": "val", "split": "train"}
    own |= {"crop_scale": 0.7, "jitter": 0.2} if options is None else options
    data = {
        name: settings_for(name, root=str(shards / name), weight=weight, **own)
        for name, weight in WEIGHTS.items()
    }
    return replace(lab.config(tasks, **changes), data=data)


@pytest.fixture
def config_of(lab, shards):
    return partial(streamed, lab, shards)


def weights(run: Path) -> list[str]:
    saved = checkpoint.read(run, prefer="last").path
    files = [saved / name for name in (checkpoint.RAW, checkpoint.BACKBONE)]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def train(config: RunConfig, folder: Path, **more) -> Path:
    return fit.fit(config, name="tiny", run_dir=str(folder), **more)


@pytest.fixture(scope="module")
def alone(laboratory, shards, tmp_path_factory) -> Path:
    """A run of one process that reads for itself, to look at only."""
    return train(streamed(laboratory(), shards), tmp_path_factory.mktemp("runs") / "alone")


def counted(row: dict) -> dict[str, int]:
    return {key: value for key, value in row.items() if key.startswith("counts/")}


def test_workers_change_no_bit_of_training(lab, config_of, alone, tmp_path):
    run = train(config_of(workers=2), tmp_path / "workers")
    assert lab.losses(run) == lab.losses(alone)
    assert weights(run) == weights(alone)
    assert not (run / ".bank").exists()
    rows = lab.rows(alone)
    seen: Counter[str] = Counter()
    mixture_of = lab.losses(alone)
    for row, before in zip(rows, [{}, *map(counted, rows)]):
        new = {key: value - before.get(key, 0) for key, value in counted(row).items()}
        keys = [key for key, value in new.items() if value]  # a batch: one source, all its tasks
        assert [key.split("/")[1] for key in keys] == ["depth", "flow"]
        assert len({key.split("/")[2] for key in keys}) == 1
        assert all(new[key] == 8 and f"loss/{key.split('/')[1]}" in row for key in keys)
        seen.update({key: 8 for key in keys})
    assert counted(rows[-1]) == {key: seen[key] for key in counted(rows[-1])}
    assert len(counted(rows[-1])) == 6 and len(mixture_of) == 8
    assert "images seen: depth on hypersim" in (alone / "train.log").read_text()
    validated = lab.rows(alone, "val")
    assert {row["data"] for row in validated} == {"hypersim"} and validated[0]["n"] == 4


def test_a_streamed_run_continues_where_it_was_killed(lab, config_of, alone, tmp_path, monkeypatch):
    """After five steps, with workers before and none after; the counts go on too."""
    draw = Feed.draw

    def dying(feed, step):
        if step == 5:
            raise KeyboardInterrupt
        return draw(feed, step)

    monkeypatch.setattr(Feed, "draw", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(workers=1, checkpoint_every=8), tmp_path / "halves")
    monkeypatch.undo()
    run = train(config_of(checkpoint_every=8), tmp_path / "halves", resume="auto")
    assert weights(run) == weights(alone) and lab.losses(run) == lab.losses(alone)
    assert [counted(row) for row in lab.rows(run)] == [counted(row) for row in lab.rows(alone)]


def test_a_stream_without_augmentation_is_the_bank(lab, config_of, tmp_path):
    streamed = train(config_of({}, ("depth",), images=32), tmp_path / "streamed")
    banked = train(config_of({"stream": False}, ("depth",), images=32), tmp_path / "banked")
    assert lab.losses(streamed) == lab.losses(banked)


@pytest.mark.slow
def test_buckets_train_at_their_sizes(lab, config_of, tmp_path, monkeypatch):
    shapes = set()
    prepare = DenseObjective.prepare

    def watched(objective, parts, step, rows):
        shapes.update(tuple(part.coded.x.shape[-2:]) for part in parts)
        return prepare(objective, parts, step, rows)

    monkeypatch.setattr(DenseObjective, "prepare", watched)
    config = config_of({"buckets": ("16x24", "24x16")}, ("depth",), images=128, workers=1)
    run = train(config, tmp_path / "run")
    assert shapes == {(16, 24), (24, 16)}
    assert sum(counted(lab.rows(run)[-1]).values()) == 128
    saved = checkpoint.read(run, prefer="last").meta
    square = train(replace(config, data=config_of({}).data), tmp_path / "square")
    ratio = saved["training_flops"] / checkpoint.read(square, prefer="last").meta["training_flops"]
    assert ratio == pytest.approx(16 * 24 / 16**2, rel=0.05)


# ---------------------------------------------------------------------------- refusals


def test_a_bucket_that_does_not_fit_the_network_is_found_first(config_of, tmp_path):
    config = config_of({"buckets": ("16x24", "25x15")}, ("depth",))
    with pytest.raises(UserError, match="working size 25x15 of depth on .*, bucket 25x15"):
        preflight(config, tmp_path / "run")


def test_buckets_of_loose_files_are_sent_to_the_shards(lab, tmp_path):
    config = lab.config(("depth",))
    folder = settings_for("folder", root="/data", stream=True, buckets=("16x24",), size=(16, 16))
    lab.source.name = "folder"
    opened = {"folder": lab.source}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stepsight.training.spec.open_sources", lambda *_: opened)
        with pytest.raises(UserError, match="data shard folder /data .* --data.folder.root FOLDER"):
            preflight(replace(config, data={"folder": folder}), tmp_path)


@pytest.mark.parametrize(
    ("option", "training", "message"),
    [
        ({"crop_scale": 0.5}, {}, "data.folder.crop_scale: .* --data.folder.stream True"),
        ({"jitter": 0.5}, {}, "data.folder.jitter: .* --data.folder.stream True"),
        ({"buckets": ("8x8",)}, {}, "data.folder.buckets: .* --data.folder.stream True"),
        ({"crop_scale": 0.0, "stream": True}, {}, "crop_scale=0.0: above 0"),
        ({"crop_scale": 1.5, "stream": True}, {}, "crop_scale=1.5: above 0, at most 1"),
        ({"jitter": -0.1, "stream": True}, {}, "jitter=-0.1: at least 0"),
        ({"stream": True}, {"latents": "cache"}, "stream .* leave training.latents empty"),
        ({}, {"workers": -1}, "training.workers=-1"),
    ],
)
def test_settings_that_cannot_be_are_refused(lab, option, training, message):
    config = replace(lab.config(**training), data={"folder": settings_for("folder", **option)})
    with pytest.raises(UserError, match=message):
        check_reading(config)


def test_shards_of_another_source_are_refused(shards):
    from stepsight import data

    assert len(data.open("sintel", str(shards / "sintel"), split="val")) == 4
    assert data.open("shards", str(shards / "sintel")).name == "sintel"
    with pytest.raises(UserError, match="hypersim: .* holds shards of sintel. Use --data.sintel"):
        data.open("hypersim", str(shards / "sintel"))


# ---------------------------------------------------------------------------- waiting


@pytest.mark.parametrize(("waited", "said"), [(0.2, None), (0.3, 0.3), (1.0, 1.0)])
def test_the_share_of_waiting_is_known_after_ten_steps(waited, said):
    monitor = StallMonitor()
    first = monitor.step(waited=50.0, spent=60.0)  # not measured
    shares = [first, *(monitor.step(waited, 1.0) for _ in range(30))]
    assert shares[LAST - 1] == (said and pytest.approx(said)) and LAST < 20
    assert not any(share for step, share in enumerate(shares) if step != LAST - 1)


def test_a_run_that_waits_is_told_before_step_20(config_of, tmp_path, monkeypatch):
    """Reading takes a hundred times as long as the rest."""
    import time

    from stepsight.data.sharded.reading import Shards

    read = Shards.read
    monkeypatch.setattr(
        Shards, "read", lambda self, entry: (time.sleep(0.02), read(self, entry))[1]
    )
    run = train(config_of(None, ("depth",), images=8 * 12), tmp_path / "run")
    log = (run / "train.log").read_text().splitlines()
    (told,) = [i for i, line in enumerate(log) if "goes into waiting" in line]
    steps = [line.split()[1] for line in log[:told] if line.startswith("event=train")]
    assert steps[-1] == "step=9"
    assert "of the time goes into waiting for data: raise training.workers (now 0; " in log[told]


def test_the_advice_fits_the_run(lab, config_of):
    kept = advice(lab.config(loss="squared"), 0.4, 8)
    assert kept.startswith("40% of the time") and "training.latents" in kept
    assert "workers" not in kept
    for loss in ("auto", "task"):  # with which a cache would be refused
        assert "latents" not in advice(lab.config(loss=loss), 0.4, 8)
    streamed = advice(config_of({}, workers=2), 0.4, 8)
    assert "raise training.workers (now 2; 8 cores)" in streamed and "stream False" in streamed
    assert "stream False" not in advice(config_of(), 0.4, 8)


# ---------------------------------------------------------------------------- processes


@pytest.mark.slow
def test_two_processes_with_workers_train_as_one(config_of, shards, tmp_path):
    config = config_of({"crop_scale": 0.7, "buckets": ("16x24", "24x16")})
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    found = {}
    for processes, workers in ((1, 0), (2, 2)):
        folder = tmp_path / f"{processes}-{workers}"
        flags = f"--training.processes {processes} --training.workers {workers}".split()
        command = ["train.py", "--config", str(path), "--run-dir", str(folder), *flags]
        unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        own = {key: value for key, value in os.environ.items() if key not in unset}
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=Path(__file__).parents[2],
            env=own | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        found[processes, workers] = [row for row in lines if row["kind"] == "train"]
    one, *others = found.values()
    for other in others:
        assert [row["loss"] for row in other] == pytest.approx([r["loss"] for r in one], abs=1e-6)
        assert [counted(row) for row in other] == [counted(row) for row in one]
