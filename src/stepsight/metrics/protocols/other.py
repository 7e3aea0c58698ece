"""Protocols of normals and pictures."""

from __future__ import annotations

from stepsight.metrics.normals import LIMITS
from stepsight.metrics.protocols.row import Protocol

BELOW = tuple(f"below_{limit:g}" for limit in LIMITS)

ROWS = (
    Protocol(
        name="normals-angle",
        task="normals",
        description="Angle to the true normal in degrees, valid pixels; mean over images.",
        source="Fouhey et al. 2013",
        metrics=("mean_angle", "median_angle", "below_11.25", "below_22.5", "below_30"),
        averaging="per_image",
    ),
    Protocol(
        name="dsine",
        task="normals",
        description="Angle to the true normal in degrees over the valid pixels of the set taken "
        "together: mean, median, root mean square, shares below 5, 7.5, 11.25, 22.5 and 30 "
        "degrees. The median is that of angles rounded to 0.01 degrees.",
        source="Bae & Davison 2024; baegwangbin/DSINE, utils/utils.py",
        metrics=("mean_angle", "median_angle", "rmse_angle", *BELOW),
        averaging="pooled",
    ),
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
