"""Protocols of films, scored by `stepsight film`: flicker beside accuracy (`metrics.temporal`)."""

from __future__ import annotations

from dataclasses import replace

from stepsight.metrics.protocols.row import Protocol

AFFINE_LOG = Protocol(
    name="temporal-affine-log",
    task="depth",
    description="One least-squares scale and shift of the log depth of a whole film, exponentiated "
    "and clipped to the range; flicker, warped difference and OPW by the true flow where the next "
    "frame shows the point, AbsRel beside them; mean over frames.",
    source="stepsight; OPW: Wang et al. 2022 (FMNet), 2023 (Neural Video Depth Stabilizer)",
    metrics=("flicker", "warped", "opw", "abs_rel"),
    averaging="per_image",
    alignment="affine",
    space="log",
    min_depth=1e-3,
    max_depth=80.0,
    needs="film",
)
ROWS = (
    AFFINE_LOG,
    replace(
        AFFINE_LOG,
        name="temporal-metric",
        description="Metres as predicted, clipped to the range, and the same metrics.",
        alignment="none",
        space="depth",
    ),
)
