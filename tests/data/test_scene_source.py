"""The source of procedural worlds: samples, dials, errors and the bank."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frames import frames_in

from stepsight.data.cache.bank import Bank
from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.kinds import CLASSES, LABEL, NAMES, THINGS, TYPES
from stepsight.data.scenes.levels import level_of
from stepsight.data.scenes.parameters import World, draw_world
from stepsight.data.scenes.source import QUANTITIES, Scenes
from stepsight.errors import UserError
from stepsight.types import Sample

SMALL = ScenesSettings(size=(24, 32), count=40, eval_count=20)


def world(count: int = 200, **dials: float | bool | str) -> World:
    return draw_world(level_of(ScenesSettings(**dials)), 0, "train", range(count))  # type: ignore


def assert_same(one: Sample, other: Sample) -> None:
    for field in fields(Sample):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def test_a_sample_has_everything_in_its_place() -> None:
    source = Scenes(SMALL, "train")
    sample = source[7]
    kinds = {
        "image": (torch.uint8, (3, 24, 32)),
        "second": (torch.uint8, (3, 24, 32)),
        "depth": (torch.float32, (1, 24, 32)),
        "depth_valid": (torch.bool, (1, 24, 32)),
        "flow": (torch.float32, (2, 24, 32)),
        "flow_valid": (torch.bool, (1, 24, 32)),
        "labels": (torch.int64, (24, 32)),
        "modal": (torch.bool, (1, 24, 32)),
        "amodal": (torch.bool, (1, 24, 32)),
        "amodal_valid": (torch.bool, (1, 24, 32)),
        "whole": (torch.uint8, (3, 24, 32)),
        "normals": (torch.float32, (3, 24, 32)),
        "normals_valid": (torch.bool, (1, 24, 32)),
    }
    for name, (dtype, shape) in kinds.items():
        value = getattr(sample, name)
        assert (value.dtype, tuple(value.shape)) == (dtype, shape), name
        assert value.is_contiguous(), name
    assert len(source) == 40 and len(Scenes(SMALL, "eval")) == 20
    assert source.quantities == QUANTITIES and len(source.classes) == 7
    assert len(source.categories) == 8 and type(sample.class_id) is int
    assert sample.labels is not None and sample.labels.max() < 7
    assert sample.key != Scenes(SMALL, "eval")[7].key
    tuning = Scenes(SMALL, "tune")  # which settings are chosen on
    assert len(tuning) == 20 and not torch.equal(tuning[7].image, Scenes(SMALL, "eval")[7].image)
    assert not torch.equal(tuning[7].image, sample.image)


@pytest.mark.parametrize("quantity", sorted(QUANTITIES))
def test_only_what_is_asked_for_is_there_and_it_is_the_same(quantity: str) -> None:
    whole, part = Scenes(SMALL, "train")[3], Scenes(SMALL, "train", frozenset({quantity}))[3]
    names = [f.name for f in fields(Sample) if getattr(part, f.name) not in (None, {})]
    assert part.class_id in (None, whole.class_id)
    assert any(name.startswith(quantity) for name in names) and len(names) < 8
    for name in names:
        value = getattr(part, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(whole, name)), name


def test_samples_are_the_single_scenes_in_order() -> None:
    source = Scenes(SMALL, "train")
    for index, sample in zip([30, 2, 2, 17], source.samples([30, 2, 2, 17])):
        assert_same(sample, source[index])


def test_amodal_masks_contain_the_modal_ones() -> None:
    frames = frames_in(Scenes(ScenesSettings(), "eval"), range(64))
    assert (frames.amodal | ~frames.modal).all()
    area, visible = frames.amodal.sum((1, 2, 3)), frames.modal.sum((1, 2, 3))
    torch.testing.assert_close(frames.hidden, 1 - visible / area)
    partly = (frames.hidden >= 0.1) & (frames.hidden <= 0.9)
    assert partly.float().mean() > 0.7
    assert (visible[partly] >= 0.003 * 64 * 64).all()


def test_no_object_means_no_amodal_truth() -> None:
    sample = Scenes(ScenesSettings(objects=0.0), "train")[0]
    assert sample.amodal is not None and not sample.amodal.any()
    assert sample.modal is not None and not sample.modal.any()
    assert sample.amodal_valid is not None and not sample.amodal_valid.any()
    assert sample.whole is not None and (sample.whole == 255).all()
    assert sample.labels is not None and sample.labels.max() <= 2


def test_the_whole_object_is_what_is_seen_of_it_out_of_the_shadows() -> None:
    same, white, seen = 0, 0, 0
    for sample in Scenes(ScenesSettings(), "eval").samples(range(64)):
        assert sample.whole is not None and sample.amodal is not None and sample.modal is not None
        inside, visible = (mask.expand(3, -1, -1) for mask in (sample.amodal, sample.modal))
        assert (sample.whole[~inside] == 255).all()
        assert (sample.whole[visible] >= sample.image[visible]).all()
        same += int((sample.whole[visible] == sample.image[visible]).sum())
        white += int((sample.whole[inside] == 255).sum())
        seen += int(visible.sum())
    assert same > 0.7 * seen and white < 0.01 * seen


def test_scene_types_count_the_things() -> None:
    """By hand, from the parameters of single scenes."""
    several = world(300)
    for index in range(300):
        active = several.objects.active[index]
        labels = LABEL[several.objects.kind[index][active]].tolist()
        most = max(THINGS, key=lambda thing: labels.count(CLASSES.index(thing)))
        place = "outdoors" if several.room.outdoors[index] else "indoors"
        assert TYPES[several.type[index]] == f"{place}, {most}"
    empty = world(20, objects=0.0)
    assert (empty.type == len(THINGS) * empty.room.outdoors).all()


def test_every_scene_type_occurs() -> None:
    counts = np.bincount(world(2000).type, minlength=len(TYPES))
    assert len(counts) == 8 and counts.min() >= 10


def test_standard_flow_is_valid_everywhere() -> None:
    for sample in Scenes(ScenesSettings(size=(32, 32)), "train").samples(range(64)):
        assert sample.flow_valid is not None and sample.flow_valid.all()
        assert sample.flow is not None and sample.flow.isfinite().all()


@pytest.mark.parametrize("wanted", [0.0, 3.0, 6.0])
def test_objects_dial(wanted: float) -> None:
    found = world(objects=wanted).objects.active.sum(1).mean()
    assert 0.9 * wanted <= found <= 1.02 * wanted  # a few find no free place


def test_thin_dial() -> None:
    pole = NAMES.index("pole")
    assert not (world(thin=0.0).objects.kind == pole).any()
    assert (world(thin=1.0).objects.kind == pole).all()
    assert (world(thin=0.3).objects.kind == pole).mean() == pytest.approx(0.3, abs=0.05)


def test_texture_dial() -> None:
    plain, full = world(texture=0.0), world(texture=1.0)
    assert (plain.surfaces.contrast == 0).all() and full.surfaces.contrast.min() > 0.5
    assert (plain.objects.centre == full.objects.centre).all()
    still = {"objects": 0.0, "size": (32, 32)}
    images = [Scenes(ScenesSettings(texture=t, **still), "train")[1].image for t in (0.0, 1.0)]
    rough = [(image.float().diff(dim=2).abs()).mean() for image in images]
    assert rough[0] < rough[1] / 2


def test_displacement_dial() -> None:
    one, two = world(displacement=0.5), world(displacement=1.0)
    np.testing.assert_allclose(2 * one.camera.turn, two.camera.turn)
    small = [Scenes(ScenesSettings(displacement=d), "train").samples(range(16)) for d in (0.5, 1.0)]
    length = [np.mean([s.flow.norm(dim=0).mean() for s in rows]) for rows in small]  # type: ignore
    assert length[1] == pytest.approx(2 * length[0], rel=0.15)


def test_camera_only_dial() -> None:
    assert (world(camera_only=True).objects.slide == 0).all()
    assert (world(camera_only=True).objects.spin == 0).all()
    moving = (world(camera_only=False).objects.slide[..., [0, 2]] != 0).all(-1)
    assert moving.mean() == pytest.approx(0.5, abs=0.1)
    assert (world(camera_only=True).camera.turn == world().camera.turn).all()


def test_occlusion_dial() -> None:
    hidden = []
    for share in (0.0, 1.0):
        frames = frames_in(
            Scenes(ScenesSettings(occlusion=share, objects=3.0), "train"), range(128)
        )
        hidden.append(((frames.hidden > 0.1) & (frames.hidden < 0.9)).float().mean())
    assert hidden[1] > hidden[0] + 0.2


def test_unknown_level_is_named_and_corrected() -> None:
    with pytest.raises(UserError, match="standrad.*Did you mean 'standard'"):
        Scenes(ScenesSettings(level="standrad"), "train")


def test_unknown_quantity_and_dial_out_of_range() -> None:
    with pytest.raises(UserError, match="normal'.*Did you mean 'normals'"):
        Scenes(SMALL, "train", frozenset({"normal"}))
    with pytest.raises(UserError, match="scenes.occlusion: 1.5"):
        Scenes(ScenesSettings(occlusion=1.5), "train")
    with pytest.raises(IndexError):
        Scenes(SMALL, "train")[40]


def test_bank_of_scenes_gives_the_same_bits(tmp_path: Path) -> None:
    source = Scenes(SMALL, "train")
    bank = Bank(source, tmp_path / "bank", source.fingerprint, len(source))
    bank.fill()
    for one, other in zip(source.samples([5, 0, 39]), bank.samples([5, 0, 39])):
        assert_same(one, other)


def test_fingerprint_tells_worlds_apart() -> None:
    others = [replace(SMALL, seed=1), replace(SMALL, level="hard"), replace(SMALL, texture=0.5)]
    found = {Scenes(one, "train").fingerprint for one in (SMALL, *others)}
    assert len(found | {Scenes(SMALL, "eval").fingerprint}) == 5
    assert Scenes(replace(SMALL, cache="x"), "train").fingerprint in found
