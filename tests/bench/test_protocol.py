"""How sides are timed: with a clock that the work itself moves, so that every figure is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from stepsight.bench.cases.growth import exponent
from stepsight.bench.protocol import Contest, Setup, assert_close, in_turns, one_thread, rows_of


@dataclass
class Clock:
    """Seconds pass only while work is done."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        """Work that takes the seconds in turn, the last from then on."""
        left = list(seconds)

        def work() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work

    def read(self) -> float:
        return self.now


def test_sides_take_turns_and_back_again_and_warm_up_is_not_timed():
    clock = Clock()
    sides = {"a": clock.work("a", 9, 1), "b": clock.work("b", 9, 2)}
    contest = Contest("case", sides, "a", after=lambda: clock.log.append("-"))
    took = in_turns(contest, rounds=3, warm=1, clock=clock.read)
    assert took == {"a": [1, 1, 1], "b": [2, 2, 2]}
    assert "".join(clock.log) == "a-b-b-a-a-b-b-a-"


def test_what_comes_after_a_turn_is_not_timed():
    clock = Clock()
    contest = Contest("case", {"a": clock.work("a", 1)}, "a", after=clock.work("after", 100))
    assert in_turns(contest, rounds=2, warm=0, clock=clock.read) == {"a": [1, 1]}


def test_ratios_are_of_the_same_round():
    """Whatever slows a round down falls on both sides and leaves the ratio alone."""
    took = {"peer": [2.0, 20.0, 4.0], "ours": [1.0, 10.0, 2.0]}
    peer, ours = rows_of(Contest("case", {}, "peer", {"ours": 1.7}), took)
    assert (peer.ratio, peer.spread, peer.reference) == (1, 0, None)
    assert (ours.ratio, ours.spread, ours.reference) == (2, 0, 1.7)
    assert ours.ms == (2000, 1000, 10000)
    unexpected = rows_of(Contest("case", {}, "peer", {"ours": 1.7}), took, expected=False)
    assert unexpected[1].reference is None


def test_the_spread_is_that_of_the_middle_half():
    took = {"peer": [1.0] * 5, "ours": [1 / ratio for ratio in (9, 2.2, 2, 1.8, 0.1)]}
    row = rows_of(Contest("case", {}, "peer"), took)[1]
    assert row.ratio == pytest.approx(2) and row.spread == pytest.approx(0.4 / 2)


def test_a_setup_picks_by_its_size():
    assert Setup().pick(1, 2, 3) == 2
    assert Setup(tiny=True).pick(1, 2, 3) == Setup("cuda", tiny=True).pick(1, 2, 3) == 1
    assert Setup("cuda").pick(1, 2, 3) == 3 and Setup("cuda").size == "gpu"


def test_rounds_are_the_users_then_the_contests():
    done: list[str] = []
    contest = Contest("case", {"a": lambda: done.append("a")}, "a", rounds=3, warm=0)
    for setup, rounds in ((Setup(), 3), (Setup(rounds=2), 2), (Setup(tiny=True, rounds=2), 1)):
        done.clear()
        assert setup.timed(contest)[0].ratio == 1 and len(done) == rounds


def test_unequal_outputs_end_a_bench():
    wanted = torch.ones(4)
    assert_close(wanted * 1.0009, wanted, 1e-3, "answers")
    with pytest.raises(AssertionError, match="answers differ by"):
        assert_close(wanted * 1.0011, wanted, 1e-3, "answers")
    with pytest.raises(AssertionError):
        assert_close(wanted * float("nan"), wanted, 1e-3, "answers")
    assert_close(torch.zeros(4), torch.zeros(4), 0, "zeros")


def test_threads_are_given_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_exponent_is_a_slope_of_logarithms():
    assert exponent([1, 2, 4, 8], [3 * size**1.5 for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
