"""Memory that runs out: fewer rows at a time and the same numbers, whoever asked for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.evaluation.evaluator import score
from stepsight.evaluation.predictors import Model
from stepsight.metrics.protocol import default_for
from stepsight.pipeline.memory import Exhausted, RowLimits, fitting
from stepsight.training.dense.validation import validation_loss

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
FULL_CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")


class Device:
    """What a network runs on: it holds so many rows, and fails as told on its first calls."""

    def __init__(self, net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: Iterator[Exception | None] = iter(())
        self.capacity, self.largest, self.refused = 10**6, 0, 0
        forward, encode = net.forward, net.encode
        monkeypatch.setattr(
            net, "forward", lambda x, *rest, **more: self.run(forward, x, rest, more)
        )
        monkeypatch.setattr(net, "encode", lambda x, *rest, **more: self.run(encode, x, rest, more))

    def run(self, call: Callable[..., Any], x: Any, rest: Any, more: Any) -> Any:
        error = next(self.failures, None)
        if error is None and len(x) > self.capacity:
            error = FULL
        if error is not None:
            self.refused += 1
            raise error
        self.largest = max(self.largest, len(x))
        return call(x, *rest, **more)


@pytest.fixture
def devices(monkeypatch) -> Callable[[Any], Device]:
    return lambda pipeline: Device(pipeline.net, monkeypatch)


@pytest.mark.parametrize("error", [FULL, FULL_CPU, torch.OutOfMemoryError()])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_the_first_calls_fail_and_the_numbers_stay(lab, devices, capsys, error, calls):
    pipeline, batch = lab.pipeline(), collate(lab.held.samples(range(5)))
    options: Any = {"nfe": 2, "members": 3, "chunk_size": 8}
    whole = pipeline.sample(batch, "depth", **options)
    device = devices(pipeline)
    device.failures = iter([error] * calls)
    found = pipeline.sample(batch, "depth", **options)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
    assert device.refused == calls and device.largest <= 8 // 2**calls
    assert capsys.readouterr().err.count("memory ran out") == 1
    pipeline.sampling(temperature=1.0).sample(batch, "depth", **options)
    assert device.refused == calls, "what fits is known by now"


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("views", ["none", "mirror"])
def test_a_small_device_gives_the_scores_of_a_large_one(lab, devices, capacity, views):
    pipeline = lab.pipeline().sampling(views=views)
    model = Model(pipeline, "flow", [1, 2], [1, 4] if views == "none" else [1], "ddim", keep=True)
    rules, images = [default_for("flow")], range(len(lab.held))
    (whole,) = score(model, lab.held, rules, images)
    device = devices(pipeline)
    device.capacity = capacity
    (found,) = score(model, lab.held, rules, images)
    assert device.refused and device.largest <= capacity
    for setting, rows in whole.settings.items():
        for name, value in rows.items():
            torch.testing.assert_close(
                found.settings[setting][name], value, rtol=1e-5, atol=1e-5, equal_nan=True
            )


def test_validation_losses_too(lab, devices):
    pipeline = lab.pipeline()
    whole, bins = validation_loss(pipeline, "semantic", lab.held)
    devices(pipeline).capacity = 1
    found, others = validation_loss(pipeline, "semantic", lab.held)
    assert (found, *others) == pytest.approx((whole, *bins), rel=1e-6, nan_ok=True)


def test_other_errors_pass_through(lab, devices):
    pipeline, batch = lab.pipeline(), collate(lab.held.samples(range(2)))
    device = devices(pipeline)
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("odd")):
        device.failures = iter([error])
        with pytest.raises(type(error), match=str(error)):
            pipeline.sample(batch, "depth", nfe=1, members=1)


def test_a_picture_that_does_not_fit_alone_is_named(lab, devices):
    pipeline = lab.pipeline()
    devices(pipeline).capacity = 0
    with pytest.raises(Exhausted, match="one picture of depth at 16 x 16 pixels fits .*2.00 GiB"):
        pipeline.predict(collate(lab.held.samples(range(3))), "depth", nfe=1, members=2)


def test_what_did_not_fit_is_not_timed(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("stepsight.pipeline.memory.time.perf_counter", lambda: float(next(clock)))
    memory, tried = RowLimits(say=lambda text: None), []

    def work(items: range, rows: int) -> range:
        tried.append((items, rows))
        if rows > 2:
            raise FULL
        return items

    assert memory.in_parts("small", 5, 8, work) == [range(2), range(2, 4), range(4, 5)]
    assert tried[:2] == [(range(5), 8), (range(4), 4)] and memory.lost == 2
    assert memory.in_parts("large", 5, 2, work) == [range(5)], "what fits is known by what it is"


def test_a_picture_that_is_too_large_before_it_reaches_the_network_is_told():
    for full in (FULL, FULL_CPU):
        with pytest.raises(Exhausted, match="not even one picture of this size"), fitting():
            raise full
    with pytest.raises(RuntimeError, match="^otherwise$"), fitting():
        raise RuntimeError("otherwise")
