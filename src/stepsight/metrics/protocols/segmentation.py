"""Protocols of masks, class maps and segments."""

from __future__ import annotations

from dataclasses import replace

from stepsight.metrics.protocols.row import Protocol, on

AMODAL = Protocol(
    name="amodal-iou",
    task="amodal",
    description="IoU of the whole object and of its part outside the visible mask; mean "
    "over objects hidden by at least 10 %.",
    source="stepsight",
    averaging="per_image",
    min_hidden=0.1,
)
PER_OBJECT = Protocol(
    name="pix2gestalt-per-object",
    task="amodal",
    description="mIoU as the mean over objects of each one's IoU, whole and invisible part.",
    source="Ozguroglu et al. 2024 (assumed: no evaluation code is public)",
    metrics=("iou", "iou_hidden"),
    averaging="per_image",
)
POOLED = replace(
    PER_OBJECT,
    name="pix2gestalt-pooled",
    description="mIoU as the sum of intersections over the sum of unions of all objects, whole and "
    "invisible part (inv_mIoU): large objects weigh more, and what is predicted outside "
    "the visible mask of an object in full view counts against the invisible part.",
    source="Zhan et al. 2020, XiaohangZhan/deocclusion; Amodal Completion in the Wild",
    averaging="pooled",
    full_view=True,
)

SEMANTIC = Protocol(
    name="semantic-miou",
    task="semantic",
    description="One confusion matrix over all labelled pixels of the set; mean IoU over "
    "the classes that occur in truth or prediction.",
    source="stepsight",
    metrics=("miou", "pixel_accuracy"),
    averaging="pooled",
)
ADE20K = replace(
    SEMANTIC,
    name="ade20k",
    description="One confusion matrix over the pixels of the set labelled 1 .. 150; mIoU, pixel "
    "accuracy, and the challenge's score, the mean of the two.",
    source="Zhou et al. 2017; CSAILVision/sceneparsing",
    metrics=("miou", "pixel_accuracy", "mean_score"),
    **on("ade20k", "val", 2000),
)
ADE20K_CHALLENGE = replace(
    ADE20K,
    name="ade20k-challenge",
    description="The same, where each of the 150 classes counts in mIoU: one that is neither in "
    "the truth nor predicted counts 0. The toolkit's numbers, also of a part of the split.",
    source="CSAILVision/sceneparsing, evaluationCode/utils_eval.py",
    absent="zero",
)
CITYSCAPES = replace(
    SEMANTIC,
    name="cityscapes",
    description="One confusion matrix over the set; IoU = TP / (TP + FP + FN) of 19 classes, where "
    "pixels with ignored truth are no false positives; classes that never occur are skipped.",
    source="Cordts et al. 2016; mcordts/cityscapesScripts at 0bcc4a7",
    **on("cityscapes", "val", 500),
)
CITYSCAPES_BENCHMARK = replace(
    CITYSCAPES,
    name="cityscapes-benchmark",
    description="The four numbers of the benchmark's table: IoU of 19 classes and of 7 categories, "
    "and iIoU of the 8 classes and 2 categories with instances, in which the pixels of an instance "
    "are weighed by the average size of its class over its own.",
    metrics=("miou", "instance_iou", "category_iou", "category_instance_iou"),
    besides="instances",
)
VOC = replace(
    SEMANTIC,
    name="voc",
    description="One confusion matrix over the set; mean IoU over background and 20 classes; "
    "border pixels (255) are left out.",
    source="Everingham et al. 2010",
    **on("voc", "val", 1449),
)

PANOPTIC = Protocol(
    name="pq",
    task="panoptic",
    description="PQ = sum IoU over matches / (TP + FP/2 + FN/2) = SQ RQ of each class over the "
    "set, mean over classes, also of things and of stuff. A match has the same class and an IoU "
    "above 0.5, its union without the prediction on void; crowds are no misses, and an unmatched "
    "prediction that lies by more than half on void and crowd of its class is no false positive.",
    source="Kirillov et al. 2019; cocodataset/panopticapi, evaluation.py",
    averaging="pooled",
)
COCO = replace(PANOPTIC, name="coco-panoptic", **on("coco_panoptic", "val", 5000))

ROWS = (
    AMODAL,
    PER_OBJECT,
    POOLED,
    SEMANTIC,
    ADE20K,
    ADE20K_CHALLENGE,
    CITYSCAPES,
    CITYSCAPES_BENCHMARK,
    VOC,
    PANOPTIC,
    COCO,
)
