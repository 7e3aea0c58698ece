"""The published rule equals diffusers', the closed form is better and faster, and the published
objective collapses when it is solved."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.ensemble import merge_affine, merge_published
from stepsight.ensemble.published import REGULARISER, fit
from stepsight.ensemble.published import cost as published_cost


@pytest.mark.parametrize("count", [2, 3, 5])
def test_published_rule_equals_diffusers(released, count: int, distorted):
    _, maps = distorted(count, noise=0.1, seed=count)
    expected, deviation = released(
        maps[:, None], scale_invariant=True, shift_invariant=True, output_uncertainty=True
    )
    merged, uncertainty, _, _ = merge_affine(maps, "published")
    torch.testing.assert_close(merged, expected[0, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(uncertainty, deviation[0, 0], rtol=0, atol=1e-5)
    assert merged.min() == 0 and merged.max() == 1


def test_published_rule_fits_large_maps_on_fewer_pixels(released, distorted):
    maps = F.interpolate(distorted(2, seed=3)[1][None], size=(4, 1100), mode="bilinear")[0]
    expected, _ = released(maps[:, None], scale_invariant=True, shift_invariant=True)
    torch.testing.assert_close(merge_affine(maps, "published")[0], expected[0, 0])


def test_published_rule_merges_images_alone(released, distorted):
    batch = torch.stack([distorted(3, seed=seed)[1] for seed in range(2)], dim=1)[:, :, None]
    merged, uncertainty = merge_published(batch)
    for row in range(2):
        expected, deviation = released(batch[:, row], output_uncertainty=True)
        torch.testing.assert_close(merged[row], expected[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(uncertainty[row], deviation[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_published_rule_spends_the_evaluations_of_the_release(
    released, distorted, monkeypatch, count: int
):
    from scipy import optimize

    spent, minimize = [], optimize.minimize

    def counting(cost: Callable[..., float], *more, **options):
        def counted(*arguments) -> float:
            spent[-1] += 1
            return cost(*arguments)

        spent.append(0)
        return minimize(counted, *more, **options)

    monkeypatch.setattr(optimize, "minimize", counting)
    _, maps = distorted(count, noise=0.1)
    released(maps[:, None])
    merge_affine(maps, "published")
    assert spent[0] == spent[1] >= 2 * (2 * count + 1)  # differences along every parameter


@pytest.mark.parametrize("count", [3, 5])
def test_published_objective_collapses_when_it_is_solved(distorted, misfit, count: int):
    """Its optimum costs no more than the penalty, with nothing left of the maps."""
    truth, maps = distorted(count)
    maps = maps.double()
    found = {}
    for iterations in (2, 200):
        scale, shift = fit(maps, iterations)
        merged = (scale[:, None, None] * maps + shift[:, None, None]).median(dim=0).values
        cost = published_cost(torch.cat([scale, shift]).numpy(), maps)
        found[iterations] = (cost, (merged.max() - merged.min()).item(), misfit(merged, truth))
    stopped, solved = found[2], found[200]
    assert stopped[0] > 5 * REGULARISER and stopped[1] > 0.5
    assert solved[0] == pytest.approx(REGULARISER, rel=0.01) and solved[1] < 1e-3
    assert solved[2] > 1.2 * stopped[2]


@pytest.mark.parametrize("kind", ["none", "pixel", "member", "mirrored", "region"])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_closed_form_is_no_worse_than_the_release(
    released, distorted, with_outlier, misfit, count: int, kind: str
):
    ours, theirs = [], []
    for seed in range(2):
        truth, maps = distorted(count, seed=seed, side=32)
        members = with_outlier(maps, kind)
        ours.append(misfit(merge_affine(members)[0], truth))
        theirs.append(misfit(released(members[:, None])[0][0, 0], truth))
    assert sum(ours) <= sum(theirs) * (1 + 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "member"])
@pytest.mark.parametrize("count", [3, 5])
def test_closed_form_at_full_size_is_no_worse_and_faster(
    released, distorted, with_outlier, misfit, count: int, kind: str
):
    truth, maps = distorted(count, side=512)
    members = with_outlier(maps, kind)

    def took(merge: Callable[[], Tensor]) -> tuple[float, Tensor]:
        began = time.perf_counter()
        merged = merge()
        return time.perf_counter() - began, merged

    merge_affine(members)  # the first call allocates
    ours, closed = min(
        (took(lambda: merge_affine(members)[0]) for _ in range(5)), key=lambda x: x[0]
    )
    theirs, other = took(lambda: released(members[:, None])[0][0, 0])
    published, _ = took(lambda: merge_affine(members, "published")[0])
    assert misfit(closed, truth) <= misfit(other, truth) * (1 + 1e-3)
    if count == 5:  # `stepsight bench merge` times ten
        assert theirs > 8 * ours and published > 30 * ours
