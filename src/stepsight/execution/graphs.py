"""CUDA graphs: work of few rows that comes again and again is recorded, and replayed at once.

Thousands of small kernels take longer to launch than to run. What is recorded must be a function of
tensors on the device that neither copies from the host nor waits for the device; sampling is held
to that by a test. Large batches keep the device busy anyway, and a first call may be an only one:
both are run as they are, and so is all work on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Work = Callable[..., Tensor]

FEW = 16  # rows up to which work is recorded
CALLS = 2  # that are run as they are before, so that all that is made once is made
KNOWN = 1000  # kinds of work whose calls are counted at a time
HELD = 8  # recordings at a time; each has the memory of its intermediate results


@dataclass
class Recording:
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class Graphs:
    """The recordings of a sampler; `key` says all that work depends on besides its tensors."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, int] = {}
        self._held: OrderedDict[Hashable, Recording | None] = OrderedDict()  # None: cannot be

    def clear(self) -> None:
        """Forget all recordings: what they read lies elsewhere now."""
        self._calls.clear()
        self._held.clear()

    def run(self, key: Hashable, rows: Tensor, work: Work, *inputs: Any) -> Tensor:
        """`work(*inputs)`, recorded where that pays: for few `rows` "b ..." on a GPU. Inputs are
        tensors, and lists and dictionaries of them; what else is in them belongs to the key."""
        if rows.device.type != "cuda" or len(rows) > FEW:
            return work(*inputs)
        leaves, spec = tree_flatten(inputs)
        tensors = [one for one in leaves if isinstance(one, Tensor)]
        others = [None if isinstance(one, Tensor) else one for one in leaves]

        def filled(fresh: Sequence[Tensor]) -> Tensor:
            at = iter(fresh)
            every = [next(at) if isinstance(one, Tensor) else one for one in leaves]
            return work(*tree_unflatten(every, spec))

        shapes = tuple((tuple(one.shape), one.dtype, one.stride()) for one in tensors)
        return self._run((key, spec, tuple(others), shapes), filled, tensors)

    def _run(self, key: Hashable, work: Work, inputs: Sequence[Tensor]) -> Tensor:
        if key not in self._held:
            if len(self._calls) > KNOWN:  # of pictures of ever other sizes
                self._calls.clear()
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= CALLS:
                return work(inputs)
            self._held[key] = _recorded(work, inputs)
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        if (recording := self._held[key]) is None:
            return work(inputs)
        for held, fresh in zip(recording.inputs, inputs):
            held.copy_(fresh)
        recording.graph.replay()
        return recording.output.clone()


def _recorded(work: Work, inputs: Sequence[Tensor]) -> Recording | None:
    """A recording; None where something in the work cannot be recorded."""
    own, graph = [one.clone() for one in inputs], torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = work(own)
    except RuntimeError:  # an operation that waits, or memory that is not there
        torch.cuda.synchronize()
        return None
    return Recording(graph, own, output)
