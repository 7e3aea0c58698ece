"""Ceilings: the truth through encodings and codecs, without a network."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from stepsight.colours import VOID
from stepsight.data.collate import collate
from stepsight.data.resize import resize_sample
from stepsight.data.table import open_source, settings_for
from stepsight.errors import UserError
from stepsight.evaluation.bounds import ceiling_grid, ceilings, round_trips, variants
from stepsight.evaluation.jobs import protocol_of
from stepsight.models.codec import Pixels
from stepsight.models.config import CodecSettings
from stepsight.models.vae import VAE, build_vae
from stepsight.tasks.table import build_task

ENCODINGS = {
    "depth": ["linear", "log", "inverse"],
    "flow": ["joint", "separate"],
    "amodal": ["mask", "rgb"],
    "semantic": ["onehot", "bits", "palette"],
    "normals": ["vectors"],
}


class Blur(Pixels):
    """A codec that loses detail: means over blocks of 4 x 4 pixels, enlarged again."""

    downsample = 4

    def encode(self, x):
        return F.avg_pool2d(x, 4)

    def decode(self, z, channels):
        return F.interpolate(z[:, :channels], scale_factor=4)

    def mask(self, valid):
        return F.avg_pool2d(valid.float(), 4) == 1


@pytest.fixture(scope="module")
def scenes():
    return open_source(settings_for("scenes", level="easy", size=(32, 48), eval_count=20), "eval")


@pytest.fixture(scope="module")
def found(scenes):
    """Ceilings by codec, task and encoding."""
    every = ceilings(scenes, {"pixels": Pixels(), "blur": Blur()}, images=20)
    return {(one.codec, one.task, one.encoding): one for one in every}


def test_every_encoding_of_every_truth_is_tried(found):
    names = [(task, one) for task, ones in ENCODINGS.items() for one in ones]
    assert [key[1:] for key in found if key[0] == "pixels"] == names
    assert found.keys() == {(codec, *name) for codec in ("pixels", "blur") for name in names}


def test_pixels_lose_nothing_but_what_depth_clips(found):
    for code in ENCODINGS["semantic"]:
        assert found["pixels", "semantic", code].value == 1
        assert found["pixels", "semantic", code].metrics["pixel_accuracy"] == 1
    assert found["pixels", "amodal", "mask"].value == 1
    assert found["pixels", "flow", "joint"].value < 1e-6
    assert found["pixels", "normals", "vectors"].value < 1e-3
    assert 0 < found["pixels", "depth", "log"].value < 0.02


def test_the_ceiling_of_log_depth_is_that_of_depth_clipped_to_its_quantiles(scenes, found):
    errors = []
    for i in range(20):
        truth, valid = (getattr(scenes[i], name)[0] for name in ("depth", "depth_valid"))
        log = np.log(truth[valid].double().numpy())
        scored = log < math.log(80)  # metres, the protocol's range
        clipped = np.clip(log, *np.quantile(log, [0.02, 0.98]))
        scale, shift = np.polyfit(clipped[scored], log[scored], 1)
        near = np.minimum(np.exp(scale * clipped + shift), 80)[scored]
        errors.append(np.abs(near / np.exp(log[scored]) - 1).mean())
    assert found["pixels", "depth", "log"].value == pytest.approx(np.mean(errors), rel=1e-3)


@pytest.mark.parametrize("task", ENCODINGS)
def test_a_codec_that_blurs_lowers_every_ceiling(found, task):
    for encoding in ENCODINGS[task]:
        sharp, blurred = (found[codec, task, encoding] for codec in ("pixels", "blur"))
        worse = sharp.value - blurred.value
        assert (worse if task in ("amodal", "semantic") else -worse) > 1e-3
        assert blurred.metric == sharp.metric and blurred.protocol == sharp.protocol


def test_only_whole_cells_are_in_the_loss(scenes, found):
    assert found["blur", "semantic", "bits"].in_loss == 1  # every pixel of a world has a class
    valid = torch.stack([one.depth_valid for one in scenes.samples(range(20))])
    whole = valid.unfold(2, 4, 4).unfold(3, 4, 4).all(-1).all(-1).sum() * 16
    share = found["blur", "depth", "log"].in_loss
    assert share == pytest.approx(float(whole / valid.sum())) and 0.5 < share < 1
    assert found["pixels", "depth", "log"].in_loss == 1


def test_protocols_are_those_of_evaluation():
    names = [protocol_of(settings).name for _, settings in variants(7)]
    assert names[:3] == ["depth-affine", "depth-affine-log", "depth-affine"]
    assert names[3:7] == ["flow-epe", "flow-epe", "amodal-iou", "amodal-iou"]


def test_images_are_scored_once_at_the_working_size_whatever_their_own(lab):
    every = replace(lab.held, count=20, grids=((16, 16), (24, 40)))
    some = {one.encoding: one for one in ceilings(every, {"pixels": Pixels()}, images=18)}
    task = build_task(dict(variants(7))["linear"])
    samples = [resize_sample(every[i], every.size) for i in range(18)]
    batch = collate(samples)
    rows = task.score(task.decode(task.encode(batch).x), batch, "depth-affine")
    assert some["linear"].value == pytest.approx(float(rows["abs_rel"].nanmean()), rel=1e-6)
    assert some["linear"].metrics["n_images"] == int((rows["n"] > 0).sum())


def test_only_tasks_whose_truth_the_source_has(lab):
    only = replace(lab.held, quantities=frozenset({"labels"}))
    assert {trip.task.name for trip in round_trips(only, {"pixels": Pixels()})} == {"semantic"}
    none = replace(lab.held, quantities=frozenset({"class_id"}))
    with pytest.raises(UserError, match="no dense truth"):
        round_trips(none, {"pixels": Pixels()})


def test_a_vae_in_bfloat16_is_close_to_itself_in_float32_and_both_lose(scenes):
    torch.manual_seed(0)
    module = build_vae("vae-tiny")
    codecs = {
        name: VAE.from_module(module, CodecSettings("", precision))
        for name, precision in (("float32", "float32"), ("bfloat16", "bf16"))
    }
    every = ceilings(scenes, {"pixels": Pixels(), **codecs}, images=4)
    by = {(one.codec, one.task, one.encoding): one for one in every}
    assert len(by) == 33
    assert by["float32", "semantic", "onehot"].latents == 12
    assert by["float32", "semantic", "palette"].latents == by["bfloat16", "flow", "joint"].latents
    full, half = (by[dtype, "normals", "vectors"].value for dtype in codecs)
    assert half == pytest.approx(full, rel=0.05) and half != full
    assert full > by["pixels", "normals", "vectors"].value + 1


def test_the_picture_shows_truths_beside_what_is_left_of_them(lab, tmp_path):
    path = ceiling_grid(lab.held, {"pixels": Pixels(), "blur": Blur()}, tmp_path / "a.png", 2)
    page = np.asarray(Image.open(path))
    tile, gap, encodings, columns = 128, 6, 11, 8
    height, width, _ = page.shape
    assert height == 14 + 2 * gap + encodings * (tile + gap)
    left = width - columns * (tile + gap)
    assert left > 0

    def at(row: int, column: int):
        top, start = 14 + 2 * gap + row * (tile + gap), left + column * (tile + gap)
        return page[top : top + tile, start : start + tile].astype(int)

    onehot = 7
    for first in (0, 4):  # the two images
        truth, pixels, blurred = (at(onehot, first + i) for i in (1, 2, 3))
        known = (truth != VOID).any(-1)
        assert np.array_equal(truth[known], pixels[known])
        assert not np.array_equal(pixels, blurred)
    assert not np.array_equal(at(onehot, 0), at(onehot, 4))


def test_a_size_that_the_codec_cannot_take_is_refused(lab):
    codec = VAE.from_module(build_vae("vae-tiny"), CodecSettings())
    with pytest.raises(UserError, match="height 18 is not a multiple of 4"):
        ceilings(replace(lab.held, size=(18, 16)), {"float32": codec}, images=1)
