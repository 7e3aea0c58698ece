"""Opening a checkpoint, with what a pipeline does and plainly, and how much memory that takes:

    python -m stepsight.bench.opening ours|plain MODEL PATH

in a process of its own, since memory that was once used is not given back. Linux only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from stepsight.coding import build_network
from stepsight.config import RunConfig, from_dict
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.tasks.table import build_tasks

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def config_of(model: str) -> RunConfig:
    """A run on depth."""
    return from_dict({"model": {"name": model}, "tasks": {"depth": {}}, "data": {"scenes": {}}})


def network(config: RunConfig) -> nn.Module:
    return build_network(config, build_tasks(config.tasks), Pixels())


def opened(run: Path) -> nn.Module:
    """The network of a run's pipeline."""
    return touched(DensePipeline.from_pretrained(run, "cpu", "float32").net)


def opened_plainly(config: RunConfig, path: Path) -> nn.Module:
    """A network that had no memory, given the tensors of a file."""
    with torch.device("meta"):
        net = network(config)
    net.load_state_dict(load_file(path), assign=True)
    return touched(net)


@torch.no_grad()
def touched(net: nn.Module) -> nn.Module:
    """The network, all of whose weights were read: a mapped file is read no earlier."""
    sum(float(p.sum()) for p in net.parameters())
    return net


def resident(most: bool = False) -> int:
    """Bytes of this process in memory: now, or the most since `forget`."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * int(lines["VmHWM" if most else "VmRSS"].split()[0])


def forget() -> None:
    """Let the most begin anew."""
    CLEAR.write_text("5")


def main(how: str, model: str, path: Path) -> None:
    config = config_of(model)
    network(config_of("DiT-32x2/2"))  # loads what is loaded once
    before = resident()
    forget()
    net = opened(path) if how == "ours" else opened_plainly(config, path)
    print(resident(most=True) - before, sum(p.numel() for p in net.parameters()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
