"""Noise by picture, so that no answer depends on the batch; sizes; what the network is given."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from stepsight.coding import Layout, check_sizes, code
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.seeding import generator
from stepsight.types import Batch

TASKS = ("depth", "flow", "amodal", "semantic", "normals")
SIZE = (24, 32)


def batch_of(rows: int, size: tuple[int, int] = SIZE) -> Batch:
    draw = generator("pipeline batch", *size)
    first, second = (2 * torch.rand(rows, 3, *size, generator=draw) - 1 for _ in range(2))
    modal = torch.rand(rows, 1, *size, generator=draw) < 0.4
    keys = [f"image{row}" for row in range(rows)]
    return Batch(first, keys, ["toys"] * rows, second=second, modal=modal)


def rows_of(batch: Batch, rows: list[int]) -> Batch:
    parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return Batch(
        **{
            name: value[rows] if isinstance(value, Tensor) else value and [value[r] for r in rows]
            for name, value in parts.items()
        }
    )


# ---------------------------------------------------------------------------- batches


@pytest.mark.parametrize("task", TASKS)
def test_a_prediction_does_not_depend_on_the_batch(task, pipeline):
    batch = batch_of(5)
    together = pipeline.sample(batch, task, nfe=2, members=3)
    assert together.shape == (3, 5, pipeline.tasks[task].channels, *SIZE)
    for row in (0, 4):
        alone = pipeline.sample(rows_of(batch, [row]), task, nfe=2, members=3)
        torch.testing.assert_close(alone[:, 0], together[:, row], atol=1e-5, rtol=1e-5)
    turned = pipeline.sample(rows_of(batch, [3, 1, 4]), task, nfe=2, members=3)
    torch.testing.assert_close(turned, together[:, [3, 1, 4]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 15, 64])
def test_the_size_of_a_forward_pass_is_of_no_consequence(chunk_size, pipeline):
    batch = batch_of(5)
    expected = pipeline.sample(batch, "flow", nfe=2, members=3)
    seen = []
    hook = pipeline.net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = pipeline.sample(batch, "flow", nfe=2, members=3, chunk_size=chunk_size)
    hook.remove()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert max(seen) == min(chunk_size, 15) and sum(seen) == 2 * 15  # NFE x images x members


@pytest.mark.parametrize(("sampler", "eta"), [("ddim", 1.0), ("ancestral", 0.0)])
def test_noise_inside_the_walk_does_not_depend_on_the_batch_either(sampler, eta, make):
    stochastic, batch = make(sampler, eta, ("depth",)), batch_of(3)
    together = stochastic.sample(batch, "depth", nfe=3, members=2, chunk_size=4)
    alone = stochastic.sample(rows_of(batch, [2]), "depth", nfe=3, members=2)
    torch.testing.assert_close(alone[:, 0], together[:, 2], atol=1e-5, rtol=1e-5)
    plain = make(tasks=("depth",)).sample(batch, "depth", nfe=3, members=2)
    assert (plain - together).abs().max() > 1e-3


def test_a_small_ensemble_is_the_beginning_of_a_large_one(pipeline):
    batch = batch_of(2)
    few, many = (pipeline.sample(batch, "depth", nfe=2, members=n) for n in (2, 5))
    torch.testing.assert_close(few, many[:2], atol=1e-5, rtol=1e-5)
    spread = (many[:, None] - many[None]).abs().amax(dim=(2, 3, 4, 5))
    assert (spread + torch.eye(5) > 1e-3).all()  # and no two members are the same


def test_seed_and_pixels_choose_the_noise_and_names_do_not(pipeline):
    """Pixels as a file has them, in 8 bits: rounding of the picture in memory changes no noise."""

    def start(seed: int = 0, key: str = "image0", change: float = 0.0) -> Tensor:
        batch = batch_of(1)
        batch.keys = [key]
        batch.image = ((batch.image + 1) * 127.5).round() / 127.5 - 1
        batch.image[0, 1, 2, 3] = change - 0.5
        seen = []
        hook = pipeline.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        pipeline.sample(batch, "depth", nfe=1, members=1, seed=seed)
        hook.remove()
        return seen[0]

    assert torch.equal(start(), start())
    assert torch.equal(start(), start(key="other"))
    assert not torch.equal(start(), start(seed=1))
    assert not torch.equal(start(), start(change=2 / 255))
    assert torch.equal(start(), start(change=1e-4))


def test_one_picture_twice_in_a_batch_is_answered_twice_alike(pipeline):
    batch = rows_of(batch_of(2), [0, 1, 0])
    found = pipeline.sample(batch, "depth", nfe=2, members=2)
    torch.testing.assert_close(found[:, 0], found[:, 2], atol=1e-5, rtol=1e-5)
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


def test_the_global_generator_is_neither_used_nor_moved(pipeline):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = pipeline.sample(batch_of(1), "depth", nfe=2, members=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(pipeline.sample(batch_of(1), "depth", nfe=2, members=2), first)


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((24, 32), (24, 32)),  # the size of training
        ((48, 64), (24, 32)),  # the same shape, larger and smaller
        ((12, 16), (24, 32)),
        ((32, 24), (32, 24)),
        ((100, 100), (24, 24)),
        ((37, 51), (24, 32)),
        ((1, 999), (8, 872)),
    ],
)
def test_images_are_worked_on_at_the_area_of_training(grid, expected, pipeline):
    size = pipeline.working_size("depth", grid)
    assert size == expected
    assert all(side % pipeline.net.stride == 0 for side in size)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(37, 51), (8, 8), (51, 20)])
def test_predictions_lie_on_the_grid_of_the_image(task, size, pipeline):
    batch = batch_of(2, size)
    merged = pipeline.predict(batch, task, nfe=1, members=2)
    assert merged.values.shape[0] == 2 and merged.values.shape[-2:] == size
    assert merged.uncertainty is not None and merged.uncertainty.shape == (2, 1, *size)
    assert merged.values.float().isfinite().all() and merged.uncertainty.isfinite().all()
    assert merged.x.shape[-2:] == pipeline.working_size(task, size)


def test_flow_grows_with_the_grid_and_so_does_its_uncertainty(pipeline):
    """The same scene on a grid twice as fine: vectors and their spread are twice as long."""
    members = torch.randn(4, 1, 2, *SIZE, generator=generator("flow members"))
    small = pipeline.tasks["flow"].merge(members)
    fine = (2 * SIZE[0], 2 * SIZE[1])
    large = pipeline.finish(small, batch_of(1, fine))
    same = pipeline.finish(small, batch_of(1))
    torch.testing.assert_close(same.values, small.values)
    torch.testing.assert_close(same.uncertainty, small.uncertainty)
    assert large.uncertainty is not None and small.uncertainty is not None
    middle = (slice(None), slice(None), slice(10, -10), slice(10, -10))
    ratio = large.uncertainty[middle].mean() / small.uncertainty.mean()
    assert float(ratio) == pytest.approx(2, rel=0.1)


def test_a_mask_stays_a_mask_at_working_size(pipeline):
    working = pipeline.working(batch_of(2, (37, 51)), "amodal")
    assert working.modal is not None and working.modal.dtype == torch.bool
    assert working.modal.shape == (2, 1, 24, 32)
    assert working.depth is None and working.amodal is None


def test_working_sizes_have_to_fit_the_backbone(pipeline):
    check_sizes(pipeline.net, {"depth": (8, 16)}, 1)
    with pytest.raises(UserError, match="working size 8x12 of flow: W=12 .* Use 8 or 16"):
        check_sizes(pipeline.net, {"depth": (8, 16), "flow": (8, 12)}, 1)
    with pytest.raises(UserError, match="W=24 .* 16, the backbone's and codec's stride"):
        check_sizes(pipeline.net, {"depth": (16, 24)}, 2)


# ---------------------------------------------------------------------------- the coded batch


def test_tasks_share_channels_and_only_their_own_count(pipeline):
    batch = batch_of(2)
    batch.depth = 1 + 9 * torch.rand(2, 1, *SIZE, generator=generator("depth"))
    batch.depth_valid = torch.rand(2, 1, *SIZE, generator=generator("valid")) < 0.5
    coded = pipeline.code(batch, "depth", target=True)
    assert coded.x is not None and coded.valid is not None
    assert coded.x.shape == coded.valid.shape == (2, 7, *SIZE)  # semantic has seven
    assert not coded.x[:, 1:].any() and not coded.valid[:, 1:].any()
    assert torch.equal(coded.valid[:, :1] == 1, batch.depth_valid)
    assert coded.label.tolist() == [TASKS.index("depth")] * 2
    assert coded.features is None


@pytest.mark.parametrize("task", TASKS)
def test_condition_images_fill_a_fixed_number_of_channels(task, pipeline):
    batch = batch_of(2)
    coded = pipeline.code(batch, task)
    assert coded.x is None and coded.valid is None and coded.cond.shape == (2, 6, *SIZE)
    assert torch.equal(coded.cond[:, :3], batch.image)
    assert coded.cond[:, 3:].any() == (task in ("flow", "amodal"))
    assert coded.label.tolist() == [TASKS.index(task)] * 2


def test_the_code_of_a_task_alone_is_its_own_width(pipeline):
    task = pipeline.tasks["amodal"]
    batch = batch_of(2)
    batch.amodal, batch.amodal_valid = batch.modal, torch.ones_like(batch.image[:, :1]).bool()
    coded = code(batch, task, Layout.of({"amodal": task}, Pixels()), Pixels(), target=True)
    assert coded.x is not None and coded.x.shape[1] == 1
    assert coded.cond.shape[1] == 6 and coded.label.tolist() == [0, 0]
