"""Several quantities of one picture in one pass of a U-Net, which look at each other.

The pictures of a joint target are rows of their own, "(p b)" for places p and pictures b, and in
every self-attention the rows of one picture share their keys and values: each place attends to all
of them (cross-domain attention of Long et al. 2024, Wonder3D, section 3.3, and of Fu et al. 2024,
GeoWizard, section 3.3). What a row answers is told by its place, a label row of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor, nn


class JointAttention:
    """What diffusers' `Attention` does with "(p b) n d", where the places of a picture attend to
    all of its n p tokens."""

    def __init__(self, places: int) -> None:
        self.places = places

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        assert encoder_hidden_states is None and attention_mask is None, "it is self-attention"
        assert attn.to_k is not None and attn.to_v is not None and attn.to_out is not None
        q, k, v = (
            rearrange(project(hidden_states), "b n (h d) -> b h n d", h=attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, self._all(k), self._all(v))
        return nn.Sequential(*attn.to_out)(rearrange(mixed, "b h n d -> b n (h d)"))

    def _all(self, x: Tensor) -> Tensor:
        """ "(p b) h n d" -> "(p b) h (p n) d"."""
        together = rearrange(x, "(p b) h n d -> b h (p n) d", p=self.places)
        return repeat(together, "b h n d -> (p b) h n d", p=self.places)


def attend_jointly(unet: nn.Module, places: int) -> None:
    """Let every self-attention of a U-Net of diffusers do so."""
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            module.set_processor(JointAttention(places))  # type: ignore[operator]


def apart(
    x: Tensor, encoded: tuple[Tensor, ...], time: Tensor, places: int
) -> tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]:
    """A joint target "b (p c) h w", what was made of its condition, "b ...", and its time as rows
    "(p b)"; last their labels, the places."""
    rows = rearrange(x, "b (p c) h w -> (p b) c h w", p=places)
    each = tuple(repeat(one, "b ... -> (p b) ...", p=places) for one in encoded)
    label = torch.arange(places, device=x.device)
    return rows, each, time.expand(len(x)).repeat(places), label.repeat_interleave(len(x))


def together(x: Tensor, places: int) -> Tensor:
    """Answers "(p b) c h w" to such rows as a joint target."""
    return rearrange(x, "(p b) c h w -> b (p c) h w", p=places)
