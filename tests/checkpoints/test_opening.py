"""From a checkpoint to a network: as it was built, at once its size in memory, each file read and
verified once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stepsight import checkpoint
from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, STATISTICS, CheckpointError
from stepsight.coding import build_network, saved_network
from stepsight.config import RunConfig, from_dict
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks

MODELS: dict[str, dict[str, Any]] = {
    "split-8": {},
    "DiT-32x2/4": {"qk_norm": True},
    "DiT-32x1/4-4E2A": {},
    "unet-tiny": {},
}


def config_of(name: str, **options: Any) -> RunConfig:
    return from_dict({"model": {"name": name, **options}, "tasks": {"depth": {}, "flow": {}}})


def built(config: RunConfig) -> nn.Module:
    """As training builds it, with weights of its own."""
    torch.manual_seed(0)
    net = build_network(config, build_tasks(config.tasks), Pixels())
    for p in net.parameters():
        p.data.normal_()
    return net


def write(folder: Path, config: RunConfig, weights: dict[str, torch.Tensor]) -> Path:
    raw = {name: value + 1 for name, value in weights.items()}
    tensors = {BACKBONE: weights, RAW: raw, OPTIMIZER: raw, STATISTICS: {"depth": torch.ones(3)}}
    meta = {"sizes": dict.fromkeys(config.tasks, [16, 16])}
    return checkpoint.write(
        folder / "checkpoints", 3, config=config, meta=meta, tensors=tensors, best=True
    )


def opened(path: Path, **how: Any) -> nn.Module:
    saved = checkpoint.read(path, lazy=True)
    return saved_network(saved, build_tasks(saved.config.tasks), Pixels(), **how)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_is_opened_as_it_was_built(name, tmp_path):
    """Values, order in memory and what is trained; also of buffers that are not stored."""
    config = config_of(name, **MODELS[name])
    if name == "unet-tiny":
        config = from_dict({"model": {"name": name}, "tasks": {"depth": {}}})
    before = built(config)
    after = opened(write(tmp_path, config, dict(before.state_dict())))
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        ours, theirs = dict(kind(after)), dict(kind(before))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key
            assert ours[key].stride() == value.stride() and ours[key].dtype == value.dtype, key
            assert ours[key].requires_grad == value.requires_grad, key
    assert before.state_dict().keys() == after.state_dict().keys()


def test_a_network_with_buffers_and_without_is_filled(tmp_path):
    """Those that are stored are read, the others stay as they were built."""

    def make() -> nn.Module:
        net = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))
        net.register_buffer("table", torch.arange(3.0), persistent=False)
        return net

    net = make()
    net(torch.randn(4, 2, 3, 3))
    path = write(tmp_path, config_of("split-8"), dict(net.state_dict()))
    from accelerate import init_empty_weights

    with init_empty_weights():
        other = make()
    checkpoint.read(path).load(other, BACKBONE)
    assert net.state_dict().keys() == other.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    assert torch.equal(other.table, torch.arange(3.0))  # type: ignore[arg-type]


def test_no_weight_is_drawn_before_it_is_read(tmp_path):
    config = config_of("DiT-32x2/4")
    path = write(tmp_path, config, dict(built(config).state_dict()))
    before = torch.get_rng_state()
    opened(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_precision_are_read_in_that_of_the_network(tmp_path):
    config = config_of("split-8")
    weights = {name: value.bfloat16() for name, value in built(config).state_dict().items()}
    path = write(tmp_path, config, weights)
    for name, value in opened(path).state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, weights[name].float())
    lower = opened(path, precision="bf16").state_dict()
    assert {value.dtype for value in lower.values()} == {torch.float32, torch.bfloat16}
    assert all(torch.equal(value.bfloat16(), weights[name]) for name, value in lower.items())


def test_weights_of_another_network_are_refused_with_what_differs(tmp_path):
    config = config_of("split-8")
    weights = dict(built(config).state_dict())
    lost, bent, *_ = weights
    weights[bent] = torch.zeros(1, 2, 3)
    del weights[lost]
    path = write(tmp_path, config, weights | {"extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=f"missing {lost}; unexpected extra; {bent} is"):
        opened(path)


# ---------------------------------------------------------------------------- what is read


@pytest.fixture
def seen(monkeypatch) -> Counter[str]:
    """How often a file, by its path in the checkpoint, was hashed."""
    found: Counter[str] = Counter()
    digest = checkpoint.format.digest  # type: ignore[attr-defined]

    def noted(file: Path) -> str:
        found[file.relative_to(file.parents[1]).as_posix()] += 1
        return digest(file)

    monkeypatch.setattr(checkpoint.format, "digest", noted)  # type: ignore[attr-defined]
    return found


@pytest.fixture
def path(tmp_path) -> Path:
    config = config_of("split-8")
    return write(tmp_path, config, dict(built(config).state_dict()))


SMALL = {f"step-000003/{name}" for name in ("manifest.json", "config.yaml", "stepsight.json")}


@pytest.mark.parametrize(("weights", "file"), [("ema", BACKBONE), ("raw", RAW)])
def test_a_pipeline_hashes_what_it_reads_and_that_once(path, seen, weights, file):
    seen.clear()
    DensePipeline.from_pretrained(path, weights=weights)
    assert seen == dict.fromkeys(SMALL | {file, STATISTICS}, 1)


def test_what_was_verified_to_choose_a_checkpoint_is_not_verified_again(path, seen):
    seen.clear()
    saved = checkpoint.read_best(path.parent.parent)
    pipeline = DensePipeline.from_pretrained(saved)
    assert seen == dict.fromkeys(SMALL | {BACKBONE, STATISTICS}, 1)
    assert pipeline.name == saved.digest() and sum(seen.values()) == 5
    for name, value in saved.tensors(BACKBONE).items():
        assert torch.equal(pipeline.net.state_dict()[name], value)


def test_a_file_that_is_gone_by_the_time_it_is_read_is_a_users_error(path, monkeypatch):
    saved = checkpoint.read(path, lazy=True)
    sound = checkpoint.Checkpoint.sound

    def gone(self: checkpoint.Checkpoint, name: str) -> list[Path]:
        files = sound(self, name)
        (path / name).unlink()  # a training beside has deleted it
        return files

    monkeypatch.setattr(checkpoint.Checkpoint, "sound", gone)
    with pytest.raises(CheckpointError, match=BACKBONE):
        DensePipeline.from_pretrained(saved)


# ---------------------------------------------------------------------------- memory

MEASURED = """
import sys
from pathlib import Path
from stepsight import checkpoint
from stepsight.pipeline.dense import DensePipeline

def memory(which):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024

small, large, precision = sys.argv[1:]
DensePipeline.from_pretrained(small)  # loads all code
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
pipeline = DensePipeline.from_pretrained(large, precision=precision)
print(memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """130 MB of weights."""
    config = config_of("DiT-S/4")
    tasks = build_tasks(config.tasks)
    weights = dict(build_network(config, tasks, Pixels()).state_dict())
    return checkpoint.write(
        tmp_path_factory.mktemp("large"),
        3,
        config=config,
        meta={"sizes": dict.fromkeys(config.tasks, [16, 16])},
        tensors={BACKBONE: weights, STATISTICS: {}},
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peaks")
@pytest.mark.parametrize(
    ("precision", "most"),
    [("float32", 1.25), pytest.param("bf16", 0.75, marks=pytest.mark.slow)],
)
def test_opening_takes_the_memory_of_the_weights_once(large, tmp_path, precision, most):
    """Mapped files count: the largest that the process was resident."""
    config = config_of("DiT-32x2/4")
    small = write(tmp_path, config, dict(built(config).state_dict()))
    command = [sys.executable, "-c", MEASURED, str(small), str(large), precision]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    size = (large / BACKBONE).stat().st_size
    assert size > 100e6 and int(done.stdout) < most * size
