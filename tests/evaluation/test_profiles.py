"""Scores say by whose conventions a model answered, and whether it saw what the protocol asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsight.evaluation.evaluator import score_source
from stepsight.evaluation.predictors import Provenance
from stepsight.evaluation.results import result
from stepsight.evaluation.scoring.journal import Record, TableKey, Usage
from stepsight.evaluation.views import fits, working_at
from stepsight.pipeline.config import Profile

NATIVE = "marigold-scannet"  # the image at its own size
LONGEST = Profile("marigold", fit="longest", resolution=32, pad=8)
SETTING = (1, 1)


@pytest.fixture
def published(lab):
    """A pipeline in pixels that answers by another's conventions."""
    pipeline = lab.pipeline()
    pipeline.published = LONGEST
    return pipeline.profiled("published")


@pytest.mark.parametrize(
    ("working", "asked", "as_asked"),
    [
        ((480, 640), 0, True),
        ((512, 640), 0, False),
        ((480, 640), None, True),
        ((31, 64), 64, True),  # 31.45: either way
        ((32, 64), 64, True),
        ((33, 64), 64, False),
    ],
)
def test_a_size_is_as_asked_up_to_rounding(working, asked, as_asked):
    grid = (480, 640) if asked != 64 else (313, 637)
    assert fits(working, grid, asked) == as_asked


def test_published_profiles_see_what_a_protocol_asks_for(published):
    grid = (35, 51)
    assert published.working_size("depth", grid) == (21, 32)
    assert working_at(published, "depth", grid, None, 0).working_size("depth", grid) == grid
    assert working_at(published, "depth", grid, 48, 0).working_size("depth", grid) == (32, 48)
    own = published.profiled("stepsight")
    seen = working_at(own, "depth", grid, None, 0).working_size("depth", grid)
    assert seen != grid and not fits(seen, grid, 0)


def test_a_square_that_was_asked_for_is_seen(published):
    square = published.profiled("published")
    square.profile = replace(LONGEST, fit="square", pad=1)
    for size, side in ((None, 32), (16, 16)):
        other = working_at(square, "depth", (35, 51), size, 0)
        assert other.working_size("depth", (35, 51)) == (side, side)


def test_scores_are_marked_and_sizes_that_differ_told(lab, published):
    source = replace(lab.held, count=3, grids=((35, 51),))
    how = {"indices": range(3), "nfe": [1], "members": [1], "protocol": NATIVE}
    for pipeline, unfit in ((published, 0), (published.profiled("stepsight"), 3)):
        scores = score_source(pipeline, source, "depth", **how)
        assert scores.unfit == unfit
        told = result(scores, SETTING, Provenance("ddim", "digest", profile=pipeline.profile))
        assert ("+marigold@" in told.protocol) == (unfit == 0)
        said = "3 of 3 images not at the size that the protocol asks for"
        assert (said in (told.label or "")) == (unfit > 0)


def test_journals_keep_whether_a_size_was_as_asked():
    record = Record(0, "a")
    record.usage = {TableKey(NATIVE, "score", 1, 1): Usage(0.5, (3, 4), 1.0, False)}
    assert Record.of(record.line()).usage == record.usage
