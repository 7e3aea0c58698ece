"""Mirror, crops and colours: what is seen and what is true change together."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from stepsight.data.augment import augment, crop, flip, jitter, random_crop
from stepsight.data.readers.config import FolderSettings
from stepsight.data.resize import resize_sample
from stepsight.seeding import numpy_generator
from stepsight.types import IGNORE, Sample


def test_twice_is_the_identity(full_sample, assert_same):
    for seed in range(3):
        sample = full_sample(seed, 5, 7)
        assert_same(flip(flip(sample)), sample)


def test_the_original_is_left_alone(full_sample, assert_same):
    sample = full_sample(0)
    flip(sample)
    assert_same(sample, full_sample(0))


def test_everything_is_mirrored_and_horizontal_components_change_sign(full_sample):
    sample, mirrored = full_sample(1), flip(full_sample(1))
    for name in ("image", "second", "whole", "depth", "depth_valid", "labels", "modal"):
        assert torch.equal(getattr(mirrored, name), getattr(sample, name).flip(-1)), name
    assert mirrored.class_id == sample.class_id == 1
    for name in ("flow", "normals"):
        before, after = getattr(sample, name).flip(-1), getattr(mirrored, name)
        assert torch.equal(after[0], -before[0]) and torch.equal(after[1:], before[1:]), name


def test_mirrored_flow_still_leads_to_the_second_frame():
    image = torch.randint(256, (3, 8, 12), generator=torch.Generator().manual_seed(0)).byte()
    flow = torch.tensor([2.0, 1.0])[:, None, None].expand(2, 8, 12)
    second = image.roll((1, 2), dims=(1, 2))
    sample = flip(Sample(image, "a", "test", second=second, flow=flow))
    y, x = torch.meshgrid(torch.arange(7), torch.arange(2, 12), indexing="ij")
    u, v = sample.flow[:, y, x].long()
    assert torch.equal(sample.second[:, y + v, x + u], sample.image[:, y, x])


# ---------------------------------------------------------------------------- crops


def test_a_crop_is_a_window_of_every_plane(full_sample):
    sample = full_sample(2, 9, 11)
    window = crop(sample, 2, 3, 5, 7)
    for field in fields(Sample):
        before, after = getattr(sample, field.name), getattr(window, field.name)
        if isinstance(before, torch.Tensor):
            assert torch.equal(after, before[..., 2:7, 3:10]), field.name
        else:
            assert after == before, field.name


def test_points_move_with_the_window_and_pairs_that_leave_it_are_dropped():
    order = torch.tensor([[2, 3, 6, 9], [1, 3, 6, 9], [2, 3, 7, 9], [4, 10, 4, 4], [5, 5, 5, 2]])
    sample = Sample(torch.zeros(3, 9, 11).byte(), "a", "test", order=order)
    assert crop(sample, 2, 3, 5, 7).order.tolist() == [[0, 0, 4, 6]]
    marked = sample.image.clone()
    marked[:, 6, 9] = 200
    window = crop(replace(sample, image=marked), 2, 3, 5, 7)
    row, column = window.order[0, 2:]
    assert window.image[0, row, column] == 200


def moving(height: int, width: int, u: float, v: float) -> Sample:
    """A pair of frames of which the second is the first, moved: a smooth picture of u and v."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")

    def picture(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        waves = [torch.sin(x / 9), torch.sin(y / 7), torch.sin((x + y) / 11)]
        return (127.5 + 120 * torch.stack(waves)).round().byte()

    return Sample(
        picture(x.float(), y.float()),
        "a",
        "test",
        second=picture(x - u, y - v),
        flow=torch.tensor([u, v])[:, None, None].expand(2, height, width).clone(),
        flow_valid=torch.ones(1, height, width, dtype=torch.bool),
        occluded=torch.zeros(1, height, width, dtype=torch.bool),
        depth=(0.1 * x + 0.01 * y + 1)[None],
        depth_valid=torch.ones(1, height, width, dtype=torch.bool),
    )


def warped(sample: Sample) -> torch.Tensor:
    """The second picture, looked up where the flow leads, "3 h w" in 0..255."""
    height, width = sample.image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    where = torch.stack([x + sample.flow[0], y + sample.flow[1]], dim=-1)
    grid = 2 * (where + 0.5) / torch.tensor([width, height]) - 1
    second = sample.second[None].float()
    return torch.nn.functional.grid_sample(second, grid[None], align_corners=False)[0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_augmented_flow_still_leads_to_the_same_thing(mirrored):
    """Cropped, resized by other factors in x and y, mirrored: seen through both frames."""
    sample = moving(48, 96, 6.0, -3.0)
    settings = FolderSettings(crop_scale=0.5)
    for number in range(4):
        found = augment(sample, settings, (40, 48), 0, number, mirrored)
        inside = ~found.occluded.expand(3, -1, -1)
        assert 0 < found.occluded.float().mean() < 0.6
        wrong = (warped(found) - found.image).abs()[inside]
        assert wrong.quantile(0.95) < 8 and wrong.mean() < 3
        still = replace(found, flow=torch.zeros_like(found.flow))
        assert (warped(still) - found.image).abs()[inside].mean() > 4 * wrong.mean()


def test_cropped_and_resized_truth_is_the_truth_of_the_cropped_and_resized_grid():
    """A quarter of the frame at the working size: u scales with the width, v with the height, and
    depth is what it was at the pixel centre that is shown."""
    sample = moving(48, 96, 6.0, -3.0)
    window = resize_sample(crop(sample, 12, 24, 24, 48), (12, 96))
    assert torch.allclose(window.flow[0], torch.tensor(12.0))
    assert torch.allclose(window.flow[1], torch.tensor(-1.5))
    rows = 12 + (2 * torch.arange(12) + 1) * 24 // 24
    columns = 24 + (2 * torch.arange(96) + 1) * 48 // 192
    assert torch.equal(window.depth, sample.depth[:, rows[:, None], columns])
    leaves = torch.zeros(12, 96, dtype=torch.bool)
    leaves[:, 84:] = True  # six native pixels from the right
    leaves[0] = True  # native rows 0 to 2, of which row 1 is shown
    assert torch.equal(window.occluded[0], leaves)


def test_random_crops_are_a_function_of_seed_and_number(full_sample, assert_same):
    sample, settings = full_sample(0, 32, 48), FolderSettings(crop_scale=0.3, jitter=0.5)
    first = augment(sample, settings, (16, 16), 7, 3, False)
    augment(sample, settings, (16, 16), 7, 4, False)
    assert_same(augment(full_sample(0, 32, 48), settings, (16, 16), 7, 3, False), first)
    others = [augment(sample, settings, (16, 16), seed, n, False) for seed, n in ((7, 4), (8, 3))]
    assert all(not torch.equal(other.depth, first.depth) for other in others)
    assert_same(sample, full_sample(0, 32, 48))


def test_crops_keep_at_least_the_share_asked_for_and_reach_every_corner():
    x = torch.arange(40).expand(1, 30, 40).float()
    y = torch.arange(30)[:, None].expand(1, 30, 40).float()
    sample = Sample(
        torch.zeros(3, 30, 40).byte(), "a", "test", depth=x, normals=torch.cat([x, y, x])
    )
    windows = [random_crop(sample, 0.5, numpy_generator(n)) for n in range(400)]
    shapes = torch.tensor([window.image.shape[-2:] for window in windows])
    assert shapes.amin(0).tolist() == [15, 20] and shapes.amax(0).tolist() == [30, 40]
    assert (shapes[:, 0] / 30 - shapes[:, 1] / 40).abs().max() < 0.05  # one share for both sides
    assert {0, 1, 5, 10, 15} < {int(w.normals[0, 0, 0]) for w in windows} <= {*range(21)}
    assert max(int(w.normals[1, -1, -1]) for w in windows) == 29


@pytest.mark.parametrize("name", ["modal", "depth_valid", "flow_valid", "normals_valid"])
def test_a_crop_that_would_lose_a_whole_mask_is_not_taken(name):
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, 4, 5] = True
    sample = Sample(torch.zeros(3, 20, 20).byte(), "a", "test", **{name: mask})
    windows = [random_crop(sample, 0.3, numpy_generator(n)) for n in range(60)]
    assert all(getattr(window, name).sum() == 1 for window in windows)
    taken = [window for window in windows if window is not sample]
    assert 3 < len(taken) < 57
    nothing = replace(sample, **{name: torch.zeros_like(mask)})  # nothing to lose
    assert all(random_crop(nothing, 0.3, numpy_generator(n)) is not nothing for n in range(9))


# ---------------------------------------------------------------------------- colours


def test_all_pictures_pass_one_map_of_colours(full_sample):
    """Equal colours stay equal, in whichever picture, and truth is not touched."""
    sample = full_sample(3)
    sample.second = sample.image.flip(-1)
    sample.whole = torch.where(sample.amodal, sample.image, 255).byte()
    for number in range(5):
        found = jitter(sample, 0.5, numpy_generator(number))
        assert not torch.equal(found.image, sample.image)
        assert torch.equal(found.second, found.image.flip(-1))
        assert torch.equal(found.whole, torch.where(sample.amodal, found.image, 255).byte())
        assert found.depth is sample.depth and found.flow is sample.flow


def test_colours_change_as_the_formula_says():
    """Written out for one colour, with the factors drawn in the same order."""
    image = torch.tensor([200, 100, 50]).byte()[:, None, None].expand(3, 2, 2)
    gamma, saturation, contrast, brightness = np.exp(0.4 * numpy_generator(1).uniform(-1, 1, 4))
    colour = (np.array([200, 100, 50]) / 255) ** gamma
    luma = colour @ [0.299, 0.587, 0.114]
    colour = luma + saturation * (colour - luma)
    colour = brightness * (0.5 + contrast * (colour - 0.5))
    expected = np.clip(colour * 255, 0, 255)
    found = jitter(Sample(image, "a", "test"), 0.4, numpy_generator(1)).image[:, 0, 0]
    assert np.abs(found.numpy() - expected).max() <= 0.51


def test_without_crops_and_jitter_it_is_what_a_bank_serves(full_sample, assert_same):
    sample = full_sample(5, 12, 20)
    for mirrored in (False, True):
        found = augment(sample, FolderSettings(), (6, 8), 0, 0, mirrored)
        kept = resize_sample(sample, (6, 8))
        assert_same(found, flip(kept) if mirrored else kept)


def test_a_crop_without_any_labelled_pixel_is_not_taken():
    labels = torch.full((20, 20), IGNORE)
    labels[4, 5] = 2
    sample = Sample(torch.zeros(3, 20, 20).byte(), "a", "test", labels=labels)
    windows = [random_crop(sample, 0.3, numpy_generator(n)) for n in range(60)]
    assert all((window.labels == 2).sum() == 1 for window in windows)
    assert any(window is not sample for window in windows)
