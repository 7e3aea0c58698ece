"""GenPercept (Xu et al. 2025): one step without noise, in the layout of its scripts or diffusers'.

A U-Net of Stable Diffusion 2.1 sees the picture's latent alone, is told level 1, and answers minus
the latent of a depth, disparity or normal map: all betas are 1, so that v is minus the clean
latent. Here that is v at the level of pure noise, from zeros.

Its scripts have the U-Nets at weights/genpercept-models/unet_*_v2, beside the base model's folder
with VAE and text encoder, and the scheduler; what is fixed in its code is the longer side of 768
pixels, no padding, 8 bits after resizing, and one step. The variant that reads depth by a DPT head
from inside the U-Net is another network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepsight.conversion.dit import Wishes
from stepsight.conversion.families import FAMILIES
from stepsight.conversion.families.marigold import DEPTH, NORMALS
from stepsight.conversion.families.source import Source, without_target
from stepsight.conversion.folders import CONFIG, SCHEDULER, read_json
from stepsight.conversion.recognise import SEVERAL
from stepsight.conversion.scheduler import diffusion_settings
from stepsight.conversion.write import Converted
from stepsight.diffusion.config import DiffusionSettings
from stepsight.diffusion.objective import Diffusion
from stepsight.errors import UserError
from stepsight.pipeline.config import Profile
from stepsight.tasks.config import DepthSettings, TaskSettings

MODELS = Path(SEVERAL)  # in the folder that the scripts run in, as the others
BASE = Path("pretrained_weights/stable-diffusion-2-1")
BETAS = Path("hf_configs/scheduler_beta_1.0_1.0")
UNETS = {
    "genpercept-depth": "unet_depth_v2",
    "genpercept-disparity": "unet_disparity_v2",
    "genpercept-normals": "unet_normal_v2",
}
HEAD = "dpt_head"  # in names of the variant that is not supported
RESOLUTION = 768
KEYS = ("default_denoising_steps", "default_processing_resolution", "rgb_blending")
INDEX = {  # of the same model in diffusers' layout, as its pipeline is saved
    "_class_name": "GenPerceptPipeline",
    "default_denoising_steps": 1,
    "default_processing_resolution": RESOLUTION,
    "rgb_blending": True,
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}
ONES: dict[str, Any] = {"beta_start": 1.0, "beta_end": 1.0, "prediction_type": "v_prediction"}


def import_parts(path: Path, wishes: Wishes) -> Converted:
    """From the folder that the scripts run in, or from one of its U-Nets beside the others.

    Raises UserError for a folder that is neither, or where a part is missing.
    """
    root, unet, family = _found(path, wishes.family)
    if HEAD in str(unet) or any(HEAD in each.name for each in unet.iterdir()):
        raise UserError(f"{unet}: GenPercept's variant with a DPT head is not supported.")
    base = wishes.vae or root / BASE
    if not (base / "vae" / CONFIG).is_file():
        raise UserError(
            f"{base} has no vae/{CONFIG}. Name the folder of Stable Diffusion 2.1 with --vae."
        )
    file = wishes.scheduler or root / BETAS / SCHEDULER
    if not file.is_file():
        raise UserError(f"{file}: no such file. Name GenPercept's {SCHEDULER} with --scheduler.")
    config, scheduler = read_json(unet / CONFIG), read_json(file)
    return FAMILIES[family](Source(base, family, INDEX, config, [], {}, unet, scheduler), wishes)


def _found(path: Path, asked: str | None) -> tuple[Path, Path, str]:
    """The folder that the scripts run in, that of the U-Net, and its family."""
    if (path / MODELS).is_dir():
        there = [name for name, unet in UNETS.items() if (path / MODELS / unet).is_dir()]
        if asked is None and len(there) == 1:
            asked = there[0]
        if asked not in there:
            said = f"has no U-Net of {asked}" if asked else "holds several U-Nets"
            raise UserError(
                f"{path / MODELS} {said}: name one of {', '.join(there) or 'none'} with --family. "
                f"The variant with a DPT head is not supported."
            )
        return path, path / MODELS / UNETS[asked], asked
    asked = asked or next((name for name, unet in UNETS.items() if unet == path.name), None)
    if asked is None and HEAD in path.name:
        asked = "genpercept-disparity"
    if asked not in UNETS:
        kind = read_json(path / CONFIG).get("_class_name")
        raise UserError(
            f"{path} holds a {kind} without its pipeline: give the whole folder. A U-Net of "
            f"GenPercept is imported with --family {' or '.join(UNETS)}."
        )
    return (path.resolve() / "../../..").resolve(), path, asked


def depth(source: Source, wishes: Wishes) -> Converted:
    """Linear depth."""
    return _genpercept(source, DEPTH)


def disparity(source: Source, wishes: Wishes) -> Converted:
    """One over depth."""
    return _genpercept(source, DepthSettings(space="disparity"))


def normals(source: Source, wishes: Wishes) -> Converted:
    """Surface normals."""
    source.assumed.append("normals point right, up and back: in no file or code of GenPercept's")
    return _genpercept(source, NORMALS)


def _genpercept(source: Source, task: TaskSettings) -> Converted:
    source.check(4, *KEYS, "genpercept_pipeline", "customized_head")
    fixed = {"default_denoising_steps": 1, "rgb_blending": True, "genpercept_pipeline": True}
    for key, value in fixed.items():
        if source.index.get(key, value) != value:
            raise UserError(
                f"{source.path}: {key} is {source.index[key]!r}; of GenPercept only models of one "
                f"step without noise are supported."
            )
    if source.index.get("customized_head", [None])[0] is not None:
        raise UserError(f"{source.path}: GenPercept's variant with a DPT head is not supported.")
    side = source.entry("default_processing_resolution", RESOLUTION, least=0)
    source.assumed.append(
        "one step from zeros, whose answer is minus the clean latent; no padding: fixed in "
        "GenPercept's code, in no file"
    )
    settings: dict[str, Any] = {"clip": True}
    if task == DEPTH:
        settings |= {"low": 0.0, "high": 1.0}
    profile = Profile(
        source.family,
        fit="longest_scaled",
        resolution=side,
        resize_input="rounded",
        nfe=1,
        members=1,
        tasks={task.name: settings},
    )
    return source.run(
        [task], _one_step(source), profile, side=side, members=1, weights=without_target
    )


def _one_step(source: Source) -> DiffusionSettings:
    """Zeros at the level of pure noise, of which the network is told what its scheduler visits.

    Raises UserError for another scheduler than that of betas that are all 1.
    """
    file = dict(source.scheduler_file())
    for key, value in (ONES | {"power_beta_curve": 1.0}).items():
        if file.get(key, 1.0) != value:
            raise UserError(
                f"{source.path}: the scheduler's {key} is {file.get(key)!r}; of GenPercept only "
                f"{value!r} is supported."
            )
    usual = {key: x for key, x in file.items() if key not in (*ONES, "power_beta_curve")}
    usual |= {"_class_name": "DDIMScheduler"}  # its own only has that power in addition
    walk = Diffusion(diffusion_settings(usual, f"{SCHEDULER} of {source.family}"))
    return DiffusionSettings(
        schedule="scaled_linear",
        zero_terminal_snr=True,
        prediction="v",
        shift=1.0,
        sampling_shift=1.0,
        objective="end_to_end",
        told=int(walk.steps(1)[0].condition),
    )
