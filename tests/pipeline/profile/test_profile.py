"""Profiles: what a checkpoint keeps of them, the sizes they give, and what they change."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from stepsight.conversion.write import Converted, write
from stepsight.errors import UserError
from stepsight.models.codec import Pixels
from stepsight.pipeline.config import STEPSIGHT, Profile
from stepsight.pipeline.dense import DensePipeline
from stepsight.pipeline.inputs import content_keys
from stepsight.pipeline.working import brought_back, inputs_at, working_size
from stepsight.seeding import generator
from stepsight.tasks.base import resize
from stepsight.tasks.depth import Depth
from stepsight.types import Batch, Prediction

# Another value of every field.
OTHERS = {
    "name": "other",
    "fit": "longest",
    "resolution": 40,
    "multiple": 8,
    "pad": 8,
    "resize_input": "bilinear",
    "resize_task": {"depth": "nearest"},
    "resize_mask": "nearest",
    "resize_output": "nearest_exact",
    "resize_answer": {"normals": "nearest"},
    "posterior": "sample",
    "clip": True,
    "noise": "shared",
    "nfe": 3,
    "members": 5,
    "tasks": {"depth": {"merge_by": "published", "low": 0.0}},
}
PADDED = Profile("padded", fit="longest", resolution=44, pad=8)  # the toy network divides by 8


def batch_of(rows: int, height: int = 30, width: int = 50) -> Batch:
    draw = generator("profiles")
    image, second = 2 * torch.rand(2, rows, 3, height, width, generator=draw) - 1
    modal = torch.rand(rows, 1, height, width, generator=draw) > 0.5
    keys = [f"image{row}" for row in range(rows)]
    return Batch(image, keys, ["toys"] * rows, second=second, modal=modal)


def seen_by(pipeline: DensePipeline, profile: Profile) -> DensePipeline:
    """A copy with another published profile, in use."""
    other = pipeline.profiled("stepsight")
    other.published = profile
    return other.profiled("published")


# ---------------------------------------------------------------------------- what is kept


def stored(pipeline: DensePipeline, profile: Profile | None, out: Path) -> Path:
    weights, sizes = pipeline.net.state_dict(), pipeline.sizes
    write(Converted(pipeline.config, weights, sizes, Pixels(), profile=profile), out)
    return out


def test_a_checkpoint_keeps_every_choice(pipeline, tmp_path):
    every = Profile(**OTHERS)
    assert all(getattr(every, one.name) != getattr(STEPSIGHT, one.name) for one in fields(Profile))
    opened = DensePipeline.from_pretrained(stored(pipeline, every, tmp_path / "run"))
    assert opened.profile == opened.published == every
    assert opened.profile.id == every.id
    depth, usual = opened.task("depth"), opened.default_setting("depth")
    assert (depth.merge_by, depth.low, usual.nfe, usual.members) == ("published", 0.0, 3, 5)


def test_stepsights_own_answers_are_as_without_a_profile(pipeline, tmp_path):
    """To the last bit, and whichever is asked for where the checkpoint has none."""
    every = Profile(**OTHERS)
    runs = [
        DensePipeline.from_pretrained(stored(pipeline, every, tmp_path / "a"), profile="stepsight"),
        DensePipeline.from_pretrained(stored(pipeline, None, tmp_path / "b")),
        DensePipeline.from_pretrained(tmp_path / "b", profile="stepsight"),
        DensePipeline.from_pretrained(tmp_path / "a").profiled("stepsight"),
    ]
    for task in pipeline.tasks:
        setting = pipeline.default_setting(task)
        wanted = pipeline.predict(batch_of(2), task, nfe=2, members=2)
        for run in runs:
            found = run.predict(batch_of(2), task, nfe=2, members=2)
            assert torch.equal(found.values, wanted.values)
            assert run.default_setting(task) == setting and run.tasks[task] == pipeline.tasks[task]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resise_input": "nearest"}, "no 'resise_input'.*resize_input"),
        ({"fit": "round"}, "fit is 'round'; choose from area, longest"),
        ({"resize_mask": "cubic"}, "resize_mask is 'cubic'"),
        ({"resize_task": {"flow": "cubic"}}, "resize_task is 'cubic'; choose from antialiased"),
        ({"resize_answer": {"flow": "cubic"}}, "resize_answer is 'cubic'; choose from antialiased"),
    ],
)
def test_what_is_unknown_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Profile.of(asdict(STEPSIGHT) | change)


def test_the_digest_tells_every_choice():
    ids = {replace(STEPSIGHT, **{name: value}).id for name, value in OTHERS.items()}
    assert len(ids | {STEPSIGHT.id}) == len(fields(Profile)) + 1
    again = Profile.of(json.loads(json.dumps(asdict(Profile(**OTHERS)))))
    assert again.id == Profile(**OTHERS).id and again.mark("p@1") == f"p@1+{again.id}"
    assert STEPSIGHT.mark("p@1") == "p@1"
    assert replace(STEPSIGHT, pad=8).differences() == {"pad": 8}


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("profile", "grid", "wanted"),
    [
        (Profile("p", fit="longest", resolution=768), (375, 1242), (231, 768)),
        (Profile("p", fit="longest", resolution=768), (241, 319), (580, 768)),
        (Profile("p", fit="longest", resolution=768), (1080, 1920), (432, 768)),
        (Profile("p", fit="longest", resolution=768), (1024, 1024), (768, 768)),
        (Profile("p", fit="longest", resolution=768), (30, 47), (490, 768)),
        # 768 / 47 rounds down, and times 47 below 768
        (Profile("p", fit="longest_scaled", resolution=768), (30, 47), (490, 767)),
        (Profile("p", fit="longest_scaled", resolution=768), (375, 1242), (231, 768)),
        (Profile("p", fit="longest"), (352, 1216), (352, 1216)),
        (Profile("p", fit="longest_scaled"), (241, 319), (241, 319)),
        (Profile("p", fit="square", resolution=48), (352, 1216), (48, 48)),
        (Profile("p", fit="multiples", multiple=14), (241, 319), (238, 322)),
        (Profile("p", fit="multiples", multiple=32, resolution=640), (375, 1242), (192, 640)),
        (STEPSIGHT, (48, 64), (24, 32)),
        (STEPSIGHT, (64, 48), (32, 24)),
        (STEPSIGHT, (20, 2000), (8, 280)),
    ],
)
def test_working_sizes(profile, grid, wanted):
    assert working_size(profile, (24, 32), grid, 8) == wanted


def test_sizes_that_cannot_be_are_refused():
    narrow = Profile("thin", fit="longest", resolution=64)
    with pytest.raises(UserError, match="too narrow for the profile thin.*0x64"):
        working_size(narrow, (24, 32), (2, 300), 8)
    with pytest.raises(UserError, match="of 44 pixels: the network needs a multiple of 8"):
        working_size(Profile("s", fit="square", resolution=44), (24, 32), (30, 50), 8)


def test_another_resolution(pipeline):
    run = seen_by(pipeline, PADDED)
    assert run.at(88).working_size("depth", (30, 50)) == (52, 88)
    assert run.at(0).working_size("depth", (30, 50)) == (30, 50)
    assert run.at(88).profile.id != run.profile.id and run.profile.resolution == 44
    assert pipeline.at(88).working_size("depth", (30, 50)) == (56, 88)
    with pytest.raises(UserError, match="size 0"):
        pipeline.at(0)


# ---------------------------------------------------------------------------- what is seen


def test_pictures_are_padded_by_their_last_pixels_after_resizing():
    batch = batch_of(1)
    seen = inputs_at(batch, (26, 44), profile=PADDED)
    small = resize(batch.image, (26, 44))
    assert seen.image.shape == (1, 3, 32, 48) and seen.second is not None
    assert torch.equal(seen.image[..., :26, :44], small)
    assert torch.equal(seen.image[..., 26:, :44], small[..., 25:, :].expand(-1, -1, 6, -1))
    assert torch.equal(seen.image[..., 44:], seen.image[..., 43:44].expand(-1, -1, -1, 4))
    assert seen.modal is not None and seen.modal.dtype == torch.bool
    assert torch.equal(seen.modal[..., 26:, :44], seen.modal[..., 25:26, :44].expand(-1, -1, 6, -1))


def test_a_task_may_resize_in_its_own_way(pipeline):
    ways = {"resize_input": "nearest_exact", "resize_task": {"flow": "bilinear"}}
    run = seen_by(pipeline, replace(PADDED, pad=1, **ways))
    batch = batch_of(2)
    for task, way in (
        ("depth", "nearest_exact"),
        ("flow", "bilinear"),
        ("amodal", "nearest_exact"),
    ):
        assert torch.equal(run.working(batch, task).image, resize(batch.image, (26, 44), way))


@pytest.mark.parametrize("way", ["nearest", "nearest_exact", "bilinear"])
def test_masks_are_resized_apart(pipeline, way):
    run = seen_by(pipeline, replace(PADDED, pad=1, resize_mask=way))
    batch = batch_of(2)
    wanted = resize(batch.modal.float(), (26, 44), way) > 0.5
    assert torch.equal(run.working(batch, "amodal").modal, wanted)


# ---------------------------------------------------------------------------- what is answered


def test_padding_is_cut_off_before_members_are_merged(pipeline):
    """What lies there has no say in their alignment. The network sees it: there is what it answers
    to the padded picture, seen as it is."""
    run = seen_by(pipeline, PADDED)
    batch = batch_of(2)
    merged: list[Tensor] = []
    real = Depth.merge

    def noted(task: Depth, members: Tensor) -> Prediction:
        merged.append(members)
        return real(task, members)

    with mock.patch.object(Depth, "merge", noted):
        found = run.predict(batch, "depth", nfe=2, members=3)
    assert merged[0].shape == (3, 2, 1, 26, 44) and found.values.shape == (2, 1, 30, 50)
    padded = inputs_at(batch, (26, 44), profile=PADDED)
    native = seen_by(pipeline, Profile("native", fit="longest"))
    with mock.patch("stepsight.pipeline.inputs.content_keys", lambda _: content_keys(batch.image)):
        whole = native.sample(padded, "depth", nfe=2, members=3)
    assert whole.shape == (3, 2, 1, 32, 48)
    assert torch.equal(merged[0], whole[..., :26, :44])


def test_a_start_is_padded_as_its_picture_is(pipeline):
    run = seen_by(pipeline, PADDED)
    start = torch.randn(2, 1, 26, 44, generator=generator("starts"))
    seen: list[Tensor] = []
    hook = run.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    zeros = run.sampling(temperature=0.0)
    found = zeros.sample(batch_of(2), "depth", nfe=1, members=1, start=start, strength=0.5)
    hook.remove()
    assert found.shape == (1, 2, 1, 26, 44)
    (x,) = seen
    assert x.shape[-2:] == (32, 48)
    share = x[:, :1, :26, :44] / start
    torch.testing.assert_close(share, share[:1, :, :1, :1].expand_as(share), rtol=1e-4, atol=1e-4)
    assert torch.equal(x[:, :1, 26:, :44], x[:, :1, 25:26, :44].expand(-1, -1, 6, -1))
    assert torch.equal(x[:, :1, :, 44:], x[:, :1, :, 43:44].expand(-1, -1, -1, 4))


@pytest.mark.parametrize("task", ["depth", "flow", "amodal", "normals"])
def test_rows_of_a_batch_do_not_know_of_each_other(pipeline, task):
    run = seen_by(pipeline, replace(PADDED, noise="shared"))
    both = run.sample(batch_of(2), task, nfe=2, members=2)
    first = batch_of(2)
    alone = Batch(first.image[1:], first.keys[1:], first.sources[1:], second=first.second[1:])
    alone.modal = first.modal[1:]
    one = run.sample(alone, task, nfe=2, members=2)
    torch.testing.assert_close(both[:, 1:], one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.parametrize("way", ["nearest_exact", "bilinear"])
def test_answers_are_brought_back_in_the_profiles_way(pipeline, way, by_task):
    values = torch.rand(1, 3, 26, 44, generator=generator("back")) - 0.5
    spread = values[:, :1].abs()
    prediction = Prediction("normals", values, values, uncertainty=spread)
    task = pipeline.tasks["normals"]
    ways = {"resize_answer": {task.name: way}} if by_task else {"resize_output": way}
    profile = replace(PADDED, **ways).of_task(task.name)
    found = brought_back(prediction, task, (30, 50), 2.0, profile)
    wanted = torch.nn.functional.normalize(resize(prediction.values, (30, 50), way), dim=1)
    assert torch.equal(found.values, wanted)
    assert torch.equal(found.uncertainty, resize(2 * spread, (30, 50), way))
