"""The closed form: known distortions undone, its objective, invariances, degenerate members."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.ensemble import align_and_merge, mean, median, merge_affine
from stepsight.errors import UserError

OUTLIERS = ("pixel", "member", "mirrored", "region")


@pytest.mark.parametrize("count", [2, 3, 6])
def test_known_scales_and_shifts_are_undone(count: int, distorted, misfit):
    truth, maps = distorted(count, noise=0.0)
    merged, uncertainty, scale, shift = merge_affine(maps)
    assert misfit(merged, truth) < 1e-6 and uncertainty.max() < 1e-5
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    torch.testing.assert_close(aligned, merged.expand_as(aligned), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["closed_form", "published", "mean", "median"])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_scale_and_shift_explain_the_merge(rule, count: int, distorted):
    _, maps = distorted(count)
    merged, uncertainty, scale, shift = merge_affine(maps, rule)
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    # the published median of an even count is the lower middle
    reduce = {"mean": mean, "published": lambda x: x.median(dim=0).values}.get(rule, median)
    torch.testing.assert_close(merged, reduce(aligned), rtol=1e-4, atol=1e-5)
    assert merged.shape == uncertainty.shape == maps.shape[1:]
    assert scale.shape == shift.shape == (count,)


@pytest.mark.parametrize("count", [3, 10])
def test_alignment_beats_members_and_unaligned_merges(count: int, distorted, misfit):
    truth, maps = distorted(count, noise=0.1)
    closed = misfit(merge_affine(maps)[0], truth)
    assert closed < 0.75 * min(misfit(member, truth) for member in maps)
    assert closed < misfit(merge_affine(maps, "median")[0], truth)


def test_merge_has_the_moments_of_the_average_member(distorted):
    _, maps = distorted(7, noise=0.3)
    merged = merge_affine(maps)[0]
    torch.testing.assert_close(merged.mean(), maps.mean(), rtol=1e-4, atol=1e-5)
    variance = maps.flatten(1).var(dim=1, correction=0).mean()
    torch.testing.assert_close(merged.var(correction=0), variance, rtol=1e-4, atol=1e-5)


def test_unrelated_members_do_not_collapse():
    maps = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(0))
    merged = merge_affine(maps)[0]
    assert merged.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("rule", ["closed_form", "mean", "median"])
def test_order_of_members_is_irrelevant(rule, distorted):
    _, maps = distorted(6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    one, other = merge_affine(maps, rule), merge_affine(maps[order], rule)
    torch.testing.assert_close(other[:2], one[:2])
    torch.testing.assert_close(other[2:], (one[2][order], one[3][order]))


@pytest.mark.parametrize("reduce", ["median", "mean", "medoid"])
def test_merge_follows_scale_and_shift_of_a_member(reduce, distorted):
    """The distortion of one member moves the common moments alone."""
    truth, maps = distorted(5)
    other = torch.cat([3 * maps[:1] - 2, maps[1:]])
    one, two = (align_and_merge(m[:, None, None], reduce=reduce)[0] for m in (maps, other))
    standard = [(merged - merged.mean()) / merged.std() for merged in (one, two)]
    torch.testing.assert_close(*standard, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", ["median", "mean", "medoid"])
def test_one_member_is_returned_as_it_is(reduce):
    members = torch.randn(1, 2, 3, 4, 5)
    merged, uncertainty = align_and_merge(members, reduce=reduce)
    assert torch.equal(merged, members[0])
    assert uncertainty.shape == (2, 1, 4, 5) and uncertainty.count_nonzero() == 0


@pytest.mark.parametrize("rule", ["closed_form", "mean", "median"])
def test_one_map_is_returned_as_it_is(rule):
    maps = torch.randn(1, 4, 5)
    merged, uncertainty, scale, shift = merge_affine(maps, rule)
    assert torch.equal(merged, maps[0]) and uncertainty.count_nonzero() == 0
    assert scale.tolist() == [1.0] and shift.tolist() == [0.0]


@pytest.mark.parametrize("reduce", ["median", "mean", "medoid"])
def test_identical_members_are_unchanged(reduce, smooth):
    member = smooth(3)[None, :, None]  # "1 b c h w"
    merged, uncertainty = align_and_merge(member.expand(4, -1, -1, -1, -1), reduce=reduce)
    torch.testing.assert_close(merged, member[0])
    assert uncertainty.max() < 1e-5


@pytest.mark.parametrize("rule", ["closed_form", "published", "mean", "median"])
def test_constant_members_divide_by_nothing(rule, smooth):
    maps = torch.stack([torch.full((8, 8), 0.1), torch.full((8, 8), 0.7), smooth(1, 8)[0]])
    for members in (maps, maps[:2]):
        assert all(value.isfinite().all() for value in merge_affine(members, rule))
    merged = merge_affine(maps[:2], "closed_form")[0]
    torch.testing.assert_close(merged, torch.full((8, 8), 0.4))


@pytest.mark.parametrize("reduce", ["median", "mean", "medoid"])
def test_images_of_a_batch_are_merged_alone(reduce, distorted):
    members = torch.stack([distorted(4, seed=seed)[1] for seed in range(3)], dim=1)[:, :, None]
    together = align_and_merge(members, reduce=reduce)
    alone = align_and_merge(members[:, 1:2], reduce=reduce)
    torch.testing.assert_close((together[0][1:2], together[1][1:2]), alone)


def test_alignment_ignores_invalid_pixels(distorted, misfit):
    truth, maps = distorted(4, noise=0.0)
    valid = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    valid[..., :6] = False
    members = maps[:, None, None].clone()
    members[..., :6] = 50 * torch.randn(4, 1, 1, 24, 6, generator=torch.Generator().manual_seed(2))
    merged, _ = align_and_merge(members, valid)
    assert misfit(merged[0, 0, :, 6:], truth[:, 6:]) < 1e-5


def test_channels_share_one_scale(smooth, misfit):
    base = torch.stack([smooth(1, seed=s)[0] for s in range(3)])[None]  # "b c h w"
    members = torch.stack([base, 2 * base + 1, 0.5 * base - 3])
    merged, uncertainty = align_and_merge(members)
    assert merged.shape == (1, 3, 24, 24) and uncertainty.shape == (1, 1, 24, 24)
    assert misfit(merged, base) < 1e-6 and uncertainty.max() < 1e-5


def test_unknown_rule_is_named():
    with pytest.raises(UserError, match="'closed'.*'closed_form'"):
        merge_affine(torch.zeros(2, 4, 4), "closed")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- the objective


def disagreement(maps: Tensor, scale: Tensor, shift: Tensor) -> float:
    """sum_ij mean |s_i x_i + t_i - s_j x_j - t_j|^2 / sum_i var(s_i x_i)."""
    aligned = (scale[:, None, None] * maps + shift[:, None, None]).flatten(1)
    pairs = (aligned[:, None] - aligned[None]).square().mean(dim=2).sum()
    return (pairs / aligned.var(dim=1, correction=0).sum()).item()


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_alignment_minimises_disagreement_at_fixed_variance(distorted, noise: float):
    maps = distorted(6, noise)[1].double()
    _, _, scale, shift = merge_affine(maps)
    best = 2 * (6 - torch.linalg.eigvalsh(torch.corrcoef(maps.flatten(1)))[-1].item())
    found = disagreement(maps, scale, shift)
    assert best * (1 - 1e-9) <= found <= best * (1 + 1e-3)
    source = torch.Generator().manual_seed(0)
    for size in (0.01, 0.1, 1.0):
        for _ in range(10):
            other = scale * (1 + size * torch.randn(6, generator=source, dtype=scale.dtype))
            moved = shift + size * torch.randn(6, generator=source, dtype=scale.dtype)
            assert disagreement(maps, other, moved) > best


@pytest.mark.parametrize("kind", OUTLIERS)
def test_an_outlier_costs_little(distorted, with_outlier, misfit, kind: str):
    """The merge stays better than any member; the outlier has the least share in it."""
    truth, maps = distorted(5, noise=0.05, side=48)
    merged, _, scale, _ = merge_affine(with_outlier(maps, kind))
    assert misfit(merged, truth) < 1.5 * misfit(merge_affine(maps)[0], truth)
    assert misfit(merged, truth) < min(misfit(member, truth) for member in maps)
    loading = scale * with_outlier(maps, kind).flatten(1).std(dim=1)
    assert loading.argmin() == 0 and (loading[1:] > 0.8 * loading.max()).all()


@pytest.mark.parametrize("kind", ["none", *OUTLIERS])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_range_does_not_collapse(distorted, with_outlier, count: int, kind: str):
    _, maps = distorted(count, side=48)
    members = with_outlier(maps, kind)
    merged = merge_affine(members)[0]
    size = members.flatten(1).var(dim=1).mean().sqrt()
    assert merged.std() == pytest.approx(size.item(), rel=1e-3)
    assert merged.max() - merged.min() > 2 * size


def test_a_contrary_member_is_outvoted(distorted, misfit):
    truth, maps = distorted(5, noise=0.02)
    contrary = torch.cat([maps[:4], -maps[4:]])
    merged, _, scale, _ = merge_affine(contrary)
    assert misfit(merged, truth) < 0.03 and (scale >= 0).all()


def test_medoid_is_one_of_the_aligned_members(distorted, with_outlier):
    _, maps = distorted(5, noise=0.1)
    members = with_outlier(maps, "member")[:, None, None]
    merged, uncertainty = align_and_merge(members, reduce="medoid")
    fit = torch.corrcoef(torch.cat([merged, members[:, 0]]).flatten(1))[0, 1:]
    assert fit.max() == pytest.approx(1, abs=1e-5) and fit.argmax() != 0
    assert uncertainty.count_nonzero() == uncertainty.numel()
    distances = (1 - torch.corrcoef(members.flatten(1))).clamp_min(0).sqrt().sum(dim=1)
    assert fit.argmax() == distances.argmin()
