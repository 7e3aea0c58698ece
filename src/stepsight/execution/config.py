"""Names of precisions (standard library only)."""

from __future__ import annotations

from typing import Literal

# What networks compute in. auto: bfloat16 where the device multiplies it fast, else float32.
Precision = Literal["auto", "float32", "bf16", "fp16"]
