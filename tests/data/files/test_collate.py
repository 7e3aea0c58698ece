"""Samples to batches."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.errors import UserError
from stepsight.types import Batch


def extra(seed: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "occluded": torch.rand(1, 6, 10, generator=rng) < 0.5,
        "instances": torch.randint(-1, 9, (6, 10), generator=rng),
        "order": torch.randint(6, (4, 4), generator=rng),
    }


def test_every_field_is_stacked_in_order(full_sample):
    samples = [replace(full_sample(seed), **extra(seed)) for seed in range(3)]
    batch = collate(samples)
    assert len(batch) == 3 and batch.keys == [s.key for s in samples]
    assert batch.sources == ["full"] * 3 and batch.class_id.tolist() == [0, 1, 2]
    special = {"keys", "sources", "extra", "class_id", "image", "second", "whole"}
    for field in {f.name for f in fields(Batch)} - special:
        expected = [getattr(sample, field) for sample in samples]
        assert torch.equal(getattr(batch, field), torch.stack(expected)), field


def test_lists_of_pairs_are_filled_up_with_rows_of_minus_one(full_sample):
    pairs = [torch.arange(4 * n).reshape(n, 4) for n in (2, 0, 3)]
    samples = [replace(full_sample(n), order=one) for n, one in enumerate(pairs)]
    order = collate(samples).order
    assert order.shape == (3, 3, 4)
    assert order[0, :2].tolist() == pairs[0].tolist() and order[2].tolist() == pairs[2].tolist()
    assert order[0, 2].eq(-1).all() and order[1].eq(-1).all()
    assert collate([*samples, full_sample(3)]).order is None


def test_pictures_span_minus_one_to_one(full_sample):
    sample = full_sample()
    sample.image.flatten()[:3] = torch.tensor([0, 51, 255])
    batch = collate([sample])
    assert batch.image.dtype == batch.second.dtype == batch.whole.dtype == torch.float32
    torch.testing.assert_close(batch.image.flatten()[:3], torch.tensor([-1.0, -0.6, 1.0]))
    for name in ("second", "whole"):
        picture = getattr(batch, name)[0]
        torch.testing.assert_close((picture + 1) * 127.5, getattr(sample, name).float())


def test_only_what_all_samples_have_is_kept(full_sample):
    poor = replace(full_sample(1), depth=None, depth_valid=None, second=None, whole=None)
    batch = collate([full_sample(0), poor])
    assert batch.depth is batch.depth_valid is batch.second is batch.whole is None
    assert batch.flow is not None and batch.class_id.tolist() == [0, 1]
    assert collate([full_sample(0), replace(full_sample(1), class_id=None)]).class_id is None


def test_differing_sizes_name_the_samples(full_sample):
    with pytest.raises(UserError, match=r"sample 0 \(6, 10\) and sample 1 \(6, 8\) differ"):
        collate([full_sample(0), full_sample(1, 6, 8)])
