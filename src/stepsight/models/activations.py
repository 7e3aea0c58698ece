"""What a forward pass keeps for its backward pass, found without memory and without the device.

The network is built anew on tensors that have shapes alone (`FakeTensorMode`), of the device that
is meant: autocast and attention do there what they do on it. Attention is counted as the kernels
that keep no n x n matrix have it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

Storages = dict[int, Tensor]  # tensors by their storage, which keeps its number while they live


@dataclass(frozen=True)
class Activations:
    """Bytes that a forward pass keeps, each storage counted once. `casts` are copies of weights in
    the precision of autocast, and in none of the others."""

    none: int  # all of them
    block: int  # where blocks are computed again: their inputs, and what lies outside of them
    selective: int  # and the results of costly operations
    largest_block: int  # of one block, beyond its inputs
    largest_block_selective: int  # beyond what "selective" keeps
    widest: int  # of the largest tensor
    casts: int

    def kept(self, mode: str) -> int:
        """From the forward pass, under a way of `training.recompute`."""
        return getattr(self, mode)

    def again(self, mode: str) -> int:
        """Of the one block that is computed again."""
        rest = {"block": self.largest_block, "selective": self.largest_block_selective}
        return rest.get(mode, 0)


def activation_bytes(factory: Callable[[], nn.Module], example: tuple[Any, ...]) -> int:
    """Bytes that one forward pass in float32 keeps for its backward pass."""
    return activations(factory, example, lambda net: []).none


def activations(
    factory: Callable[[], nn.Module],
    example: tuple[Any, ...],
    blocks: Callable[[nn.Module], Sequence[nn.Module]],
    costly: Collection[Any] = (),
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Activations:
    """Of a network that `factory` builds, given `example` (tensors of any device, or None).

    blocks: the parts that may be computed again. costly: operations whose results "selective"
    keeps. dtype: what autocast computes in; None for none.
    """
    with torch.device("meta"):
        net = factory().train()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(device):
        for module in net.modules():
            module._parameters.update(_like(module._parameters, device))
            module._buffers.update(_like(module._buffers, device))
        inputs = tree_map_only(Tensor, lambda one: torch.empty_like(one, device=device), example)
        seen = _Seen(net, blocks(net), costly)
        with seen.watching(), _autocast(device, dtype):
            out = net(*inputs)  # noqa: F841  keeps storages alive, so that none counts twice
    return seen.summed()


def _like(found: dict[str, Any], device: str) -> dict[str, Any]:
    """Parameters or buffers of a module, on another device."""
    made = {}
    for name, one in found.items():
        if one is not None:
            made[name] = torch.empty_like(one, device=device)
            if isinstance(one, nn.Parameter):
                made[name] = nn.Parameter(made[name], one.requires_grad)
    return made


class _Seen:
    """Saved tensors by where they were saved."""

    def __init__(
        self, net: nn.Module, blocks: Sequence[nn.Module], costly: Collection[Any]
    ) -> None:
        self.costly = set(costly)
        self.weights = _storages(list(net.parameters()))
        self.outside, self.given, self.casts = Storages(), Storages(), Storages()
        self.blocks = {id(block): Storages() for block in blocks}
        self.results = {id(block): Storages() for block in blocks}
        self.inside: list[int] = []  # blocks that are running, the outermost first
        for block in blocks:
            block.register_forward_pre_hook(self._enter, with_kwargs=True)
            block.register_forward_hook(self._leave)

    def _enter(self, block: nn.Module, args: Any, more: Any) -> None:
        self.inside.append(id(block))
        self.given.update(_storages(tree_leaves((args, more))))

    def _leave(self, *_: Any) -> None:
        self.inside.pop()

    @contextmanager
    def watching(self) -> Iterator[None]:
        with (
            torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor),
            _Flash(),
            _Results(self),
        ):
            yield

    def _save(self, tensor: Tensor) -> Tensor:
        where = self.blocks[self.inside[0]] if self.inside else self.outside
        where.update(_storages([tensor]))
        return tensor

    def summed(self) -> Activations:
        known = self.weights.keys() | self.casts.keys()
        whole, kept = self.outside | _all(self.blocks), self.outside | self.given
        products = kept | _all(self.results)
        alone = [_bytes(part, known | kept.keys()) for part in self.blocks.values()]
        rest = [
            _bytes(part, known | products.keys())
            - _bytes(self.results[number], known | part.keys() | kept.keys())
            for number, part in self.blocks.items()
        ]  # results that the block's own backward pass does not need go as it is computed again
        widest = max((_size(one) for key, one in whole.items() if key not in known), default=0)
        return Activations(
            none=_bytes(whole, known),
            block=_bytes(kept, known),
            selective=_bytes(products, known),
            largest_block=max(alone, default=0),
            largest_block_selective=max([0, *rest]),
            widest=widest,
            casts=_bytes(self.casts, ()),
        )


class _Results(TorchDispatchMode):
    """Notes the results of costly operations in blocks, and the weights that autocast copies."""

    def __init__(self, seen: _Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self.seen.weights:
            self.seen.casts.update(_storages([out]))
        if func in self.seen.costly and self.seen.inside:
            self.seen.results[self.seen.inside[0]].update(_storages(tree_leaves(out)))
        return out


class _Flash(TorchFunctionMode):
    """Attention by the kernel that GPUs and CPUs have for it. Without a device torch would take the
    one that keeps every weight."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        more = kwargs or {}
        if func is F.scaled_dot_product_attention and more.get("attn_mask") is None:
            return _attention(*args[:3])
        return func(*args, **more)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    kind = q.device.type
    if torch.is_autocast_enabled(kind):
        q, k, v = (one.to(torch.get_autocast_dtype(kind)) for one in (q, k, v))
    if kind == "cuda":
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


@contextmanager
def _autocast(device: str, dtype: torch.dtype | None) -> Iterator[None]:
    """Autocast as `torch.autocast` has it, which asks for the device to be there."""
    if dtype is None:
        yield
        return
    before = torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, False)
        torch.set_autocast_dtype(device, before)
        torch.clear_autocast_cache()


def _all(parts: dict[int, Storages]) -> Storages:
    return {key: one for part in parts.values() for key, one in part.items()}


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _storages(values: Sequence[Any]) -> Storages:
    return {_key(one): one for one in values if isinstance(one, Tensor)}


def _size(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _bytes(found: Storages, known: Collection[int]) -> int:
    return sum(_size(one) for key, one in found.items() if key not in known)
