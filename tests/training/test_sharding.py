"""How the work fits in memory: what sharding refuses, and micro-batches that follow from a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepsight.errors import UserError
from stepsight.training import fit as fitting
from stepsight.training.config import TrainingSettings
from stepsight.training.dense.rows import kinds_of
from stepsight.training.feed import micro_batches
from stepsight.training.sharding import check_sharding, filled, is_sharded, skeleton


@pytest.fixture
def four(monkeypatch) -> None:
    """A launcher's environment of four processes on two machines."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")


def kinds(settings: TrainingSettings, world: int = 4) -> list[tuple[bool, ...]]:
    parts = [part for rank in range(world) for part in micro_batches(settings, rank, world)]
    return [kinds_of(settings, rows) for rows in parts]


def test_one_process_has_nobody_to_share_with():
    assert not is_sharded(TrainingSettings(sharding="full"))


def test_micro_batches_that_call_the_network_differently_are_refused(four):
    settings = TrainingSettings(sharding="full", batch=16, micro_batch="1")
    assert is_sharded(settings) and len(set(kinds(settings))) > 1
    with pytest.raises(UserError, match=r"sharding=full: some micro-batches .* larger"):
        check_sharding(settings, kinds(settings))
    check_sharding(TrainingSettings(batch=16, micro_batch="1"), kinds(settings))  # DDP may
    larger = TrainingSettings(sharding="full", batch=32)
    check_sharding(larger, kinds(larger))


def test_machines_of_different_sizes_cannot_be_hybrid(four, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UserError, match="hybrid: 4 processes on machines of 3"):
        check_sharding(TrainingSettings(sharding="hybrid"), [])


def test_sharding_of_the_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="MULTI_GPU .* --training.sharding full"):
        check_sharding(TrainingSettings(), [])


def test_a_skeleton_is_filled_with_weights_and_keeps_its_buffers():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    bones = skeleton(net)
    assert all(p.is_meta for p in bones.parameters())
    whole = filled(bones, dict(net.named_parameters()))
    x = torch.randn(5, 3)
    torch.testing.assert_close(whole(x), net.eval()(x))
    assert not any(p.is_meta or p.requires_grad for p in whole.parameters())
    assert all(p.is_meta for p in bones.parameters())


def gpu(monkeypatch, free: float) -> None:
    monkeypatch.setattr(fitting, "free_memory", lambda: int(free))


def test_the_micro_batch_follows_from_the_memory_of_a_gpu(lab, monkeypatch):
    config = lab.config(("depth",), batch=64, log_every=64)
    sizes = []
    for free in (1.2e6, 2e6, 1e9):
        with monkeypatch.context() as patched:
            gpu(patched, free)
            sizes.append(int(fitting.sized(config, world=1).training.micro_batch))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 64
    assert fitting.sized(config, world=1) is config, "there is no GPU here"


def test_a_number_that_was_given_stays(lab, monkeypatch):
    gpu(monkeypatch, 1e3)
    config = lab.config(("depth",), micro_batch="4")
    assert fitting.sized(config, world=1) is config


def test_what_does_not_fit_at_all_is_refused_with_what_would(lab, monkeypatch):
    gpu(monkeypatch, 1e3)
    with pytest.raises(UserError, match=r"one picture at a time .* --training.recompute block"):
        fitting.sized(lab.config(("depth",)), world=1)


def test_the_end_of_memory_in_a_step_names_the_way_on(lab, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 3 GB\nlong statistics")

    monkeypatch.setattr(fitting, "train", full)
    with pytest.raises(UserError, match=r"out of memory: tried to allocate 3 GB .* --resume auto"):
        lab.fit(lab.config(("depth",)), tmp_path / "run")
