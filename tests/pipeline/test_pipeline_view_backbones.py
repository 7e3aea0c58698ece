"""Views with other backbones than the pipeline's usual one, and in latents."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from viewing import batch_of, frame_of, inputs, naive, pipeline_of

from stepsight.config import from_dict
from stepsight.models.codec import Pixels
from stepsight.pipeline.views import MIRROR, View, shifted
from stepsight.seeding import generator
from stepsight.tasks.table import build_tasks


@pytest.mark.parametrize("name", ["DiT-Ti/4", "DiT-Ti/4-2E1A", "unet-tiny"])
@pytest.mark.parametrize("task", ["depth", "flow"])
def test_backbones_as_published_start_from_zeros_and_look_in_views(name, task):
    tasks = {"depth": {}, "flow": {"cost_volume": False}}
    pipeline, batch = pipeline_of(name, tasks), batch_of()
    cold = pipeline.sampling(temperature=0.0, views="mirror")
    first, *_ = inputs(pipeline, lambda: cold.sample(batch, task, nfe=3, members=1))
    assert not first.any()
    warm = pipeline.sampling(views="mirror").sample(batch, task, nfe=3, members=1)[0]
    expected = naive(pipeline, batch, task, "mirror", 3)
    torch.testing.assert_close(warm, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("task", ["depth", "flow"])
def test_latents_start_from_zeros_and_look_in_views(task, vae_of):
    vae = vae_of(0)
    pipeline, batch = pipeline_of("split-8", ("depth", "flow"), vae), batch_of()
    pipeline.sizes |= {name: (16, 32) for name in pipeline.sizes}
    cold = pipeline.sampling(temperature=0.0, views="mirror+shift")
    calls = inputs(pipeline, lambda: cold.sample(batch, task, nfe=3, members=1))
    assert len(calls) == 3 and not calls[0].any()
    found = cold.sample(batch, task, nfe=3, members=1)
    plain = pipeline.sampling(temperature=0.0).sample(batch, task, nfe=3, members=1)
    assert found.shape == plain.shape and found.isfinite().all()
    assert (found - plain).abs().max() > 1e-4


def test_latents_are_mirrored_as_pictures_where_a_sign_changes(vae_of):
    vae = vae_of(0)
    tasks = build_tasks(from_dict({"tasks": {"depth": {}, "flow": {}}}).tasks)
    z = torch.randn(2, 4, 8, 12, generator=generator("z"))
    assert torch.equal(frame_of(tasks["depth"], vae).seen(z, MIRROR), z.flip(-1))
    flow = vae.decode(z, 2).flip(-1)
    expected = vae.encode(torch.cat([-flow[:, :1], flow[:, 1:]], dim=1))
    torch.testing.assert_close(frame_of(tasks["flow"], vae).seen(z, MIRROR), expected)


class Halved(Pixels):
    """Cells of 2 x 2 pixels."""

    downsample = 2

    def encode(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)


def test_in_latents_a_view_is_moved_by_whole_cells():
    pipeline, view = pipeline_of("split-8", ("depth",), Halved()), View(right=2, down=-1)
    batch = batch_of()
    seen = view.batch(batch, cell=2)
    assert torch.equal(seen.image[..., 3, 9], batch.image[..., 3 + 2, 9 - 4])
    shown = pipeline.code(seen, "depth").cond
    expected = shifted(F.avg_pool2d(batch.image, 2), 2, -1)
    inner = (..., slice(0, -1), slice(2, None))  # what has not come in over an edge
    torch.testing.assert_close(shown[inner], expected[inner])
