"""The module that is recorded answers as the pipeline, whatever starts, task and size."""

from __future__ import annotations

import pytest
import torch

from stepsight.errors import UserError
from stepsight.exporting.describing import described
from stepsight.exporting.graph import AnswerGraph, AnswerRequest
from stepsight.matching import mean_costs
from stepsight.models.layers import Positions
from stepsight.pipeline.defaults import SamplingSetting

ZEROS = SamplingSetting(2, 1, 0.0, "none")
NOISE = SamplingSetting(2, 3, 0.7, "none")
TASKS = ("depth", "flow", "amodal", "semantic", "normals")


@pytest.fixture(scope="module")
def pipeline(laboratory):
    lab = laboratory()
    return lab.pipeline(lab.config(TASKS))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("setting", [ZEROS, NOISE])
@pytest.mark.parametrize("noise", ["constant", "input"])
def test_it_is_what_the_pipeline_predicts(pipeline, task, setting, noise):
    answer = AnswerGraph(pipeline, AnswerRequest(task, setting, (24, 40), noise))
    given = answer.example((24, 40), seed=1)
    found, expected = answer(**given), answer.expected(given)
    assert len(found) == len(expected) == 1 + (setting.members > 1)
    assert found[0].shape[-2:] == (24, 40)
    assert all(map(torch.equal, found, expected))
    assert ("noise" in given) == (noise == "input" and setting is NOISE)


def test_from_zeros_it_is_what_users_are_answered(pipeline):
    answer = AnswerGraph(pipeline, AnswerRequest("depth", ZEROS, (24, 40)))
    given = answer.example((24, 40), seed=1)
    users = pipeline(given["image"][0], task="depth", nfe=2, members=1, temperature=0.0)
    assert torch.equal(answer(**given)[0], users.values)


def test_noise_of_an_input_is_what_members_start_from(pipeline):
    answer = AnswerGraph(pipeline, AnswerRequest("depth", NOISE, (16, 16), "input"))
    given = answer.example((16, 16))
    other = given | {"noise": given["noise"].roll(1, -1)}
    assert given["noise"].shape == (1, 3, 1, 16, 16)
    assert not torch.equal(answer(**given)[1], answer(**other)[1])


@pytest.mark.parametrize("task", TASKS)
def test_pictures_of_any_size_are_seen_as_they_are(pipeline, task):
    answer = AnswerGraph(pipeline, AnswerRequest(task, NOISE, None))
    assert answer.takes_noise and len(answer.sizes) == 2
    given = answer.example((32, 56), seed=1)
    for found, expected in zip(answer(**given), answer.expected(given), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_steps_that_draw_noise_are_given_theirs(pipeline):
    answer = AnswerGraph(
        pipeline.sampling(sampler="ancestral"), AnswerRequest("depth", NOISE, (16, 16))
    )
    given = answer.example((16, 16))
    assert len(answer.drawn["sample"]) == 2
    assert all(map(torch.equal, answer(**given), answer.expected(given)))


def test_what_it_says_of_itself(pipeline):
    said = described(AnswerGraph(pipeline, AnswerRequest("flow", NOISE, (24, 40))))
    assert (
        said["unit"].startswith("pixels")
        and said["starts"] == "noise, a constant of seed 0, times 0.7"
    )
    assert (said["pictures"], said["seen"]) == ([24, 40], [16, 24])
    assert [*said["inputs"]] == ["image", "second"] and said["merge"] == "mean"
    assert said["protocol"].startswith("flow-epe@")
    any_size = described(AnswerGraph(pipeline, AnswerRequest("amodal", ZEROS, None)))
    assert any_size["pictures"] == "any multiples of 8, seen as they are"
    assert any_size["starts"] == "zeros" and any_size["outputs"] == ["values"]


def test_what_no_graph_answers_is_refused(pipeline, laboratory):
    with pytest.raises(UserError, match="noise that is a constant has one size"):
        AnswerGraph(pipeline, AnswerRequest("depth", NOISE, None, "constant"))
    generator = laboratory().pipeline(laboratory().config(("image",)))
    with pytest.raises(UserError, match="makes pictures of a class"):
        AnswerGraph(generator, AnswerRequest("image", ZEROS, (16, 16)))


def test_what_graphs_compute_in_their_own_way_is_the_same(monkeypatch):
    first, second = torch.rand(2, 1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    tokens, positions = torch.zeros(1, 15, 8), Positions()
    costs, table = mean_costs(first, second, [3, 5]), positions(tokens, 3, 5)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(mean_costs(first, second, [3, 5]), costs, atol=1e-6, rtol=0)
    assert torch.equal(positions(tokens, 3, 5), table)
