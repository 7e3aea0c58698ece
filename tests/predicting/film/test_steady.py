"""What holds answers together, one mechanism at a time."""

from __future__ import annotations

import pytest
import torch

from stepsight.metrics.photometric import warped
from stepsight.predicting.film.config import FilmSettings
from stepsight.predicting.film.steady import LEAK, ShownFrame, affine, steadied
from stepsight.seeding import generator

ALIGNED = FilmSettings(smoothing=0.0)
SMOOTH = FilmSettings(smoothing=0.8)


def noise(number: int, channels: int = 1):
    return torch.randn(1, channels, 24, 24, generator=generator("steady", number))


@pytest.fixture
def scene():
    """A picture and a depth in the target space, both smooth."""
    coarse = noise(0, 4)[..., :5, :5]
    maps = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    return maps[:, :3].clamp(-1, 1), 0.5 * maps[:, 3:]


def test_equal_answers_to_equal_pictures_stay_equal_to_the_bit(scene):
    now = ShownFrame(*scene)
    for settings in (SMOOTH, FilmSettings()):
        assert torch.equal(steadied(now, now, None, settings, aligns=False).x, now.x)


def test_noise_is_averaged_away_over_frames(scene):
    picture, truth = scene
    shown = ShownFrame(picture, truth + 0.1 * noise(1))
    changes, first = [], []
    for frame in range(2, 30):
        now = ShownFrame(picture, truth + 0.1 * noise(frame))
        steady = steadied(now, shown, None, SMOOTH, aligns=False)
        changes.append((steady.x - shown.x).abs().mean())
        first.append(0.1 * (noise(frame) - noise(frame - 1)).abs().mean())
        shown = steady
    expected = 0.2 * (2 / 1.8) ** 0.5 / 2**0.5  # of a moving average with a new share of 0.2
    assert sum(changes[8:]) / sum(first[8:]) == pytest.approx(expected, rel=0.1)
    assert (shown.x - truth).std() < 0.05


def test_answers_go_along_with_the_flow(scene):
    picture, x = scene
    flow = torch.zeros(1, 2, 24, 24)
    flow[:, 0] = 3.0  # what was there lies three pixels to the right
    now = ShownFrame(warped(picture, flow), torch.zeros_like(x))
    found = steadied(now, ShownFrame(picture, x), flow, SMOOTH, aligns=False).x
    torch.testing.assert_close(found[..., :-3], 0.8 * x[..., 3:])
    assert not found[..., -3:].any()  # comes from outside of the frame


def test_what_looks_otherwise_is_not_carried(scene):
    picture, x = scene
    other = picture.clone()
    other[..., :8] = -picture[..., :8].sign()
    found = steadied(
        ShownFrame(other, torch.zeros_like(x)), ShownFrame(picture, x), None, SMOOTH, False
    ).x
    torch.testing.assert_close(found[..., 8:], 0.8 * x[..., 8:])
    agreed = (other - picture).abs().mean(1, keepdim=True)[..., :8] > 0.6
    assert found[..., :8][agreed].abs().max() < 1e-3


def test_another_shot_begins_anew(scene):
    picture, x = scene
    after = ShownFrame(-picture.sign(), 3 * x + 1)
    for settings in (SMOOTH, ALIGNED):
        assert steadied(after, ShownFrame(picture, x), None, settings, aligns=True) is after


def test_planted_pumping_is_undone(scene):
    picture, x = scene
    pumped = 1.2 * x + 0.15
    pumped[..., 4:9, 4:9] -= 0.8  # something has come near, and does not count
    found = steadied(
        ShownFrame(picture, pumped), ShownFrame(picture, x), None, ALIGNED, aligns=True
    ).x
    rest = torch.ones_like(x, dtype=torch.bool)
    rest[..., 4:9, 4:9] = False
    left = (found - x)[rest].abs().mean() / (pumped - x)[rest].abs().mean()
    assert left < LEAK + 0.05
    kept = steadied(
        ShownFrame(picture, pumped), ShownFrame(picture, x), None, ALIGNED, aligns=False
    ).x
    assert torch.equal(kept, pumped)


def test_scale_does_not_fade_over_a_noisy_film(scene):
    """Regression would multiply it by the correlation, here about .8, at every frame."""
    picture, x = scene
    scales = []
    for frame in range(40):
        scale, _ = affine(x + 0.2 * noise(frame), x + 0.2 * noise(frame + 1), torch.ones_like(x))
        scales.append(scale.log())
    assert abs(sum(scales)) < 0.3


def test_a_constant_answer_keeps_its_scale(scene):
    scale, shift = affine(torch.full((1, 1, 4, 4), 0.3), torch.full((1, 1, 4, 4), 0.5),
                          torch.ones(1, 1, 4, 4))  # fmt: skip
    assert scale == 1 and shift == pytest.approx(0.2)
    scale, shift = affine(*scene[1].expand(2, -1, -1, -1).split(1), torch.zeros_like(scene[1]))
    assert scale.isfinite() and shift.isfinite()
