"""Ensembles: recovery of known distortions, invariances, degenerate members, the published rule."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble import (
    align_and_merge,
    mean,
    median,
    merge_affine,
    merge_directions,
    spread,
    vote,
)
from stepsight.errors import UserError


def smooth(count: int, side: int = 24, seed: int = 0) -> Tensor:
    """`count` smooth maps "count side side"."""
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(side, side), mode="bilinear")[:, 0]


def distorted(count: int, noise: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A truth "h w" and noisy members "e h w" of it, each with its own scale and shift."""
    source = torch.Generator().manual_seed(seed)
    truth = smooth(1, seed=seed)[0]
    scale = 0.3 + 2 * torch.rand(count, 1, 1, generator=source)
    shift = torch.randn(count, 1, 1, generator=source)
    members = truth + noise * torch.randn(count, *truth.shape, generator=source)
    return truth, scale * members + shift


def misfit(found: Tensor, truth: Tensor) -> float:
    """Mean absolute error after the best scale and shift."""
    x, y = found.flatten().double(), truth.flatten().double()
    x, y = x - x.mean(), y - y.mean()
    return (x * (x @ y) / (x @ x) - y).abs().mean().item()


def test_median_averages_the_two_middle_values():
    assert median(torch.tensor([4.0, 1.0, 2.0, 9.0])) == 3.0
    assert median(torch.tensor([4.0, 1.0, 9.0])) == 4.0
    assert mean(torch.tensor([4.0, 1.0, 1.0])) == 2.0


def test_spread_is_torch_s_deviation_and_zero_for_one():
    members = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(members, mean(members), "mean"), members.std(dim=0))
    assert spread(members[:1], members[0], "mean").count_nonzero() == 0
    assert spread(torch.tensor([0.0, 1.0, 5.0]), torch.tensor(1.0), "median") == 1.0


@pytest.mark.parametrize("count", [2, 3, 6])
def test_known_scales_and_shifts_are_undone(count: int):
    truth, maps = distorted(count, noise=0.0)
    merged, uncertainty, scale, shift = merge_affine(maps)
    assert misfit(merged, truth) < 1e-6 and uncertainty.max() < 1e-5
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    torch.testing.assert_close(aligned, merged.expand_as(aligned), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["closed_form", "published", "mean", "median"])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_scale_and_shift_explain_the_merge(rule, count: int):
    _, maps = distorted(count)
    merged, uncertainty, scale, shift = merge_affine(maps, rule)
    aligned = scale[:, None, None] * maps + shift[:, None, None]
    # the published median of an even count is the lower middle
    reduce = {"mean": mean, "published": lambda x: x.median(dim=0).values}.get(rule, median)
    torch.testing.assert_close(merged, reduce(aligned), rtol=1e-4, atol=1e-5)
    assert merged.shape == uncertainty.shape == maps.shape[1:]
    assert scale.shape == shift.shape == (count,)


@pytest.mark.parametrize("count", [3, 10])
def test_alignment_beats_members_and_unaligned_merges(count: int):
    truth, maps = distorted(count, noise=0.1)
    closed = misfit(merge_affine(maps)[0], truth)
    assert closed < 0.75 * min(misfit(member, truth) for member in maps)
    assert closed < misfit(merge_affine(maps, "median")[0], truth)


@pytest.mark.parametrize("outliers", [0, 1])
def test_closed_form_is_no_worse_than_published(outliers: int):
    def total(rule) -> float:
        errors = []
        for seed in range(5):
            truth, maps = distorted(5, noise=0.05, seed=seed)
            maps[:outliers, 3, 5] += 3
            errors.append(misfit(merge_affine(maps, rule)[0], truth))
        return sum(errors)

    assert total("closed_form") <= 1.02 * total("published")


def test_merge_has_the_moments_of_the_average_member():
    _, maps = distorted(7, noise=0.3)
    merged = merge_affine(maps)[0]
    torch.testing.assert_close(merged.mean(), maps.mean(), rtol=1e-4, atol=1e-5)
    variance = maps.flatten(1).var(dim=1, correction=0).mean()
    torch.testing.assert_close(merged.var(correction=0), variance, rtol=1e-4, atol=1e-5)


def test_unrelated_members_do_not_collapse():
    maps = torch.randn(6, 24, 24, generator=torch.Generator().manual_seed(0))
    merged = merge_affine(maps)[0]
    assert merged.std() == pytest.approx(1.0, abs=0.05)


def test_a_contrary_member_is_outvoted():
    truth, maps = distorted(5, noise=0.02)
    contrary = torch.cat([maps[:4], -maps[4:]])
    merged, _, scale, _ = merge_affine(contrary)
    assert misfit(merged, truth) < 0.03 and (scale >= 0).all()


@pytest.mark.parametrize("rule", ["closed_form", "mean", "median"])
def test_order_of_members_is_irrelevant(rule):
    _, maps = distorted(6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    one, other = merge_affine(maps, rule), merge_affine(maps[order], rule)
    torch.testing.assert_close(other[:2], one[:2])
    torch.testing.assert_close(other[2:], (one[2][order], one[3][order]))


@pytest.mark.parametrize("reduce", ["median", "mean"])
def test_merge_follows_scale_and_shift_of_a_member(reduce):
    """The distortion of one member moves the common moments alone."""
    truth, maps = distorted(5)
    other = torch.cat([3 * maps[:1] - 2, maps[1:]])
    one, two = (align_and_merge(m[:, None, None], reduce=reduce)[0] for m in (maps, other))
    standard = [(merged - merged.mean()) / merged.std() for merged in (one, two)]
    torch.testing.assert_close(*standard, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", ["median", "mean"])
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


@pytest.mark.parametrize("reduce", ["median", "mean"])
def test_identical_members_are_unchanged(reduce):
    member = smooth(3)[None, :, None]  # "1 b c h w"
    merged, uncertainty = align_and_merge(member.expand(4, -1, -1, -1, -1), reduce=reduce)
    torch.testing.assert_close(merged, member[0])
    assert uncertainty.max() < 1e-5


@pytest.mark.parametrize("rule", ["closed_form", "published", "mean", "median"])
def test_constant_members_divide_by_nothing(rule):
    maps = torch.stack([torch.full((8, 8), 0.1), torch.full((8, 8), 0.7), smooth(1, 8)[0]])
    for members in (maps, maps[:2]):
        assert all(value.isfinite().all() for value in merge_affine(members, rule))
    merged = merge_affine(maps[:2], "closed_form")[0]
    torch.testing.assert_close(merged, torch.full((8, 8), 0.4))


@pytest.mark.parametrize("reduce", ["median", "mean"])
def test_images_of_a_batch_are_merged_alone(reduce):
    members = torch.stack([distorted(4, seed=seed)[1] for seed in range(3)], dim=1)[:, :, None]
    together = align_and_merge(members, reduce=reduce)
    alone = align_and_merge(members[:, 1:2], reduce=reduce)
    torch.testing.assert_close((together[0][1:2], together[1][1:2]), alone)


def test_alignment_ignores_invalid_pixels():
    truth, maps = distorted(4, noise=0.0)
    valid = torch.ones(1, 1, 24, 24, dtype=torch.bool)
    valid[..., :6] = False
    members = maps[:, None, None].clone()
    members[..., :6] = 50 * torch.randn(4, 1, 1, 24, 6, generator=torch.Generator().manual_seed(2))
    merged, _ = align_and_merge(members, valid)
    assert misfit(merged[0, 0, :, 6:], truth[:, 6:]) < 1e-5


def test_channels_share_one_scale():
    base = torch.stack([smooth(1, seed=s)[0] for s in range(3)])[None]  # "b c h w"
    members = torch.stack([base, 2 * base + 1, 0.5 * base - 3])
    merged, uncertainty = align_and_merge(members)
    assert merged.shape == (1, 3, 24, 24) and uncertainty.shape == (1, 1, 24, 24)
    assert misfit(merged, base) < 1e-6 and uncertainty.max() < 1e-5


def test_unknown_rule_is_named():
    with pytest.raises(UserError, match="'closed'.*'closed_form'"):
        merge_affine(torch.zeros(2, 4, 4), "closed")  # type: ignore[arg-type]


def test_vote_elects_the_majority():
    ballots = torch.tensor([[1, 2, 0], [1, 2, 3], [1, 3, 3], [2, 3, 0]])[:, None, None]
    labels, share = vote(ballots, 4)
    assert labels.tolist() == [[[1, 2, 0]]]  # ties go to the lowest class
    torch.testing.assert_close(share, torch.tensor([[[0.75, 0.5, 0.5]]]))


def test_vote_equals_a_slow_count():
    ballots = torch.randint(0, 5, (7, 2, 6, 4), generator=torch.Generator().manual_seed(0))
    labels, share = vote(ballots, 5)
    for place in ((0, 0, 0), (1, 5, 3), (1, 2, 1)):
        counts = torch.bincount(ballots[(slice(None), *place)], minlength=5)
        assert labels[place] == counts.argmax() and share[place] * 7 == counts.max()


def test_directions_merge_on_the_sphere():
    angle = torch.tensor([-0.3, 0.1, 0.2])
    normals = torch.stack([angle.sin(), torch.zeros(3), angle.cos()], dim=1)[:, None, :, None, None]
    merged, uncertainty = merge_directions(normals)
    torch.testing.assert_close(merged.norm(dim=1), torch.ones(1, 1, 1))
    expected = torch.atan2(angle.sin().sum(), angle.cos().sum())
    torch.testing.assert_close(torch.atan2(merged[0, 0], merged[0, 2]).squeeze(), expected)
    torch.testing.assert_close(
        uncertainty.squeeze(), (angle - expected).abs().mean() / torch.pi, rtol=1e-3, atol=1e-4
    )


def test_opposite_directions_leave_a_unit_vector():
    up = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    merged, uncertainty = merge_directions(torch.stack([up, -up])[:, None])
    assert merged.norm() == 1 and uncertainty.item() == pytest.approx(0.5)


@pytest.fixture(scope="module")
def published():
    """diffusers' own ensembling, whose module imports a text encoder that it does not use here."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        pytest.importorskip("diffusers")
        if importlib.util.find_spec("transformers") is None:
            stub = types.SimpleNamespace(CLIPTextModel=object, CLIPTokenizer=object)
            patch.setitem(sys.modules, "transformers", stub)
        from diffusers.pipelines.marigold import pipeline_marigold_depth
    return pipeline_marigold_depth.MarigoldDepthPipeline.ensemble_depth


@pytest.mark.parametrize("count", [2, 3, 5])
def test_published_rule_equals_diffusers(published, count: int):
    _, maps = distorted(count, noise=0.1, seed=count)
    expected, deviation = published(
        maps[:, None], scale_invariant=True, shift_invariant=True, output_uncertainty=True
    )
    merged, uncertainty, _, _ = merge_affine(maps, "published")
    torch.testing.assert_close(merged, expected[0, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(uncertainty, deviation[0, 0], rtol=0, atol=1e-5)
    assert merged.min() == 0 and merged.max() == 1


def test_published_rule_fits_large_maps_on_fewer_pixels(published):
    maps = F.interpolate(distorted(2, seed=3)[1][None], size=(4, 1100), mode="bilinear")[0]
    expected, _ = published(maps[:, None], scale_invariant=True, shift_invariant=True)
    torch.testing.assert_close(merge_affine(maps, "published")[0], expected[0, 0])
