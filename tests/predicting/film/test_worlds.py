"""Films of procedural worlds: flow and depth are those of what is seen."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest
import torch

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.film import SceneFilm
from stepsight.metrics.photometric import warped

WORLDS = ScenesSettings(size=(32, 48), displacement=2.0)


@pytest.fixture(scope="module")
def films():
    return [list(SceneFilm(WORLDS, number, 8)) for number in range(3)]


def test_the_flow_leads_to_the_same_point_of_the_next_frame(films):
    """By the pictures, which flow and mask are not made from."""
    for film in films:
        off = torch.zeros(2)
        for now, then in pairwise(film):
            assert torch.equal(now.second, then.image)
            assert not torch.equal(now.image, then.image)
            seen = (~now.occluded & now.flow_valid)[0]
            assert 0.6 < seen.float().mean() < 1
            moved = warped(then.image[None].float(), now.flow[None])[0]
            picture = now.image.float()
            off += torch.stack([(x - picture).abs()[:, seen].mean() for x in (moved, then.image)])
        assert off[0] < 0.6 * off[1]


def test_frames_are_those_of_the_first_alone_and_the_last_has_no_flow(films):
    longer = list(SceneFilm(WORLDS, 1, 9))
    for short, long in zip(films[1][:-1], longer):
        assert short.key == long.key
        for field in fields(short):
            a, b = getattr(short, field.name), getattr(long, field.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert films[1][-1].flow is None and films[1][-1].depth is not None
    assert len({film[0].key for film in films}) == 3


def test_nothing_moves_in_a_still_film():
    first, *others = SceneFilm(WORLDS, 0, 4, still=True)
    assert all(torch.equal(one.image, first.image) for one in others)
    assert not first.flow.any()
    border = torch.ones_like(first.occluded)
    border[:, 1:-1, 1:-1] = False
    assert not (first.occluded & ~border).any()
