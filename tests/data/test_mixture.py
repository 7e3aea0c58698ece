"""Which samples make which batch: a pure function of the step, fair, and without loss."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate, groupby, pairwise

import pytest

from stepsight.data.buckets import cut, parse_size
from stepsight.data.mixture import BLOCK, Draw, Mixture, Stream
from stepsight.errors import UserError


def stream(tasks: str = "depth", weight: float = 1.0, length: int = 10, **more) -> Stream:
    """A stream of tasks, such as "depth" or "depth flow"."""
    return Stream(tuple(tasks.split()), more.pop("source", "files"), weight, length, **more)


def draws(mixture: Mixture, steps: range) -> list[Draw]:
    return [mixture.draw(step) for step in steps]


def walk(mixture: Mixture, task: str, batches: int) -> list[int]:
    """The indices that a task reads, in order."""
    found: list[int] = []
    for step in range(10_000):
        draw = mixture.draw(step)
        if task in draw.stream.tasks:
            found += draw.indices
            batches -= 1
        if not batches:
            return found
    raise AssertionError("the task hardly ever comes")


MIXED = (
    stream("depth", 3, 7),
    stream("flow", 2, 50, source="scenes", independent=True),
    stream("amodal", 1, 4096, source="scenes", independent=True),
)


def test_a_batch_is_a_function_of_its_number_and_of_nothing_before():
    forwards = draws(Mixture(MIXED, 4, seed=1), range(200))
    mixture = Mixture(MIXED, 4, seed=1)
    assert [mixture.draw(step) for step in reversed(range(200))][::-1] == forwards
    assert Mixture(MIXED, 4, seed=1).draw(137) == forwards[137]


def test_other_seeds_make_other_batches():
    first, second = (draws(Mixture(MIXED, 4, seed), range(60)) for seed in (0, 1))
    assert [draw.stream for draw in first] != [draw.stream for draw in second]
    assert [draw.mirrored for draw in first] != [draw.mirrored for draw in second]
    assert walk(Mixture(MIXED, 7, 0), "depth", 1) != walk(Mixture(MIXED, 7, 1), "depth", 1)


def test_batches_never_change():
    """A change here changes every training run: weights of old and new runs are not comparable."""
    found = draws(Mixture(MIXED, 4, seed=0), range(4))
    assert [(draw.stream.label, draw.indices) for draw in found] == [
        ("depth", (1, 2, 3, 4)),
        ("flow", (0, 1, 2, 3)),
        ("depth", (0, 5, 6, 1)),
        ("flow", (4, 5, 6, 7)),
    ]
    assert found[0].mirrored == (False, True, True, False)
    assert found[1].mirrored == (False, True, False, False)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1, 1), (30, 30)),
        ((1, 1, 1, 1), (15, 15, 15, 15)),
        ((3, 2, 1), (30, 20, 10)),
        ((0.7, 0.3), (42, 18)),
        ((59, 1), (59, 1)),
        ((1e-9, 2e-9), (20, 40)),
        ((5,), (60,)),
    ],
)
def test_every_block_realises_the_weights_exactly(weights, counts):
    tasks = [f"task{i}" for i in range(len(weights))]
    mixture = Mixture([stream(t, w) for t, w in zip(tasks, weights)], 2, seed=3)
    for block in (0, 1, 77):
        steps = range(block * BLOCK, (block + 1) * BLOCK)
        found = Counter(draw.stream.label for draw in draws(mixture, steps))
        assert tuple(found[task] for task in tasks) == counts
    shares = mixture.shares()
    assert [shares[task] for task in tasks] == pytest.approx([one / BLOCK for one in counts])


@pytest.mark.parametrize("count", [7, 11, 13, 60])
def test_weights_that_do_not_divide_a_block_come_within_one_batch(count):
    mixture = Mixture([stream(f"task{i}") for i in range(count)], 1, seed=0)
    found = Counter(draw.stream.label for draw in draws(mixture, range(BLOCK)))
    assert sum(found.values()) == BLOCK and len(found) == count
    assert max(found.values()) - min(found.values()) <= 1


def test_the_order_of_the_streams_differs_from_block_to_block():
    mixture = Mixture(MIXED, 1, seed=0)
    orders = [
        tuple(draw.stream.label for draw in draws(mixture, range(b * BLOCK, (b + 1) * BLOCK)))
        for b in range(3)
    ]
    assert len(set(orders)) == 3


@pytest.mark.parametrize("batch", [1, 3, 16, 25])  # smaller, odd and larger than the source
@pytest.mark.parametrize("independent", [False, True])
def test_every_epoch_reads_every_sample_once(batch, independent):
    streams = [stream(length=10, independent=independent), stream("flow", 0.5, 3)]
    indices = walk(Mixture(streams, batch, seed=2), "depth", batches=60)
    epochs = [indices[start : start + 10] for start in range(0, 60 * batch - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2  # each in its own order


def test_independent_samples_are_first_read_in_order():
    indices = walk(Mixture([stream(length=12, independent=True)], 4, seed=0), "depth", 6)
    assert indices[:12] == list(range(12))
    assert indices[12:] != list(range(12))
    files = walk(Mixture([stream(length=12)], 4, seed=0), "depth", 3)
    assert files != list(range(12))


def test_two_tasks_on_one_source_walk_it_separately():
    mixture = Mixture([stream("depth"), stream("flow")], 5, seed=0)
    depth, flow = walk(mixture, "depth", 2), walk(mixture, "flow", 2)
    assert sorted(depth) == sorted(flow) == list(range(10)) and depth != flow


def test_about_half_of_the_rows_are_mirrored():
    coins = [coin for draw in draws(Mixture(MIXED, 16, 0), range(250)) for coin in draw.mirrored]
    assert len(coins) == 4000
    assert abs(sum(coins) - 2000) < 160  # five deviations
    assert all(isinstance(coin, bool) for coin in coins[:4])


def test_a_stream_of_weight_zero_is_left_out():
    mixture = Mixture([stream("depth"), stream("flow", 0, 0)], 2, seed=0)
    assert {draw.stream.label for draw in draws(mixture, range(BLOCK))} == {"depth"}
    assert mixture.shares() == {"depth": 1.0}


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([stream(weight=0)], "no task with a positive weight"),
        ([], "no task with a positive weight"),
        ([stream(length=0)], "files: no samples for task depth"),
        ([stream("depth", 1), stream("flow", 0.001)], "weight of flow on files is under 1/60"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(streams, message):
    with pytest.raises(UserError, match=message):
        Mixture(streams, 4, seed=0)


# ---------------------------------------------------------------------------- groups

GROUPS = (range(0, 7), range(7, 8), range(8, 20), range(20, 25))


def test_groups_are_walked_one_after_the_other_and_nothing_is_lost():
    mixture = Mixture([stream(length=25, groups=GROUPS)], 5, seed=4)
    indices = walk(mixture, "depth", 20)
    orders = set()
    for start in range(0, 100, 25):
        epoch = indices[start : start + 25]
        assert sorted(epoch) == list(range(25))
        owners = [next(i for i, group in enumerate(GROUPS) if one in group) for one in epoch]
        visits = tuple(owner for owner, _ in groupby(owners))
        assert sorted(visits) == [0, 1, 2, 3]  # each group once, in one go
        orders.add(visits)
        assert all(epoch[i : i + 4] != sorted(epoch[i : i + 4]) for i in (0, 10))
    assert len(orders) > 1


@pytest.mark.parametrize("seed", range(20))
def test_every_epoch_over_groups_reads_every_sample_once(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 9) for _ in range(rng.randint(1, 6))]
    batch = rng.randint(1, 7)
    edges = [0, *accumulate(lengths)]
    groups = [range(a, b) for a, b in pairwise(edges)]
    mixture = Mixture([stream(length=edges[-1], groups=groups)], batch, seed)
    indices = [i for step in range(3 * edges[-1]) for i in mixture.draw(step).indices]
    for start in range(0, len(indices) - edges[-1], edges[-1]):
        assert sorted(indices[start : start + edges[-1]]) == list(range(edges[-1]))


# ---------------------------------------------------------------------------- counts


@pytest.mark.parametrize("steps", [0, 1, 59, 60, 61, 150, 1234])
def test_counts_are_those_of_the_draws(steps):
    streams = [*MIXED, stream("depth", 1.5, 9, source="shards", size=(4, 8)),
               stream("depth", 1.5, 3, source="shards", size=(8, 4))]  # fmt: skip
    mixture = Mixture(streams, 4, seed=5)
    drawn = Counter((one.stream.label, one.stream.source) for one in draws(mixture, range(steps)))
    found = mixture.counts(steps)
    assert {pair: count // 4 for pair, count in found.items() if count} == drawn
    assert sum(found.values()) == 4 * steps and len(found) == 4


def test_declared_shares_are_the_weights():
    found = Mixture([stream("depth", 0.7), stream("flow", 0.1), stream("flow", 0.2)], 1, 0)
    declared = found.declared()
    assert declared == pytest.approx({("depth", "files"): 0.7, ("flow", "files"): 0.3})


# ---------------------------------------------------------------------------- several tasks

SCENES = stream("depth flow amodal", 3, 40, source="scenes")
PHOTOS = stream("depth", 1, 7, source="photos")


def test_a_batch_of_several_tasks_counts_for_each_of_them():
    mixture = Mixture([SCENES, PHOTOS], 4, seed=6)
    for steps in (0, 1, 61, 200):
        drawn = Counter(one.stream.source for one in draws(mixture, range(steps)))
        assert mixture.counts(steps) == {
            ("depth", "scenes"): 4 * drawn["scenes"],
            ("flow", "scenes"): 4 * drawn["scenes"],
            ("amodal", "scenes"): 4 * drawn["scenes"],
            ("depth", "photos"): 4 * drawn["photos"],
        }
    assert SCENES.label == "depth+flow+amodal" and PHOTOS.label == "depth"


def test_shares_of_several_tasks_need_not_add_up_to_one():
    mixture = Mixture([SCENES, PHOTOS], 4, seed=6)
    assert mixture.shares() == pytest.approx({"depth": 1.0, "flow": 0.75, "amodal": 0.75})
    assert mixture.declared()["depth", "scenes"] == pytest.approx(0.75)
    assert mixture.declared()["depth", "photos"] == pytest.approx(0.25)
    assert mixture.distinct() == {"depth": 47, "flow": 40, "amodal": 40}


def test_several_tasks_read_the_same_pictures():
    mixture = Mixture([SCENES], 5, seed=7)
    indices = walk(mixture, "flow", 8)
    assert indices == walk(mixture, "depth", 8) and sorted(indices) == list(range(40))


# ---------------------------------------------------------------------------- buckets

TALL, SQUARE, WIDE = (8, 4), (6, 6), (4, 8)


def bucketed(native, buckets=(TALL, SQUARE, WIDE), least=1e-6, **more):
    whole = stream(weight=2.0, length=len(native), **more)
    return {one.size: one for one in cut(whole, native, buckets, least)}


def test_samples_go_to_the_bucket_nearest_in_log_aspect_ratio():
    native = [(100, 100), (200, 101), (90, 180), (142, 100), (100, 142), (141, 100), (100, 141)]
    found = bucketed(native)
    assert {size: one.groups[0].tolist() for size, one in found.items()} == {
        SQUARE: [0, 5, 6],  # square up to a ratio of the root of two
        TALL: [1, 3],
        WIDE: [2, 4],
    }
    assert [one.length for one in found.values()] == [len(one.groups[0]) for one in found.values()]
    assert {size: one.weight * 7 for size, one in found.items()} == pytest.approx(
        {SQUARE: 6, TALL: 4, WIDE: 4}
    )


def test_a_bucket_too_small_to_get_its_share_joins_the_next():
    native = [(50, 100)] * 50 + [(100, 100)] * 2 + [(100, 50)] * 48
    assert bucketed(native, least=0.04).keys() == {WIDE, SQUARE, TALL}
    found = bucketed(native, least=0.05)
    assert found.keys() == {WIDE, TALL}
    assert sum(one.length for one in found.values()) == 100
    assert bucketed([(7, 9)], least=5.0).keys() == {SQUARE}  # one always remains


def test_buckets_keep_the_groups_and_lose_no_sample():
    native = [WIDE, TALL] * 10
    found = bucketed(native, groups=[range(0, 1), range(1, 12), range(12, 20)])
    assert [group.tolist() for group in found[WIDE].groups] == [
        [0],
        [2, 4, 6, 8, 10],
        [12, 14, 16, 18],
    ]
    assert len(found[TALL].groups) == 2
    mixture = Mixture(list(found.values()), 2, seed=0)
    epochs = {size: [] for size in found}
    for draw in draws(mixture, range(60)):
        epochs[draw.stream.size] += draw.indices
    assert sorted(epochs[WIDE][:10]) == list(range(0, 20, 2))
    assert sorted(epochs[TALL][:10]) == list(range(1, 20, 2))
    assert mixture.counts(60) == {("depth", "files"): 120}


@pytest.mark.parametrize("text", ["96", "0x4", "96 x 128", "x", "-4x4", "96x128x3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="data.shards.buckets: '.*' is no size"):
        parse_size(text, "data.shards.buckets")
    assert parse_size("96x128", "") == (96, 128)
