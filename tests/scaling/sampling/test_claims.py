"""Each claim about test-time compute, on tables where it holds, fails and stays open: means over
images and pooled sums, where the two disagree, and samplers that are broken."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from claim_tables import (
    HARDNESS,
    IMAGES,
    KEYS,
    Factor,
    asked,
    family,
    helps,
    hurts,
    noise,
    nothing,
    per_image,
    pooled,
    tables,
    verdicts,
)

from stepsight.scaling.sampling.claims import Claim, decide, holm
from stepsight.scaling.sampling.paired import MetricTable, Numbers
from stepsight.scaling.sampling.questions import BEST, CALLS, HARMLESS, MEMBERS, held_back
from stepsight.scaling.sampling.sweeps import Family


@pytest.mark.parametrize("rows", [per_image, pooled])
@pytest.mark.parametrize("statement", [CALLS, MEMBERS, BEST])
@pytest.mark.parametrize(
    "factor, verdict", [(helps, "holds"), (hurts, "fails"), (nothing, "undecided")]
)
def test_claims_on_tables_where_they_do_and_do_not_hold(rows, statement, factor, verdict):
    found = asked(decide(tables(factor, rows)), statement)
    assert found and verdicts(found) == {verdict}


@pytest.mark.parametrize("rows", [per_image, pooled])
def test_no_harm_is_to_be_worse_by_less_than_the_margin(rows):
    def after_four(change: float) -> Factor:
        return lambda temperature, nfe, members: 1 + change * (nfe > 4)

    for change, verdict in ((-0.03, "holds"), (0.05, "fails"), (0.005, "undecided")):
        (one,) = asked(decide(tables(after_four(change), rows, [0.0])), HARMLESS)
        assert (one.verdict, one.base.nfe, one.other.nfe) == (verdict, 4, 8)
    calm = tables(lambda temperature, nfe, members: 1.0, rows, [0.0])
    same = [*calm[0].settings.values()][0]
    still = MetricTable(**(vars(calm[0]) | {"settings": dict.fromkeys(calm[0].settings, same)}))
    (one,) = asked(decide([still]), HARMLESS)
    assert one.verdict == "holds" and one.value == 0, "no change at all is no harm"
    assert verdicts(asked(decide([still]), CALLS)) == {"undecided"}


@pytest.mark.parametrize("factor, verdict", [(helps, "fails"), (hurts, "holds")])
def test_higher_is_better_turns_the_verdict(factor, verdict):
    found = decide(tables(factor, metric="iou"))
    assert verdicts(asked(found, CALLS)) == verdicts(asked(found, MEMBERS)) == {verdict}


def test_the_sign_of_a_pooled_claim_is_that_of_its_own_metric():
    """Most images gain a little and one large image loses: the mean over images improves, and the
    pooled value, which the protocol reports, gets worse."""
    weight = np.where(np.arange(IMAGES) < 16, 400.0, 1.0)
    before = np.full(IMAGES, 0.2)
    after = np.where(weight > 1, 0.21, 0.15) + 0.001 * noise(1)
    values = {(1, 1): before, (4, 1): after}
    rows = {at: np.stack([weight * v, weight], axis=1) for at, v in values.items()}
    common = {"task": "flow", "metric": "epe", "family": family(), "keys": KEYS}
    of_pool = decide([MetricTable(**common, settings=rows, averaging="pooled")])
    of_mean = decide(
        [MetricTable(**common, settings={at: per_image(v) for at, v in values.items()})]
    )
    (one,), (other,) = asked(of_pool, CALLS), asked(of_mean, CALLS)
    assert (one.verdict, other.verdict) == ("fails", "holds")
    own = (weight * after).sum() / (weight * before).sum() - 1
    assert one.value == pytest.approx(own) and other.value == pytest.approx(
        after.mean() / before.mean() - 1
    )


def test_steps_are_told_from_members():
    """Steps hurt at every number of members and members help: the sweep whose corner against corner
    looked undecided."""
    found = decide(tables(lambda t, nfe, members: (1 + 0.04 * (nfe > 1)) * (0.96 ** (members > 1))))
    assert verdicts(asked(found, CALLS)) == {"fails"}
    assert verdicts(asked(found, MEMBERS)) == {"holds"}
    given = {one.given for one in asked(found, CALLS)}
    assert given == {
        f"members {m}, temperature {t}, views none" for m, t in ((1, 0), (1, 1), (4, 1))
    }
    assert {one.statement for one in found} == {CALLS, HARMLESS, MEMBERS, BEST}


def test_single_steps_are_looked_at_with_the_fewest_members():
    found = decide(tables(helps))
    steps = [(one.base.nfe, one.other.nfe) for one in asked(found, CALLS, members=1)]
    assert sorted(set(steps)) == [(1, 4), (1, 8)]
    assert [(one.base.nfe, one.other.nfe) for one in asked(found, CALLS, members=4)] == [(1, 8)]


def test_without_start_noise_nothing_is_claimed_of_members():
    found = decide(tables(helps, temperatures=[0.0]))
    assert asked(found, MEMBERS) == []


def test_costs_are_those_of_both_sides():
    for one in decide(tables(helps)):
        assert (one.cost, one.base_cost) == (one.other.calls, one.base.calls)
        assert one.cost > one.base_cost


def test_the_best_setting_of_a_cost_is_chosen_on_other_images_than_it_is_tested_on():
    """Twelve settings that differ by luck alone: on the images they are chosen on the best one
    looks better, on the others it does not."""
    rng = np.random.default_rng(3)
    settings = {(1, 1): per_image(np.full(IMAGES, 0.2))}
    own = []
    for number in range(12):
        values = 0.2 * (1 + 0.2 * rng.standard_normal(IMAGES))
        more = {(4, 1): per_image(values)} | (settings if number == 0 else {})
        own.append(MetricTable(**common(family(views=f"v{number}")), settings=more))
    (one,) = asked(decide(own), BEST)
    half = np.array([held_back(key) for key in KEYS])
    assert 20 < half.sum() < 44 and one.n == half.sum()
    by_choice = [table.settings[4, 1][~half, 0].mean() for table in own]
    assert one.other.family == own[int(np.argmin(by_choice))].family
    assert min(by_choice) < 0.195 and one.verdict == "undecided"
    assert one.value == pytest.approx(
        own[int(np.argmin(by_choice))].settings[4, 1][half, 0].mean() / 0.2 - 1
    )
    assert "the best of 12 on the other half" in one.given


def common(whose: Family) -> dict:
    return {"task": "depth", "metric": "abs_rel", "family": whose, "keys": KEYS}


def test_a_setting_without_rival_is_tested_on_all_images():
    (one,) = asked(decide(tables(helps, temperatures=[0.0])), BEST, nfe=4)
    assert one.n == IMAGES and one.given == "calls in all 4"
    assert one.base == one.base._replace(nfe=1, members=1)


def test_the_base_is_one_call_at_the_lowest_temperature():
    found = asked(decide(tables(helps)), BEST)
    assert {one.base for one in found} == {found[0].base}
    assert found[0].base.temperature == 0.0 and found[0].base.calls == 1


def constant(level: float) -> Numbers:
    return per_image(HARDNESS * level)


def test_a_sampler_whose_first_call_is_no_better_than_a_constant_makes_no_claims():
    def recovers(temperature: float, nfe: int, members: int) -> float:
        return 1 - 0.1 * math.log2(nfe)

    found = decide(tables(recovers, constant=constant(1.0)))
    assert found and verdicts(found) == {"broken sampler"}
    assert asked(found, BEST) == [], "and it is no candidate for the best setting"
    assert all("recovery from a bad first call" in one.sentence for one in found)
    assert "constant" in found[0].sentence and math.isnan(found[0].p_holm)
    sound = decide(tables(recovers, constant=constant(1.5)))
    assert verdicts(asked(sound, CALLS)) == {"holds"}


@pytest.mark.parametrize("rows", [per_image, pooled])
def test_a_sampler_worse_than_one_trailing_call_makes_no_claims(rows):
    """Leading spacing: it gains over calls, from far above one trailing call."""
    trailing = tables(nothing, rows)

    def recovers(temperature: float, nfe: int, members: int) -> float:
        return 1.8 - 0.2 * math.log2(nfe)

    leading = [
        MetricTable(**(vars(table) | {"family": family(t, spacing="leading")}))
        for t, table in zip((0.0, 1.0), tables(recovers, rows))
    ]
    found = decide([*trailing, *leading])
    broken = [one for one in found if one.other.family.spacing == "leading"]
    assert verdicts(broken) == {"broken sampler"} and "trailing" in broken[0].sentence
    assert "[leading]" in broken[0].sentence
    rest = [one for one in found if one.other.family.spacing == "trailing"]
    assert "broken sampler" not in verdicts(rest) and asked(rest, BEST)
    alone = decide(leading)
    assert verdicts(asked(alone, CALLS)) == {"holds"}, "without the trailing call nothing tells"


def test_a_broken_sampler_claims_nothing_by_its_proper_scores_either():
    own = {"constant": constant(1.0)}
    crps = tables(helps, metric="crps", main=False)
    found = decide([*tables(helps, **own), *crps])
    assert verdicts(found) == {"broken sampler"}


def test_claims_of_a_task_and_metric_are_corrected_together():
    found = decide([*tables(helps), *tables(helps, metric="crps", main=False)])
    for metric in ("abs_rel", "crps"):
        own = [one for one in found if one.metric == metric]
        assert [one.p_holm for one in own] == holm([one.p for one in own])
        assert all(one.p_holm >= one.p for one in own)


def test_holm_against_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_an_interval_beside_zero_is_not_enough_among_many_claims():
    """Just significant alone, a change stays open once all claims are corrected together."""

    def slight(temperature: float, nfe: int, members: int) -> float:
        return 1 - 0.0095 * (nfe == 8 and members == 1 and temperature == 0)

    one = asked(decide(tables(slight)), CALLS, nfe=8, temperature=0.0)[0]
    assert one.hi < 0 and one.p < 0.025 < one.p_holm
    assert one.verdict == "undecided" and "not sure enough among" in one.sentence


def test_sentences_say_what_was_compared():
    found = decide(tables(helps))
    (one,) = asked(found, CALLS, members=4)
    assert one.sentence.startswith("depth: 8 calls instead of 1 improve AbsRel by 5.")
    assert "with 4 members at temperature 1, 64 images, mean over images." in one.sentence
    assert "4 members instead of 1 improve" in asked(found, MEMBERS)[0].sentence
    assert "make AbsRel worse by " in asked(decide(tables(hurts)), CALLS)[0].sentence
    assert "open whether" in asked(decide(tables(nothing)), CALLS)[0].sentence
    assert "pooled" in asked(decide(tables(helps, pooled)), CALLS)[0].sentence


def test_ways_are_named_where_a_task_has_several():
    flow = tables(helps, task="flow", metric="epe", family=family(spacing="karras"))[:1]
    assert not any(one.sentence.startswith("[") for one in decide([*tables(helps), *flow]))
    other = tables(helps, family=family(spacing="karras"))[:1]
    named = {one.sentence.split("]")[0] for one in decide([*tables(helps), *other])}
    assert named == {"[trailing", "[karras"}


def test_images_are_paired_by_key_whatever_their_order():
    own = tables(helps)
    order = np.random.default_rng(1).permutation(IMAGES)
    shuffled = [
        MetricTable(
            **(
                vars(table)
                | {
                    "keys": [KEYS[i] for i in order],
                    "settings": {at: rows[order] for at, rows in table.settings.items()},
                }
            )
        )
        for table in own
    ]

    def told(given: list[MetricTable]) -> np.ndarray:
        return np.array([(one.value, one.lo, one.hi, one.p) for one in decide(given)])

    assert told([own[0], shuffled[1]]) == pytest.approx(told(own))


def test_images_that_a_setting_lacks_are_left_out():
    (table,) = tables(helps, temperatures=[0.0])
    table.settings[8, 1][3] = np.nan
    assert {one.n for one in decide([table])} == {IMAGES - 1}


def test_too_few_images_decide_nothing():
    few = slice(0, 5)
    cut = [
        MetricTable(
            **(
                vars(table)
                | {"keys": KEYS[few], "settings": {at: r[few] for at, r in table.settings.items()}}
            )
        )
        for table in tables(helps)
    ]
    found = decide(cut)
    assert verdicts(found) == {"undecided"} and "too few" in found[0].sentence


def test_a_base_of_zero_still_decides():
    """A hidden part never found by one call: no relative effect, but a clear verdict."""
    rng = np.random.default_rng(0)
    settings = {(1, 1): per_image(np.zeros(IMAGES)), (4, 1): per_image(rng.random(IMAGES))}
    own = common(family()) | {"metric": "iou_hidden"}
    (one,) = asked(decide([MetricTable(**own, settings=settings)]), CALLS)
    assert one.verdict == "holds" and math.isnan(one.value)


def test_rows_for_json_name_their_columns():
    row = json.loads(json.dumps(decide(tables(helps))[0].to_dict(), allow_nan=False))
    fixed = {"metric", "averaging", "given", "cost", "value", "lo", "hi", "verdict"}
    assert fixed | {"task", "statement", "n", "p", "p_holm", "sentence", "sampler"} <= row.keys()
    assert row["base"] == {"nfe": 1, "members": 1, "temperature": 0.0, "views": "none"}
    assert (row["temperature"], row["views"], row["averaging"]) == (0.0, "none", "per image")


def test_claims_come_back_from_their_file():
    claims = decide([*tables(helps, per_image), *tables(nothing, pooled)])
    rows = json.loads(json.dumps([claim.to_dict() for claim in claims]))
    assert len(rows) > 10
    assert [Claim.of(row).to_dict() for row in rows] == rows
    assert [Claim.of(row).other for row in rows] == [claim.other for claim in claims]
    assert [Claim.of(row).base for row in rows] == [claim.base for claim in claims]
