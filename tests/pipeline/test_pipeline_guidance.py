"""Pictures of no class, and guidance away from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.evaluation.predictors import sampling_options
from stepsight.evaluation.records import answer_flops, starts_text
from stepsight.pipeline.dense import DensePipeline
from stepsight.types import Batch

BLANK = np.zeros((24, 32, 3), dtype=np.uint8)
TASKS = {"image": {"classes": 3}, "depth": {}}  # the null row is the one after that of depth


@pytest.fixture(scope="module")
def generator(make) -> DensePipeline:
    return make(tasks=TASKS)


def drawn(pipeline: DensePipeline, class_id: Any, nfe: int = 2, **options: Any) -> Tensor:
    return pipeline(BLANK, "image", class_id=class_id, nfe=nfe, members=2, **options).x


def labels(pipeline: DensePipeline, ask: Any) -> list[int]:
    """The labels that the network was given, call by call."""
    seen: list[int] = []
    hook = pipeline.net.register_forward_pre_hook(
        lambda net, given, more: seen.append(int(given[3][0])), with_kwargs=True
    )
    ask()
    hook.remove()
    return seen


def test_no_class_is_the_row_after_all_others(generator):
    assert labels(generator, lambda: drawn(generator, "null")) == [4, 4]
    assert labels(generator, lambda: drawn(generator, 2)) == [2, 2]
    assert not torch.equal(drawn(generator, "null"), drawn(generator, 2))


def test_a_guided_call_asks_with_the_label_and_without(generator):
    guided = generator.sampling(guidance=3.0)
    assert labels(guided, lambda: drawn(guided, 1)) == [1, 4, 1, 4]
    plain = generator.sampling(guidance=1.0)
    assert labels(plain, lambda: drawn(plain, 1)) == [1, 1]


def test_one_guided_call_is_the_weighted_sum(generator):
    """The answer of one step is x0 itself."""
    c, u = (drawn(generator, label, nfe=1) for label in (1, "null"))
    found = drawn(generator.sampling(guidance=2.5), 1, nfe=1)
    torch.testing.assert_close(found, u + 2.5 * (c - u), atol=1e-4, rtol=1e-4)
    assert torch.equal(drawn(generator.sampling(guidance=1.0), 1), drawn(generator, 1))
    zero = drawn(generator.sampling(guidance=0.0), 1)
    torch.testing.assert_close(zero, drawn(generator, "null"), atol=1e-5, rtol=1e-5)


def test_members_and_chunks_are_guided_alike(generator):
    guided = generator.sampling(guidance=3.0)
    batch = Batch(torch.zeros(2, 3, 24, 32), ["a", "b"], ["test"] * 2)
    batch.class_id = torch.tensor([0, 2])
    how: dict[str, Any] = {"nfe": 2, "members": 3}
    whole, parts = (guided.sample(batch, "image", **how, chunk_size=size) for size in (64, 2))
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-5)


def test_a_network_may_say_what_it_answers_without_its_condition(make):
    """Then any task can be guided, and one row of the label holds for all."""
    pipeline = make(tasks=["depth"])

    def unconditional(encoded: tuple[Tensor, ...], label: Tensor) -> Any:
        return tuple(torch.zeros_like(one) for one in encoded), label + 1

    picture = np.random.default_rng(0).integers(0, 256, BLANK.shape, dtype=np.uint8)

    def asked(guidance: float) -> Tensor:
        one = pipeline.sampling(guidance=guidance)
        return one(picture, "depth", nfe=1, members=1).x

    with pytest.raises(UserError, match="task depth was trained with its label alone"):
        asked(2.0)
    pipeline.net.unconditional = unconditional  # type: ignore[assignment]
    c, u, found = asked(1.0), asked(0.0), asked(2.0)
    assert not torch.allclose(c, u, atol=1e-3)
    torch.testing.assert_close(found, 2 * c - u, atol=1e-4, rtol=1e-4)


def test_a_model_whose_classes_were_never_hidden_has_no_null_class(make):
    pipeline = make(tasks={"image": {"classes": 3, "dropout": 0.0}})
    with pytest.raises(UserError, match="class_id, 0 to 2; it was trained with all shown"):
        drawn(pipeline, "null")
    with pytest.raises(UserError, match="guidance: 2.*dropout"):
        drawn(pipeline.sampling(guidance=2.0), 1)


def test_a_guided_answer_costs_twice_and_says_so(generator):
    from types import SimpleNamespace

    scores: Any = SimpleNamespace(task="image", sizes={(24, 32): 1})
    guided = generator.sampling(guidance=4.0)
    assert answer_flops(guided, scores, 3, 2) == 2 * answer_flops(generator, scores, 3, 2)
    settings = guided.diffusion.settings
    assert starts_text(settings) == ["guidance 4"] + starts_text(generator.diffusion.settings)
    told = sampling_options(settings, None)
    assert (told["guidance"], told["convention"]) == (4.0, "stepsight")


def test_some_channels_alone_are_guided(generator):
    some = generator.sampling(guidance=2.5)
    some.diffusion = Diffusion(replace(some.diffusion.settings, guided_channels=1))
    plain, found = drawn(generator, 1, nfe=1), drawn(some, 1, nfe=1)
    whole = drawn(generator.sampling(guidance=2.5), 1, nfe=1)
    assert torch.equal(found[:, ::3], whole[:, ::3])  # of each of two members' three channels
    torch.testing.assert_close(found[:, 1::3], plain[:, 1::3])
