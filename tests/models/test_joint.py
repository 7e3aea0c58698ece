"""The pictures of one target attend to each other, and are told apart by their places."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import UNET
from torch import Tensor

from stepsight.errors import UserError
from stepsight.models.config import ModelSettings
from stepsight.models.factory import build
from stepsight.models.unet import diffusers_config

SWITCH = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 4}
CONFIG = {**UNET, **SWITCH, "_class_name": "UNet2DConditionModel", "tokens": 2, "places": 2}


def made(config: dict[str, Any] = CONFIG, target: int = 8, labels: int = 2) -> Any:
    settings = ModelSettings("unet", unet=json.dumps(config))
    return build(settings, target_channels=target, cond_channels=4, labels=labels)


@pytest.fixture
def net() -> Any:
    torch.manual_seed(0)
    net = made().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return net


class Sharing:
    """Attention of two rows to the tokens of both, written down with a softmax."""

    def __call__(self, attn: Any, hidden_states: Tensor, **_: Any) -> Tensor:
        first, second = hidden_states.chunk(2)
        both = torch.cat([first, second], dim=1)
        both = torch.cat([both, both])
        q, k, v = attn.to_q(hidden_states), attn.to_k(both), attn.to_v(both)
        q, k, v = (attn.head_to_batch_dim(one) for one in (q, k, v))
        shares = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        return attn.to_out[0](attn.batch_to_head_dim(shares @ v))


@torch.inference_mode()
def test_rows_of_a_picture_share_keys_and_values_in_every_self_attention(net: Any):
    x, cond = torch.randn(3, 8, 8, 8), torch.randn(3, 4, 8, 8)
    time, label = torch.tensor([7.0, 300.0, 999.0]), torch.zeros(1, dtype=torch.long)
    together = net(x, cond, time, label)

    unet: Any = UNet2DConditionModel(in_channels=8, out_channels=4, **UNET, **SWITCH)
    unet.load_state_dict(net.unet.state_dict())
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.set_processor(Sharing())
    for picture in range(3):  # each for itself, two rows
        rows = torch.cat([cond[picture].expand(2, -1, -1, -1), x[picture].unflatten(0, (2, 4))], 1)
        answer = unet(rows, time[picture], net.prompt[:2], net.switch[:2]).sample
        torch.testing.assert_close(together[picture], answer.flatten(0, 1), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_each_place_depends_on_the_other(net: Any):
    x, cond = torch.randn(1, 8, 8, 8), torch.randn(1, 4, 8, 8)
    time, label = torch.tensor([500.0]), torch.zeros(1, dtype=torch.long)
    before = net(x, cond, time, label)
    x[:, 4:] += 1
    assert (net(x, cond, time, label) - before)[:, :4].abs().max() > 1e-3


def test_the_configuration_says_how_many(net: Any):
    assert diffusers_config(net)["places"] == 2
    assert net.unet.config["out_channels"] == 4
    assert "places" not in net.unet.config


@pytest.mark.parametrize("places", [0, 3, "2"])
def test_a_target_falls_into_equal_parts(places: Any):
    with pytest.raises(UserError, match="model.unet: places is"):
        made({**CONFIG, "places": places})
