"""pix2gestalt (Ozguroglu et al. 2024, cvlab-columbia/pix2gestalt): the whole of a partly hidden
object, as a picture on white, from a picture and the object's visible mask.

The file is that of a training script of latent diffusion, with all its parts: U-Net, its averaged
weights, which sampling uses, VAE, CLIP, and a linear layer that brings CLIP's embedding of the
picture to the U-Net's attention. Its .yaml, which has to lie beside it, holds their arguments.

What the published code does besides: the latents of picture and mask, beside the noisy one, are not
multiplied by the VAE's factor; answers are guided, by 2, away from those to zeros in place of all
conditions; DDIM draws at each step (eta 1) and leaves out the noisiest of its 200 visits. Pictures
have to come as squares of 256 pixels: here they are squashed to that, with antialiasing. No code
that reads the mask off the answer was published: here it is what is not white (`tasks.silhouette`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from stepsight.coding import Layout
from stepsight.config import RunConfig
from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import ldm
from stepsight.conversion.families.source import notes_of, unet_settings
from stepsight.conversion.folders import refuse_unknown
from stepsight.conversion.foreign import Weights, compare
from stepsight.conversion.vision import described, from_openai
from stepsight.conversion.write import Converted
from stepsight.data.readers.config import Pix2GestaltSettings
from stepsight.diffusion.config import DiffusionSettings
from stepsight.errors import DataFormatError, UserError
from stepsight.evaluation.config import EvaluationSettings
from stepsight.models.config import CodecSettings
from stepsight.noise_levels import ENDS
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import AmodalSettings
from stepsight.tasks.table import build_tasks
from stepsight.training.config import TrainingSettings

PROJECTION = "cc_projection."
CLIP, SEEING = "cond_stage_model.model.", "cond_stage_model.model.visual."
# What else is in the file: averages, CLIP's reading of text, and tables that follow from the betas.
BESIDE = ("model_ema.", CLIP)
TABLES = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
# Of the model's arguments in the .yaml, as in `families.ldm`.
USED = (
    "linear_start",
    "linear_end",
    "image_size",
    "scale_factor",
    "unet_config",
    "first_stage_config",
)
IDLE = (
    "num_timesteps_cond",
    "log_every_t",
    "first_stage_key",
    "cond_stage_key",
    "cond_stage_trainable",
    "monitor",
    "scheduler_config",
)
EMBEDDER = "ldm.modules.encoders.modules.FrozenCLIPImageEmbedder"
ONLY = {
    "timesteps": 1000,
    "channels": 4,
    "conditioning_key": "hybrid",
    "cond_stage_config": {"target": EMBEDDER},
}
WHITE = 230  # a decoded white is not quite 255
CALLS, MEMBERS, GUIDANCE = 199, 6, 2.0  # of the published function's arguments
ASSUMED = (
    ldm.ASSUMED,
    "condition latents without the VAE's factor, CLIP's heads of 64 channels: fixed in its code",
    f"guidance {GUIDANCE:g}, eta 1, {CALLS} calls, {MEMBERS} members: its function's defaults",
    f"the mask is where the picture is darker than {WHITE}: no code of it was published",
)


def import_pix2gestalt(weights: Weights, wishes: Wishes) -> Converted:
    """pix2gestalt's file as a run. Raises UserError for what is not in its layout."""
    file, model = _model(weights.source)
    given = model["params"]
    _check_names(weights)
    scale, first = float(given["scale_factor"]), given["first_stage_config"]["params"]
    codec = ldm.first_stage(weights, first, scale, f"{file}: first_stage_config")
    unet = ldm.unet_config(given["unet_config"]["params"], f"{file}: unet_config")
    seeing = from_openai(_under(weights, SEEING))
    further = {
        "vision": {**described(seeing), "squaring": "corners"},
        "projected": True,
        "condition_scale": 1 / scale,
    }
    side = int(given["image_size"]) * codec.downsample
    tasks = {"amodal": AmodalSettings(target="rgb", threshold=WHITE)}
    config = RunConfig(
        tasks=dict(tasks),
        data={"pix2gestalt": Pix2GestaltSettings(size=(side, side))},
        model=unet_settings({**unet, **further}, 1),
        codec=CodecSettings("vae", "float32", "contiguous"),
        diffusion=_diffusion(given),
        training=TrainingSettings(precision="float32"),
        evaluation=EvaluationSettings(nfe=CALLS, members=MEMBERS, temperature=1.0, views="none"),
    )
    with torch.device("meta"):
        net = Layout.of(build_tasks(tasks), codec).build(config.model)
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    named = ldm.unet_weights(ldm.averaged(weights.tensors), unet)
    ours = {f"unet.{name}": value for name, value in named.items()}
    ours |= {f"vision.net.{name}": value.float() for name, value in seeing.items()}
    ours |= {f"projection.{name}": value for name, value in _under(weights, PROJECTION).items()}
    ours["prompt"] = torch.zeros(shapes["prompt"])
    compare(replace(weights, tensors=ours), shapes)
    return Converted(
        config,
        ours,
        {"amodal": (side, side)},
        codec,
        {"published": {"model": model}},
        notes=[*weights.notes, "the averaged weights (model_ema) were taken", *notes_of(config)],
        family="pix2gestalt",
        profile=Profile("pix2gestalt", fit="square", resolution=side, nfe=CALLS, members=MEMBERS),
        assumed=ASSUMED,
    )


def _model(source: Path) -> tuple[Path, dict[str, Any]]:
    """The .yaml beside the file, and the model in it."""
    files = sorted(source.parent.glob("*.yaml"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"{source}: its sizes are in a .yaml that has to lie beside it, there is {found}. Copy "
            f"the one file of pix2gestalt's configs there."
        )
    try:
        whole = yaml.safe_load(files[0].read_text(encoding="utf-8"))
        model = whole["model"]
        given = model["params"]
        parts = [given["unet_config"]["params"], given["first_stage_config"]["params"]]
        missing = [name for name in USED if name not in given]
        if missing or not all(isinstance(part, dict) for part in parts):
            raise ValueError(f"model.params lacks {', '.join(missing) or 'sizes'}")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataFormatError(f"{files[0]}: no model of latent diffusion ({error!r}).") from None
    refuse_unknown(whole, ("model", "data", "lightning"), files[0])
    refuse_unknown(model, ("base_learning_rate", "target", "params"), f"{files[0]}: model")
    for part in ("unet_config", "first_stage_config"):
        refuse_unknown(given[part], ("target", "params"), f"{files[0]}: {part}")
    ldm.check(given, USED, IDLE, ONLY, f"{files[0]}: model.params")
    return files[0], model


def _check_names(weights: Weights) -> None:
    """Refuse weights that have no place here."""
    known = (ldm.UNET, ldm.FIRST_STAGE, PROJECTION, *BESIDE)
    unknown = [
        name for name in weights.tensors if not name.startswith(known) and name not in TABLES
    ]
    if unknown:
        raise UserError(
            f"{weights.source} does not have the published layout: {', '.join(unknown[:4])} "
            f"{'is' if len(unknown) == 1 else 'are'} unexpected. Nothing was written."
        )


def _under(weights: Weights, start: str) -> dict[str, torch.Tensor]:
    """The weights whose names begin so, without it, in float32."""
    return {
        name.removeprefix(start): value.float()
        for name, value in weights.tensors.items()
        if name.startswith(start)
    }


def _diffusion(given: Mapping[str, Any]) -> DiffusionSettings:
    betas = float(given["linear_start"]), float(given["linear_end"])
    return DiffusionSettings(
        schedule="scaled_linear",
        betas=() if betas == ENDS["scaled_linear"] else betas,
        prediction="eps",
        shift=1.0,
        sampler="ddim",
        eta=1.0,
        spacing="leading_less",
        steps_offset=1,
        final="first_level",
        sampling_shift=1.0,
        guidance=GUIDANCE,
    )
