"""The ways of sampling that a sweep tries, and those that are left out or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stepsight.errors import UserError
from stepsight.evaluation.jobs import ScoringPlan
from stepsight.evaluation.records import Identity
from stepsight.testtime.variants import Axes, Candidate, variants

WHO = Identity("run-1", "c0ffee", "abc", 0, "hourglass-32", 1000, 1000, 5e12, 640, {})
PLAN = ScoringPlan([1, 2, 3, 4], [1], 0, "ddim", 0, 8)


@pytest.fixture
def candidate(lab) -> Candidate:
    return Candidate("runs/a", lab.pipeline(statistics=False), WHO, {"depth": lab.held}, "old")


def test_the_product_of_all_axes(candidate):
    other = replace(candidate, path="runs/b")
    axes = Axes(["ddim", "euler"], ["trailing", "karras"], ["trained", "cosine"], [8, 16])
    axes = replace(axes, temperatures=[0.0, 0.5])
    found = variants([candidate, other], PLAN, axes).kept
    told = {(*one.columns.values(), one.plan.size) for one in found}
    assert len(found) == len(told) == 2**6
    for one in found:
        used = one.pipeline.diffusion.settings
        assert (used.sampler, used.spacing) == (one.columns["sampler"], one.columns["spacing"])
        assert used.sampling_schedule == one.columns["schedule"] and one.plan.label == "old"
        assert one.plan.sampler == used.sampler and one.plan.nfe == [1, 2, 3, 4]


def test_without_axes_a_run_samples_as_it_does(candidate):
    (one,) = variants([candidate], PLAN, Axes()).kept
    assert one.pipeline.diffusion.settings == candidate.pipeline.config.diffusion
    assert one.label() == "ddim" and one.plan.size is None


def test_names_tell_variants_apart(candidate):
    axes = Axes(["ddim", "euler"], ["trailing", "karras"], ["trained", "cosine"], [8, 16])
    found = variants([candidate], PLAN, axes).kept
    assert len({one.name for one in found}) == len({one.label() for one in found}) == 16
    assert found[-1].label("mean") == "euler karras cosine 16px mean"
    starts = Axes(temperatures=[0.0, 0.5, 1.0], views=["none", "mirror"])
    found = variants([candidate], PLAN, starts).kept
    assert len({one.name for one in found}) == len({one.label() for one in found}) == 6
    assert found[0].label() == "ddim T 0" and found[1].label() == "ddim T 0 mirror views"
    assert found[1].columns["views"] == "mirror" and found[-1].label() == "ddim mirror views"


def test_without_start_noise_there_is_one_member(candidate):
    """All members of a deterministic sampler are the same from zeros; not those of another."""
    several = replace(PLAN, members=[1, 4])
    axes = Axes(["ddim", "euler", "ancestral"], temperatures=[0.0, 1.0])
    tried = variants([candidate], several, axes)
    members = {
        (one.plan.sampler, one.columns["temperature"]): one.plan.members for one in tried.kept
    }
    assert members["ddim", 0.0] == members["euler", 0.0] == (1,)
    assert members["ddim", 1.0] == members["ancestral", 0.0] == [1, 4]
    assert len(tried.left_out) == 2 and "more than 1 member is left out" in tried.left_out[0]
    assert variants([candidate], PLAN, axes).left_out == [], "nobody asked for more"


def test_stochastic_ddim_keeps_its_members_at_temperature_0(candidate):
    stochastic = replace(candidate, pipeline=candidate.pipeline.sampling(eta=0.5))
    (one,) = variants([stochastic], replace(PLAN, members=[1, 4]), Axes(temperatures=[0.0])).kept
    assert one.plan.members == [1, 4]


def test_views_that_a_sampler_cannot_walk_are_left_out(candidate):
    tried = variants([candidate], PLAN, Axes(["ddim", "euler"], views=["none", "mirror"]))
    told = [(one.plan.sampler, one.columns["views"]) for one in tried.kept]
    assert told == [("ddim", "none"), ("ddim", "mirror"), ("euler", "none")]
    assert len(tried.left_out) == 1 and "mirror" in tried.left_out[0]


def test_what_a_sampler_cannot_spend_is_left_out_and_said(candidate):
    tried = variants([candidate], PLAN, Axes(["ddim", "heun", "midpoint"]))
    assert [one.plan.nfe for one in tried.kept] == [[1, 2, 3, 4], [1, 3], [2, 4]]
    assert len(tried.left_out) == 4 and "2 NFE is left out of heun" in tried.left_out[0]


def test_a_sampler_with_nothing_left_is_left_out(candidate):
    tried = variants([candidate], replace(PLAN, nfe=[2, 4]), Axes(["heun", "ddim"]))
    assert [one.plan.sampler for one in tried.kept] == ["ddim"]


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (Axes(["heun"]), "cannot spend exactly 2"),
        (Axes(["heun"], ["trailing", "karras"]), "cannot spend exactly 2"),
        (Axes(["ddimm"]), "Did you mean 'ddim'"),
        (Axes(["ddim", "huen"]), "Did you mean 'heun'"),
        (Axes(spacings=["traling"]), "Did you mean 'trailing'"),
        (Axes(schedules=["cosin"]), "Did you mean 'cosine'"),
        (Axes(merges=["meen"]), "Did you mean 'mean'"),
        (Axes(merges=["vote"]), "vote"),  # of masks and labels, none of which is swept
        (Axes(spacings=["custom"]), "custom"),
        (Axes(temperatures=[-0.1]), "from 0, which starts from zeros, to 10"),
        (Axes(temperatures=[1.0, 10.5]), "temperature of 10.5 cannot be"),
        (Axes(temperatures=[float("nan")]), "temperature of nan cannot be"),
        (Axes(views=["miror"]), "Did you mean 'mirror'"),
    ],
)
def test_what_cannot_be_swept_is_refused(candidate, axes, said):
    with pytest.raises(UserError, match=said):
        variants([candidate], PLAN, axes)


def test_a_combination_that_cannot_be_is_left_out_among_others(candidate):
    tried = variants([candidate], PLAN, Axes(spacings=["custom", "linspace"]))
    assert [one.columns["spacing"] for one in tried.kept] == ["linspace"]
    assert len(tried.left_out) == 1 and tried.left_out[0].startswith("custom is left out")
    with pytest.raises(UserError, match="nothing is left to sweep"):
        variants([candidate], PLAN, Axes(["ddim", "euler"], ["custom"]))
