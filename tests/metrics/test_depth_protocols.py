"""Every depth rule against a slow reference of its own: numpy, one image, as its source has it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from stepsight.errors import UserError
from stepsight.metrics import masked
from stepsight.metrics.alignment.align import align
from stepsight.metrics.alignment.normalised import normalised_rows
from stepsight.metrics.depth import depth_rows, scored_pixels
from stepsight.metrics.ordering import ordering_rows
from stepsight.metrics.protocol import PROTOCOLS, get
from stepsight.metrics.reduce import reduce


@pytest.fixture
def scene(rng):
    """Truth 1 .. 60 m with holes, an affine-invariant disparity with noise, some of it negative."""
    truth = 1 + 59 * torch.rand(2, 1, 12, 20, generator=rng) ** 3
    valid = torch.rand(truth.shape, generator=rng) < 0.8
    disparity = 3 / truth - 0.4 + 0.05 * torch.randn(truth.shape, generator=rng)
    assert (disparity < 0).any()
    return disparity, torch.where(valid, truth, 0.0), valid


def line(x, y):
    """Scale and shift by numpy's least squares."""
    return np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]


def flat(*tensors, i):
    return [x[i].flatten().double().numpy() if x.dtype != torch.bool else x[i].flatten().numpy()
            for x in tensors]  # fmt: skip


def check(rows, i, **expected):
    for name, value in expected.items():
        assert rows[name][i].item() == pytest.approx(value, rel=1e-9), name


def abs_rel(p, g):
    return np.mean(np.abs(p - g) / g)


def test_marigold_disparity_fits_where_the_prediction_is_positive(scene):
    """Marigold's eval.py, `least_square_disparity`, on a prediction given as disparity."""
    rows = depth_rows(*scene, get("marigold-disparity"), given="disparity")
    for i in range(2):
        x, g, v = flat(*scene, i=i)
        fit = v & (g > 0) & (x > 0)
        s, t = line(x[fit], 1 / g[fit])
        p = 1 / np.clip(s * x[v] + t, 1e-3, None)
        p = np.clip(np.clip(p, 1e-5, None), 1e-6, None)
        check(rows, i, abs_rel=abs_rel(p, g[v]), n=v.sum())


def test_midas_caps_depth_and_counts_bad_pixels(scene):
    rows = depth_rows(*scene, get("midas-nyu"), given="disparity")
    for i in range(2):
        x, g, v = flat(*scene, i=i)
        v = v & (g > 0) & (g < 10)
        s, t = line(x[v], 1 / g[v])
        p = 1 / np.maximum(s * x[v] + t, 1 / 10)
        bad = np.mean(np.maximum(p / g[v], g[v] / p) > 1.25)
        check(rows, i, **{"above_1.25": bad, "abs_rel": abs_rel(p, g[v])})


def test_depth_anything_never_sees_depth(scene):
    rows = depth_rows(*scene, get("depth-anything"), given="disparity")
    for i in range(2):
        x, g, v = flat(*scene, i=i)
        s, t = line(x[v], 1 / g[v])
        p, z = np.maximum(s * x[v] + t, 1e-3), 1 / g[v]
        delta = np.mean(np.maximum(p / z, z / p) < 1.25)
        check(rows, i, abs_rel=abs_rel(p, z), delta1=delta)
    in_depth = depth_rows(*scene, get("marigold-disparity"), given="disparity")
    assert (rows["abs_rel"] != in_depth["abs_rel"]).all()


def test_depth_anything_metric_skips_nearly_empty_images_and_has_its_own_silog(scene):
    _, truth, valid = scene
    pred = truth * 1.3 + 0.2
    valid = valid.clone()
    valid[1] = False
    valid[1, 0, 0, :9] = True
    truth = torch.where(valid, truth.clamp(1, 19), 0.0)
    rows = depth_rows(pred, truth, valid, get("depth-anything-metric-hypersim"))
    p, g, v = flat(pred, truth, valid, i=0)
    e = np.log(p[v]) - np.log(g[v])
    check(rows, 0, silog_half=math.sqrt(np.mean(e**2) - 0.5 * np.mean(e) ** 2))
    assert rows["n"][1] == 0 and rows["silog_half"][1].isnan()
    assert np.max(p[v]) > 20  # unclipped
    check(rows, 0, abs_rel=abs_rel(p[v], g[v]))


def test_monodepth2_scales_by_medians_in_gargs_region(scene):
    """monodepth2's evaluate_depth.py with `--eval_split eigen`."""
    _, truth, valid = scene
    pred = 0.1 * truth.clamp(min=1) ** 0.8
    rows = depth_rows(pred, truth, valid, get("monodepth2"))
    for i in range(2):
        p, g, v = (x[i, 0].numpy() for x in (pred.double(), truth.double(), valid))
        inside = np.zeros_like(v)
        box = np.array([0.40810811 * 12, 0.99189189 * 12, 0.03594771 * 20, 0.96405229 * 20])
        top, bottom, left, right = box.astype(np.int32)
        inside[top:bottom, left:right] = True
        v = v & inside & (g > 1e-3) & (g < 80)
        p = np.clip(p[v] * np.median(g[v]) / np.median(p[v]), 1e-3, 80)
        g = g[v]
        check(rows, i, abs_rel=abs_rel(p, g), sq_rel=np.mean((p - g) ** 2 / g))
        check(rows, i, delta3=np.mean(np.maximum(p / g, g / p) < 1.25**3))


def test_pixel_perfect_depth_clips_to_the_truth_and_pads_the_denominator(scene):
    _, truth, valid = scene
    pred = torch.expm1(0.5 * torch.log1p(truth) + 0.1)  # affine in ln(1 + d)
    pred[0, 0, 0, 0], valid[0, 0, 0, 0], truth[0, 0, 0, 0] = 1e6, True, 2.0
    rows = depth_rows(pred, truth, valid, get("pixel-perfect-depth"), keys=["a", "b"])
    check(rows, 1, delta1=1.0)
    assert rows["abs_rel"][1] < 1e-6
    g = truth[0][valid[0]].double()
    lost = abs(g.max() - 2) / (2 + 1e-5)  # the one wild pixel, cut to the largest truth
    assert rows["abs_rel"][0].item() == pytest.approx(float(lost) / len(g), rel=1e-4)


def test_diodes_range_clips_but_selects_nothing():
    truth = torch.tensor([[[[0.3, 5.0, 400.0, 7.0]]]])
    pred = torch.tensor([[[[0.3, 5.0, 400.0, 7.0]]]])
    valid = torch.tensor([[[[True, True, True, False]]]])
    rows = depth_rows(pred, truth, valid, get("marigold-diode"))
    assert rows["n"].item() == 3
    expected = (0.3 / 0.3 + 0 + 50 / 400) / 3
    assert rows["abs_rel"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name,ends_count", [("marigold-scannet", False), ("depth-metric", True)])
def test_a_strict_range_leaves_out_its_ends(name, ends_count):
    row = replace(get(name), min_depth=1.0, max_depth=10.0)
    truth = torch.tensor([[[[1.0, 2.0, 10.0, 11.0, 3.0, 4.0]]]])
    found = scored_pixels(truth, torch.ones_like(truth, dtype=torch.bool), row)
    assert found.flatten().tolist() == [ends_count, True, ends_count, False, True, True]


@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("depth-metric", 0),
        ("monodepth2-benchmark", 1),
        ("depth-affine", 2),
        ("depth-affine-log", 2),
    ],
)
def test_images_with_no_more_pixels_than_the_fit_meets_exactly_are_not_scored(name, fitted):
    """A wild prediction would score 0 there, and count as much as any."""
    truth = 1 + torch.arange(5.0).repeat(4, 1)[:, None, None]
    valid = torch.arange(5)[None, :] < torch.arange(1, 5)[:, None]  # 1, 2, 3 and 4 pixels
    pred = torch.tensor([9.0, 1.0, 4.0, 7.0, 2.0]).expand_as(truth)
    rows = depth_rows(pred, truth, valid[:, None, None], get(name))
    assert rows["n"].tolist() == [n if n > fitted else 0 for n in (1, 2, 3, 4)]
    assert (rows["abs_rel"][rows["n"] > 0] > 0.1).all()


def test_eth3ds_fit_sees_all_rows_and_few_columns(rng):
    """Marigold's Upsample of a tensor of three axes thins the last one only."""
    truth = 1 + 9 * torch.rand(2, 1, 40, 60, generator=rng)
    pred = torch.rand(truth.shape, generator=rng)
    valid = torch.rand(truth.shape, generator=rng) < 0.9
    aligned = align(pred, truth, valid, "affine", fit_width=20)
    for i in range(2):
        columns = np.arange(20) * 3
        p, g, v = (x[i, 0].numpy()[:, columns] for x in (pred.double(), truth.double(), valid))
        s, t = line(p[v], g[v])
        expected = s * pred[i].double() + t
        torch.testing.assert_close(aligned[i], expected)
    whole = align(pred, truth, valid, "affine")
    assert not torch.allclose(whole, aligned)
    assert torch.equal(align(pred, truth, valid, "affine", fit_width=60), whole)
    assert get("marigold-eth3d").fit_width == 1024


@pytest.mark.parametrize("given", ["depth", "disparity", "log", "log1p"])
@pytest.mark.parametrize("name", ["marigold-depth", "marigold-disparity", "depth-affine-log"])
def test_the_same_prediction_scores_the_same_however_it_is_given(scene, given, name):
    _, truth, valid = scene
    depth = 0.5 + truth.double() ** 0.7
    forms = {"depth": depth, "disparity": 1 / depth, "log": depth.log(), "log1p": depth.log1p()}
    row = replace(get(name), fit_positive=False)
    found = depth_rows(forms[given], truth, valid, row, given=given)
    torch.testing.assert_close(found, depth_rows(depth, truth, valid, row), equal_nan=True)


def test_relative_disparity_is_refused_where_it_means_nothing(scene):
    with pytest.raises(UserError, match="disparity is not positive at .*'marigold-disparity'"):
        depth_rows(*scene, get("marigold-depth"), given="disparity")


def test_the_seeds_space_is_fitted_over_pixels_without_truth_too(scene):
    pred, truth, valid = scene
    rows = normalised_rows(pred, truth, valid)
    for i in range(2):
        x, g, v = flat(pred, truth, valid, i=i)
        a, b = np.quantile(g[v], [0.02, 0.98])
        y = np.where(v, np.clip(2 * (g - a) / (b - a) - 1, -1, 1), -1)
        s, t = line(x, y)
        e = np.abs(np.clip(s * x + t, -1, 1) - y)[v]
        check(rows, i, mae_normalised=e.mean(), rmse_normalised=math.sqrt((e**2).mean()))
    assert rows.keys() == {"n", *get("seed-release-normalised-depth").metrics}
    empty = normalised_rows(pred, truth, torch.zeros_like(valid))
    assert empty["n"].sum() == 0 and empty["mae_normalised"].isnan().all()


def test_ordering_counts_pairs_whose_nearer_point_is_nearer():
    depth = torch.tensor([[[[1.0, 2.0], [3.0, 3.0]]]]).repeat(2, 1, 1, 1)
    order = torch.tensor(
        [
            [[0, 0, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1]],  # right, wrong, equal
            [[0, 0, 0, 1], [-1, -1, -1, -1], [-1, -1, -1, -1]],
        ]
    )
    rows = ordering_rows(depth, order)
    assert rows["n"].tolist() == [3, 1]
    assert rows["ordering"].tolist() == pytest.approx([1 / 3, 1])
    as_disparity = ordering_rows(1 - depth, order, given="disparity")  # 0 and negative values
    torch.testing.assert_close(as_disparity, rows)
    assert reduce(rows, get("da2k"))["ordering"] == pytest.approx(2 / 4)


def test_protocols_of_one_table_differ(scene):
    """One prediction, many numbers: why none of them may stand without its protocol."""
    _, truth, valid = scene
    pred = (0.5 + truth**0.7) * torch.linspace(0.7, 1.3, 20)
    names = ["marigold-depth", "marigold-disparity", "depth-anything", "pixel-perfect-depth",
             "monodepth2", "depth-metric", "depth-affine-log"]  # fmt: skip
    keys = ["a", "b"]
    found = {
        name: float(depth_rows(pred, truth, valid, PROTOCOLS[name], keys=keys)["abs_rel"].mean())
        for name in names
    }
    assert len({round(value, 6) for value in found.values()}) == len(names)
    assert max(found.values()) > 2 * min(found.values())


@pytest.mark.parametrize("given", ["log", "log1p"])
@pytest.mark.parametrize("name", ["marigold-disparity", "lotus-scannet"])
def test_the_fit_asks_for_positive_disparity_however_the_prediction_is_given(scene, given, name):
    _, truth, valid = scene
    truth = truth / truth.mean() / 2
    depth = 0.1 + truth.double() ** 0.7  # many within one metre, where the logarithm is negative
    assert (depth[valid] < 1).any() and (depth[valid] > 1).any()
    x = depth.log() if given == "log" else depth.log1p()
    found = depth_rows(x, truth, valid, get(name), given=given)
    torch.testing.assert_close(found, depth_rows(depth, truth, valid, get(name)), equal_nan=True)


def test_disparity_that_is_not_positive_stays_out_of_the_fit(scene):
    _, truth, valid = scene
    disparity = 1 / truth.double().clamp(min=1)
    disparity[..., ::3] = -5.0
    rows = depth_rows(disparity, truth, valid, get("marigold-disparity"), given="disparity")
    torch.testing.assert_close(rows["delta1"], masked.mean(disparity > 0, valid))
