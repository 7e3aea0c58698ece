"""Rows of maps: what torch's own indexing answers, with its gradients, in the format of the map."""

from __future__ import annotations

import pytest
import torch
from dispatch import DEVICE, accelerated, host_of

from stepsight.rowwise import added_rows, picked_rows, row_quantiles

ROWS = torch.tensor([3, 0, 4])


def maps(shape, memory_format) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format) if x.ndim == 4 else x
    return x.requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 3, 4), (5, 3, 4, 6)])
def test_picked(shape, memory_format):
    x = maps(shape, memory_format)
    found = picked_rows(x, ROWS)
    assert torch.equal(found, x[ROWS])
    if x.ndim == 4:
        assert found.is_contiguous(memory_format=memory_format)
    weight = torch.arange(found.numel()).reshape(found.shape).double()
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    (theirs,) = torch.autograd.grad((x[ROWS] * weight).sum(), x)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_added(memory_format, dtype):
    x, more = maps((5, 3, 4, 6), memory_format), maps((3, 3, 4, 6), torch.contiguous_format)
    found, expected = (f(x, more.to(dtype)) for f in (lambda a, b: added_rows(a, b, ROWS), added))
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=memory_format)
    weight = torch.arange(found.numel()).reshape(found.shape).double()
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), (x, more)),
        torch.autograd.grad((expected * weight).sum(), (x, more)),
    ):
        assert torch.equal(ours, theirs)


def added(x: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    return x.index_add(0, ROWS, more.to(x.dtype))


def test_quantiles_are_the_same_on_a_device_without_float64():
    x = torch.randn(4, 1001, generator=torch.Generator().manual_seed(1))
    x[1, 100:], x[2], x[3, 1:] = torch.nan, torch.nan, torch.nan
    levels = (0.02, 0.5, 0.98, 1.0)
    expected = torch.nanquantile(x, torch.tensor(levels), dim=1)
    assert torch.equal(row_quantiles(x, levels).isnan(), expected.isnan())
    with accelerated():
        there = row_quantiles(x.to(DEVICE), levels)
    for found in (row_quantiles(x, levels), host_of(there)):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
