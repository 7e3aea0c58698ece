"""What a micro-batch holds: tasks of several passes, and classes that are hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from stepsight.data.collate import collate
from stepsight.training.dense.batches import Part, code_part, levels_and_noise, read_parts

SEPARATE = {"components": "separate", "cost_volume": False}


def begin(lab, folder, task: str, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    config = lab.config((task,), **lab.plain | changes)
    config.tasks[task] = replace(config.tasks[task], **(options or {}))
    return lab.begin(config, folder)


def part_of(run: Any, step: int, rows: range) -> Part:
    """Some rows of a batch of one task."""
    (part,) = read_parts(run.pipeline, run.feed, run.feed.draw(step), step, rows)
    return part


# ---------------------------------------------------------------------------- several passes


def test_rows_of_two_passes_are_all_images_of_one_and_then_of_the_other(lab, tmp_path):
    joint = begin(lab, tmp_path / "joint", "flow", {"cost_volume": False})
    run = begin(lab, tmp_path / "separate", "flow", SEPARATE)
    coded = part_of(run, 0, range(2, 6)).coded
    both = part_of(joint, 0, range(2, 6)).coded
    assert coded.x is not None and both.x is not None
    assert coded.valid is not None and both.valid is not None
    assert coded.x.shape == (8, 1, 16, 16) and both.x.shape == (4, 2, 16, 16)
    for number in range(2):
        own = slice(4 * number, 4 * number + 4)
        assert torch.equal(coded.x[own, 0], both.x[:, number])
        assert torch.equal(coded.valid[own, 0], both.valid[:, number])
        assert torch.equal(coded.cond[own], both.cond)
        assert coded.label[own].tolist() == [number] * 4
    assert run.pipeline.layout.labels == 2 and run.pipeline.layout.target == 1


def test_the_noise_of_the_first_pass_is_that_of_a_single_one(lab, tmp_path):
    run = begin(lab, tmp_path / "separate", "flow", SEPARATE)
    single = begin(lab, tmp_path / "single", "depth")  # one channel as well
    parts = [part_of(one, 3, range(2, 6)) for one in (run, single)]
    t, noise = levels_and_noise(run.pipeline, 3, range(2, 6), parts[0])
    single_t, single_noise = levels_and_noise(single.pipeline, 3, range(2, 6), parts[1])
    assert torch.equal(noise[:4], single_noise)
    assert torch.equal(t[:4], single_t) and torch.equal(t[4:], single_t)  # of an image: one level
    assert (noise[:4] - noise[4:]).abs().amax(dim=(1, 2, 3)).min() > 0.1
    whole = part_of(run, 3, range(8))
    _, every = levels_and_noise(run.pipeline, 3, range(8), whole)
    assert torch.equal(every.unflatten(0, (2, 8))[:, 2:6], noise.unflatten(0, (2, 4)))


def test_micro_batches_of_two_passes_cost_what_the_batch_costs(lab, tmp_path):
    def losses(name: str, **changes: Any) -> list[float]:
        config = lab.config(("flow",), **changes)  # with starts and walks
        config.tasks["flow"] = replace(config.tasks["flow"], **SEPARATE)
        lab.train(config, tmp_path / name)
        return lab.losses(tmp_path / name)

    assert losses("split", micro_batch="2") == pytest.approx(losses("whole"), rel=1e-4)


# ---------------------------------------------------------------------------- hidden classes


def hidden(run: Any, steps: range) -> list[list[bool]]:
    """Which rows have the null row, by step."""
    found = []
    for step in steps:
        parts = [part_of(run, step, rows) for rows in run.feed.micro_batches]
        label = torch.cat([part.coded.label for part in parts])
        found.append((label == run.pipeline.layout.labels).tolist())
    return found


def test_a_tenth_of_the_classes_is_hidden(lab, tmp_path):
    """1600 coins: within three standard deviations, 0.0225."""
    lab.source.size = (8, 8)
    found = sum(hidden(begin(lab, tmp_path, "image"), range(200)), [])
    assert len(found) == 1600 and abs(sum(found) / 1600 - 0.1) < 0.0225


def test_which_are_hidden_is_a_function_of_seed_and_number(lab, tmp_path):
    often = {"dropout": 0.5}
    first = hidden(begin(lab, tmp_path / "1", "image", often), range(6))
    again = begin(lab, tmp_path / "2", "image", often, micro_batch="2")
    assert hidden(again, range(6)) == first  # however the batch is cut
    assert hidden(again, range(3, 6)) == first[3:]  # and wherever a run is taken up
    assert hidden(begin(lab, tmp_path / "3", "image", often, seed=1), range(6)) != first
    assert first[0] != first[1]


def test_other_rows_keep_their_class(lab, tmp_path):
    run = begin(lab, tmp_path, "image", {"dropout": 0.5})
    draw = run.feed.draw(0)
    label = part_of(run, 0, range(8)).coded.label
    classes = torch.tensor([lab.source[index].class_id for index in draw.indices])
    shown = label != run.pipeline.layout.labels
    assert 0 < shown.sum() < 8 and torch.equal(label[shown], classes[shown])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 8)])
def test_all_or_none(lab, tmp_path, share, expected):
    assert sum(hidden(begin(lab, tmp_path, "image", {"dropout": share}), range(1))[0]) == expected


def test_nothing_is_hidden_from_other_tasks_nor_in_validation(lab, tmp_path):
    assert not any(sum(hidden(begin(lab, tmp_path / "depth", "depth"), range(8)), []))
    run = begin(lab, tmp_path / "image", "image", {"dropout": 1.0})
    part = code_part(run.pipeline, "image", collate(lab.source.samples(range(8))))
    assert part.coded.label.tolist() == list(range(8))
