"""What a file or folder from elsewhere holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from stepsight.conversion.folders import INDEX
from stepsight.conversion.foreign import Weights, read_tensors
from stepsight.errors import UserError

Format = Literal[
    "stepsight", "folder", "parts", "generalist", "single-task", "dit", "depthfm", "pix2gestalt"
]

# A single file of weights: who imports it, "module:function" of (Weights, Wishes).
FILES = {
    "generalist": "stepsight.conversion.generalist:import_generalist",
    "single-task": "stepsight.conversion.generalist:import_single",
    "dit": "stepsight.conversion.dit:import_dit",
    "depthfm": "stepsight.conversion.families.depthfm:import_depthfm",
    "pix2gestalt": "stepsight.conversion.families.pix2gestalt:import_pix2gestalt",
}
# A U-Net beside what it was trained from, likewise of (Path, Wishes); where several may lie.
PARTS = "stepsight.conversion.families.genpercept:import_parts"
SEVERAL = "weights/genpercept-models"
SUPPORTED = (
    "Supported are class-conditional DiT checkpoints (DiT-XL-2-256x256.pt), the perception "
    "generalist (dit_moe_generalist.pt) and its single-task kin, DepthFM (depthfm-v1.ckpt), "
    "pix2gestalt (epoch=000005.ckpt), folders in diffusers' layout, and stepsight runs."
)
OTHERS = (  # the beginning of a key -> what a file with it seems to be
    ("down_blocks.", "a diffusers U-Net without its pipeline: give the whole folder"),
    ("encoder.conv_in.", "a VAE: give it with --vae, beside the weights of a backbone"),
    ("encoder.layers.", "an AutoencoderTiny: give it with --vae, beside a backbone's weights"),
    ("model.diffusion_model.", "Stable Diffusion in one file: give a diffusers folder"),
    ("text_model.", "a text encoder"),
)
LATENTS = 4  # input channels of a DiT that sees no condition image


def recognise(path: Path) -> tuple[Format, Weights | None]:
    """What `path` holds, and its weights if it is one file of them.

    Raises UserError for what is missing, unreadable or of a kind that is not supported.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. Give a path; nothing is downloaded.")
    if path.is_dir():
        return _recognise_folder(path), None
    weights = read_tensors(path)
    return _recognise_keys(weights), weights


def _recognise_folder(path: Path) -> Format:
    if (path / "stepsight.json").is_file() or (path / "checkpoints").is_dir():
        return "stepsight"
    if (path / INDEX).is_file():
        return "folder"
    if (path / SEVERAL).is_dir() or (path / "diffusion_pytorch_model.safetensors").is_file():
        return "parts"
    inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{path} is a folder with {inside}: no stepsight run and no diffusers pipeline. For a "
        f"single file of weights, name the file. {SUPPORTED}"
    )


def _recognise_keys(weights: Weights) -> Format:
    names = weights.tensors.keys()
    mixed = "blocks.0.moe.gate.weight" in names
    if mixed and "x_embedder.proj.conv_in_1.weight" in names:
        return "generalist"
    kernel = weights.tensors.get("x_embedder.proj.weight")
    if kernel is not None and (mixed or "blocks.0.mlp.fc1.weight" in names):
        return "single-task" if kernel.ndim > 1 and kernel.shape[1] != LATENTS else "dit"
    if "input_blocks.0.0.weight" in names and "ldm_hparams" in weights.beside:
        return "depthfm"
    if "model.diffusion_model.input_blocks.0.0.weight" in names and "cc_projection.weight" in names:
        return "pix2gestalt"
    seems = "of an unknown kind"
    for start, kind in OTHERS:
        if any(name.startswith(start) for name in names):
            seems = kind
            break
    listed = ", ".join(list(names)[:4])
    raise UserError(
        f"{weights.source} is not supported; it seems to be {seems}. It has {len(names)} tensors, "
        f"such as {listed}. {SUPPORTED}"
    )
