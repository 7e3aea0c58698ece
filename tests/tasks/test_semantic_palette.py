"""Classes as colours: how far apart they are, and that members vote instead of mixing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stepsight.seeding import generator
from stepsight.tasks.semantic import Semantic
from stepsight.types import Batch


def palette(classes: int) -> Tensor:
    """The colours of all classes, "k 3"."""
    task = Semantic(classes=classes, encoding="palette")
    labels = torch.arange(classes)[None, None]
    batch = Batch(torch.zeros(1, 3, 1, classes), ["a"], ["toys"], labels=labels)
    target = task.encode(batch)
    assert torch.equal(task.decode(target.x).values[:, 0], labels)
    return target.x[0, :, 0].T


@pytest.mark.parametrize(
    ("classes", "levels"), [(2, 2), (7, 2), (8, 2), (9, 3), (27, 3), (28, 4), (64, 4), (150, 6)]
)
def test_colours_stand_on_the_coarsest_grid_with_room_for_all(classes, levels):
    colours = palette(classes)
    assert colours.abs().max() == 1 and len(colours.unique(dim=0)) == classes
    nearest = torch.nn.functional.pdist(colours).min().item()
    assert nearest == pytest.approx(2 / (levels - 1), rel=1e-5)


def test_eight_classes_are_the_corners_of_the_cube():
    corners = {tuple(colour) for colour in palette(8).tolist()}
    assert corners == {(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)}


def test_150_classes_have_the_digits_of_painter():
    """255 - 42 digit in Painter's bytes; ours runs the other way and fills the whole range."""
    ids = torch.arange(150)
    digits = torch.stack([ids % 6, ids // 6 % 6, ids // 36], dim=1)
    torch.testing.assert_close(palette(150), digits * 0.4 - 1)


def test_a_sample_is_the_nearest_colour():
    task = Semantic(classes=20, encoding="palette")
    x = 3 * torch.rand(2, 3, 9, 11, generator=generator("colours")) - 1.5
    apart = torch.cdist(x.permute(0, 2, 3, 1).reshape(-1, 3), palette(20))
    assert torch.equal(task.decode(x).values.flatten(), apart.argmin(dim=1))


def test_members_vote_and_do_not_mix_their_colours():
    """The mean of black, black and white is nearest to grey, which nobody voted for."""
    task = Semantic(classes=27, encoding="palette")
    black, grey, white = palette(27)[[0, 13, 26]]
    assert grey.tolist() == [0, 0, 0]
    members = torch.stack([black, white, black]).reshape(3, 1, 3, 1, 1)
    assert task.decode(members.mean(dim=0)).values.item() == 13
    merged = task.merge(members)
    assert merged.values.item() == 0
    assert merged.uncertainty is not None
    assert merged.uncertainty.item() == pytest.approx(1 / 3)


def test_a_tie_goes_to_the_class_nearest_to_the_mean():
    task = Semantic(classes=27, encoding="palette")
    black, white = palette(27)[[0, 26]]
    for pull, winner in ((0.1, 26), (-0.1, 0)):
        members = torch.stack([black + pull, white + pull]).reshape(2, 1, 3, 1, 1)
        merged = task.merge(members)
        assert merged.values.item() == winner
        assert merged.uncertainty is not None and merged.uncertainty.item() == 0.5
