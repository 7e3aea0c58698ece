"""diffusers' DiT with the weights of a published one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn

from stepsight.models.config import DiTSize

BLOCK = {  # theirs -> DiT's, of a block
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
WHOLE = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
TIME = {"linear_1": "mlp.0", "linear_2": "mlp.2"}


class DiffusersDiT(nn.Module):
    """(x "b c h w", t "b", y "b") -> "b out h w" with `weights` by DiT's names.

    diffusers repeats the embedders of time and label in every block, and as shipped its sinusoids
    have other frequencies than DiT's (`downscale_freq_shift` 1 in place of 0), which is set right.
    """

    def __init__(
        self, size: DiTSize, channels: int, out: int, side: int, weights: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        labels = len(weights["y_embedder.embedding_table.weight"]) - 1
        self.net = DiTTransformer2DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.width // size.heads,
            in_channels=channels,
            out_channels=out,
            num_layers=size.depth,
            sample_size=side,
            patch_size=size.patch,
            num_embeds_ada_norm=labels,
            norm_eps=1e-6,
        )
        for block in self.net.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = 0  # type: ignore[union-attr]
        missing, extra = self.net.load_state_dict(dict(_named(size, weights)), strict=False)
        assert not extra and set(missing) <= {"pos_embed.pos_embed"}, (missing, extra)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.net(x, timestep=t, class_labels=y, return_dict=False)[0]


def _named(size: DiTSize, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    def both(theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
        for kind in ("weight", "bias"):
            yield f"{theirs}.{kind}", weights[f"{ours}.{kind}"]

    for theirs, ours in WHOLE.items():
        yield from both(theirs, ours)
    for index in range(size.depth):
        here, there = f"transformer_blocks.{index}", f"blocks.{index}"
        for theirs, ours in BLOCK.items():
            yield from both(f"{here}.{theirs}", f"{there}.{ours}")
        for theirs, ours in TIME.items():
            yield from both(f"{here}.norm1.emb.timestep_embedder.{theirs}", f"t_embedder.{ours}")
        table = weights["y_embedder.embedding_table.weight"]
        yield f"{here}.norm1.emb.class_embedder.embedding_table.weight", table
        for kind in ("weight", "bias"):
            parts = weights[f"{there}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", parts):
                yield f"{here}.attn1.to_{name}.{kind}", part
