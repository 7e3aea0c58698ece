"""How the processes of a run share a network: whole copies of it (DDP), or a part each (FSDP2).

FSDP2 keeps weights, gradients, averages and optimizer state in parts, one per process, and gathers
the weights of a block while it computes. What is computed is the same: the sum over the global
batch, to rounding.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from copy import deepcopy

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from stepsight import distributed
from stepsight.errors import UserError
from stepsight.execution.precision import DTYPES
from stepsight.models.factory import repeated_blocks
from stepsight.training.config import TrainingSettings


def is_sharded(settings: TrainingSettings) -> bool:
    """Whether a process holds a part of the weights only. One process has nobody to share with."""
    return settings.sharding != "none" and distributed.world() > 1


def make_accelerator(static: bool) -> Accelerator:
    """Processes and device; precision is the learner's affair. static: all parameters that are ever
    used are used in every step, so that none has to be looked for."""
    AcceleratorState._reset_state()  # the last run of this process may have had another device
    # Of a channels-last 1 x 1 kernel, whose two strides over a single pixel mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ddp = DistributedDataParallelKwargs(
        find_unused_parameters=not static, static_graph=static, gradient_as_bucket_view=True
    )
    cpu = not torch.cuda.is_available()
    return Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[ddp])


def shared(
    errors: nn.Module, accelerator: Accelerator, settings: TrainingSettings, precision: str
) -> nn.Module:
    """The module of a run's errors as its processes call it. precision: what blocks are gathered
    in, when they are sharded."""
    if is_sharded(settings):
        for p in errors.parameters():  # channels-last kernels cannot be cut by fully_shard
            p.data = p.data.contiguous()
        mesh = _mesh(settings.sharding, accelerator.device.type)
        low = MixedPrecisionPolicy(
            param_dtype=DTYPES[precision], reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        for block in repeated_blocks(errors):
            fully_shard(block, mesh=mesh, mp_policy=low, reshard_after_forward=True)
        fully_shard(errors, mesh=mesh)  # embeddings and outputs stay in float32
        return errors
    return accelerator.prepare_model(errors)


def _mesh(sharding: str, device: str) -> DeviceMesh:
    """All processes, in a row; hybrid: copies over machines, shards within."""
    world, local = distributed.world(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if sharding == "full":
        return init_device_mesh(device, (world,))
    names = ("copies", "shards")
    return init_device_mesh(device, (world // local, local), mesh_dim_names=names)


def check_sharding(settings: TrainingSettings, kinds: Iterable[tuple[bool, ...]]) -> None:
    """Raise UserError where processes would call the network a different number of times: blocks
    are gathered by all of them together. kinds: which kinds of rows each micro-batch has."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world()))
    if settings.sharding == "hybrid" and distributed.world() % local:
        raise UserError(
            f"training.sharding=hybrid: {distributed.world()} processes on machines of {local}. "
            "Start as many on each machine, or use full."
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise UserError(
            "accelerate is configured for FSDP, which training.sharding does here. Set "
            "distributed_type to MULTI_GPU in its file, and --training.sharding full."
        )
    if is_sharded(settings) and len(set(kinds)) > 1:
        raise UserError(
            f"training.sharding={settings.sharding}: some micro-batches have starts, rollouts or "
            "denoised rows and others have none of them, but all processes have to call the "
            "network alike. Use a larger training.micro_batch or training.batch."
        )


def local(values: Iterable[Tensor]) -> list[Tensor]:
    """This process's parts."""
    return [value.to_local() if isinstance(value, DTensor) else value for value in values]


def full(value: Tensor) -> Tensor:
    """The whole of a tensor, in every process: all of them have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(whole: Tensor, part: Tensor) -> Tensor:
    """`whole`, cut as `part` is."""
    if not isinstance(part, DTensor):
        return whole
    from torch.distributed.tensor import distribute_tensor

    # All processes hold the same whole, so that nobody has to send it.
    return distribute_tensor(whole, part.device_mesh, part.placements, src_data_rank=None)


def skeleton(net: nn.Module) -> nn.Module:
    """A copy of a network whose parameters take no memory; its buffers are there."""
    copy = deepcopy(net)
    for module in copy.modules():
        for name, p in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(p.to("meta"), requires_grad=False))
    return copy


def filled(bones: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A `skeleton` with whole parameters of these, gathered one after the other."""
    net = deepcopy(bones)
    for name, value in values.items():
        owner, _, last = name.rpartition(".")
        whole = nn.Parameter(full(value).clone(), requires_grad=False)
        setattr(net.get_submodule(owner), last, whole)
    return net.eval()
