"""What a network is told of a picture as a whole: CLIP's image encoder.

A vision transformer (Radford et al. 2021, section 2.4; Dosovitskiy et al. 2021) whose class token,
normalised and projected, is the embedding. It sees a square picture in CLIP's own colours.

Shapes: b batch, h w the picture, d width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stepsight.errors import UserError

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training pictures in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)
Squaring = Literal["antialiased", "corners"]


class ImageEncoder(nn.Module):
    """picture "b 3 h w" in [-1, 1] -> "b d".

    size: pixels of the side that pictures are brought to, whatever their shape. depth, width,
    heads, hidden: of the transformer, and of its blocks' inner layers. embedding: d.
    squaring: the bicubic filter that does it: "antialiased", or "corners", without antialiasing and
    with the centres of the corner pixels kept in place.
    """

    def __init__(
        self,
        size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        embedding: int,
        activation: str = "quick_gelu",
        eps: float = 1e-5,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        squaring: Squaring = "antialiased",
    ) -> None:
        super().__init__()
        self.size, self.mean, self.std, self.squaring = size, mean, std, squaring
        self.net = VisionTransformer(
            size,
            patch,
            num_classes=embedding,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=hidden / width,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=eps),
            act_layer=activation,
        )
        self.net.head = nn.Linear(width, embedding, bias=False)
        self.requires_grad_(False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """From the arguments by name. Raises UserError for such as it cannot be made of."""
        try:
            return cls(**config)
        except (TypeError, ValueError, ArithmeticError, AssertionError) as error:
            raise UserError(f"model.unet: vision is {dict(config)}: {error}.") from error

    def forward(self, picture: Tensor) -> Tensor:
        corners = self.squaring == "corners"
        square = F.interpolate(
            picture.float(),
            (self.size, self.size),
            mode="bicubic",
            align_corners=corners,
            antialias=not corners,
        )
        mean, std = (square.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        seen = ((square + 1) / 2 - mean) / std
        return self.net(seen.to(self.net.pos_embed))
