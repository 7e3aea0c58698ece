"""Protocols beside their publishers' evaluators: scores of the same random maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.random import RandomState
from torch import Tensor

from conformance.rows import Differences, arrays, relative, row
from stepsight.data.readers.masks.cityscapes import TRAIN_IDS
from stepsight.evaluation.statistics import concatenated
from stepsight.metrics.alignment.ransac import consensus_fit
from stepsight.metrics.normals import LIMITS
from stepsight.metrics.protocol import get
from stepsight.metrics.reduce import reduce
from stepsight.tasks.table import score
from stepsight.types import IGNORE, Batch

Names = Mapping[str, str]  # ours by theirs


def stored(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The maps, and the evaluator's answers."""
    return arrays(folder / "inputs.npz"), json.loads((folder / "metrics.json").read_text())


def batch(height: int, width: int, count: int = 1, **truth: Any) -> Batch:
    """Truth of `count` pictures called 0, 1, .."""
    keys = [str(number) for number in range(count)]
    return Batch(torch.zeros(count, 3, height, width), keys, ["golden"] * count, **truth)


def picture(maps: Mapping[str, Tensor], number: int, *names: str) -> list[Tensor]:
    """The named maps "1 c h w" of a picture."""
    found = (maps[f"{number}_{name}"] for name in names)
    return [x[None] if x.ndim == 3 else x[None, None] for x in found]


def worst(names: Names, ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The largest relative difference of the named metrics."""
    return max(relative(ours[name], theirs[their]) for their, name in names.items())


PIXEL_PERFECT = {f"d{k}": f"delta{k}" for k in ("0.5", "1", "2", "3")} | {"abs_rel": "abs_rel"}


@row(
    "protocol",
    "pixel-perfect-depth",
    oracle="gangweix/pixel-perfect-depth at 427a86f, stored answers",
    bar=1e-6,
    golden="metrics-pixel-perfect-depth",
)
def pixel_perfect_depth(folder: Path) -> Differences:
    """AbsRel and delta 0.5 to 3 of affine-invariant ln(1 + d), with pairs of pixels drawn from
    numpy's global generator at three seeds; and the aligned map at the first."""
    maps, answers = stored(folder)
    rule = get("pixel-perfect-depth")
    aligned_rule = replace(rule, alignment="none", space="depth")
    found: dict[str, float] = {}
    for number in range(4):
        truth, pred, valid = picture(maps, number, "truth", "prediction", "mask")
        of = batch(*truth.shape[-2:], depth=truth, depth_valid=valid)
        for seed in range(3):
            scale, shift = consensus_fit(pred, truth.double().log1p(), valid, [RandomState(seed)])
            aligned = torch.expm1(scale * pred.double() + shift)
            ours = reduce(score(aligned, of, aligned_rule), aligned_rule)
            theirs = answers[str(number)][f"seed_{seed}"]
            found[f"{number}, seed {seed}"] = worst(PIXEL_PERFECT, ours, theirs)
            if seed == 0:
                (map_of_theirs,) = picture(maps, number, "aligned_seed_0")
                at_most = aligned.clamp(1e-3, float(truth[valid].amax()))
                found[f"{number}, aligned map"] = relative(at_most, map_of_theirs)
        if number != 1:  # whose line depends on the pairs
            ours = reduce(score(pred, of, rule, given="log1p"), rule)
            theirs = answers[str(number)]["seed_0"]
            found[f"{number}, as scored"] = worst(PIXEL_PERFECT, ours, theirs)
    return found


DSINE = {"mean": "mean_angle", "rmse": "rmse_angle"} | {
    f"a{i}": f"below_{limit:g}" for i, limit in enumerate(LIMITS, start=1)
}
OF_DSINE = "baegwangbin/DSINE at ef0c2af, stored answers"


@row("protocol", "dsine", oracle=OF_DSINE, bar=3e-4, golden="metrics-dsine")
def dsine(folder: Path) -> Differences:
    """Mean and root mean square of the angles in degrees, and shares below five limits in percent,
    of each picture and of the pixels of all: absolute differences. Theirs are of float32, whose
    arccosine moves the mean of a picture by .0002 degrees; from such angles ours would be equal."""
    ours, theirs = _dsine(folder)
    return {
        case: max(
            abs(found[name] * (100 if name.startswith("below") else 1) - theirs[case][their])
            for their, name in DSINE.items()
        )
        for case, found in ours.items()
    }


@row("protocol", "dsine, median", oracle=OF_DSINE, bar=0.006, golden="metrics-dsine")
def dsine_median(folder: Path) -> Differences:
    """The median angle in degrees: ours are rounded to 0.01 before the median is taken, so within
    0.005 of the exact one; theirs are of float32."""
    ours, theirs = _dsine(folder)
    return {case: abs(ours[case]["median_angle"] - theirs[case]["median"]) for case in ours}


def _dsine(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics by picture and of the set: ours, theirs."""
    maps, answers = stored(folder)
    rule, rows = get("dsine"), {}
    for number in range(4):
        truth, pred, valid = picture(maps, number, "truth", "prediction", "mask")
        of = batch(*truth.shape[-2:], normals=truth, normals_valid=valid)
        rows[f"image_{number}"] = score(pred, of, rule)
    rows["set"] = concatenated(list(rows.values()))
    ours = {name: reduce(found, rule) for name, found in rows.items()}
    return ours, {name: answers[name]["metrics"] for name in ours}


OF_ADE = "CSAILVision/sceneparsing at e202229, stored answers"


@row("protocol", "ade20k-challenge", oracle=OF_ADE, bar=1e-9, golden="metrics-ade20k")
def ade20k(folder: Path) -> Differences:
    """mIoU, pixel accuracy and their mean over five label maps in which two classes never occur,
    and the accuracy of each map. The toolkit adds 1e-10 to its denominators."""
    maps, answers = stored(folder)
    rule, rows = get("ade20k-challenge"), {}
    for number in range(5):
        labels, ids = (maps[f"{number}_challenge_{x}"].long() - 1 for x in ("label", "prediction"))
        of = batch(*labels.shape, labels=torch.where(labels < 0, IGNORE, labels)[None])
        rows[f"image_{number}"] = score(ids[None, None], of, rule, classes=150)
    names = {"mean_iou": "miou", "pixel_accuracy": "pixel_accuracy", "score": "mean_score"}
    of_set = reduce(concatenated(list(rows.values())), rule)
    return {"set": worst(names, of_set, answers["sceneparsing"])} | {
        name: relative(reduce(found, rule)["pixel_accuracy"], answers[name]["pixel_accuracy"])
        for name, found in rows.items()
    }


OF_CITYSCAPES = "mcordts/cityscapesScripts at 0bcc4a7, stored answers"


@row(
    "protocol", "cityscapes-benchmark", oracle=OF_CITYSCAPES, bar=1e-12, golden="metrics-cityscapes"
)
def cityscapes(folder: Path) -> Differences:
    """IoU and iIoU of classes and of categories, over four label maps with instances and groups."""
    maps, answers = stored(folder)
    rule, rows = get("cityscapes-benchmark"), []
    for number in range(4):
        labels, ids, instances = (
            maps[f"{number}_{name}"].long()
            for name in ("labelIds", "prediction_labelIds", "instanceIds")
        )
        own = torch.where(instances < 1000, -1, instances % 1000 + 1)
        of = batch(*labels.shape, labels=TRAIN_IDS[labels][None], instances=own[None])
        rows.append(score(TRAIN_IDS[ids][None, None], of, rule, classes=19))
    names = {
        "averageScoreClasses": "miou",
        "averageScoreInstClasses": "instance_iou",
        "averageScoreCategories": "category_iou",
        "averageScoreInstCategories": "category_instance_iou",
    }
    ours = reduce(concatenated(rows), rule)
    return {name: relative(ours[name], answers[their]) for their, name in names.items()}


OF_PTLFLOW = "hmorimitsu/ptlflow at e9cf9bc, FlowMetrics, stored answers"


@row("protocol", "ptlflow", oracle=OF_PTLFLOW, bar=1e-6, golden="metrics-ptlflow")
def ptlflow(folder: Path) -> Differences:
    """EPE, 1, 3, 5 px, Fl-all and WAUC of all, occluded and other pixels, of pictures and of the
    set; WAUC where every error is a threshold. F1 of occlusions is left out: nothing here predicts
    them."""
    maps, answers = stored(folder)
    rule = get("ptlflow")
    truth = batch(
        *(30, 40, 3), flow=maps["truth"], flow_valid=maps["valid"], occluded=maps["occluded"]
    )
    rows = score(maps["prediction"], truth, rule)
    found = {"set": _flow(reduce(rows, rule), answers["set"])}
    for number in range(3):
        one = {name: values[number : number + 1] for name, values in rows.items()}
        found[f"image_{number}"] = _flow(reduce(one, rule), answers[f"image_{number}"])
    lattice = maps["lattice_prediction"]
    everywhere = torch.ones(1, 1, *lattice.shape[-2:], dtype=torch.bool)
    still = batch(*lattice.shape[-2:], flow=torch.zeros_like(lattice), flow_valid=everywhere)
    ours, theirs = reduce(score(lattice, still, rule), rule), answers["lattice_truth_zero"]
    return found | {"errors on thresholds": relative(ours["wauc"], theirs["wauc"])}


def _flow(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The largest difference of ptlflow's metrics; its Fl-all is in percent."""
    names = {"epe": "epe", "px1": "below_1px", "px3": "below_3px", "px5": "below_5px"}
    names |= {"flall": "fl_all", "wauc": "wauc"}
    parts = {"": "", "_occ": "_unmatched", "_non_occ": "_matched"}
    return max(
        relative(ours[name + own] * (100 if name == "fl_all" else 1), theirs[their + part])
        for their, name in names.items()
        for part, own in parts.items()
    )


OF_DEPTH_PRO = "apple/ml-depth-pro at 9efe5c1, stored answers"


@row(
    "protocol",
    "depth-pro-boundary",
    oracle=OF_DEPTH_PRO,
    bar=1e-12,
    golden="metrics-depth-pro-boundary",
)
def depth_pro_boundary(folder: Path) -> Differences:
    """Boundary F1 against depth and boundary recall against a matte, of five pictures."""
    maps, answers = stored(folder)
    found: dict[str, float] = {}
    for number in range(5):
        truth, pred, matte = picture(maps, number, "truth", "prediction", "matte")
        mask, size = matte > 0.1, truth.shape[-2:]
        of = batch(*size, depth=truth, depth_valid=truth > 0, modal=mask, amodal=mask)
        for name, their in (
            ("boundary_f1", "SI_boundary_F1"),
            ("boundary_recall", "SI_boundary_Recall"),
        ):
            rule = get("depth-pro-boundary" + "-recall" * name.endswith("recall"))
            ours = reduce(score(pred, of, rule), rule)[name]
            found[f"{name}, {number}"] = relative(ours, answers[str(number)][their])
    return found


OF_MOGE = "microsoft/MoGe at 0744441, stored answers"
MOGE = {  # by what is predicted: the protocols, and what their numbers are called there
    "depth_metric": ("metric", "scale", "affine", "disparity"),
    "depth_scale_invariant": ("scale", "affine", "disparity"),
    "depth_affine_invariant": ("affine",),
    "disparity_affine_invariant": ("disparity",),
}
MOGE_NAMES = {
    "metric": "depth_metric",
    "scale": "depth_scale_invariant",
    "affine": "depth_affine_invariant",
    "disparity": "disparity_affine_invariant",
}


@row("protocol", "moge", oracle=OF_MOGE, bar=1e-6, golden="metrics-moge")
def moge(folder: Path) -> Differences:
    """AbsRel and delta 1 of metric, scale-invariant and affine-invariant depth and of
    affine-invariant disparity, and F1 of contours within 1, 2, 3 pixels, of four scenes, beside the
    evaluator in float64 (F1: in float32). Point maps and fields of view are left out, as nothing
    here predicts them."""
    maps, answers = stored(folder)
    found: dict[str, float] = {}
    for number in range(4):
        truth, valid = picture(maps, number, "depth", "mask")
        of = batch(*truth.shape[-2:], depth=truth, depth_valid=valid)
        for kind, names in MOGE.items():
            (pred,) = picture(maps, number, f"{kind}_{kind}")
            theirs = answers["cases"][str(number)][kind]["float64"]
            for place, name in enumerate(names):
                rule = get(f"moge-{name}")
                given = "disparity" if kind.startswith("disparity") else "depth"
                ours = reduce(score(pred, of, rule, given=given), rule)
                numbers = {"abs_rel": "rel", "delta1": "delta1"}
                case = f"{number}, {kind} by {name}"
                found[case] = worst(
                    {their: our for our, their in numbers.items()}, ours, theirs[MOGE_NAMES[name]]
                )
                if place == 0:
                    contours = {f"radius{n}_f1": f"contour_f1_{n}px" for n in (1, 2, 3)}
                    found[f"{case}, contours"] = worst(contours, ours, theirs["boundary"])
    return found
