"""Device, dtype, size, and arguments by the names that other libraries have for them."""

from __future__ import annotations

import pytest
import torch

from stepsight.errors import UserError
from stepsight.execution import precision
from stepsight.pipeline.calling import device_of, precision_of


@pytest.mark.parametrize(
    ("size", "grid", "seen"),
    [(64, (48, 64), (48, 64)), (128, (30, 50), (80, 128)), (61, (50, 20), (64, 24))],
)
def test_the_longer_side_is_seen_at_the_size_asked_for(size, grid, seen, pipeline, picture):
    shapes = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    try:
        found = pipeline(picture(*grid), "depth", size=size, nfe=1)
    finally:
        hook.remove()
    assert shapes[0][-2:] == seen and found.x.shape[-2:] == seen
    assert found.values.shape[-2:] == grid
    assert pipeline(picture(*grid), "depth", nfe=1).x.shape[-2:] != seen


def test_a_size_that_is_none_and_one_beside_a_budget(pipeline, picture):
    with pytest.raises(UserError, match="size 0: give the pixels of the longer side"):
        pipeline(picture(9, 9), "depth", size=0)
    for size in ("a", (32, 32), -1):
        with pytest.raises(UserError, match="give the pixels of the longer side"):
            pipeline(picture(9, 9), "depth", size=size)
    with pytest.raises(UserError, match="leave out size"):
        pipeline(picture(9, 9), "depth", size=64, budget="4nfe")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("num_inference_steps", "called nfe here"),
        ("ensemble_size", "called members here"),
        ("processing_resolution", "called size here"),
        ("generator", "called seed here"),
        ("membrs", "Did you mean 'members'"),
    ],
)
def test_arguments_of_others_are_told_what_they_are_called_here(name, own, pipeline, picture):
    for kind in (UserError, TypeError):  # the second as any unknown keyword
        with pytest.raises(kind, match=f"no argument '{name}'.*{own}"):
            pipeline(picture(9, 9), "depth", **{name: 4})


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bfloat16", "bf16"),
        (torch.bfloat16, "bf16"),
        (torch.float16, "fp16"),
        ("float16", "fp16"),
        ("float32", "float32"),
        (torch.float32, "float32"),
        (None, "auto"),
    ],
)
def test_dtypes_are_precisions(dtype, expected):
    assert precision_of(dtype) == expected


def test_dtypes_that_cannot_be():
    with pytest.raises(UserError, match="dtype float64 is none to compute in"):
        precision_of(torch.float64)
    with pytest.raises(UserError, match="'bfloat16'"):
        precision_of("bflaot16")
    with pytest.raises(UserError, match="bfloat16 and precision float32 contradict"):
        precision_of("bfloat16", "float32")
    assert precision_of("bfloat16", "bf16") == "bf16"


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_device_is_chosen(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert precision.best_device() == expected
    assert device_of("cpu").type == device_of(torch.device("cpu")).type == "cpu"


def test_another_dtype_holds_for_all_copies(make, picture):
    pipeline, image = make(tasks=["depth"]), picture(24, 32)
    pipeline.asked = "float32"
    exact = pipeline(image, "depth", nfe=2).values
    copied = pipeline.sampling(temperature=0.0)
    assert pipeline.to("bfloat16") is pipeline and pipeline.precision == "bf16"
    rough = pipeline(image, "depth", nfe=2).values
    assert 0 < (rough - exact).abs().max() < 0.2 * exact.abs().max()
    assert copied.precision == "bf16" and copied(image, "depth", nfe=2).values.isfinite().all()
    assert pipeline.to("cpu", torch.bfloat16).precision == "bf16"
    with pytest.raises(UserError, match=r"rounded to bfloat16.*dtype='float32'"):
        pipeline.to(torch.float32)


def test_moving_keeps_the_precision_and_forgets_recordings(make):
    pipeline = make(tasks=["depth"])
    pipeline.asked = "float32"
    pipeline.graphs._calls["something"] = 3
    assert pipeline.to("cpu").precision == "float32" and pipeline.device.type == "cpu"
    assert not pipeline.graphs._calls
