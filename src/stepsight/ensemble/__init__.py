"""Merging the members of an ensemble into one answer with an uncertainty.

Members lie along the leading axis "e"; their order does not matter. Maps known only up to scale and
shift are aligned before they are merged: `align_and_merge` for batches, `merge_affine` for the maps
of one image; `merge_published` is Marigold's rule, for comparison, and `merge_published_normals`
GeoWizard's. Other answers need no alignment: flow takes `mean`, `median` or `medoid`, labels
`vote`, normals `merge_directions`.
"""

from stepsight.ensemble.affine import align_and_merge, merge_affine
from stepsight.ensemble.central import medoid, most_central, pick
from stepsight.ensemble.published import merge_published, merge_published_normals
from stepsight.ensemble.reduce import (
    REDUCE,
    Reduce,
    closest,
    mean,
    median,
    merge_directions,
    spread,
    vote,
)

__all__ = [
    "REDUCE",
    "Reduce",
    "align_and_merge",
    "closest",
    "mean",
    "median",
    "medoid",
    "merge_affine",
    "merge_directions",
    "merge_published",
    "merge_published_normals",
    "most_central",
    "pick",
    "spread",
    "vote",
]
