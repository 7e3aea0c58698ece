"""Checking a data set: everything wrong is found in one go, and only what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stepsight.data import check as module
from stepsight.data.check import Range, check, facts_of, ranges_of
from stepsight.data.config import ShardsSettings
from stepsight.data.readers.config import HypersimSettings
from stepsight.data.readers.depth.hypersim import Hypersim
from stepsight.data.sharded.writing import write_shards
from stepsight.data.table import open_source
from stepsight.errors import UserError


class Labelled:
    """What facts are held against."""

    classes, categories = tuple(map(str, range(255))), tuple("abcdefg")


@pytest.fixture
def root(tmp_path, write_png) -> Path:
    """Three frames of Hypersim, 4 x 6, depth 1 to 3 m with one pixel unknown."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(3):
        depth = np.full((4, 6), 1000 * (number + 1), np.uint16)
        depth[0, 0] = 0
        write_png(tmp_path / "val" / f"rgb_{number}.png", rng.integers(0, 256, (4, 6, 3), np.uint8))
        write_png(tmp_path / "val" / f"depth_{number}.png", depth)
        lines.append(f"rgb_{number}.png depth_{number}.png")
    (tmp_path / "filename_list_val.txt").write_text("\n".join(lines))
    return tmp_path


def settings(root: Path) -> HypersimSettings:
    return HypersimSettings(root=str(root))


def test_a_sound_part_of_a_data_set_is_fine(root, monkeypatch):
    monkeypatch.setattr(Hypersim, "published", {"val": 4})
    report = check(settings(root))
    assert report.ok and (report.samples, report.examined) == (3, 3)
    assert (report.state, report.published) == ("partial", 4)
    assert report.sizes == {"4 x 6": 3}
    assert report.ranges == {"depth": Range(1.0, 3.0, pytest.approx(23 / 24))}


@pytest.mark.parametrize(
    ("split", "published", "state", "findings"),
    [
        ("val", {"val": 3}, "complete", 0),
        ("val", {"val": 4}, "partial", 0),
        ("val", {"val": 2}, "more", 1),
        ("val", {"train": 9}, "unknown", 0),
        ("val", {}, "unknown", 0),
        ("all", {"val": 2, "train": 1}, "complete", 0),
        ("all", {"val": 2, "train": 2}, "partial", 0),
        ("all", {"val": 2}, "unknown", 0),
        ("all", {"val": 2, "all": 2}, "more", 1),
    ],
)
def test_counts_are_held_against_the_published_ones(
    split, published, state, findings, root, monkeypatch
):
    monkeypatch.setattr(Hypersim, "published", published)
    report = check(settings(root), split)
    assert report.state == state and len(report.findings) == findings


def test_every_damaged_file_is_named_in_one_go(root, write_png):
    image = root / "val" / "rgb_0.png"
    image.write_bytes(image.read_bytes()[:-20])
    write_png(root / "val" / "depth_1.png", np.full((4, 6), 200, np.uint8))
    told = []
    report = check(settings(root), report=lambda *now: told.append(now))
    assert not report.ok and len(report.findings) == 2
    assert "rgb_0.png" in report.findings[0] and "depth_1.png: 8-bit" in report.findings[1]
    assert report.sizes == {"4 x 6": 1} and told == [(1, 3), (2, 3), (3, 3)]


def test_a_file_that_vanished_is_a_finding(root):
    (root / "val" / "depth_2.png").unlink()
    report = check(settings(root))
    assert len(report.findings) == 1 and "depth_2.png" in report.findings[0]


def test_a_list_that_cannot_be_read_is_a_finding_but_a_missing_root_is_not(root):
    (root / "filename_list_val.txt").write_text("only_one_name.png\n")
    report = check(settings(root))
    assert not report.ok and "line 1" in report.findings[0] and report.samples == 0
    for folder in (root / "nowhere", root / "val"):
        with pytest.raises(UserError):
            check(settings(folder))
    with pytest.raises(UserError, match="no split 'tset'"):
        check(settings(_mended(root)), "tset")


def _mended(root: Path) -> Path:
    (root / "filename_list_val.txt").write_text("rgb_0.png depth_0.png\n")
    return root


def test_a_key_that_comes_twice_is_a_finding(root):
    (root / "filename_list_val.txt").write_text("rgb_0.png depth_0.png\n" * 2)
    report = check(settings(root))
    assert report.findings == ("val/rgb_0: 2 samples have this key",)


def test_processes_and_limits_change_nothing_else(root):
    alone, helped = check(settings(root)), check(settings(root), workers=2)
    assert alone == helped
    assert check(settings(root), images=2).examined == 2


def test_the_fingerprint_is_of_the_content(root, tmp_path_factory, write_png):
    before = check(settings(root))
    out = tmp_path_factory.mktemp("shards")
    write_shards(open_source(settings(root), "all"), out, per_shard=2)
    kept = check(ShardsSettings(root=str(out)))
    assert kept == replace(before, data=kept.data)
    depth = np.full((4, 6), 1000, np.uint16)
    depth[3, 3] = 1001
    write_png(root / "val" / "depth_0.png", depth)
    assert check(settings(root)).fingerprint != before.fingerprint


# ---------------------------------------------------------------------------- one sample


def problems(sample) -> str:
    return "; ".join(facts_of(sample, Labelled()).findings)  # type: ignore[arg-type]


def test_a_sound_sample_has_no_problems(full_sample):
    assert problems(full_sample(4)) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda s: {"depth": s.depth.masked_fill(s.depth_valid, torch.nan)}, "depth has NaN"),
        (lambda s: {"flow": s.flow / 0.0}, "flow has NaN or infinite"),
        (lambda s: {"depth": -s.depth}, "depth is not positive"),
        (lambda s: {"depth_valid": s.depth_valid & False}, "no valid depth"),
        (lambda s: {"normals": 2 * s.normals}, "not of unit length"),
        (lambda s: {"modal": s.modal | ~s.amodal}, "does not contain the visible"),
        (lambda s: {"labels": s.labels * 0 + 300}, "labels [300] are none of the 255 classes"),
        (lambda s: {"labels": s.labels * 0 - 1}, "labels [-1]"),
        (lambda s: {"class_id": 7}, "class 7 is none of the 7"),
        (lambda s: {"order": torch.tensor([[0, 0, 6, 0]])}, "point lies outside"),
        (lambda s: {"flow": s.flow[..., :-1]}, "flow has (6, 9) pixels, the image (6, 10)"),
    ],
)
def test_what_is_wrong_with_a_sample_is_said(changes, message, full_sample):
    sample = full_sample(4)
    assert message in problems(replace(sample, **changes(sample)))


def test_unknown_values_may_be_anything_where_they_are_not_valid(full_sample):
    sample = full_sample(4)
    depth = sample.depth.masked_fill(~sample.depth_valid, torch.nan)
    assert problems(replace(sample, depth=depth)) == ""
    assert np.isfinite(ranges_of(replace(sample, depth=depth))["depth"].high)


def test_ranges_are_those_of_the_valid_pixels(full_sample):
    flow = torch.tensor([[[3.0, 0.0, 1e10]], [[4.0, 1.0, 0.0]]])
    sample = replace(
        full_sample(0, 1, 3),
        flow=flow,
        flow_valid=torch.tensor([[[True, True, False]]]),
        modal=torch.tensor([[[True, False, False]]]),
        amodal=torch.tensor([[[True, True, False]]]),
    )
    found = ranges_of(sample)
    assert found["flow"] == Range(1.0, 5.0, pytest.approx(2 / 3))
    assert found["hidden"] == Range(0.5, 0.5, pytest.approx(2 / 3))
    assert module._merged([found, found])["flow"] == found["flow"]


def test_more_than_a_recalled_count_is_no_finding(root, monkeypatch):
    monkeypatch.setattr(Hypersim, "published", {"val": 2})
    monkeypatch.setattr(Hypersim, "recalled", True)
    report = check(settings(root), "val")
    assert report.ok and report.recalled and report.state == "more"


def test_values_in_another_unit_are_found(root):
    sample = open_source(settings(root), "val")[0]
    still, valid = torch.zeros(2, 4, 6), torch.ones(1, 4, 6, dtype=torch.bool)

    class Near(Labelled):
        farthest = 10.0

    def problems(**changes):
        return facts_of(replace(sample, **changes), Near()).findings

    assert problems() == ()
    assert "11 m" in problems(depth=sample.depth.clone().fill_(11.0))[0]
    assert problems(flow=still + 9, flow_valid=valid) == ()
    assert "141.4 px" in problems(flow=still + 100, flow_valid=valid)[0]
