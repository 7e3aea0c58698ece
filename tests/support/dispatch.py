"""A make-believe accelerator that tells what a real one would be kept waiting by.

Tensors on the device `DEVICE` compute on the CPU, with real numbers, but are told apart from those
of the host: a tensor that crosses over is a copy, and an operation whose answer the host needs
before it can go on (`item`, `nonzero`, a mask as an index) is a synchronisation. So the code that
runs on a GPU is run, line by line, on a machine that has none. What is not seen: a library call
that synchronises within itself, beyond those named in `WAITING`.

    with accelerated():
        net.to(DEVICE)
        with counting() as found:
            step(net)
    assert not found.synchronisations and not found.copies, found
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.optim.optimizer as optimizer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")  # a device whose tensors autograd handles without a driver
HOST = torch.device("cpu")

# Whose answer, or the shape of it, the host waits for.
WAITING = {
    "_local_scalar_dense", "nonzero", "nonzero_static", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "masked_select", "equal", "is_nonzero", "bincount", "repeat_interleave",
    "isin", "linalg_eigh", "_linalg_eigh", "_linalg_svd", "linalg_inv_ex", "linalg_solve_ex",
    "linalg_cholesky_ex", "_linalg_check_errors", "multinomial", "histc", "histogram",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


@dataclass
class Found:
    """What the host waited for, what it sent, and what not every device can hold: "operation at
    file:line", in order."""

    synchronisations: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)  # tensors of float64, which Apple's GPUs lack


class DeviceTensor(Tensor):
    """A tensor of the make-believe accelerator; `numbers` is what it holds."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> DeviceTensor:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=DEVICE,
        )
        made.numbers = numbers
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"DeviceTensor({self.numbers})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Accelerator(TorchDispatchMode):
    """Also makes the tensors that are made of nothing but numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Made(TorchFunctionMode):
    """What torch does with numbers outside of its operations: those of a list are made a tensor of
    the host, which is copied; a tensor is copied, and made a list."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            device = torch.device(kwargs.pop("device", None) or HOST)
            return func(*args, **kwargs).to(device)
        if func is Tensor.new_tensor:
            like, *rest = args
            return torch.tensor(*rest, **{"dtype": like.dtype, **kwargs}).to(like.device)
        if func is Tensor.tolist and isinstance(args[0], DeviceTensor):
            return args[0].to(HOST).tolist()
        return func(*args, **kwargs)


_FOUND: list[Found] = []  # who counts at the moment


@contextmanager
def accelerated() -> Iterator[None]:
    """There is a device `DEVICE` while the block lasts: it has fused optimizers, and computes in
    float32."""
    fused = f"{optimizer.__name__}._get_fused_kernels_supported_devices"
    with (
        patch(fused, lambda: [HOST.type, DEVICE.type]),
        patch("torch.autocast", _autocast),
        _Made(),
        _Accelerator(),
    ):
        yield


def _autocast(kind: str, *args: Any, _real: Any = torch.autocast, **kwargs: Any) -> Any:
    return nullcontext() if kind == DEVICE.type else _real(kind, *args, **kwargs)


@contextmanager
def counting() -> Iterator[Found]:
    """What happens in the block between host and device."""
    _FOUND.append(found := Found())
    try:
        yield found
    finally:
        _FOUND.remove(found)


def on_device(value: Any) -> bool:
    return isinstance(value, DeviceTensor)


def host_of(value: Any) -> Any:
    """The numbers of a device tensor, uncounted."""
    return value.numbers if isinstance(value, DeviceTensor) else value


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    """The answer of an operation, on the device where its tensors are there."""
    every: list[Tensor] = []
    tree_map(lambda one: every.append(one) if isinstance(one, Tensor) else None, (args, kwargs))
    name, there = func.overloadpacket.__name__, any(map(on_device, every))
    to = kwargs.get("device")
    if name in ("copy_", "_to_copy"):
        there = _crossed(name, args, to)
    elif there:
        _check_host_tensors(name, args, every)
    else:
        there = to is not None and torch.device(to).type == DEVICE.type
    if there and (name in WAITING or _masked(name, args)):
        _note("synchronisations", name)
    inside = dict(kwargs)
    if to is not None and torch.device(to).type == DEVICE.type:
        inside["device"] = HOST
    if "pin_memory" in inside:
        inside["pin_memory"] = False
    plain_args, plain_kwargs = tree_map(host_of, (args, inside))
    out = func(*plain_args, **plain_kwargs)
    if not there:
        return out
    out = tree_map(lambda one: _made(one, name) if isinstance(one, Tensor) else one, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _made(numbers: Tensor, name: str) -> DeviceTensor:
    """The answer of an operation, on the device."""
    if numbers.dtype in (torch.float64, torch.complex128):
        _note("doubles", name)
    return DeviceTensor(numbers)


def _crossed(name: str, args: Any, to: Any) -> bool:
    """Whether a copy is on the device when it is made, having noted one that crosses over."""
    if name == "copy_":
        target, source = on_device(args[0]), on_device(args[1])
    else:
        source = on_device(args[0])
        target = source if to is None else torch.device(to).type == DEVICE.type
    if target and not source:
        _note("copies", name)
    if source and not target:
        _note("synchronisations", f"{name} to the host")
    return target


def _check_host_tensors(name: str, args: Any, every: list[Tensor]) -> None:
    """Tensors of the host among those of the device: numbers are passed along, indices are copied,
    and nothing else is taken."""
    strangers = [one for one in every if not on_device(one) and one.ndim]
    if not strangers:
        return
    if name not in INDEXING:
        raise RuntimeError(f"{name}: tensors on the host and on the device, at {_where()}")
    _note("copies", f"{name} by an index of the host")


def _masked(name: str, args: Any) -> bool:
    """Whether an index is a mask, whose places are looked for first."""
    if name not in INDEXING:
        return False
    kinds = (torch.bool, torch.uint8)
    return any(isinstance(one, Tensor) and one.dtype in kinds for one in args[1])


def _note(what: str, name: str) -> None:
    for found in _FOUND:
        getattr(found, what).append(f"{name} at {_where()}")


def _where() -> str:
    """The innermost line of the package, or else of whoever is no library."""
    frames = [one for one in traceback.extract_stack() if one.filename != __file__]
    ours = [one for one in frames if "/stepsight/" in one.filename]
    others = [one for one in frames if "site-packages" not in one.filename]
    last = (ours or others or frames)[-1]
    return f"{last.filename}:{last.lineno} ({last.line})"
