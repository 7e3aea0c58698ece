"""stepsight: dense perception by iterative denoising.

    from stepsight import DensePipeline
    pipeline = DensePipeline.from_pretrained("runs/default-0001")
    depth = pipeline("photo.jpg", task="depth", nfe=8, members=8)

Names are imported when they are first used, so that `import stepsight.scaling` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsight import data
    from stepsight.config import RunConfig
    from stepsight.errors import UserError
    from stepsight.pipeline.dense import DensePipeline
    from stepsight.scaling.records import ScalingRecord
    from stepsight.types import Prediction

_HOME = {
    "DensePipeline": "stepsight.pipeline.dense",
    "Prediction": "stepsight.types",
    "RunConfig": "stepsight.config",
    "ScalingRecord": "stepsight.scaling.records",
    "UserError": "stepsight.errors",
}
__all__ = ["DensePipeline", "Prediction", "RunConfig", "ScalingRecord", "UserError", "data"]


def __getattr__(name: str) -> Any:
    if name == "data":  # the room itself, for `stepsight.data.open`
        return import_module("stepsight.data")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'stepsight' has no attribute '{name}'")
