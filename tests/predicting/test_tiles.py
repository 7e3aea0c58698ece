"""Tiles: planted answers come back whole, and no seam shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stepsight.errors import UserError
from stepsight.predicting import tiles
from stepsight.predicting.tiles import predict_tiled, robust_affine, starts
from stepsight.seeding import generator
from stepsight.tasks.table import task_for
from stepsight.types import Prediction

TILE, OVERLAP = 48, 16


class Planted:
    """A pipeline whose answers follow from pictures that carry their own places: the colours of a
    pixel are its column and its row."""

    def __init__(self, name: str, answer: Any) -> None:
        self.made, self.answer, self.calls = task_for(name, 8), answer, list[Tensor]()

    def task(self, name: str) -> Any:
        assert name == self.made.name
        return self.made

    def __call__(self, image: Any, task: str, **how: Any) -> Any:
        if not isinstance(image, list):
            self.calls.append(image)
            return self.answer(self.made, image, **how)
        every = {name: value for name, value in how.items() if isinstance(value, list)}
        return [
            self(one, task, **{name: value[i] for name, value in every.items()})
            for i, one in enumerate(image)
        ]


def places(height: int, width: int) -> Tensor:
    """uint8 "3 h w"."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.zeros_like(rows)]).to(torch.uint8)


def hills(image: Tensor) -> Tensor:
    """Something smooth in [-1, 1] of where a pixel is, "1 1 h w"."""
    column, row = image[:2].float()
    return (0.6 * torch.sin(column / 17) + 0.4 * torch.cos(row / 11))[None, None]


def jumps(x: Tensor, width: int) -> tuple[float, float]:
    """Mean second differences along rows of "1 1 h w": where tiles begin and end, and elsewhere."""
    second = x.diff(dim=-1).diff(dim=-1).abs().mean(dim=(0, 1, 2))
    edges = {at + by for at in starts(width, TILE, OVERLAP) for by in (0, TILE)} - {0, width}
    seams = torch.zeros(len(second), dtype=torch.bool)
    for at in edges:
        seams[max(0, at - 2) : at + 1] = True
    return float(second[seams].mean()), float(second[~seams].mean())


@pytest.mark.parametrize(
    ("side", "expected"), [(48, [0]), (30, [0]), (49, [0, 1]), (80, [0, 32]), (100, [0, 26, 52])]
)
def test_tiles_reach_from_end_to_end(side, expected):
    found = starts(side, 48, 16)
    assert found == expected
    assert all(b - a <= 32 for a, b in zip(found, found[1:]))


def test_depth_of_unknown_scale_and_shift_comes_back_as_one(monkeypatch):
    draw = generator("affine")

    def answer(task, image, **_):
        scale, shift = (torch.rand(2, generator=draw) * 2 + 0.2).tolist()
        x = hills(image) if image.shape[-1] > TILE else hills(image) * scale + shift
        values = task.decode(x).values
        return Prediction("depth", x, values, scale * torch.ones_like(x))

    picture = places(110, 150)
    pipeline: Any = Planted("depth", answer)
    found = predict_tiled(pipeline, picture, "depth", TILE, OVERLAP)
    expected = pipeline.made.decode(hills(picture)).values
    assert found.values.shape == (1, 1, 110, 150)
    torch.testing.assert_close(found.values, expected, rtol=2e-2, atol=0)
    seam, inside = jumps(found.values.log(), 150)
    assert seam <= 1.2 * jumps(expected.log(), 150)[0] and inside < 0.1
    # the overview's own scale is what all uncertainties are brought to
    assert found.uncertainty is not None and found.uncertainty.shape == (1, 1, 110, 150)
    torch.testing.assert_close(
        found.uncertainty, torch.ones_like(found.uncertainty), rtol=0.05, atol=0
    )
    assert found.picture is not None and found.picture.shape == (1, 3, 110, 150)


def test_a_tile_that_disagrees_with_the_overview_is_not_believed():
    def answer(task, image, **_):
        x = hills(image) if image.shape[-1] > TILE else torch.randn(1, 1, *image.shape[-2:])
        return Prediction("depth", x, task.decode(x).values)

    picture = places(60, 90)
    pipeline: Any = Planted("depth", answer)
    found = predict_tiled(pipeline, picture, "depth", TILE, OVERLAP)
    torch.testing.assert_close(
        found.values, pipeline.made.decode(hills(picture)).values, rtol=1e-4, atol=0
    )


def test_flow_beyond_the_reach_of_a_tile_is_found_around_the_overview(monkeypatch):
    monkeypatch.setattr(tiles, "OVERVIEW", 40)

    def answer(task, image, second, **_):
        step = (image[0, 0, -1].float() - image[0, 0, 0].float()) / (image.shape[-1] - 1)
        moved = (image[:2].float() - second[:2].float()) / step
        values = torch.where(moved.abs() <= 12, moved, 0.0)[None]  # what it reaches
        return Prediction("flow", values, values)

    first = places(100, 160) + torch.tensor([60, 60, 0], dtype=torch.uint8)[:, None, None]
    second = first - torch.tensor([33, 20, 0], dtype=torch.uint8)[:, None, None]  # by 33, 20 pixels
    pipeline: Any = Planted("flow", answer)
    found = predict_tiled(pipeline, first, "flow", TILE, OVERLAP, second=second)
    u, v = found.values[0]
    inner = (slice(0, 76), slice(0, 124))  # what the second picture still shows
    assert (u[inner] - 33).abs().max() < 1.5 and (v[inner] - 20).abs().max() < 1.5


def test_masks_are_completed_where_tiles_show_the_object():
    mask = np.zeros((60, 120), bool)
    mask[10:30, 10:30] = True

    def answer(task, image, mask, **_):
        x = mask.reshape(1, 1, *image.shape[-2:]).float() * 2 - 1
        return Prediction("amodal", x, task.decode(x).values)

    pipeline: Any = Planted("amodal", answer)
    found = predict_tiled(pipeline, places(60, 120), "amodal", TILE, OVERLAP, mask=mask)
    assert (
        len(pipeline.calls) == 1 + 2 * 2
    )  # of the overview, and of the tiles that show some of it
    assert np.array_equal((found.values[0, 0] > 0.5).numpy(), mask)


@pytest.mark.parametrize("encoding", ["onehot", "bits", "palette"])
def test_classes_are_blended_by_their_codes(encoding):
    from dataclasses import replace

    def answer(task, image, **_):
        ids = (image[0].long() // 20)[None]
        found = task._as_prediction(ids[:, None])
        return Prediction("semantic", found.x, ids[:, None])

    picture = places(60, 150)
    pipeline: Any = Planted("semantic", answer)
    pipeline.made = replace(pipeline.made, encoding=encoding)
    found = predict_tiled(pipeline, picture, "semantic", TILE, OVERLAP)
    assert found.values.dtype == torch.int64
    assert torch.equal(found.values[0, 0], picture[0].long() // 20)


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "semantic", "normals"])
def test_a_network_answers_every_task_in_tiles(task, lab):
    pipeline = lab.pipeline(lab.config((task,)))
    picture = torch.randint(0, 256, (3, 9, 13), dtype=torch.uint8, generator=generator(1))
    picture = (
        F.interpolate(picture[None].float(), size=(70, 100), mode="bicubic").clamp(0, 255)[0].byte()
    )
    more: Any = {"flow": {"second": picture.roll(3, -1)}, "amodal": {"mask": picture[0] > 90}}.get(
        task, {}
    )
    found = predict_tiled(pipeline, picture, task, TILE, nfe=1, members=2, **more)
    assert found.values.shape[-2:] == (70, 100) and found.values.float().isfinite().all()
    assert found.picture is not None and found.picture.shape == (1, 3, 70, 100)
    assert found.uncertainty is not None and found.uncertainty.shape == (1, 1, 70, 100)
    whole = predict_tiled(pipeline, picture, task, 100, nfe=1, **more)
    assert torch.equal(whole.values, pipeline(picture, task, nfe=1, **more).values)
    if task in ("depth", "normals"):
        seam, inside = jumps(found.values[:, :1], 100)
        assert seam <= 1.5 * inside


def test_what_cannot_be_tiled(lab):
    pipeline = lab.pipeline(lab.config(("depth",)))
    for overlap in (0, 25, -1):
        with pytest.raises(UserError, match="give 1 to 24"):
            predict_tiled(pipeline, places(60, 60), "depth", TILE, overlap)
    generating: Any = Planted("image", None)
    with pytest.raises(UserError, match="not answered in tiles: it generates"):
        predict_tiled(generating, places(60, 60), "image", TILE)


def test_a_robust_fit_leaves_outliers_aside():
    x = torch.rand(500, generator=generator("x"))
    y = 3 * x - 1 + 0.01 * torch.randn(500, generator=generator("noise"))
    y[:60] += 5
    scale, shift = robust_affine(x, y) or (0.0, 0.0)
    assert abs(scale - 3) < 0.05 and abs(shift + 1) < 0.05
    assert robust_affine(x, -y) is None and robust_affine(torch.ones(9), torch.rand(9)) is None
