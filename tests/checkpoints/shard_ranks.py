"""Processes that save distributed tensors and read what others saved. Not a test itself.

Started by `test_shards.py` as `shard_ranks.py FOLDER`: forks the processes of every kind of run in
`RUNS`; each run saves its own checkpoint, then reads those of all runs, and its first process
writes the hashes of what it read to FOLDER/<run>.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.hf_storage  # what would be loaded by each
import torch.distributed.checkpoint.state_dict_loader
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from stepsight.checkpoint import BACKBONE, OPTIMIZER, RAW, Snapshot, load_into, mark, read
from stepsight.config import from_dict

CONFIG = from_dict({})
RUNS = {"one": 1, "two": 2, "four": 4, "hybrid": 4}  # processes


def whole() -> dict[str, Tensor]:
    """Tensors that four processes share evenly, unevenly, with nothing left for some, and those
    that cannot be shared."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"even": (8, 3), "uneven": (7, 2, 3), "few": (2, 5), "one": (1,), "none": (0, 4)}
    found = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    found["half"] = torch.randn(5, 3, generator=draw).to(torch.bfloat16)
    found["count"] = torch.arange(6).reshape(3, 2)
    return found | {"step": torch.tensor(3.0)}


def distributed_ones(run: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same, spread over the processes of this run; the last one is not."""
    if run == "one":
        return values
    if run == "hybrid":
        mesh, places = init_device_mesh("cpu", (2, 2)), [Replicate(), Shard(0)]
    else:
        mesh, places = init_device_mesh("cpu", (RUNS[run],)), [Shard(0)]
    copies = [Replicate()] * mesh.ndim
    return {
        name: distribute_tensor(value, mesh, copies if name == "count" else places)
        if value.ndim
        else value
        for name, value in values.items()
    }


def trained(run: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network after a step, sharded by FSDP2 where there are processes for it, and the state of
    its optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    if run != "one":
        shape = (2, 2) if run == "hybrid" else (RUNS[run],)
        names = ("copies", "shards")[-len(shape) :]
        fully_shard(net, mesh=init_device_mesh("cpu", shape, mesh_dim_names=names))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    states = optimizer.state_dict()["state"]
    return net, {f"{i}.{slot}": value for i, one in states.items() for slot, value in one.items()}


def hashed(values: dict[str, Tensor]) -> str:
    full = [v.full_tensor() if isinstance(v, DTensor) else v for v in values.values()]
    raw = [
        value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() for value in full
    ]
    return hashlib.sha256(b"".join(raw)).hexdigest()


def work(folder: Path, run: str, rank: int) -> None:
    world = RUNS[run]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    if world > 1:
        store = f"file://{folder}/{run}.store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    net, state = trained(run)
    tensors = {
        BACKBONE: distributed_ones(run, whole()),
        RAW: dict(net.state_dict()),
        OPTIMIZER: state,
    }
    facts = {"config": CONFIG, "meta": {}, "tensors": tensors, "part": (rank, world)}
    before = Snapshot.of(folder / run, 2, **facts)
    room = {file: values for file, (values, _) in before.files.items()}
    for values in room.values():
        for value in values.values():
            value.zero_()
    snapshot = Snapshot.of(folder / run, 3, **facts, room=room)
    assert all(
        value is room[file][name]
        for file, (values, _) in snapshot.files.items()
        for name, value in values.items()
    )
    for values in tensors.values():  # what was taken is not what is there now
        for value in values.values():
            (value.to_local() if isinstance(value, DTensor) else value).zero_()
    if (path := snapshot.commit(patience=60)) is not None:
        mark(folder / run, "last", path.name)
    found: dict[str, dict[str, str]] = {}
    until = time.monotonic() + 60
    for other in RUNS:
        while not (folder / other / "last.txt").exists():
            assert time.monotonic() < until, f"{other} was not saved"
            time.sleep(0.02)
        for name, values in tensors.items():
            load_into(values, folder / other / "step-000003" / name)
            found.setdefault(other, {})[name] = hashed(values)
    if rank == 0:
        saved = read(folder / run)
        found["assembled"] = {
            name: hashed({key: saved.tensors(name)[key] for key in values})
            for name, values in tensors.items()
        }
        (folder / f"{run}.json").write_text(json.dumps(found))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained("one")  # what this imports, all have
    children = []
    for run, world in RUNS.items():
        for rank in range(world):
            if not (pid := os.fork()):
                try:
                    work(Path(sys.argv[1]), run, rank)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            children.append(pid)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.exit(int(any(statuses)))
