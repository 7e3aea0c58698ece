"""Protocols of normals and pictures."""

from __future__ import annotations

from dataclasses import replace

from stepsight.metrics.normals import LIMITS
from stepsight.metrics.protocols.row import Protocol, on

BELOW = tuple(f"below_{limit:g}" for limit in LIMITS)

DSINE = Protocol(
    name="dsine",
    task="normals",
    description="Angle to the true normal in degrees over the valid pixels of the set taken "
    "together: mean, median, root mean square, shares below 5, 7.5, 11.25, 22.5 and 30 "
    "degrees. The median is that of angles rounded to 0.01 degrees.",
    source="Bae & Davison 2024; baegwangbin/DSINE, utils/utils.py",
    metrics=("mean_angle", "median_angle", "rmse_angle", *BELOW),
    averaging="pooled",
)
DSINE_SETS = tuple(
    replace(DSINE, name=f"dsine-{data}", **on(f"dsine_{data}", split, count))
    for data, split, count in (
        ("nyuv2", "test", 654),
        ("scannet", "test", 300),
        ("ibims", "all", 100),
        ("sintel", "all", 1064),
    )
)

ROWS = (
    Protocol(
        name="normals-angle",
        task="normals",
        description="Angle to the true normal in degrees, valid pixels; mean over images.",
        source="Fouhey et al. 2013",
        metrics=("mean_angle", "median_angle", "below_11.25", "below_22.5", "below_30"),
        averaging="per_image",
    ),
    DSINE,
    *DSINE_SETS,
    Protocol(
        name="image-energy",
        task="image",
        description="Energy score of the members against the real image, in the mean and "
        "standard deviation of each colour on a grid of 4 x 4 cells; mean over images. "
        "Compare it at equal numbers of members.",
        source="Gneiting & Raftery 2007, section 4.3",
        averaging="per_image",
    ),
)
