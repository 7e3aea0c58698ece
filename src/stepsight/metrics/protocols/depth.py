"""Protocols of depth. What was read in its source and what is only recalled: docs/protocols.md.

Published tables rest on one of four rules: least squares in depth (Marigold and most diffusion
models), in disparity (MiDaS, Lotus), none of it (metric models), the median (self-supervision).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stepsight.metrics.protocols import temporal
from stepsight.metrics.protocols.row import Protocol, on

USUAL = ("abs_rel", "delta1", "delta2", "rmse", "rmse_log", "log10", "silog", "edge_f1")
MARIGOLD = "abs_rel delta1 rmse silog sq_rel rmse_log log10 delta2 delta3 irmse".split()
EIGEN = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")

METRIC = Protocol(
    name="depth-metric",
    task="depth",
    description="Metres as predicted, clipped to the range; mean over images.",
    source="stepsight",
    metrics=USUAL,
    averaging="per_image",
    space="depth",
    min_depth=1e-3,
    max_depth=80.0,
)
OWN = (
    replace(
        METRIC,
        name="depth-affine-log",
        description="Least-squares scale and shift of the log depth of each image over its "
        "valid pixels, exponentiated and clipped to the range; mean over images.",
        alignment="affine",
        space="log",
    ),
    replace(
        METRIC,
        name="depth-affine",
        description="Least-squares scale and shift in depth, clipped to the range; mean over "
        "images (the rule of Marigold's evaluation).",
        alignment="affine",
    ),
    METRIC,
)

ANY = Protocol(
    name="marigold-depth",
    task="depth",
    description="Least-squares scale and shift in depth over the scored pixels, clipped to the "
    "range; mean over images. For data that Marigold has no rule for: every positive depth counts.",
    source="Ke et al. 2024, section 4.1; prs-eth/Marigold, script/depth/eval.py",
    metrics=tuple(MARIGOLD),
    averaging="per_image",
    alignment="affine",
    space="depth",
    min_depth=1e-5,
    strict=True,
)


def _marigold(name: str, about: str, low: float, high: float | None, **more: Any) -> Protocol:
    described = f"Least-squares scale and shift in depth, clipped to the range; {about}."
    changed = {"min_depth": low, "max_depth": high} | more
    return replace(ANY, name=f"marigold-{name}", description=described, **changed)


# min_depth, max_depth, crops, masks and processing sizes: src/dataset/*_dataset.py,
# config/dataset_depth/*.yaml and script/depth/eval/* of the repository.
BY_DATA = (
    _marigold(
        *("hypersim", "Marigold's filtered test list", 1e-5, 65.0), **on("hypersim", "test", 7682)
    ),
    _marigold(
        *("vkitti", "benchmark crop, Scene01", 1e-5, 80.0),
        **on("vkitti2", "val", 5364, crop="kitti_benchmark"),
    ),
    _marigold(
        *("nyu", "raw depth, rows 45:471 and columns 41:601", 1e-3, 10.0),
        **on("nyuv2", "test", 654, mask="nyu", working=0),
    ),
    _marigold(
        "kitti",
        "benchmark crop, then Eigen's region; the 652 images with annotated depth",
        *(1e-5, 80.0),
        **on("kitti", "test", 652, crop="kitti_benchmark", mask="eigen", working=0),
    ),
    _marigold(
        *("eth3d", "the fit sees every row but 1024 columns", 1e-5, None),
        **on("eth3d", "all", 454, fit_width=1024, working=756),
    ),
    _marigold(*("scannet", "800 frames", 1e-3, 10.0), **on("scannet", "val", 800, working=0)),
    _marigold(
        *("diode", "DIODE's own mask alone selects, the range only clips", 0.6, 350.0),
        **on("diode", "val", 771, selects=False, working=640),
    ),
)

DISPARITY = replace(
    ANY,
    name="marigold-disparity",
    description="Least-squares scale and shift of the prediction to 1/depth, over pixels where the "
    "predicted disparity is positive; floored at 1e-3 per metre, inverted, clipped to the range; "
    "mean over images. GenPercept's disparity models are scored so.",
    source="prs-eth/Marigold, script/depth/eval.py: least_square_disparity; GenPercept",
    space="disparity",
    fit_positive=True,
)


def _lotus(row: Protocol) -> Protocol:
    """Marigold's rule of a data set with the fit in disparity."""
    changed = {"working": 768} if row.data == "eth3d" else {}
    return replace(
        row,
        name=row.name.replace("marigold", "lotus"),
        description=row.description.replace("in depth", "to 1/depth (floored at 1e-3/m, inverted)"),
        source="He et al. 2025, EnVision-Research/Lotus: disparity models",
        space="disparity",
        fit_positive=True,
        **changed,
    )


LOTUS = (
    replace(DISPARITY, name="lotus", source="He et al. 2025, EnVision-Research/Lotus"),
    *(_lotus(row) for row in BY_DATA if row.data not in ("hypersim", "vkitti2")),
)

DEPTH_ANYTHING = Protocol(
    name="depth-anything",
    task="depth",
    description="Least-squares scale and shift of the prediction to 1/depth, floored at 1e-3 per "
    "metre; the metrics compare disparity with disparity and never see depth. Mean over images.",
    source="Yang et al. 2024; the author in LiheYoung/Depth-Anything issue 174 (no public script)",
    metrics=("abs_rel", "delta1"),
    averaging="per_image",
    alignment="affine",
    space="disparity",
    min_depth=0.0,
    strict=True,
    scored_in="disparity",
)

METRIC_HYPERSIM = Protocol(
    name="depth-anything-metric-hypersim",
    task="depth",
    description="Metres as predicted, unclipped, where 0.001 m <= truth <= 20 m; images with fewer "
    "than 10 such pixels are left out; mean over images.",
    source="DepthAnything/Depth-Anything-V2, metric_depth/train.py, util/metric.py",
    metrics=(*EIGEN, "log10", "silog_half"),
    averaging="per_image",
    space="depth",
    min_depth=1e-3,
    max_depth=20.0,
    clip="none",
    min_valid=10,
    **on("hypersim_raw", "val", 7386),
)
METRIC_KITTI = replace(
    METRIC_HYPERSIM,
    name="depth-anything-metric-kitti",
    description=METRIC_HYPERSIM.description.replace("20 m", "80 m"),
    max_depth=80.0,
    **on("kitti", "test", 652),
)

MIDAS = Protocol(
    name="midas",
    task="depth",
    description="Least-squares scale and shift of the prediction to 1/depth, floored at 1/80 per "
    "metre, inverted; share of pixels with max(p/g, g/p) > 1.25; mean over images.",
    source="Ranftl et al. 2022, section 5; isl-org/MiDaS",
    metrics=("above_1.25", "abs_rel"),
    averaging="per_image",
    alignment="affine",
    space="disparity",
    min_depth=0.0,
    max_depth=80.0,
    strict=True,
)
MIDAS_NYU = replace(
    MIDAS,
    name="midas-nyu",
    description=MIDAS.description.replace("1/80", "1/10"),
    max_depth=10.0,
    **on("nyuv2", "test", 654),
)

PIXEL_PERFECT = Protocol(
    name="pixel-perfect-depth",
    task="depth",
    description="Scale and shift of ln(1 + depth) by RANSAC as scikit-learn's RANSACRegressor runs "
    "it (a line that does not rise: the factor of the means), clipped to [1e-3 m, the image's "
    "largest true depth]; AbsRel divides by truth + 1e-5; mean over images. Pixels are drawn by "
    "the image's key. ETH3D is scored at its own size, not at the source's 1360 x 2048.",
    source="gangweix/pixel-perfect-depth, ppd/utils/align_depth_func.py",
    metrics=("abs_rel", "delta1", "delta0.5", "delta2", "delta3"),
    averaging="per_image",
    alignment="ransac_regressor",
    space="log1p",
    min_depth=1e-3,
    clip="truth",
    epsilon=1e-5,
)

MONODEPTH = Protocol(
    name="monodepth2",
    task="depth",
    description="One factor, median(truth) / median(prediction), where 1e-3 m < truth < 80 m in "
    "Garg's region of the whole frame; clipped to the range; mean over images.",
    source="Godard et al. 2019; nianticlabs/monodepth2, evaluate_depth.py: --eval_split eigen",
    metrics=EIGEN,
    averaging="per_image",
    alignment="median",
    space="depth",
    min_depth=1e-3,
    max_depth=80.0,
    strict=True,
    mask="garg",
)
MONODEPTH_BENCHMARK = replace(
    MONODEPTH,
    name="monodepth2-benchmark",
    description="One factor, median(truth) / median(prediction), over all pixels with truth; "
    "clipped to 1e-3 .. 80 m; mean over the 652 images with annotated depth.",
    source="nianticlabs/monodepth2, evaluate_depth.py: --eval_split eigen_benchmark",
    mask="none",
    selects=False,
    **on("kitti", "test", 652),
)

DA2K = Protocol(
    name="da2k",
    task="depth",
    description="Share of all annotated pairs of points whose nearer point is predicted nearer; "
    "no alignment, equal values are wrong; pooled over pairs.",
    source="Yang et al. 2024 (Depth Anything V2), section 6; DA-2K's annotations",
    metrics=("ordering",),
    averaging="pooled",
    **on("da2k", "all"),
    needs="order",
)

DEPTH_PRO = Protocol(
    name="depth-pro-boundary",
    task="depth",
    description="F1 of occluding contours: neighbours whose disparities differ by a factor of more "
    "than t are predicted as such in the right direction, mean over t = 1.05 .. 1.25 and over "
    "images. Scale does not matter, a shift does. Both of two neighbours have to be valid.",
    source="Bochkovskii et al. 2025, section 3.2; apple/ml-depth-pro, eval/boundary_metrics.py",
    metrics=("boundary_f1",),
    averaging="per_image",
    space="depth",
    clip="none",
)
DEPTH_PRO_RECALL = Protocol(
    name="depth-pro-boundary-recall",
    task="depth",
    description="Share of the outline of an object in full view across which the prediction falls "
    "back by a factor of more than t in disparity, thinned to the largest factor; mean over "
    "t = 1.05 .. 1.25 and over images. The mask of the object is a matte cut at 0.1.",
    source=DEPTH_PRO.source,
    metrics=("boundary_recall",),
    averaging="per_image",
    needs="amodal",
)

MOGE = Protocol(
    name="moge-metric",
    task="depth",
    description="Metres as predicted, neither selected nor clipped by a range; F1 of contours "
    "within 1, 2 and 3 pixels; mean over images.",
    source="Wang et al. 2025; microsoft/MoGe at 0744441, moge/test/metrics.py",
    metrics=("abs_rel", "delta1", "contour_f1_1px", "contour_f1_2px", "contour_f1_3px"),
    averaging="per_image",
    space="depth",
    clip="none",
    epsilon=1e-6,
)
MOGE_FITTED = (
    replace(
        MOGE,
        name="moge-scale",
        description="The same after one factor that minimises the sum of absolute errors over true "
        "depth, on the valid pixels nearest to the centres of 64 x 64 cells.",
        alignment="scale_l1",
    ),
    replace(
        MOGE,
        name="moge-affine",
        description="The same after a scale and shift that minimise that sum.",
        alignment="affine_l1",
    ),
    replace(
        MOGE,
        name="moge-disparity",
        description="The same after least squares of the disparity on all valid pixels, inverted, "
        "at most as far as the image's largest true depth.",
        alignment="affine",
        space="disparity",
        clip="truth",
    ),
)

SEED = Protocol(
    name="seed-release-normalised-depth",
    task="depth",
    description="Truth scaled between its 2 % and 98 % quantiles to [-1, 1], -1 where there is "
    "none; least-squares scale and shift over ALL pixels, those without truth included, clamped to "
    "[-1, 1]; errors in that space over valid pixels. Comparable with nothing in metres.",
    source="scaling-diffusion-perception at cb9f2c7, run_inference.py",
    metrics=("mae_normalised", "rmse_normalised"),
    averaging="per_image",
    alignment="affine",
    space="depth",
    scored_in="normalised",
)

ROWS = (
    *OWN,
    ANY,
    *BY_DATA,
    DISPARITY,
    *LOTUS,
    DEPTH_ANYTHING,
    METRIC_HYPERSIM,
    METRIC_KITTI,
    MIDAS,
    MIDAS_NYU,
    PIXEL_PERFECT,
    MONODEPTH,
    MONODEPTH_BENCHMARK,
    DA2K,
    DEPTH_PRO,
    DEPTH_PRO_RECALL,
    MOGE,
    *MOGE_FITTED,
    SEED,
    *temporal.ROWS,
)
