"""Files of latent diffusion with tiny random weights, in the layouts of DepthFM and pix2gestalt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from publishing import VAE, WIDTH
from torch import Tensor, nn

from stepsight.conversion.families.ldm_export import first_stage, unet_names
from stepsight.conversion.vision import to_openai
from stepsight.models.vision import ImageEncoder

SIDE = 64  # of pix2gestalt's square
SIZES: dict[str, Any] = {
    "image_size": 32,
    "out_channels": 4,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": WIDTH,
    "legacy": False,
}
STAGE: dict[str, Any] = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": SIDE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
PARAMS: dict[str, Any] = {
    "linear_start": 0.00085,
    "linear_end": 0.012,
    "timesteps": 1000,
    "image_size": SIDE // 8,
    "channels": 4,
    "conditioning_key": "hybrid",
    "scale_factor": 0.18215,
    "unet_config": {"params": {**SIZES, "in_channels": 12}},
    "first_stage_config": {"params": STAGE},
    "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenCLIPImageEmbedder"},
}


def network(channels: int) -> Any:
    """The U-Net of `SIZES`, whose input has the noisy latent first."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        in_channels=channels,
        out_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )
    return _shaken(unet)


def vae(**config: Any) -> Any:
    """Whose answers lie over the whole range, and now and then beyond it."""
    torch.manual_seed(2)
    module = AutoencoderKL(**{**VAE, **config})
    with torch.no_grad():
        module.decoder.conv_out.weight *= 3
        module.encoder.conv_out.weight *= 20
    return module.eval()


def published(unet: nn.Module) -> dict[str, Tensor]:
    """The weights of a U-Net under the published names."""
    weights = dict(unet.state_dict())
    named = unet_names(weights)
    return {named(name): value for name, value in weights.items()}


def depthfm(folder: Path, **entries: Any) -> Path:
    """The file, with the VAE beside it; `entries` in the place of its own."""
    vae().save_pretrained(folder / "stable-diffusion-v1-5" / "vae")
    prompt = torch.randn(1, 2, WIDTH, generator=torch.Generator().manual_seed(3)).numpy()
    stored = {
        "noising_step": 400,
        "empty_text_embedding": prompt,
        "ldm_hparams": {**SIZES, "in_channels": 8},
        "state_dict": published(network(8)),
    }
    stored = {key: value for key, value in {**stored, **entries}.items() if value is not None}
    torch.save(stored, folder / "depthfm-v1.ckpt")
    return folder / "depthfm-v1.ckpt"


def pix2gestalt(folder: Path, more: dict[str, Tensor] | None = None, **params: Any) -> Path:
    """The file and its .yaml; `more` weights, and `params` in the place of the .yaml's own. The
    trained weights are none that answer anything."""
    unet = {f"model.diffusion_model.{name}": x for name, x in published(network(12)).items()}
    averaged = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): x for name, x in unet.items()
    }
    torch.manual_seed(4)
    seeing = _shaken(ImageEncoder(28, 14, 64, 1, 1, 32, 12))
    clip = {
        f"cond_stage_model.model.visual.{n}": x
        for n, x in to_openai(seeing.net.state_dict()).items()
    }
    stage = first_stage(vae(block_out_channels=(32,) * 4, norm_num_groups=32).state_dict())
    weights = {
        **{name: torch.full_like(value, torch.nan) for name, value in unet.items()},
        **averaged,
        "model_ema.num_updates": torch.tensor(7),
        **{f"first_stage_model.{name}": value for name, value in stage.items()},
        **clip,
        "cond_stage_model.model.logit_scale": torch.ones(()),
        **{f"cc_projection.{n}": x for n, x in nn.Linear(12, WIDTH).state_dict().items()},
        "betas": torch.zeros(1000),
        **(more or {}),
    }
    torch.save({"epoch": 5, "state_dict": weights}, folder / "epoch=000005.ckpt")
    whole = {key: value for key, value in {**PARAMS, **params}.items() if value is not None}
    (folder / "pix2gestalt.yaml").write_text(yaml.safe_dump({"model": {"params": whole}}))
    return folder / "epoch=000005.ckpt"


def _shaken(module: Any) -> Any:
    """With no weight at its start, as those of norms and biases are."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module.eval()
