"""Protocols of optical flow: they differ in what is averaged first, pixels or images."""

from __future__ import annotations

from dataclasses import replace

from stepsight.metrics.protocols.row import Protocol, on

RAFT = "Teed & Deng 2020; princeton-vl/RAFT, evaluate.py"
SCORES = ("epe", "below_1px", "below_3px", "below_5px", "fl_all", "wauc")
PARTS = ("epe_matched", "epe_unmatched", "epe_s0_10", "epe_s10_40", "epe_s40")

OWN = Protocol(
    name="flow-epe",
    task="flow",
    description="Pixels of the image's own grid, all valid pixels; mean over images.",
    source="stepsight",
    metrics=("epe", "below_1px", "fl_all"),
    averaging="per_image",
)
CHAIRS = Protocol(
    name="raft-chairs",
    task="flow",
    description="Mean end-point error over all pixels of the set taken together.",
    source=RAFT,
    metrics=("epe",),
    averaging="pooled",
    **on("flyingchairs", "val", 640),
)
SINTEL_RAFT = replace(
    CHAIRS,
    name="raft-sintel",
    description="End-point error and shares below 1, 3 and 5 px over all pixels of the set taken "
    "together, occluded ones included.",
    metrics=("epe", "below_1px", "below_3px", "below_5px"),
    **on("sintel", "train", 1041),
)
KITTI_RAFT = Protocol(
    name="raft-kitti",
    task="flow",
    description="End-point error: mean over images of the mean over valid pixels. Fl-all: share of "
    "outliers (above 3 px and 5 %) over all valid pixels of the set taken together.",
    source=RAFT,
    metrics=("epe", "fl_all"),
    averaging="per_image",
    pooled=("fl_all",),
    **on("kitti2015", "train", 200),
)
THINGS_RAFT = replace(
    CHAIRS,
    name="raft-things",
    description="End-point error and shares below 1, 3 and 5 px over all pixels with a true length "
    "below 400 px, the pixels of RAFT's loss, taken together.",
    source="princeton-vl/RAFT, train.py: MAX_FLOW",
    metrics=("epe", "below_1px", "below_3px", "below_5px"),
    max_flow=400.0,
    **on("flyingthings3d", "test"),
)
PTLFLOW = Protocol(
    name="ptlflow",
    task="flow",
    description="Every metric is the mean over images of its mean over valid pixels, Fl-all "
    "included; and each apart of matched and unmatched pixels, by the occlusion maps.",
    source="hmorimitsu/ptlflow, validate.py, utils/flow_metrics.py",
    metrics=tuple(f"{name}{part}" for part in ("", "_matched", "_unmatched") for name in SCORES),
    averaging="per_image",
)
SINTEL = Protocol(
    name="sintel",
    task="flow",
    description="End-point error over all pixels of the set taken together: all, matched and "
    "unmatched (by the occlusion maps), and by true length 0-10, 10-40, 40+ px.",
    source="Butler et al. 2012, section 6",
    metrics=("epe", *PARTS),
    averaging="pooled",
    **on("sintel", "train", 1041),
)
SPRING = Protocol(
    name="spring",
    task="flow",
    description="1px: share of pixels with an error ABOVE 1 px; end-point error; Fl-all; WAUC: "
    "100 sum_i w_i [error <= i/20 px] / sum_i w_i, w_i = 1 - (i - 1)/100, i = 1 .. 100. Pooled. "
    "Truth of the doubled size is read at every other row and column; the benchmark's server takes "
    "the best of each 2 x 2.",
    source="Mehl et al. 2023; hmorimitsu/ptlflow",
    metrics=("above_1px", "epe", "fl_all", "wauc"),
    averaging="pooled",
    **on("spring", "train"),
)
SEED = Protocol(
    name="seed-release-per-axis-affine-flow-fit",
    task="flow",
    description="u and v are each fitted to the TRUTH of their image by their own scale and shift "
    "before the end-point error, so a prediction wrong in sign, scale or offset scores well. "
    "Mean over images, in pixels and in the release's units of 75 px.",
    source="scaling-diffusion-perception at cb9f2c7, flow_utils.py",
    metrics=("epe", "epe_units"),
    averaging="per_image",
    alignment="affine",
    unit=75.0,
)

ROWS = (OWN, CHAIRS, SINTEL_RAFT, KITTI_RAFT, THINGS_RAFT, PTLFLOW, SINTEL, SPRING, SEED)
