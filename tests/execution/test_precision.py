"""Precisions: what "auto" means where, and what lies in which dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepsight.errors import UserError
from stepsight.execution.precision import computing, lowered, resolved
from stepsight.models.moe import MoE


def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch):
    for fast, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        assert resolved("auto", "cpu") == expected
    assert resolved("auto", torch.device("meta")) == "float32"
    assert [resolved(name, "cpu") for name in ("float32", "bf16", "fp16")] == [
        "float32", "bf16", "fp16"]  # fmt: skip


def test_auto_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for fast, expected in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda fast=fast, **_: fast)
        assert resolved("auto", "cuda:1") == expected


def test_an_unknown_precision_is_refused():
    with pytest.raises(UserError, match="'bf61' is unknown. Did you mean 'bf16'"):
        resolved("bf61", "cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_are_in_the_precision_while_it_lasts(precision, dtype):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with computing("cpu", precision):
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == dtype
        tf32 = "highest" if precision == "float32" else "high"
        assert torch.get_float32_matmul_precision() == tf32
        assert torch.backends.cudnn.allow_tf32 == (precision != "float32")
    assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_what_is_cast_once_is_what_autocast_would_cast_each_time():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), MoE(16, 4, 2), nn.Linear(16, 3))
    net.eval()
    x = torch.randn(2, 5, 16)
    with torch.inference_mode(), computing("cpu", "bf16"):
        expected = net(x)
        assert torch.equal(lowered(net, "bf16")(x), expected)
    kinds = {name: p.dtype for name, p in net.named_parameters()}
    assert kinds["0.weight"] == kinds["3.bias"] == torch.bfloat16
    assert kinds["2.experts.fc1.weight"] == kinds["2.experts.fc2.bias"] == torch.bfloat16
    assert kinds["1.weight"] == kinds["2.gate.weight"] == torch.float32
    assert {p.dtype for p in lowered(nn.Linear(2, 2), "float32").parameters()} == {torch.float32}
