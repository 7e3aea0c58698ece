"""Colours mean the same in every picture, and never hide what is invalid."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from matplotlib import colormaps
from torchvision.utils import flow_to_image

from stepsight import colours, legends
from stepsight.types import IGNORE


def pixel(picture: torch.Tensor, y: int = 0, x: int = 0) -> tuple[int, ...]:
    return tuple(picture[0, :, y, x].tolist())


def spectral(unit: float) -> tuple[int, ...]:
    return tuple(int(v) for v in colormaps["Spectral"](round(unit * 255), bytes=True)[:3])


def test_depth_runs_from_spectral_red_near_to_its_blue_far_by_its_logarithm():
    depth = torch.tensor([2.0, 4.0, 8.0]).view(1, 1, 1, 3)
    picture = colours.colour_depth(depth, lo=2.0, hi=8.0)
    assert picture.dtype == torch.uint8 and picture.shape == (1, 3, 1, 3)
    assert [pixel(picture, 0, x) for x in range(3)] == [spectral(u) for u in (0, 0.5, 1)]
    red, _, blue = pixel(picture)
    assert red > blue


def test_truth_and_prediction_share_limits():
    truth = torch.rand(2, 1, 8, 8) * 5 + 1
    lo, hi = colours.depth_limits(truth)
    together = colours.colour_depth(
        torch.cat([truth, truth + 1]), lo=lo.repeat(2, 1, 1, 1), hi=hi.repeat(2, 1, 1, 1)
    )
    assert torch.equal(together[:2], colours.colour_depth(truth))
    assert not torch.equal(together[2:], together[:2])


def test_depth_limits_ignore_invalid_pixels_and_survive_having_none():
    depth = torch.arange(100.0).view(1, 1, 10, 10)
    valid = depth < 50
    lo, hi = colours.depth_limits(depth, valid)
    assert (lo.item(), hi.item()) == (pytest.approx(0.98), pytest.approx(48.02))
    assert [end.item() for end in colours.depth_limits(depth, depth < 0)] == [0.0, 1.0]


@pytest.mark.parametrize(
    "paint, channels",
    [
        (colours.colour_depth, 1),
        (colours.colour_spread, 1),
        (colours.colour_flow, 2),
        (colours.colour_normals, 3),
    ],
)
def test_invalid_and_unfinite_pixels_are_void(paint, channels):
    values = torch.randn(2, channels, 5, 7)
    values[0, 0, 0, 0] = torch.nan
    values[0, 0, 0, 1] = torch.inf
    valid = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    valid[0, 0, 0, 2] = False
    picture = paint(values, valid=valid)
    assert [pixel(picture, 0, x) for x in range(3)] == [colours.VOID] * 3
    assert pixel(picture, 2, 2) != colours.VOID
    assert picture.shape == (2, 3, 5, 7) and picture.dtype == torch.uint8


def test_depth_that_is_not_positive_is_the_nearest():
    depth = torch.tensor([-1.0, 0.0, 2.0, 8.0]).view(1, 1, 1, 4)
    picture = colours.colour_depth(depth, lo=2.0, hi=8.0)
    assert [pixel(picture, 0, x) for x in range(3)] == [spectral(0)] * 3


def test_a_prediction_is_void_wherever_the_truth_is():
    picture = torch.full((1, 3, 1, 2), 8, dtype=torch.uint8)
    known = torch.tensor([True, False]).view(1, 1, 1, 2)
    shown = colours.only(picture, known)
    assert [pixel(shown, 0, x) for x in (0, 1)] == [(8, 8, 8), colours.VOID]


def test_between_the_points_of_a_laser_a_prediction_is_shown_but_not_above_them():
    points = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    points[0, :, 32::3, ::3] = True  # a ninth of the lower half
    points[1, :, 8:] = True  # dense, and so as it is
    points[1, :, 40, 40] = False
    shown = colours.only(torch.full((2, 3, 64, 64), 8, dtype=torch.uint8), points)[:, 0] == 8
    assert shown[0, 32:62, :62].all() and not shown[0, :32].any()
    assert torch.equal(shown[1], points[1, 0])


def test_a_range_is_lent_by_what_is_known_image_by_image():
    values, like = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), torch.nan)
    like[0, 0, 0, 0] = 5.0
    lent = colours.reference(like, values)
    assert lent[0, 0, 0, 0] == 5 and lent[0].isnan().sum() == 3 and torch.equal(lent[1], values[1])
    assert colours.reference(None, values) is values


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_the_legend_of_depth_has_the_colours_of_its_pictures(share):
    legend = colours.depth_legend(2.0, 32.0)
    depth = 2.0 * 16**share
    assert legend.share(depth) == pytest.approx(share)
    (stop,) = colours.colour_depth(torch.full((1, 1, 1, 1), depth), lo=2.0, hi=32.0)[:, :, 0, 0]
    place = share * (len(legend.stops) - 1)
    assert legend.stops[round(place)] == hexed(stop) and place == round(place)


def hexed(colour: Iterable[int]) -> str:
    return "#" + bytes(map(int, colour)).hex()


def test_the_legend_of_flow_goes_clockwise_from_motion_to_the_right():
    legend = colours.flow_legend(5.0)
    right, down = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 2, 1, 1).split(1)
    for part, motion in ((0, right), (4, down), (2, -right), (4 / 3, -down)):
        place = int(len(legend.stops) / part) if part else 0
        assert legend.stops[place] == hexed(colours.colour_flow(motion, 1.0)[0, :, 0, 0])
    assert (legend.low, legend.high, legend.unit) == (0, 5, "px")


def test_legends_name_the_colours_of_masks_classes_and_normals():
    mask = {entry.name: entry.colour for entry in colours.mask_legend().classes}
    parts = colours.VISIBLE, colours.HIDDEN, colours.NOTHING
    assert mask == dict(zip(("visible", "hidden", "not the object"), map(hexed, parts)))
    found = colours.labels_legend(torch.tensor([[[3, 3, IGNORE, 0]]])).classes
    assert found == tuple((f"class {i}", hexed(colours.palette()[i])) for i in (0, 3))
    normals = {entry.name: entry.colour for entry in colours.normals_legend().classes}
    wall = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
    assert normals["facing the viewer"] == hexed(colours.colour_normals(wall)[0, :, 0, 0])


def test_void_is_the_same_in_pictures_and_in_legends():
    assert hexed(colours.VOID) == legends.VOID


def test_flow_equals_torchvision_where_its_scale_is_ours():
    flow = torch.randn(1, 2, 64, 64)
    flow[0, :, 0, :4] = torch.tensor([[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])  # the seam
    longest = flow.norm(dim=1).max().item()
    difference = colours.colour_flow(flow, longest).int() - flow_to_image(flow).int()
    assert difference.abs().max() <= 1  # where a rounded length falls below the next colour
    assert (difference != 0).double().mean() < 0.01


def test_flow_scale_does_not_depend_on_the_neighbours():
    flow = torch.randn(1, 2, 6, 6)
    together = colours.colour_flow(torch.cat([flow, 100 * flow]), 3.0)
    assert torch.equal(together[:1], colours.colour_flow(flow, 3.0))


def test_flow_beyond_the_longest_keeps_its_hue():
    flow = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    assert torch.equal(colours.colour_flow(flow, 3.0), colours.colour_flow(5 * flow, 3.0))
    assert pixel(colours.colour_flow(torch.zeros(1, 2, 1, 1), 3.0)) == (255, 255, 255)


def test_classes_have_256_different_colours_and_ignore_has_none():
    assert len({tuple(row) for row in colours.palette().tolist()}) == 256
    picture = colours.colour_labels(torch.tensor([[[0, 7, IGNORE]]]))
    assert pixel(picture, 0, 1) == tuple(colours.palette()[7].tolist())
    assert pixel(picture, 0, 2) == colours.VOID


def test_masks_tell_visible_hidden_and_nothing_apart():
    modal = torch.tensor([True, False, False]).view(1, 1, 1, 3)
    amodal = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    picture = colours.colour_mask(modal, amodal)
    painted = [pixel(picture, 0, x) for x in range(3)]
    assert painted == [colours.VISIBLE, colours.HIDDEN, colours.NOTHING]


def test_a_wall_facing_the_camera_is_blue_and_a_floor_green():
    wall = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
    floor = torch.tensor([0.0, -1.0, 0.0]).view(1, 3, 1, 1)
    assert pixel(colours.colour_normals(wall)) == (128, 128, 255)
    assert pixel(colours.colour_normals(floor)) == (128, 255, 128)


def test_images_are_rounded_and_clipped():
    image = torch.tensor([-2.0, -1.0, 0.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert colours.colour_image(image)[0, 0, 0].tolist() == [0, 0, 128, 255]
