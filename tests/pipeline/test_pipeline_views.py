"""Views: what a mirrored or shifted call sees, how it is brought back, and what is averaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from viewing import SIZE, TASKS, batch_of, frame_of, naive, pipeline_of

from stepsight.config import from_dict
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.views import MIRROR, PLAIN, VIEWS, Frame, View, averaging
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks

SEPARATE = {"flow": {"components": "separate", "cost_volume": False}}


@pytest.fixture(scope="module")
def pipeline() -> DensePipeline:
    return pipeline_of()


# ---------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("view", VIEWS["mirror+shift"], ids=str)
def test_a_view_moves_pixel_by_pixel(view: View):
    """Mirrored, then moved to the right and down; what comes in repeats the edge."""
    seen = view.batch(batch_of(), cell=1)
    height, width = SIZE
    for name in ("image", "second", "modal"):
        before, after = getattr(batch_of(), name), getattr(seen, name)
        for row, column in ((0, 0), (5, 9), (height - 1, width - 1), (2, width - 1)):
            y = min(max(row - view.down, 0), height - 1)
            x = min(max(column - view.right, 0), width - 1)
            x = width - 1 - x if view.mirror else x
            assert torch.equal(after[..., row, column], before[..., y, x])
    assert seen.keys == batch_of().keys


@pytest.mark.parametrize("view", VIEWS["mirror+shift"], ids=str)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_seen_comes_back_where_it_was(task, view, pipeline):
    frame = frame_of(pipeline.tasks[task])
    x = torch.randn(2, 7, *SIZE, generator=generator("x"))
    inside = frame.inside(x, view).bool().expand_as(x)
    back = frame.back(frame.seen(x, view), view)
    assert torch.equal(back[inside], x[inside])
    lost = abs(view.right) * SIZE[0] + abs(view.down) * (SIZE[1] - abs(view.right))
    assert int((~inside[0, 0]).sum()) == lost


def test_the_pixels_inside_are_those_that_a_view_shows(pipeline):
    """Each picture's own number goes through a view: those still there are inside."""
    frame = frame_of(pipeline.tasks["depth"], rows=1)
    numbers = torch.arange(SIZE[0] * SIZE[1]).float().reshape(1, 1, *SIZE)
    for view in VIEWS["mirror+shift"]:
        shown = torch.isin(numbers, frame.seen(numbers, view))
        edge = frame.inside(numbers, view).bool()
        assert shown[edge].all()
        assert not shown[~edge].any() or (view.right, view.down) == (0, 0)


def test_across_changes_its_sign_in_the_mirror(pipeline):
    x = torch.randn(2, 7, *SIZE, generator=generator("x"))
    for task, signs in (("flow", (-1, 1)), ("normals", (-1, 1, 1)), ("depth", (1,))):
        frame = frame_of(pipeline.tasks[task])
        found = frame.seen(x, MIRROR)
        for channel in range(7):
            sign = signs[channel] if channel < len(signs) else 1
            assert torch.equal(found[:, channel], sign * x[:, channel].flip(-1))


def test_across_of_two_passes_is_the_first():
    """In whatever order the rows of a forward pass come."""
    runs = torch.tensor([0, 1, 1, 0, 1])
    frame = Frame(build_tasks(from_dict({"tasks": SEPARATE}).tasks)["flow"], Pixels(), runs)
    x = torch.randn(5, 1, *SIZE, generator=generator("x"))
    for found, row, run in zip(frame.seen(x, MIRROR), x, runs, strict=True):
        assert torch.equal(found, row.flip(-1) * (2 * run - 1))


# ---------------------------------------------------------------------------- the trajectory


@pytest.mark.parametrize("task", ["depth", "flow", "normals"])
@pytest.mark.parametrize(("views", "nfe"), [("mirror", 3), ("mirror+shift", 5)])
def test_a_trajectory_is_what_it_says(task, views, nfe, pipeline):
    """From the mean of all answers so far and the noise it set out from, in any view."""
    batch = batch_of()
    found = pipeline.sampling(views=views).sample(batch, task, nfe=nfe, members=1)[0]
    expected = naive(pipeline, batch, task, views, nfe)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    plain = pipeline.sample(batch, task, nfe=nfe, members=1)[0]
    assert (found - plain).abs().max() > 1e-3


class Equivariant(nn.Module):
    """Turned pictures are answered turned: pointwise but for the slope across, which is odd."""

    stride = 8

    def __init__(self, odd: tuple[int, ...], still: bool = False) -> None:
        super().__init__()
        self.odd, self.weight = odd, nn.Parameter(torch.tensor(0.0 if still else 0.4))

    def forward(self, x: Tensor, cond: Tensor, time: Tensor, *_: Any, **__: Any) -> Tensor:
        grey = cond[:, :3].mean(dim=1)
        padded = F.pad(grey[:, None], (1, 1, 0, 0), mode="replicate")[:, 0]
        slope = padded[..., 2:] - padded[..., :-2]
        level = torch.tanh(grey) + self.weight * time.to(grey)[:, None, None]
        out = torch.stack([slope if c in self.odd else level for c in range(x.shape[1])], dim=1)
        return out + self.weight * x


@pytest.mark.parametrize("task", TASKS)
def test_an_equivariant_network_does_not_mind_the_mirror(task, pipeline, monkeypatch):
    """Nor, if it answers the same at every call, whether it is asked in views at all."""
    batch = batch_of()
    other = pipeline_of()
    other.net = Equivariant(pipeline.tasks[task].mirrors)
    mirrored = other.sampling(views="mirror").sample(batch, task, nfe=4, members=2)
    monkeypatch.setitem(VIEWS, "mirror", (PLAIN, PLAIN))
    straight = other.sampling(views="mirror").sample(batch, task, nfe=4, members=2)
    torch.testing.assert_close(mirrored, straight, atol=1e-5, rtol=1e-5)
    monkeypatch.undo()
    other.net = Equivariant(pipeline.tasks[task].mirrors, still=True)
    found = [other.sampling(views=one).sample(batch, task, nfe=4, members=1) for one in VIEWS]
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    inner = (..., slice(6, -6), slice(6, -6))  # at an edge that is repeated the slope is another
    torch.testing.assert_close(found[2][inner], found[0][inner], atol=1e-5, rtol=1e-5)


def test_what_a_view_does_not_show_does_not_count(pipeline):
    """The second call answers nonsense where it repeats the edge, and the mean is of the others."""
    frame, view = frame_of(pipeline.tasks["depth"], rows=1), View(right=3, down=-2)
    start = torch.zeros(1, 1, *SIZE)
    numbers = torch.rand(start.shape, generator=generator("truth"))

    def second(x: Tensor, t: Tensor) -> Tensor:
        answer = frame.seen(numbers, view)
        answer[..., :3] = torch.inf
        answer[..., -2:, :] = torch.inf
        return answer

    levels = lambda t, x: (x.new_ones(1), x.new_zeros(1))  # noqa: E731
    denoisers = [lambda x, t: numbers.clone(), second]
    denoise = averaging(denoisers, (PLAIN, view), frame, start, levels)
    for _ in range(4):
        mean = denoise(start, torch.tensor(0.5))
    torch.testing.assert_close(mean, numbers)


def test_the_mean_is_of_all_answers(pipeline):
    frame, start = frame_of(pipeline.tasks["depth"], rows=1), torch.zeros(1, 1, *SIZE)
    given, answers = [], iter([1.0, 3.0, 8.0])

    def answer(x: Tensor, t: Tensor) -> Tensor:
        given.append((float(x.mean()), float(t)))
        return torch.full_like(x, next(answers))

    levels = lambda t, x: (1 - t, t)  # noqa: E731
    denoise = averaging([answer, answer], (PLAIN, MIRROR), frame, start + 10, levels)
    times = [torch.tensor(t) for t in (1.0, 0.5, 0.25)]
    assert [float(denoise(start, t).mean()) for t in times] == [1.0, 2.0, 4.0]
    assert given == [(0.0, 1.0), (0.5 * 1 + 0.5 * 10, 0.5), (0.75 * 2 + 0.25 * 10, 0.25)]


def test_each_view_is_encoded_once_and_only_if_a_call_sees_it(pipeline):
    encoded = []
    own = pipeline.sampling(views="mirror+shift")
    encode = type(pipeline.net).encode
    for nfe in (1, 3, 8, 11):
        encoded.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(pipeline.net),
                "encode",
                lambda net, *given: encoded.append(len(given[0])) or encode(net, *given),
            )
            own.sample(batch_of(), "depth", nfe=nfe, members=3, chunk_size=2)
        assert encoded == [2] * min(nfe, 8)


def test_members_and_batches_are_as_without_views(pipeline):
    own, batch = pipeline.sampling(views="mirror"), batch_of()
    many = own.sample(batch, "flow", nfe=3, members=4)
    torch.testing.assert_close(
        own.sample(batch, "flow", nfe=3, members=2, first=1, chunk_size=3),
        many[1:3],
        atol=1e-5,
        rtol=1e-5,
    )
    assert (many[0] - many[1]).abs().max() > 1e-3


@pytest.mark.parametrize("chunk_size", [1, 3, 5])
def test_passes_keep_their_signs_however_a_forward_pass_is_cut(chunk_size):
    own, batch = pipeline_of(tasks=SEPARATE).sampling(views="mirror"), batch_of()
    together = own.sample(batch, "flow", nfe=3, members=3)
    cut = own.sample(batch, "flow", nfe=3, members=3, chunk_size=chunk_size)
    torch.testing.assert_close(cut, together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", [{"sampler": "euler"}, {"sampler": "ddim", "eta": 0.5}])
def test_views_of_other_trajectories_are_refused(way, pipeline):
    other = pipeline.sampling(views="mirror", **way)
    with pytest.raises(UserError, match="views mirror average the answers along ddim's trajectory"):
        other.sample(batch_of(), "depth", nfe=2, members=1)
    other.sample(batch_of(), "depth", nfe=1, members=1)  # one call sees the picture as it is
    other.sampling(views="none").sample(batch_of(), "depth", nfe=2, members=1)  # as it is advised
