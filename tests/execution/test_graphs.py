"""CUDA graphs, by a stand-in for the device that records what is run and runs it again."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from stepsight.execution import graphs
from stepsight.execution.graphs import CALLS, FEW, HELD, Graphs


class Device(Tensor):
    """A tensor that says it is on a GPU."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


def also(value: float) -> dict[str, list]:
    """Further inputs, not all of them tensors."""
    return {"y": [on_device(value), None]}


def on_device(*values: float) -> Tensor:
    return torch.tensor(values).as_subclass(Device)


@pytest.fixture
def recorded(monkeypatch) -> list[int]:
    """How often graphs were recorded; a replay computes from what the recorded inputs hold then."""
    found: list[int] = []

    class Graph:
        def replay(self) -> None:
            self.output.copy_(self.work(self.inputs))

    @contextmanager
    def recording(graph):
        found.append(1)
        yield

    made = graphs._recorded

    def kept(work, inputs):
        recording = made(work, inputs)
        if recording is not None:
            graph = recording.graph
            graph.work, graph.inputs, graph.output = work, recording.inputs, recording.output
        return recording

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(graphs, "_recorded", kept)
    return found


def test_what_comes_again_is_recorded_once_and_answers_as_before(recorded):
    held = Graphs()
    answers = [
        held.run("k", x := on_device(i), lambda x, more: x * 2 + more["y"][0], x, also(1))
        for i in range(6)
    ]
    assert [answer.item() for answer in answers] == [1, 3, 5, 7, 9, 11]
    assert len(recorded) == 1 and len({answer.data_ptr() for answer in answers[CALLS:]}) == 4


def test_other_work_shapes_and_dtypes_are_recorded_apart(recorded):
    held = Graphs()
    for _ in range(CALLS + 2):
        for key, x in (("a", on_device(1)), ("b", on_device(1)), ("a", on_device(1, 2))):
            held.run(key, x, lambda x: x + 1, x)
    assert len(recorded) == 3


def test_large_batches_and_the_cpu_are_run_as_they_are(recorded):
    held = Graphs()
    for _ in range(CALLS + 3):
        held.run("k", x := on_device(*range(FEW + 1)), lambda x: x + 1, x)
        held.run("k", torch.ones(1), lambda x: x + 1, torch.ones(1))
    assert not recorded


def test_what_cannot_be_recorded_is_run_and_not_tried_again(recorded):
    tried: list[int] = []

    def work(x):
        tried.append(len(recorded))
        if len(recorded) and len(tried) == CALLS + 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x + 1

    held = Graphs()
    for i in range(CALLS + 4):
        assert held.run("k", x := on_device(i), work, x).item() == i + 1
    assert len(recorded) == 1


def test_only_so_many_are_held(recorded):
    held = Graphs()
    for key in range(HELD + 3):
        for _ in range(CALLS + 1):
            held.run(key, x := on_device(1), lambda x: x + 1, x)
    assert len(held._held) == HELD and len(recorded) == HELD + 3
