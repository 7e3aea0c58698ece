"""Every rule speaks where its fault is planted in procedural worlds, and no rule where none is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.data.config import ScenesSettings
from stepsight.data.plausible.judging import (
    BY_NAME,
    FIRST,
    QUICK,
    RULES,
    first_look,
    input_remarks,
    prediction_remarks,
    remarks,
    summary,
    votes,
)
from stepsight.data.plausible.reach import within_reach
from stepsight.data.plausible.rules import PlausibleRule, Remark
from stepsight.data.scenes.levels import LEVELS
from stepsight.data.scenes.source import Scenes
from stepsight.errors import DataFormatError
from stepsight.types import Sample

TRUTHS = ("depth", "flow", "labels", "amodal", "normals")
WHERE: Any = SimpleNamespace(classes=("",) * 255, categories=("",) * 99, farthest=1000.0)


@pytest.fixture(scope="module")
def worlds() -> list[Sample]:
    return Scenes(ScenesSettings(size=(64, 64)), "eval").samples(range(8))


def spoken(
    samples: list[Sample], source: Any = WHERE, rules: Sequence[PlausibleRule] = RULES
) -> dict[tuple[str, str], Remark]:
    found = summary(one for sample in samples for one in votes(sample, source, rules))
    return {(remark.quantity, remark.rule): remark for remark in found}


def test_procedural_worlds_are_plausible_each_and_together(worlds):
    assert spoken(worlds) == {}
    assert [str(one) for world in worlds for one in remarks(world, WHERE)] == []


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_worlds_of_every_level_are_plausible_in_groups_of_any_size(level):
    for size in ((64, 64), (96, 128)):
        source = Scenes(ScenesSettings(size=size, level=level), "train")
        cast = [votes(world, source) for world in source.samples(range(16))]
        for count in (1, 2, 3, 4, 16):
            for first in range(0, len(cast), count):
                assert summary(v for one in cast[first : first + count] for v in one) == []


def flipped(*axes: int) -> Callable[[Sample], Sample]:
    """All truth flipped, but for flow, which is held against the second picture."""

    def plant(sample: Sample) -> Sample:
        names = [*TRUTHS, "depth_valid", "modal", "normals_valid"]
        held = {name: getattr(sample, name) for name in names if name != "flow"}
        return replace(sample, **{k: x.flip(axes) for k, x in held.items() if x is not None})

    return plant


def moved(sample: Sample) -> Sample:
    names = (*TRUTHS, "depth_valid", "flow_valid", "modal", "normals_valid")
    held = {name: getattr(sample, name) for name in names}
    return replace(sample, **{k: x.roll(1, -1) for k, x in held.items() if x is not None})


def with_depth(change: Callable[[Tensor], Tensor]) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, depth=change(sample.depth))  # type: ignore[arg-type]


def with_flow(change: Callable[[Tensor], Tensor]) -> Callable[[Sample], Sample]:
    return lambda sample: replace(sample, flow=change(sample.flow))  # type: ignore[arg-type]


def coded(depth: Tensor) -> Tensor:
    depth = depth.clone()
    depth[:, 40:45] = 65.535
    return depth


@pytest.mark.parametrize(
    ("plant", "rule", "words"),
    [
        (flipped(-1), "depth turned", "mirrored left to right"),
        (flipped(-2), "labels turned", "upside down"),
        (flipped(-1, -2), "amodal turned", "by 180 degrees"),
        (moved, "depth shifted", "0 rows down and -1 right"),
        (moved, "labels shifted", "0 rows down and -1 right"),
        (with_depth(lambda z: 1 / z.clamp(min=1e-3)), "depth inverted", "looks like disparity"),
        (with_depth(lambda z: (100 * z).round()), "depth whole numbers", "whole metres"),
        (with_depth(lambda z: 1e6 * z), "depth far", "which nobody measured"),
        (with_depth(lambda z: 1e-3 * z), "depth too near", "another unit"),
        (
            lambda s: replace(s, depth=s.depth / s.depth[s.depth_valid].max()),
            "depth normalised",
            "ends at exactly 1 m",
        ),
        (with_depth(coded), "depth saturated", "stored as 65535"),
        (with_depth(lambda z: z.clamp(max=3.0)), "depth capped", "ends at exactly 3 m"),
        (with_depth(lambda z: z * 0 + 2), "depth constant", "the same everywhere"),
        (with_flow(lambda f: f.flip(0)), "flow misread", "with u and v swapped"),
        (with_flow(lambda f: -f), "flow misread", "both signs turned"),
        (with_flow(lambda f: f / 64), "flow misread", "shares of the width"),
        (with_flow(lambda f: f * 1000), "flow long", "px across"),
        (lambda s: replace(s, amodal=~s.amodal, modal=None), "amodal inside out", "mask_inside"),
        (lambda s: replace(s, amodal=s.amodal & False, modal=None), "amodal filled", "nothing"),
        (lambda s: replace(s, normals=-s.normals), "normals pointing away", "z comes out"),
        (lambda s: replace(s, normals=0.5 + s.normals / 2), "normals unit length", "colours"),
        (lambda s: replace(s, labels=s.labels + 1), "labels no first class", "1.."),
        (lambda s: replace(s, labels=s.labels * 0 + 3), "labels one class", "or a mask"),
        (lambda s: replace(s, image=s.image * 0), "image blank", "one colour"),
        (lambda s: replace(s, second=s.image), "second two pictures", "frame that follows"),
    ],
)
def test_what_is_planted_in_a_set_is_said_once(plant, rule, words, worlds):
    quantity, name = rule.split(" ", 1)
    (said,) = spoken([plant(world) for world in worlds], rules=[BY_NAME[quantity, name]]).values()
    assert words in str(said) and said.told >= len(said.keys) >= len(worlds) // 2
    assert f"{len(said.keys)} of {said.told} samples (such as {worlds[0].key}" in str(said) or (
        worlds[0].key not in said.keys
    )


def test_a_guess_about_one_of_many_is_not_spoken_of_a_fault_is(worlds):
    odd = flipped(-1)(worlds[0])
    turned = [BY_NAME["depth", "turned"]]
    assert spoken([odd, *worlds[1:]], rules=turned) == spoken([odd], rules=turned) == {}
    negative = replace(worlds[0], depth=-worlds[0].depth)
    told = spoken([negative, *worlds[1:]], rules=QUICK)["depth", "positive"]
    assert told.keys == (worlds[0].key,) and told.told == len(worlds) and told.grave
    assert str(remarks(negative, WHERE)[0]).startswith(f"{worlds[0].key}: depth is not positive")


def test_grave_remarks_come_first(worlds):
    blank = [replace(world, image=world.image * 0, depth=-world.depth) for world in worlds]
    graves = [one.grave for one in spoken(blank, rules=QUICK).values()]
    assert graves == sorted(graves, reverse=True) and set(graves) == {True, False}


def files(folder: Path, depth: Tensor, **settings: Any) -> Any:
    """A user's files, the first of which is there."""
    path = folder / "depth.npy"
    np.save(path, depth.numpy())
    entries = [SimpleNamespace(paths={}), SimpleNamespace(paths={"depth": path})]
    return SimpleNamespace(**vars(WHERE), entries=entries, settings=SimpleNamespace(**settings))


def test_the_unit_of_whole_numbers_is_said_to_be_assumed_unless_it_is_named(worlds, tmp_path):
    usual: dict[str, Any] = {"depth_scale": 1000.0, "depth_unit": ""}
    millimetres = [with_depth(lambda z: (z * 1000).round() / 1000)(world) for world in worlds]
    numbers = (worlds[0].depth * 1000).to(torch.uint16)
    assumed = spoken(millimetres, files(tmp_path, numbers, **usual), QUICK)
    assert [(one.rule, one.grave) for one in assumed.values()] == [("unit assumed", False)]
    assert "1000 a metre are assumed" in str(assumed["depth", "unit assumed"])
    named = files(tmp_path, numbers, depth_scale=1000.0, depth_unit="mm")
    assert spoken(millimetres, named, QUICK) == {}
    fives = [with_depth(lambda z: (z * 1000).round() / 200)(world) for world in worlds]
    found = spoken(fives, files(tmp_path, numbers, **usual), QUICK)
    assert "1/5000" in str(found["depth", "multiples of five"])


def test_floats_are_metres_and_no_unit_is_assumed(worlds, tmp_path):
    millimetres = [with_depth(lambda z: (z * 1000).round() / 1000)(world) for world in worlds]
    floats = files(tmp_path, worlds[0].depth, depth_scale=1000.0, depth_unit="")
    assert spoken(millimetres, floats, QUICK) == {}


def sky(sample: Sample, value: float = 1e10) -> Sample:
    depth = sample.depth.clone()  # type: ignore[union-attr]
    depth[:, :40] = value
    return replace(sample, depth=depth)


def test_sky_counts_as_no_depth_and_is_told_and_another_unit_stops(worlds):
    near = within_reach(sky(worlds[0]), 1000.0)
    assert near.depth_valid is not None and not near.depth_valid[:, :40].any()
    assert near.depth_valid[:, 40:].any()
    (told,) = remarks(near, WHERE)
    assert "taken for sky" in str(told) and "1e+10" in str(told) and not told.grave
    millimetres = with_depth(lambda z: z * 1000)(worlds[0])
    with pytest.raises(DataFormatError, match="in another unit"):
        within_reach(millimetres, 100.0)
    assert within_reach(worlds[0], 1000.0) is worlds[0]


def test_few_valid_pixels_are_told(worlds):
    valid = torch.zeros(1, 64, 64, dtype=torch.bool)
    valid[0, 0, :2] = True
    assert "only 2 pixels" in str(remarks(replace(worlds[0], depth_valid=valid), WHERE)[0])


class Many:
    """A thousand samples, all with a fault; it remembers which were read."""

    def __init__(self, sample: Sample) -> None:
        self.sample, self.seen = sample, list[int]()

    def __len__(self) -> int:
        return 1000

    def samples(self, indices: Iterable[int]) -> list[Sample]:
        self.seen += indices
        return [self.sample for _ in self.seen]


def test_the_first_few_samples_of_a_source_are_looked_at(worlds):
    bare = Sample(image=worlds[0].image, key="a", source="", depth=-torch.ones(1, 64, 64))
    many = Many(bare)
    found = first_look(many)  # type: ignore[arg-type]
    assert [one.rule for one in found if one.grave] == ["positive"]
    assert many.seen == list(range(FIRST))


def test_predictions_are_held_to_the_same_words(worlds):
    shape, one, two = (1, 64, 64), *worlds[:2]
    negative, flat = prediction_remarks(
        "depth", [(one, -torch.ones(shape)), (two, torch.ones(shape))]
    )
    assert str(negative).startswith(f"1 of 2 samples ({one.key}): predicted depth is not positive")
    assert "predicted depth is the same everywhere" in str(flat)
    assert prediction_remarks("depth", [(one, one.depth)]) == []
    full = prediction_remarks("amodal", [(one, torch.ones(shape, dtype=torch.bool))])
    assert "covers everything" in str(full[0])
    unknown = prediction_remarks("labels", [(one, torch.full((64, 64), 150))], classes=150)
    assert "labels [150] are none of the 150" in str(unknown[0])
    swapped = prediction_remarks("flow", [(one, one.flow.flip(0))])
    assert "predicted flow explains the second picture much better" in str(swapped[0])


def test_what_is_predicted_from_is_looked_at(worlds):
    assert input_remarks(worlds) == []
    blank, alike = input_remarks([replace(worlds[0], image=worlds[0].image * 0)] * 2), worlds[0]
    assert "the picture is of one colour" in str(blank[0])
    found = input_remarks([replace(alike, second=alike.image)])
    assert "the second picture is the first" in str(found[0])


def test_rules_have_names_of_their_own_and_say_what_to_do():
    assert len({(rule.quantity, rule.name) for rule in RULES}) == len(RULES)
    assert all(rule.do and rule.says for rule in RULES)
