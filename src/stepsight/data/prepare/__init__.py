"""From a data set as published to the layout its reader wants: `stepsight data prepare NAME`.

`TABLE` names the function of every data set that needs it. Each has the signature

    f(root, out, *, report, workers=1, strict=True) -> Manifest

root: the data set as its makers publish it. out: the folder to make, which a reader then opens.
report: called with a line of text now and then. workers: processes; the bytes do not depend on it.
strict: stop at the first damaged or missing file; otherwise leave it out, say so and count it.
Run again, each continues where it was stopped, and does nothing when nothing is left to do.
"""

from __future__ import annotations

TABLE: dict[str, str] = {
    "hypersim": "stepsight.data.prepare.hypersim:hypersim",
    "kitti": "stepsight.data.prepare.kitti:kitti",
    "nyuv2": "stepsight.data.prepare.nyu:nyu",
}
