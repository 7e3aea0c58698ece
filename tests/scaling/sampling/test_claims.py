"""Each statement about test-time compute, on tables where it holds, fails and stays open."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stepsight.scaling.sampling.claims import BOTH, MEMBERS, STEPS, Claim, ImageScore, decide

STATEMENTS = (MEMBERS, STEPS, BOTH)
Grid = Callable[[int, int], float]


def scores(factor: Grid, metric: str = "absrel", task: str = "depth", images: int = 64):
    """Per-image errors of very different images, each changed by a factor of the setting.

    Images come in twins with mirrored noise, so that the factors alone change the means.
    """
    rng = np.random.default_rng(0)
    hardness = np.tile(rng.gamma(2.0, 0.1, images // 2), 2)

    def noise() -> np.ndarray:
        half = 0.02 * rng.standard_normal(images // 2)
        return 1 + np.concatenate([half, -half])

    return [
        ImageScore(task, metric, nfe, members, f"image-{i}", float(value))
        for nfe in (1, 4, 8)
        for members in (1, 4)
        for i, value in enumerate(hardness * factor(nfe, members) * noise())
    ]


def claims(factor: Grid, lower: bool = True) -> dict[str, Claim]:
    found = decide(scores(factor), {"absrel": lower})
    assert [claim.statement for claim in found] == list(STATEMENTS)
    return {claim.statement: claim for claim in found}


FACTORS: dict[str, Grid] = {
    "everything helps": lambda nfe, members: 1 - 0.05 * (nfe > 1) - 0.04 * (members > 1),
    "only members": lambda nfe, members: 0.9 if members > 1 else 1.0,
    "only both": lambda nfe, members: 0.9 if nfe > 1 and members > 1 else 1.0,
    "everything hurts": lambda nfe, members: 1 + 0.1 * (nfe > 1) + 0.1 * (members > 1),
    "steps hurt alone": lambda nfe, members: 0.9 if members > 1 else 1 + 0.06 * (nfe > 1),
}
EXPECTED = {
    "everything helps": ("holds", "holds", "holds"),
    "only members": ("holds", "undecided", "holds"),
    "only both": ("undecided", "undecided", "holds"),
    "everything hurts": ("fails", "fails", "fails"),
    "steps hurt alone": ("holds", "fails", "holds"),
}


@pytest.mark.parametrize("case", FACTORS)
def test_lower_is_better(case: str):
    found = claims(FACTORS[case])
    assert tuple(found[statement].verdict for statement in STATEMENTS) == EXPECTED[case]


@pytest.mark.parametrize("case", ["everything helps", "only members", "everything hurts"])
def test_higher_is_better_turns_the_verdict(case: str):
    turned = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    found = claims(FACTORS[case], lower=False)
    assert tuple(found[s].verdict for s in STATEMENTS) == tuple(turned[v] for v in EXPECTED[case])


def test_one_nfe_where_members_hurt_refutes_that_they_always_help():
    found = claims(lambda nfe, members: 1.0 if members == 1 else (1.1 if nfe == 4 else 0.8))
    claim = found[MEMBERS]
    assert claim.verdict == "fails" and claim.effect == pytest.approx(0.1, abs=0.02)
    assert [c.verdict for c in claim.comparisons] == ["holds", "fails", "holds"]


def test_effects_are_relative_and_intervals_hold_them():
    claim = claims(FACTORS["everything helps"])[BOTH]
    assert claim.effect == pytest.approx(-0.09, abs=0.01)
    assert claim.lo < claim.effect < claim.hi < 0
    assert claim.n == 64


def test_sentences_name_what_was_compared():
    sentence = claims(FACTORS["everything helps"])[BOTH].sentence
    assert sentence.startswith("depth: both together help: absrel changes by -")
    assert "64 images" in sentence and "from 1x1 to 8x4 NFE x members" in sentence
    assert "undecided whether" in claims(FACTORS["only members"])[STEPS].sentence
    assert "not so that" in claims(FACTORS["everything hurts"])[STEPS].sentence


def test_images_are_paired_by_key_whatever_their_order():
    rows = scores(FACTORS["everything helps"])
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    by_statement = {claim.statement: claim for claim in decide(shuffled, {"absrel": True})}
    assert by_statement[STEPS].effect == claims(FACTORS["everything helps"])[STEPS].effect


def test_images_missing_in_one_setting_are_left_out():
    rows = [r for r in scores(FACTORS["everything helps"]) if (r.key, r.nfe) != ("image-3", 8)]
    assert {c.statement: c.n for c in decide(rows, {"absrel": True})}[STEPS] == 63


def test_tasks_are_decided_apart():
    rows = scores(FACTORS["everything helps"]) + scores(FACTORS["everything hurts"], task="flow")
    verdicts = {(c.task, c.statement): c.verdict for c in decide(rows, {"absrel": True})}
    assert len(verdicts) == 6
    assert verdicts["depth", BOTH] == "holds" and verdicts["flow", BOTH] == "fails"


def test_a_grid_without_the_settings_leaves_it_open():
    rows = [row for row in scores(FACTORS["everything helps"]) if row.members == 1]
    found = {claim.statement: claim for claim in decide(rows, {"absrel": True})}
    assert found[STEPS].verdict == "holds"
    assert found[MEMBERS].verdict == found[BOTH].verdict == "undecided"
    assert "not measured" in found[MEMBERS].sentence and found[MEMBERS].n == 0


def test_a_base_of_zero_still_decides():
    """A hidden part never found by one member: no relative effect, but a clear verdict."""
    rng = np.random.default_rng(0)
    rows = [
        ImageScore("amodal", "hidden", 1, members, str(i), 0.0 if members == 1 else rng.random())
        for members in (1, 4)
        for i in range(20)
    ]
    claim = decide(rows, {"hidden": False})[0]
    assert claim.verdict == "holds" and np.isnan(claim.effect)
