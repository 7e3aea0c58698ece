"""Tensors spread over processes: each writes its own part, and any number of them reads.

A part is a safetensors file with the offsets of what it holds in the form of
`torch.distributed.checkpoint` (`DCP_SHARDING_INFO`), whose `HuggingFaceStorageReader` puts together
what any other number of processes wants. Nothing is pickled.

Whole tensors are read one at a time into memory of their own. They are not mapped: pages of a
mapped file count as memory once they were read, and a file that another machine deletes would take
its tensors along.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stepsight.checkpoint.format import SHARD, CheckpointError, shard_name

OFFSETS = "DCP_SHARDING_INFO"
Shapes = dict[str, tuple[int, ...]]


@dataclass
class _Stored:
    """A tensor as the files have it: its whole shape, and where its pieces begin and how far they
    reach."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def add(self, start: Sequence[int], size: Sequence[int]) -> None:
        ends = [first + length for first, length in zip(start, size)]
        self.shape = tuple(map(max, self.shape, ends)) if self.pieces else tuple(ends)
        self.pieces.append((tuple(start), tuple(size)))

    def covered(self) -> bool:
        """Whether the pieces fill the shape, each place once."""
        pieces = [piece for piece in self.pieces if math.prod(piece[1])]
        pairs = ((a, b) for n, a in enumerate(pieces) for b in pieces[:n])
        filled = sum(math.prod(size) for _, size in pieces)
        return filled == math.prod(self.shape) and not any(_overlap(*pair) for pair in pairs)


def _overlap(one: tuple[Sequence[int], ...], other: tuple[Sequence[int], ...]) -> bool:
    sides = zip(*one, *other)
    return all(a < c + d and c < a + b for a, b, c, d in sides)


def spread(values: Mapping[str, Tensor]) -> bool:
    """Whether any of the tensors is distributed."""
    return any(hasattr(value, "device_mesh") for value in values.values())


def own_part(
    values: Mapping[str, Tensor], first: bool, room: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Copies on the CPU of what this process has to write, and the offsets of them.

    first: whether this process writes what all of them have: tensors that are not distributed. Of
    the copies of a distributed one the first writes; shards without elements are left out.
    room: see `copied`.
    """
    part, offsets = {}, {}
    for name, value in values.items():
        start: Iterable[int] = [0] * value.ndim
        local: Any = value
        if hasattr(value, "device_mesh"):
            if not _writes(value):
                continue
            local, chunks = value.to_local(), value.__create_chunk_list__()  # type: ignore[attr-defined]
            start = chunks[0].offsets if chunks else start
            if not local.numel() and (value.numel() or any(start)):
                continue
        elif not first:
            continue
        part[name] = copied(local, room.get(name))
        offsets[name] = list(start)
    return part, offsets


def _writes(value: Any) -> bool:
    """Whether this process is the first of those with the same shard of a distributed tensor."""
    place = value.device_mesh.get_coordinate()
    if place is None:
        return False
    assert not any(how.is_partial() for how in value.placements), "a sum that is not summed up"
    return not any(at for at, how in zip(place, value.placements) if not how.is_shard())


def copied(value: Tensor, room: Tensor | None) -> Tensor:
    """A copy on the CPU, whole if the tensor is distributed over one process, and contiguous.

    room: memory that is free to be taken, if it is of the right shape.
    """
    local = value.to_local() if hasattr(value, "device_mesh") else value  # type: ignore[attr-defined]
    if room is None or (room.shape, room.dtype) != (local.shape, local.dtype):
        room = torch.empty(local.shape, dtype=local.dtype)
    return room.copy_(local.detach())


def heading(offsets: Mapping[str, list[int]]) -> dict[str, str]:
    """The metadata of a part."""
    places = {name: {"saved_offsets": start} for name, start in sorted(offsets.items())}
    return {"format": "pt", OFFSETS: json.dumps(places), "DCP_VERSION": "1.0"}


def stored(path: Path) -> list[Path]:
    """The files that hold the tensors of file `path` of a checkpoint: itself, its shards, or none.

    Raises CheckpointError if a shard is missing.
    """
    if path.exists():
        return [path]
    found = sorted(one for one in path.parent.glob("shard-*") if SHARD.fullmatch(one.name))
    wanted = [path.with_name(shard_name(path.name, i, len(found))) for i in range(len(found))]
    if found != wanted:
        raise CheckpointError(f"{path.parent} holds {len(found)} shards, and not all of them.")
    return found


def shapes(files: Sequence[Path]) -> Shapes:
    """The tensors of one file, or of all its shards, by their headings.

    Raises CheckpointError for a file that cannot be read, or pieces that do not fill a tensor.
    """
    return {name: one.shape for name, one in _index(files).items()}


def _index(files: Sequence[Path]) -> dict[str, _Stored]:
    from safetensors.torch import _getdtype

    found: dict[str, _Stored] = {}
    for file in files:
        with _opened(file) as opened:
            for name, start, size in _pieces(opened):
                dtype = _getdtype(opened.get_slice(name).get_dtype())
                sound = len(start) == len(size) and all(type(at) is int and at >= 0 for at in start)
                one = found.setdefault(name, _Stored(dtype, tuple(size)))
                if not sound or one.dtype != dtype or len(one.shape) != len(size):
                    raise ValueError(f"the piece of {name} does not fit the others")
                one.add(start, size)
    for name, one in found.items():
        if not one.covered():
            raise CheckpointError(f"{files[0].parent}: the pieces of {name} do not make it whole.")
    return found


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", backend="pread") as opened:
            yield opened
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file: {error}") from None


def _pieces(opened: Any) -> Iterator[tuple[str, list[int], list[int]]]:
    """Of every tensor in a file: its name, where in the whole one it begins, and its size."""
    said = (opened.metadata() or {}).get(OFFSETS)
    places = None if said is None else json.loads(said)
    for name in opened.keys():
        size = opened.get_slice(name).get_shape()
        yield name, [0] * len(size) if places is None else places[name]["saved_offsets"], size


def load_into(state: Mapping[str, Tensor], path: Path) -> None:
    """Fill tensors, distributed or not, with those of file `path` of a checkpoint, such as
    `saved.path / RAW`, in one file or in shards; each process reads only what it needs.

    Names and shapes are those of the file exactly, or it is a CheckpointError that lists what
    differs. Digests are not looked at: `Checkpoint.verify` does that.
    """
    files = stored(path)
    if not files:
        raise CheckpointError(f"{path} is missing: this checkpoint does not hold it.")
    fill(state, files, path)


def fill(state: Mapping[str, Tensor], files: Sequence[Path], where: Path) -> None:
    """`load_into` for the tensors of these files, which are called `where`."""
    differing(shapes(files), state, where)
    (_reshard if spread(state) else _copy)(state, files)


def differing(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Tensor], where: Any) -> None:
    """Raise CheckpointError, listing what differs, unless `found` are the shapes of `wanted`."""
    wrong = [f"missing {name}" for name in wanted if name not in found]
    wrong += [f"unexpected {name}" for name in found if name not in wanted]
    wrong += [
        f"{name} is {tuple(found[name])}, the model has {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in found and tuple(found[name]) != tuple(value.shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 12} more" if len(wrong) > 12 else ""
        listing = "; ".join(wrong[:12])
        raise CheckpointError(
            f"{where} holds another model: {listing}{more}. "
            f"Use the model, tasks and diffusion settings it was trained with."
        )


def assembled(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of one file, or of all its shards, whole."""
    index = _index(files)
    state = {name: torch.empty(one.shape, dtype=one.dtype) for name, one in index.items()}
    _copy(state, files)
    return state


def _copy(state: Mapping[str, Tensor], files: Sequence[Path]) -> None:
    for file in files:
        with _opened(file) as opened:
            for name, start, size in _pieces(opened):
                place = tuple(slice(at, at + length) for at, length in zip(start, size))
                state[name][place].copy_(opened.get_tensor(name))


def _reshard(state: Mapping[str, Tensor], files: Sequence[Path]) -> None:
    from torch.distributed.checkpoint import state_dict_loader as loader
    from torch.distributed.checkpoint.filesystem import FileSystem
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    class Listed(FileSystem):
        """Of the files in a folder those that belong to the checkpoint."""

        def ls(self, path: Any) -> list[str]:
            return [str(file) for file in files]

    reader = HuggingFaceStorageReader(str(files[0].parent))
    reader.fs = Listed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is coordinated: nothing has to be
        loader.load(dict(state), storage_reader=reader, no_dist=True)
