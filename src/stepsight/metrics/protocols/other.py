"""Protocols of the tasks with one each."""

from __future__ import annotations

from stepsight.metrics.protocols.row import Protocol

ROWS = (
    Protocol(
        name="normals-angle",
        task="normals",
        description="Angle to the true normal in degrees, valid pixels; mean over images.",
        source="Fouhey et al. 2013",
        averaging="per_image",
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
