"""`DensePipeline`, and what it needs: pictures as batches, budgets, views, usual settings.

The class is imported when it is first asked for, so that the light modules beside it stay light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline

__all__ = ["DensePipeline"]


def __getattr__(name: str) -> Any:
    if name == "DensePipeline":
        from stepsight.pipeline import dense

        return dense.DensePipeline
    raise AttributeError(f"module 'stepsight.pipeline' has no attribute '{name}'")
