"""The make-believe accelerator: what it counts, and that its numbers are those of the CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from dispatch import DEVICE, accelerated, counting, host_of
from torch import Tensor, nn


def learnt(device: torch.device) -> list[Tensor]:
    """Weights after two steps of a small network."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 5)).to(device)
    x = torch.randn(2, 3, 8, 8).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    for _ in range(2):
        with counting() as found:
            rows = torch.arange(2, device=device)
            (net(x)[rows].square().sum() / 3.0).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert not found.synchronisations and not found.copies, found
    return [host_of(p.detach()) for p in net.parameters()]


def test_the_numbers_are_those_of_the_cpu():
    with accelerated():
        found = learnt(DEVICE)
    for one, other in zip(found, learnt(torch.device("cpu")), strict=True):
        assert torch.equal(one, other)


WAITS = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "branch": lambda x: bool(x.sum() > 0),
    "list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "mask": lambda x: x[x > 0],
    "mask assigned": lambda x: x.index_put_((x > 0,), torch.zeros((), device=DEVICE)),
}
SENDS = {
    "to the device": lambda x: torch.ones(3).to(x.device),
    "numbers": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "new numbers": lambda x: x.new_tensor([1.0, 2.0]),
    "copied over": lambda x: x.copy_(torch.ones(3)),
    "index": lambda x: x[torch.tensor([0, 1])],
    "list as index": lambda x: x[[0, 1]],
}
NEITHER = {
    "scalar": lambda x: x * torch.tensor(2.0) + 1,
    "made there": lambda x: torch.arange(3, device=x.device) + torch.zeros_like(x),
    "filled": lambda x: x.__setitem__(0, 3.0),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "matrix product": lambda x: x[:, None] @ x[None],
}


@pytest.mark.parametrize("what", [*WAITS, *SENDS, *NEITHER])
def test_what_is_counted(what):
    kinds: list[tuple[dict[str, Callable[[Tensor], object]], list[bool]]] = [
        (WAITS, [True, False]),
        (SENDS, [False, True]),
        (NEITHER, [False, False]),
    ]
    (act, expected) = next((table[what], wanted) for table, wanted in kinds if what in table)
    with accelerated():
        x = torch.tensor([1.0, 2.0, 3.0]).to(DEVICE)
        with counting() as found:
            act(x)
    assert [bool(found.synchronisations), bool(found.copies)] == expected, found
    assert all("test_dispatch.py" in one for one in found.synchronisations + found.copies)


def test_tensors_of_two_places_do_not_mix():
    with accelerated(), pytest.raises(RuntimeError, match="add: tensors on the host and on the"):
        torch.ones(3).to(DEVICE).add(torch.ones(3))
