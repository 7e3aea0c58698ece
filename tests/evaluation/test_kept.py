"""A source that reads every sample once."""

import pytest
import torch

from stepsight.data.config import ScenesSettings
from stepsight.data.scenes.source import Scenes
from stepsight.errors import UserError
from stepsight.evaluation.kept import Kept
from stepsight.types import Sample


class Counting:
    """Says how often each sample was read; the last cannot be."""

    name, title, size = "counting", "counting, from 0", (2, 2)

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 5

    def samples(self, indices) -> list[Sample]:
        if 4 in indices:
            raise UserError("sample 4 is torn.")
        self.read += indices
        return [Sample(torch.full((3, 2, 2), i), str(i), self.name) for i in indices]


def test_each_sample_is_read_once_and_given_in_the_order_asked_for():
    source = Counting()
    kept = Kept(source)
    assert [sample.key for sample in kept.samples([2, 0])] == ["2", "0"]
    assert [sample.key for sample in kept.samples([0, 1, 2, 1])] == ["0", "1", "2", "1"]
    assert kept[1].key == "1"
    assert source.read == [2, 0, 1]


def test_it_is_the_source_in_all_else():
    kept = Kept(Counting())
    assert (kept.name, kept.title, kept.size, len(kept)) == (
        "counting",
        "counting, from 0",
        (2, 2),
        5,
    )
    assert not hasattr(kept, "settings")


def test_what_cannot_be_read_says_so_each_time():
    kept = Kept(Counting())
    for _ in range(2):
        with pytest.raises(UserError, match="torn"):
            kept.samples([3, 4])


def test_no_more_is_kept_than_there_is_room_for():
    source = Counting()
    kept = Kept(source, room=2 * 3 * 2 * 2 * 8)  # two images of int64
    for _ in range(2):
        assert [sample.key for sample in kept.samples(range(4))] == ["0", "1", "2", "3"]
    assert source.read == [0, 1, 2, 3, 2, 3]


def test_scenes_are_those_of_the_source():
    scenes = Scenes(ScenesSettings(size=(16, 16)), "eval")
    first, again = Kept(scenes).samples([3, 5]), scenes.samples([3, 5])
    for one, other in zip(first, again):
        assert one.key == other.key and torch.equal(one.image, other.image)
