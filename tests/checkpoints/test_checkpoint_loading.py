"""From a checkpoint to a network and its optimizers: strictly, and to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stepsight import checkpoint
from stepsight.checkpoint import OPTIMIZER, RAW, CheckpointError
from stepsight.config import from_dict
from stepsight.training.optim import Muon, pack_optimizers, unpack_optimizers


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def net() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 3))


def test_weights_are_loaded_strictly(tmp_path):
    first, second = net(), net()
    for p in first.parameters():
        p.data.normal_()
    checkpoint.load_weights(second, dict(first.state_dict()), tmp_path)
    assert same(dict(first.state_dict()), dict(second.state_dict()))


def test_another_models_weights_are_refused_with_what_differs(tmp_path):
    model = net()
    untouched = {name: value.clone() for name, value in model.state_dict().items()}
    found = dict(model.state_dict())
    del found["0.bias"]
    found |= {"3.weight": torch.zeros(1), "2.weight": torch.zeros(3, 9)}
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_weights(model, found, tmp_path)
    message = str(error.value)
    assert "missing 0.bias" in message and "unexpected 3.weight" in message
    assert "2.weight is (3, 9), the model has (3, 4)" in message and str(tmp_path) in message
    assert same(dict(model.state_dict()), untouched)


def test_a_long_list_of_differences_is_cut(tmp_path):
    with pytest.raises(CheckpointError, match="and 12 more"):
        checkpoint.load_weights(net(), {f"x{i}": torch.zeros(1) for i in range(20)}, tmp_path)


def optimizers(model: nn.Module, kind: str) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.parameters() if p.ndim > 1] if kind == "muon" else []
    rest = [p for p in model.parameters() if all(p is not one for one in matrices)]
    groups = [{"params": rest[:1], "weight_decay": 0.1}, {"params": rest[1:]}]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=1e-2, fused=True)]
    return found + ([Muon(matrices, 0.02, 0.95, 0.01)] if matrices else [])


def step(model: nn.Module, all_of_them: list[torch.optim.Optimizer], number: int) -> None:
    x = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(number))
    model(x).square().sum().backward()
    for one in all_of_them:
        one.step()
        one.zero_grad(set_to_none=True)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_optimizers_continue_where_they_stopped(kind, tmp_path):
    """Two steps, through the disk, two more: as four steps in a row, to the last bit."""
    straight, paused, resumed = net(), net(), net()
    for model, steps in ((straight, 4), (paused, 2)):
        own = optimizers(model, kind)
        for number in range(steps):
            step(model, own, number)
        state = pack_optimizers(own)
    path = checkpoint.write(
        tmp_path,
        2,
        config=from_dict({}),
        meta={},
        tensors={RAW: dict(paused.state_dict()), OPTIMIZER: state},
    )
    saved = checkpoint.read(path)
    checkpoint.load_weights(resumed, saved.tensors(RAW), path)
    own = optimizers(resumed, kind)
    unpack_optimizers(own, saved.tensors(OPTIMIZER), path)
    for number in (2, 3):
        step(resumed, own, number)
    assert same(dict(resumed.state_dict()), dict(straight.state_dict()))


def test_a_parameter_that_no_batch_has_touched_has_no_state(tmp_path):
    first, second = net(), net()
    own = optimizers(first, "muon")
    first[2](torch.randn(5, 4)).square().sum().backward()  # the convolution is not used
    for one in own:
        one.step()
    state = pack_optimizers(own)
    again = optimizers(second, "muon")
    unpack_optimizers(again, state, tmp_path)
    assert same(pack_optimizers(again), state)


@pytest.mark.parametrize(("written", "wanted"), [("adamw", "muon"), ("muon", "adamw")])
def test_the_state_of_another_optimizer_is_refused(written, wanted, tmp_path):
    model = net()
    own = optimizers(model, written)
    step(model, own, 0)
    state = pack_optimizers(own)
    with pytest.raises(CheckpointError, match="optimizer.safetensors holds the state of other"):
        unpack_optimizers(optimizers(net(), wanted), state, tmp_path)


def test_no_state_at_all_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="state of other optimizers"):
        unpack_optimizers(optimizers(net(), "adamw"), {}, tmp_path)
